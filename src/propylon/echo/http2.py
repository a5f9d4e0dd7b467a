"""HTTP/2 (RFC 9113) by way of the `h2` library, and gRPC on it.

A gRPC call, unary or streaming, gets its own messages back and status 0; `grpc.health.v1.Health` answers SERVING.
"""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings

from propylon.echo.answer import LARGEST_BODY, Answer, Request, build_answer
from propylon.echo.channel import Channel

MOST_STREAMS = 1000
"""Concurrent streams a client may open on one connection."""
_SERVING = b"\x00\x00\x00\x00\x02\x08\x01"
"""A gRPC message of two bytes: HealthCheckResponse with status (field 1) SERVING (1)."""

Headers = list[tuple[str, str]]


class _Stream:
    """A request as far as it has come, and what is still to be sent in answer."""

    def __init__(self, headers: Headers) -> None:
        self.headers = [(name, value) for name, value in headers if not name.startswith(":")]
        self.pseudo = {name: value for name, value in headers if name.startswith(":")}
        self.trailers: Headers = []
        self.body = bytearray()
        self.body_length = 0
        self.pending = bytearray()
        self.unacknowledged = 0
        """Received bytes whose window is given back once their echo is sent: a streaming client cannot outrun
        itself.
        """
        self.last: Headers | None = None
        """Trailers to end with; empty: end with the data. None: more data may come."""

    @property
    def grpc(self) -> bool:
        return any(name == "content-type" and value.startswith("application/grpc") for name, value in self.headers)

    @property
    def health(self) -> bool:
        return self.pseudo.get(":path", "").startswith("/grpc.health.v1.Health/")


