"""A small client of RocketMQ's remoting protocol: one request at a time, headers in JSON."""

from __future__ import annotations

import json
import socket
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from firearrow.codec import lenient_json

CALL_SECONDS_MAX = 15
REQUESTS_MAX = 100_000  # of the server, that nobody looked at
VERSION = 479  # V5_3_3: answers come in standard JSON where the server can
_PREFIX = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its code, ext fields, remark and body."""

    code: int
    ext: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    body: bytes = b""

    def json(self) -> Any:
        """The body; Java writes bare numbers as keys."""
        return lenient_json.loads(self.body)


class Refused(Exception):  # noqa: N818
    """An answer other than SUCCESS where only that will do."""


class Remote:
    """A connection to ``host:port``."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=CALL_SECONDS_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        self._opaque = 0
        self.requests: deque[tuple[dict[str, Any], bytes]] = deque(maxlen=REQUESTS_MAX)

    def call(
        self,
        code: int,
        ext: Mapping[str, object] | None = None,
        body: bytes = b"",
        version: int = VERSION,
    ) -> Answer:
        """Send a request and wait for its answer; requests of the server go to ``requests``.

        Raises:
            OSError: no answer in time, or the connection is gone.
        """
        opaque = self.send(code, ext, body, version=version)
        while True:
            header, data = self.receive()
            if header["flag"] & 1 and header["opaque"] == opaque:
                return Answer(
                    header["code"], header.get("extFields") or {}, header.get("remark") or "", data
                )
            if not header["flag"] & 1:
                self.requests.append((header, data))

    def ask(self, code: int, ext: Mapping[str, object] | None = None, body: bytes = b"") -> Answer:
        """``call``, where the answer must be SUCCESS.

        Raises:
            Refused: it is not.
        """
        answer = self.call(code, ext, body)
        if answer.code != 0:
            raise Refused(f"request {code} {ext}: code {answer.code}, {answer.remark}")
        return answer

    def send(
        self,
        code: int,
        ext: Mapping[str, object] | None = None,
        body: bytes = b"",
        *,
        one_way: bool = False,
        version: int = VERSION,
    ) -> int:
        """Send a request; its opaque."""
        self._opaque += 1
        header = {
            "code": code,
            "extFields": {key: str(value) for key, value in (ext or {}).items()},
            "flag": 2 if one_way else 0,
            "language": "JAVA",
            "opaque": self._opaque,
            "serializeTypeCurrentRPC": "JSON",
            "version": version,
        }
        encoded = json.dumps(header).encode()
        frame = _PREFIX.pack(4 + len(encoded) + len(body), len(encoded)) + encoded + body
        self._socket.sendall(frame)
        return self._opaque

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame: header and body.

        Raises:
            OSError: none in time, or the connection is gone.
        """
        prefix = self._stream.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            raise ConnectionError("the server closed the connection")
        length, word = _PREFIX.unpack(prefix)
        header_size = word & 0xFFFFFF
        header = json.loads(self._stream.read(header_size))
        return header, self._stream.read(length - 4 - header_size)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
