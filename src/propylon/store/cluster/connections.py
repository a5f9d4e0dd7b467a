"""HTTP/1.1 (RFC 9112) for short requests: connections that are kept, and little work for each.

A thousand statuses are a thousand requests. A general client takes a millisecond of CPU for one, which is as much as
kube-apiserver takes; here it is a tenth of that.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools
import httpx

from propylon.store.cluster.credentials import Credentials

KEPT_SECONDS = 60.0
"""So long a connection that nobody uses is kept."""
_PORTS = {"https": 443, "http": 80}


class Answer(NamedTuple):
    """The final answer to a request; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """To one server, as many as there are requests at once. All methods belong to one event loop."""

    def __init__(
        self, credentials: Credentials, headers: Mapping[str, str], options: list[tuple[int, int, int]], silence: float
    ) -> None:
        """`headers` go with every request, `options` are set on every socket (setsockopt); after `silence` seconds
        without a byte a request has failed.
        """
        url = urlsplit(credentials.server)
        self._host = url.hostname or ""
        self._port = url.port or _PORTS[url.scheme]
        self._context = credentials.context if url.scheme == "https" else None
        self._server_name = credentials.server_name or self._host
        self._prefix = url.path.rstrip("/")
        self._auth = credentials.auth
        self._url = httpx.URL(credentials.server)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in {"Host": url.netloc, **headers}.items())
        self._options = options
        self._silence = silence
        self._idle: list[_Connection] = []
        """The one that was used last is the last."""
        self._closed = False

    def close(self) -> None:
        """Close what is idle now, and the rest when it comes to be."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """One request with our credentials. Raises CredentialsError, OSError, TimeoutError."""
        flow = self._auth.async_auth_flow(httpx.Request(method, self._url))
        try:
            request = await anext(flow)
            while True:
                said = {**headers, "Authorization": value} if (value := _authorization(request)) else headers
                answer = await self._ask(self._encode(method, target, said, body))
                try:
                    request = await flow.asend(httpx.Response(answer.status, request=request))
                except StopAsyncIteration:
                    return answer
        finally:
            await flow.aclose()

    def _encode(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = f"Content-Length: {len(body)}\r\n" if body is not None else ""
        head = f"{method} {self._prefix}{target} HTTP/1.1\r\n{self._headers}{more}{length}\r\n"
        return head.encode("latin-1") + (body or b"")

    async def _ask(self, request: bytes) -> Answer:
        async with asyncio.timeout(self._silence) as patience:
            connection = self._kept() or await self._connect()
            try:
                answer = await connection.ask(request, patience, self._silence)
            except BaseException:
                connection.close()
                raise
        if connection.usable and not self._closed:
            connection.since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _kept(self) -> _Connection | None:
        """The connection that was used last, if it is still good; those that nobody needed for long are closed."""
        now = time.monotonic()
        while self._idle and (self._idle[0].since < now - KEPT_SECONDS or not self._idle[0].usable):
            self._idle.pop(0).close()
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self._context is not None:
            tls = {"ssl": self._context, "server_hostname": self._server_name}
        transport, connection = await loop.create_connection(_Connection, self._host, self._port, **tls)
        plain = transport.get_extra_info("socket")
        for option in (*self._options, (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
            plain.setsockopt(*option)
        return connection


def _authorization(request: httpx.Request) -> str:
    return str(request.headers.get("Authorization", ""))


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.since = 0.0
        """When (`time.monotonic`) it was last used."""
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Answer] | None = None
        self._patience: asyncio.Timeout | None = None
        self._silence = 0.0
        self._lasting = True
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._head_is_read = False

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._lasting and self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, request: bytes, patience: asyncio.Timeout, silence: float) -> Answer:
        """Send and wait. `patience` begins anew, with `silence` seconds, whenever something is read. Raises OSError."""
        assert self._transport is not None
        self._begin()
        self._patience, self._silence = patience, silence
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answered
        finally:
            self._answered = self._patience = None

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done():
            self.close()  # it says something that nobody asked for
            return
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time() + self._silence)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the answer is not HTTP/1.1: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lasting = False
        if self._answered is None or self._answered.done():
            return
        delimited = "content-length" in self._headers or "transfer-encoding" in self._headers
        if exc is None and self._head_is_read and not delimited:
            self.on_message_complete()  # its end is the end of the connection
        else:
            self._fail(exc or ConnectionError("the connection was closed before the answer was complete"))

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
        self.close()

    # -- httptools ---------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head of the answer is read."""
        self._head_is_read = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The whole answer is read."""
        status = int(self._parser.get_status_code())
        if 100 <= status < 200:  # there is another one to come
            self._headers = {}
            self._head_is_read = False
            return
        answer = Answer(status, self._headers, b"".join(self._pieces))
        lasting = self._lasting and bool(self._parser.should_keep_alive())
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(answer)
        self._lasting = lasting