class Http2:
    """Speaks HTTP/2 on a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_BODY,
                SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 16,
                SettingCodes.ENABLE_PUSH: 0,
            },
        )
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(8 * LARGEST_BODY)
        self._streams: dict[int, _Stream] = {}
        self._ended = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take in bytes and answer what is complete."""
        if self._ended:
            return
        try:
            for event in self._connection.receive_data(data):
                self._handle(event)
        except (ProtocolError, UnicodeDecodeError):
            # h2 has put the GOAWAY for its own errors into the buffer.
            self._flush()
            self._end()
            return
        self._flush()

    def eof_received(self) -> None:
        """The client is gone: answers need its window updates."""
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._streams.clear()
        self._channel.close()

    def _flush(self) -> None:
        if data := self._connection.data_to_send():
            self._channel.write(data)

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event.stream_id or 0, [(str(name), str(value)) for name, value in event.headers or ()])
        elif isinstance(event, DataReceived):
            self._take(event.stream_id or 0, event.data or b"", event.flow_controlled_length or 0)
        elif isinstance(event, TrailersReceived):
            if stream := self._streams.get(event.stream_id or 0):
                stream.trailers = [(str(name), str(value)) for name, value in event.headers or ()]
        elif isinstance(event, StreamEnded):
            self._finish(event.stream_id or 0)
        elif isinstance(event, StreamReset):
            if stream := self._streams.pop(event.stream_id or 0, None):
                self._give_back(event.stream_id or 0, stream, stream.unacknowledged)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            # The window of one stream, or of all (stream 0, or the initial size that the settings give).
            one = event.stream_id if isinstance(event, WindowUpdated) else 0
            for stream_id in [one] if one else list(self._streams):
                self._send_pending(stream_id)
        elif isinstance(event, ConnectionTerminated):
            self._end()

    def _begin(self, stream_id: int, headers: Headers) -> None:
        stream = self._streams[stream_id] = _Stream(headers)
        if not stream.grpc:
            return
        identity = self._channel.identity
        content_type = next(value for name, value in stream.headers if name == "content-type")
        answer = [
            (":status", "200"),
            ("content-type", content_type),
            ("x-echo-service", identity.service),
            ("x-echo-namespace", identity.namespace),
            ("x-echo-hostname", identity.hostname),
        ]
        try:
            self._connection.send_headers(stream_id, answer)
        except H2Error:  # already reset: h2 reads everything before it tells of anything
            self._drop(stream_id)

    def _take(self, stream_id: int, data: bytes, length: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._connection.acknowledge_received_data(length, stream_id)
            return
        stream.body_length += len(data)
        if stream.grpc and not stream.health:
            stream.pending += data
            stream.unacknowledged += length
            self._send_pending(stream_id)
            return
        stream.body += data[: LARGEST_BODY - len(stream.body)]
        self._connection.acknowledge_received_data(length, stream_id)

    def _finish(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.grpc:
            if stream.health:
                stream.pending += _SERVING
            if stream.health and stream.pseudo.get(":path", "").endswith("/Watch"):
                pass  # a watch stays open: the status never changes
            else:
                stream.last = [("grpc-status", "0")]
            self._send_pending(stream_id)
            return
        request = Request(
            method=stream.pseudo.get(":method", ""),
            target=stream.pseudo.get(":path", "/"),
            headers=[("host", stream.pseudo.get(":authority", "")), *stream.headers]
            if ":authority" in stream.pseudo
            else stream.headers,
            protocol="HTTP/2",
            body=bytes(stream.body),
            body_length=stream.body_length,
            trailers=stream.trailers,
            tls=self._channel.tls,
            client=self._channel.client,
        )
        try:
            answer = build_answer(self._channel.identity, request)
        except ValueError:  # a path that is no URL
            answer = Answer(400, [("content-type", "text/plain")], b"The request target is no path.\n")
        if answer.delay > 0:
            self._channel.call_later(answer.delay, lambda: self._send_late(stream_id, stream, answer))
        else:
            self._send(stream_id, stream, answer)

    def _send_late(self, stream_id: int, stream: _Stream, answer: Answer) -> None:
        # The stream may have been reset, and its number is never used again.
        if not self._ended and self._streams.get(stream_id) is stream:
            self._send(stream_id, stream, answer)
            self._flush()

    def _send(self, stream_id: int, stream: _Stream, answer: Answer) -> None:
        headers = [(":status", str(answer.status)), *answer.headers]
        body = b"" if answer.status in (204, 304) or stream.pseudo.get(":method") == "HEAD" else answer.body
        if answer.status not in (204, 304):
            headers.append(("content-length", str(len(answer.body))))
        try:
            self._connection.send_headers(stream_id, headers, end_stream=not body)
        except H2Error:
            self._drop(stream_id)
            return
        if not body:
            del self._streams[stream_id]
            return
        stream.pending += body
        stream.last = []
        self._send_pending(stream_id)

    def _send_pending(self, stream_id: int) -> None:
        """Send what the flow control windows allow."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        try:
            sent = 0
            while stream.pending:
                size = min(
                    self._connection.local_flow_control_window(stream_id),
                    self._connection.max_outbound_frame_size,
                    len(stream.pending),
                )
                if size <= 0:
                    break
                data = bytes(stream.pending[:size])
                del stream.pending[:size]
                sent += size
                ends = stream.last == [] and not stream.pending
                self._connection.send_data(stream_id, data, end_stream=ends)
            if stream.last is not None and not stream.pending:
                if stream.last:
                    self._connection.send_headers(stream_id, stream.last, end_stream=True)
                del self._streams[stream_id]
                self._give_back(stream_id, stream, stream.unacknowledged)
            elif sent:
                self._give_back(stream_id, stream, min(sent, stream.unacknowledged))
        except H2Error:
            self._drop(stream_id)

    def _give_back(self, stream_id: int, stream: _Stream, length: int) -> None:
        if length:
            stream.unacknowledged -= length
            self._connection.acknowledge_received_data(length, stream_id)

    def _drop(self, stream_id: int) -> None:
        """A stream that cannot go on: the others do."""
        self._streams.pop(stream_id, None)
        try:
            self._connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        except H2Error:
            return
