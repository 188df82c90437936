"""An asyncio server that sends every frame back: the most that the loop and the kernel allow."""

from __future__ import annotations

import asyncio
import struct
import sys
from typing import cast

import uvloop

_PREFIX = struct.Struct(">I")


class Echo(asyncio.Protocol):
    """Splits frames by their length and writes them back, one write for each read."""

    def __init__(self) -> None:
        self._tail = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        frames = []
        position, end = 0, len(data)
        while end - position >= 4:
            (length,) = _PREFIX.unpack_from(data, position)
            stop = position + 4 + length
            if stop > end:
                break
            frames.append(data[position:stop])
            position = stop
        self._tail = data[position:]
        assert self._transport is not None
        self._transport.write(b"".join(frames))


async def main(port: int) -> None:
    """Serve on loopback until killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
