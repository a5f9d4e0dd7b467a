"""HTTP/1.1 over TLS: bytes of a connection into requests, and answers into bytes (RFC 9112; parsed by llhttp).

A connection answers one request after the other. Watches write straight to their connections, without a task or a
queue for each: one change goes out to hundreds of watchers in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import httptools
import msgspec

from propylon.server.bodies import LIMIT
from propylon.server.errors import ApiError, bad_request, too_large
from propylon.server.requests import Answer, Stream, refusal

log = logging.getLogger("propylon.server")

HEAD_LIMIT = 256 * 1024
"""The largest head of a request, in bytes."""
IDLE_SECONDS = 75.0
"""How long a connection may be silent between requests, or within one."""
PIPELINE_LIMIT = 16
"""How many requests may wait on one connection."""
_WRITE_BUFFER = 1024 * 1024
_SWEEP_SECONDS = 5.0
_GRACE_SECONDS = 2.0
_LINGER_SECONDS = 1.0


class Received(msgspec.Struct):
    """A request as it came. `url` is the request target; header names are in lower case."""

    method: str = ""
    url: bytes = b""
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    certificate: bytes | None = None
    """The client's verified certificate, DER."""
    keep_alive: bool = True
    chunks: bool = True
    """Whether the client understands chunked answers (HTTP/1.1)."""


Respond = Callable[[Received], Awaitable[Answer]]


class Connection(asyncio.Protocol):
    """One client's connection; also where a `Stream` writes to."""

    def __init__(self, respond: Respond, connections: set[Connection], loop: asyncio.AbstractEventLoop) -> None:
        self._respond = respond
        self._connections = connections
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._certificate: bytes | None = None
        self._transport: asyncio.Transport
        self._reading: Received | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._in_head = False
        self._waiting: deque[Received] = deque()
        self._answering: Received | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: Stream | None = None
        self._refused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.active_at = loop.time()

    # -- what the event loop tells -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)
        tls = transport.get_extra_info("ssl_object")
        self._certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The client has left, or the connection was closed."""
        self._connections.discard(self)
        self._refused = True
        self._waiting.clear()
        self._writable.set()
        if self._stream is not None:
            self._stream.close()
        if self._task is not None and self._answering is not None and self._answering.method == "GET":
            self._task.cancel()  # nobody reads it; a write goes on

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self.active_at = self._loop.time()
        if self._refused:
            return
        if self._in_head or self._reading is None:
            self._size += len(data)
            if self._in_head and self._size > HEAD_LIMIT:
                self._refuse(ApiError(431, "RequestHeaderFieldsTooLarge", "the head of the request is too large"))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # the request was taken as one without it; what follows is no HTTP
            self._refused = True
            if self._answering is not None:
                self._answering.keep_alive = False
        except httptools.HttpParserError as error:
            self._refuse(bad_request(f"the request is malformed: {error}"))

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has read."""
        self._writable.set()
        if self._stream is not None:
            self._stream.resume()

    # -- what the parser tells ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._reading = Received(headers=[], certificate=self._certificate)
        self._pieces = []
        self._in_head = True

    def on_url(self, piece: bytes) -> None:
        """Some of the request target."""
        assert self._reading is not None
        self._reading.url += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or (after the body) a trailer."""
        assert self._reading is not None
        self._reading.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        reading = self._reading
        assert reading is not None
        self._in_head = False
        self._size = 0
        reading.method = self._parser.get_method().decode("ascii")
        reading.keep_alive = self._parser.should_keep_alive()
        reading.chunks = self._parser.get_http_version() != "1.0"
        for name, value in reading.headers:
            if name == "content-length" and value.isdigit() and int(value) > LIMIT:
                self._refuse(too_large(LIMIT))
            elif name == "expect" and value.lower() == "100-continue" and not self._refused:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, piece: bytes) -> None:
        """Some of the body."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > LIMIT and not self._refused:
            self._refuse(too_large(LIMIT))

    def on_message_complete(self) -> None:
        """The request is complete."""
        received, self._reading = self._reading, None
        self._size = 0
        if received is None or self._refused:
            return
        received.body = b"".join(self._pieces)
        self._pieces = []
        if self._answering is None:
            self._begin(received)
        elif len(self._waiting) < PIPELINE_LIMIT:
            self._waiting.append(received)
        else:
            self._transport.close()

    # -- answers -----------------------------------------------------------------------------------------------------

    def _begin(self, received: Received) -> None:
        self._answering = received
        self._task = self._loop.create_task(self._answer(received))

    async def _answer(self, received: Received) -> None:
        answered = await self._respond(received)
        if self._transport.is_closing():
            await _discard(answered)
            return
        if answered.stream is None:
            self._send(received, answered)
            self._done(received)
            return
        head = _head(answered, (("transfer-encoding", "chunked"),) if received.chunks else (("connection", "close"),))
        self._transport.write(head)
        if isinstance(answered.stream, Stream):
            self._stream = answered.stream
            answered.stream.attach(self)
            return  # it ends by `end`
        await self._pump(answered.stream)
        self.end()

    def _send(self, received: Received, answered: Answer) -> None:
        lasting = () if received.keep_alive else (("connection", "close"),)
        head = _head(answered, (("content-length", str(len(answered.body))), *lasting))
        if received.method == "HEAD":
            self._transport.write(head)
        elif len(answered.body) < _WRITE_BUFFER:
            self._transport.write(head + answered.body)
        else:
            self._transport.write(head)
            self._transport.write(answered.body)

    def _done(self, received: Received) -> None:
        self._answering = self._task = self._stream = None
        self.active_at = self._loop.time()
        if not received.keep_alive or (self._refused and not self._waiting):
            self._transport.close()
        elif self._waiting:
            self._begin(self._waiting.popleft())

    async def _pump(self, stream: AsyncIterator[bytes]) -> None:
        try:
            async for piece in stream:
                if piece:
                    self.write(piece)
                    await self._writable.wait()
                if self._transport.is_closing():
                    return
        except OSError as error:
            log.info("an answer ended early: %s", error)
            self._transport.abort()

    def _refuse(self, error: ApiError) -> None:
        """Say what is wrong with what comes, and close: where the next request begins cannot be known."""
        self._refused = True
        if self._answering is None and not self._transport.is_closing():
            answered = refusal(error)
            self._transport.write(
                _head(answered, (("content-length", str(len(answered.body))), ("connection", "close")))
            )
            self._transport.write(answered.body)
        # Closed at once, the answer would be lost to a client that is still sending.
        self._loop.call_later(_LINGER_SECONDS, self._transport.close)

    # -- as a sink of streams ----------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the client should first read what was sent."""
        return not self._writable.is_set()

    def write(self, piece: bytes) -> None:
        """Send a piece of a streamed answer."""
        if self._answering is not None and self._answering.chunks:
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._transport.write(piece)

    def end(self) -> None:
        """The streamed answer is over."""
        received = self._answering
        if received is None or self._transport.is_closing():
            return
        if received.chunks:
            self._transport.write(b"0\r\n\r\n")
        else:
            received.keep_alive = False
        self._done(received)

    # -- ends --------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Close a connection on which nothing happens and nothing is being answered."""
        if self._answering is None and now - self.active_at > IDLE_SECONDS:
            self._transport.close()

    def finish(self) -> None:
        """Close after what is being answered."""
        if self._answering is None:
            self._transport.close()
        else:
            self._answering.keep_alive = False
            self._refused = True

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()


