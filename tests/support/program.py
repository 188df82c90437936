"""The real program in a process of its own, and a plain blocking client for it."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from firearrow.protocol.remoting.headers import Header, decode_header, encode_request

START_S = 20.0
STOP_S = 15.0
READY = re.compile(r"firearrow ready in (\d+\.\d+) s  (.*)\n")


class Program:
    """``firearrow ARGUMENTS``, and what it says."""

    def __init__(self, directory: Path, *arguments: str, before: tuple[str, ...] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.out_file, self.err_file = directory / "stdout", directory / "stderr"
        with self.out_file.open("wb") as out, self.err_file.open("wb") as err:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "firearrow", *arguments],
                stdout=out,
                stderr=err,
                cwd=directory,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def ready(self) -> dict[str, str]:
        """Wait for the ready line; what it names: namesrv, broker, store."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            match = READY.search(self.out)
            if match:
                return dict(part.split("=", 1) for part in match[2].split(" "))
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"it is not ready:\n{self.out}{self.err}")

    def until_said(self, text: str) -> None:
        """Wait until something stands in the log."""
        deadline = time.monotonic() + START_S
        while text not in self.err:
            assert time.monotonic() < deadline, f"it did not say {text!r}:\n{self.err}"
            time.sleep(0.01)

    def ended(self) -> int:
        """Wait for the end; the exit status."""
        return self.process.wait(STOP_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_S)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


def address_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class BlockingClient:
    """One connection; every call waits for its answer."""

    def __init__(self, address: tuple[str, int] | str, timeout_s: float = 10.0) -> None:
        where = address_of(address) if isinstance(address, str) else address
        self.socket = socket.create_connection(where, timeout_s)
        self._opaque = 0

    def call(
        self, code: int, ext: dict[str, Any] | None = None, body: bytes = b""
    ) -> tuple[Header, bytes]:
        self._opaque += 1
        fields = {key: str(value) for key, value in (ext or {}).items()}
        self.socket.sendall(encode_request(code, self._opaque, fields, body))
        while True:
            header, answer = self.read()
            if header.flag & 1 and header.opaque == self._opaque:
                return header, answer

    def read(self) -> tuple[Header, bytes]:
        length, word = struct.unpack(">II", self._exactly(8))
        data = self._exactly(length - 4)
        size = word & 0xFFFFFF
        return decode_header(word >> 24, data[:size]), data[size:]

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        return bytes(data)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
