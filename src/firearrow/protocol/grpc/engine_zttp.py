"""HTTP/2 by ``zttp``: compiled, optional."""

from __future__ import annotations

from typing import Any

import zttp

from firearrow.model.network import SessionError
from firearrow.protocol.grpc.http2 import (
    CANCEL,
    NO_ERROR,
    Ended,
    Event,
    Headers,
    Received,
    Reset,
    Started,
)

_STATUS_OK = b"200"


class ZttpEngine:
    """See ``http2.Engine``. Windows, pings and settings are zttp's own business."""

    def __init__(self) -> None:
        self._connection: Any = zttp.Connection(zttp.SERVER, zttp.HTTP2)
        self._connection.initiate_connection()

    def receive(self, data: bytes) -> list[Event]:
        connection = self._connection
        events: list[Event] = []
        try:
            connection.receive_data(data)
            while (event := connection.next_event()) is not zttp.NEED_DATA:
                if event is zttp.CONNECTION_CLOSED:
                    raise SessionError("HTTP/2: the peer closed the connection")
                made = _event(event)
                if made is not None:
                    events.append(made)
        except zttp.ProtocolError as error:
            raise SessionError(f"HTTP/2: {error}") from None
        return events

    def output(self) -> bytes:
        data: bytes = self._connection.data_to_send()
        return data

    def headers(self, stream_id: int, headers: Headers, *, end: bool = False) -> None:
        (_, status), *rest = headers
        self._connection.stream(stream_id).send_response(int(status), rest, end)

    def data(self, stream_id: int, data: bytes) -> None:
        self._connection.stream(stream_id).send_data(data)

    def end(self, stream_id: int, trailers: Headers) -> None:
        self._connection.stream(stream_id).end_message(trailers)

    def reset(self, stream_id: int, error_code: int) -> None:
        try:
            self._connection.stream(stream_id).reset(error_code)
        except zttp.ProtocolError:
            return  # it is gone already

    def waiting_bytes(self, stream_id: int) -> int:
        waiting: int | None = self._connection.stream(stream_id).pending_bytes
        return waiting or 0

    def go_away(self, error_code: int = NO_ERROR) -> None:
        self._connection.close(error_code)


def _event(event: Any) -> Event | None:
    if isinstance(event, zttp.Request):
        headers = [(b":method", event.method), (b":path", event.target), *event.headers]
        return Started(event.stream_id, headers, event.end_stream)
    if isinstance(event, zttp.Data):
        return Received(event.stream_id, event.data)
    if isinstance(event, zttp.EndOfMessage):
        return Ended(event.stream_id)
    if isinstance(event, zttp.RstStream):
        return Reset(event.stream_id)
    if isinstance(event, zttp.GoAway) and event.error_code not in (NO_ERROR, CANCEL):
        raise SessionError(f"HTTP/2: the peer goes away with error {event.error_code}")
    return None