async def _discard(answered: Answer) -> None:
    """End a stream that nobody will read."""
    if isinstance(answered.stream, Stream):
        answered.stream.close()
    elif answered.stream is not None and hasattr(answered.stream, "aclose"):
        await answered.stream.aclose()


_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}


def _head(answered: Answer, more: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"HTTP/1.1 {answered.code} {_PHRASES.get(answered.code, '')}"]
    lines += [f"content-type: {answered.content_type}", "cache-control: no-cache, private"]
    lines += [f"{name}: {value}" for name, value in (*answered.headers, *more)]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


class HttpServer:
    """Serves connections of a listening socket until stopped; belongs to the running event loop."""

    def __init__(self, respond: Respond, context: ssl.SSLContext | None) -> None:
        self._respond = respond
        self._context = context
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        timeout = 10.0 if self._context is not None else None
        self._server = await loop.create_server(
            lambda: Connection(self._respond, self._connections, loop),
            sock=listener,
            ssl=self._context,
            backlog=1024,
            ssl_handshake_timeout=timeout,
        )
        self._sweep()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in tuple(self._connections):
            connection.sweep(loop.time())
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def stop(self) -> None:
        """Let what is being answered end, for a moment; then close every connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.finish()
        loop = asyncio.get_running_loop()
        until = loop.time() + _GRACE_SECONDS
        while self._connections and loop.time() < until:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)
        for connection in tuple(self._connections):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._closed()), 1.0)

    async def _closed(self) -> None:
        if self._server is not None:
            await self._server.wait_closed()
