"""HTTP/2 by ``h2``: pure Python, everywhere."""

from __future__ import annotations

from collections import deque

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from firearrow.model.network import SessionError
from firearrow.protocol.grpc.http2 import (
    HEADER_BYTES_MAX,
    NO_ERROR,
    STREAMS_MAX,
    WINDOW_BYTES,
    Ended,
    Event,
    Headers,
    Received,
    Reset,
    Started,
)

_Codes = h2.settings.SettingCodes


class _Outgoing:
    """Response bytes of one stream that wait for the peer's window, and the trailers behind."""

    __slots__ = ("chunks", "size", "trailers")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.trailers: Headers | None = None


class H2Engine:
    """See ``http2.Engine``."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._connection = connection = h2.connection.H2Connection(config)
        connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                _Codes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                _Codes.MAX_HEADER_LIST_SIZE: HEADER_BYTES_MAX,
                _Codes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            },
        )
        connection.initiate_connection()
        connection.increment_flow_control_window(4 * WINDOW_BYTES)
        self._outgoing: dict[int, _Outgoing] = {}

    def receive(self, data: bytes) -> list[Event]:
        try:
            events = self._connection.receive_data(data)
        except (h2.exceptions.ProtocolError, ValueError) as error:
            raise SessionError(f"HTTP/2: {error}") from None
        return [made for event in events if (made := self._event(event)) is not None]

    def _event(self, event: h2.events.Event) -> Event | None:
        if isinstance(event, h2.events.RequestReceived):
            assert event.stream_id is not None
            return Started(
                event.stream_id, list(event.headers or ()), event.stream_ended is not None
            )
        if isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            self._connection.acknowledge_received_data(
                event.flow_controlled_length or 0, event.stream_id
            )
            return Received(event.stream_id, event.data or b"") if event.data else None
        if isinstance(event, h2.events.StreamEnded):
            return Ended(event.stream_id) if event.stream_id else None
        if isinstance(event, h2.events.StreamReset):
            self._outgoing.pop(event.stream_id or 0, None)
            return Reset(event.stream_id or 0)
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for stream_id in list(self._outgoing):
                self._push(stream_id)
        return None

    def output(self) -> bytes:
        return self._connection.data_to_send()

    def headers(self, stream_id: int, headers: Headers, *, end: bool = False) -> None:
        self._connection.send_headers(stream_id, headers, end_stream=end)

    def data(self, stream_id: int, data: bytes) -> None:
        outgoing = self._outgoing.get(stream_id)
        if outgoing is None:
            outgoing = self._outgoing[stream_id] = _Outgoing()
        outgoing.chunks.append(data)
        outgoing.size += len(data)
        self._push(stream_id)

    def end(self, stream_id: int, trailers: Headers) -> None:
        outgoing = self._outgoing.get(stream_id)
        if outgoing is None:
            self._connection.send_headers(stream_id, trailers, end_stream=True)
        else:
            outgoing.trailers = trailers
            self._push(stream_id)

    def _push(self, stream_id: int) -> None:
        connection, outgoing = self._connection, self._outgoing[stream_id]
        try:
            while outgoing.chunks:
                room = min(
                    connection.local_flow_control_window(stream_id),
                    connection.max_outbound_frame_size,
                )
                if room <= 0:
                    return
                chunk = outgoing.chunks[0]
                connection.send_data(stream_id, chunk[:room])
                outgoing.size -= min(room, len(chunk))
                if room < len(chunk):
                    outgoing.chunks[0] = chunk[room:]
                else:
                    outgoing.chunks.popleft()
            if outgoing.trailers is not None:
                connection.send_headers(stream_id, outgoing.trailers, end_stream=True)
        except h2.exceptions.ProtocolError:
            outgoing.trailers = []  # the peer has given the stream up
        if outgoing.trailers is not None or not outgoing.size:
            del self._outgoing[stream_id]

    def reset(self, stream_id: int, error_code: int) -> None:
        self._outgoing.pop(stream_id, None)
        try:
            self._connection.reset_stream(stream_id, error_code)
        except h2.exceptions.ProtocolError:
            return  # it is gone already

    def waiting_bytes(self, stream_id: int) -> int:
        outgoing = self._outgoing.get(stream_id)
        return outgoing.size if outgoing else 0

    def go_away(self, error_code: int = NO_ERROR) -> None:
        self._connection.close_connection(error_code)
