"""Fill the page cache, so that no side is the first to touch memory."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK_BYTES = 1024 * 1024
# A larger machine would be filled for minutes; it is seldom one that gets its memory page by page.
_FILLED_BYTES_MAX = 64 * 1024**3
_DIRECTORY = Path(__file__).parent / "build"


@contextmanager
def filled_page_cache() -> Iterator[Callable[[], None]]:
    """What fills the page cache, as often as it is called (Linux; elsewhere it does nothing).

    The memory of a machine that has run for a while is full of cached files, and a new page of a
    log is one of those. A virtual machine that was just started, or whose free memory went back to
    its host, gets each page from the host instead, for ten times the price of all else that a page
    costs: that would be measured, and not the servers. A file that is one hole takes the
    memory: no blocks of the disk, and the kernel gives its pages away as soon as they are needed.
    """
    if not sys.platform.startswith("linux"):
        yield lambda: None
        return
    with tempfile.NamedTemporaryFile(dir=_DIRECTORY, prefix="hole-") as file:
        yield lambda: _read_hole(file.fileno())


def _read_hole(descriptor: int) -> None:
    size = min(_available_bytes(), _FILLED_BYTES_MAX)
    os.ftruncate(descriptor, size)
    buffer = bytearray(_CHUNK_BYTES)
    for position in range(0, size, _CHUNK_BYTES):
        os.preadv(descriptor, [buffer], position)


def _available_bytes() -> int:
    """What could be had without making anybody swap; what is cached counts too."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
