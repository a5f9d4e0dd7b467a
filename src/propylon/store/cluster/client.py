"""HTTP to one API server: bytes in, bytes out, refusals as exceptions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from propylon.store.cluster.credentials import Credentials, CredentialsError
from propylon.store.cluster.reachability import Reachability
from propylon.store.errors import StoreError

REQUEST_SECONDS = 30.0
"""The longest silence of the server in an ordinary request."""
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""A watch says nothing for long: a peer that is gone without a word is found by the kernel within half a minute."""
_KEPT_SECONDS = 60.0
"""So long a connection that nobody uses is kept."""
_HEADER_BYTES = 65536
"""Warnings of the API server are headers, and may be long."""


class ApiError(StoreError):
    """The API server refused; `status` is the HTTP status, `reason` Kubernetes' word for it, "" if unknown."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""


class Unreachable(StoreError):  # noqa: N818 - a state of affairs, like its siblings among store errors
    """There is no answer: the connection failed, broke or timed out, or there are no credentials to ask with."""


def is_said(error: Exception) -> bool:
    """Whether the client itself tells of it, once for all who ask: the server does not answer, or is not itself."""
    return isinstance(error, Unreachable) or (isinstance(error, ApiError) and _is_beyond_itself(error.status))


def _is_beyond_itself(status: int) -> bool:
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.UNAUTHORIZED


class _Status(msgspec.Struct, frozen=True):
    """What is read of a Kubernetes Status object."""

    reason: str | None = None
    message: str | None = None
    code: int | None = None


class Client:
    """Connections to one API server. All methods belong to one event loop."""

    def __init__(self, credentials: Credentials, *, user_agent: str = "propylon") -> None:
        self.credentials = credentials
        self._reachability = Reachability(credentials.server)
        self._user_agent = user_agent
        self._rotations = credentials.rotations()
        self._session: aiohttp.ClientSession | None = None
        self._retired: aiohttp.ClientSession | None = None
        """Its connections present a certificate of yesterday; what is under way on them comes to its end."""
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._session, self._retired):
            if session is not None:
                await session.close()
        await asyncio.gather(*self._closing)

    def _sessions(self) -> aiohttp.ClientSession:
        """The one whose connections present the certificate of today."""
        if self._session is not None and self._rotations != self.credentials.rotations():
            if self._retired is not None:
                task = asyncio.get_running_loop().create_task(self._retired.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            self._session, self._retired = None, self._session
        if self._session is None:
            self._rotations = self.credentials.rotations()
            self._session = _build_session(self.credentials, self._user_agent)
        return self._session

    @asynccontextmanager
    async def _ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, silence: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request as who we are, and once more if that has changed. Raises CredentialsError, OSError, TimeoutError,
        aiohttp.ClientError.
        """
        url = URL(self.credentials.server + target, encoded=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=silence)
        said = await self.credentials.auth.header()
        for attempt in range(2):
            session = self._sessions()
            async with session.request(
                method,
                url,
                headers={**headers, "Authorization": said} if said is not None else headers,
                data=body,
                timeout=timeout,
                allow_redirects=False,
                server_hostname=self.credentials.server_name,
            ) as answer:
                if answer.status == HTTPStatus.UNAUTHORIZED and attempt == 0:
                    self.credentials.auth.invalidate()
                    fresh = await self.credentials.auth.header()
                    if fresh is not None and fresh != said:
                        said = fresh
                        continue
                yield answer
                return

    async def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
        seconds: float | None = None,
    ) -> bytes:
        """One call, the whole of which may take `seconds` if given; the answer's body. Raises ApiError, Unreachable."""
        headers = {"Content-Type": content_type} if body is not None else {}
        headers["Accept"] = accept or "application/json"
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        try:
            async with (
                asyncio.timeout(seconds),
                self._ask(method, target, headers, body, REQUEST_SECONDS) as answer,
            ):
                content = await answer.read()
        except (aiohttp.ClientError, CredentialsError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise self._refused(answer.status, answer.headers, content)
        self._reachability.answered()
        return content

    @asynccontextmanager
    async def lines(
        self, path: str, parameters: Mapping[str, str], *, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A GET whose answer is read line by line as it comes, for as long as the server is not silent for `silence`
        seconds. Raises ApiError, Unreachable, also out of the iteration.
        """
        begun = False
        headers = {"Accept": "application/json"}
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        try:
            async with self._ask("GET", target, headers, None, silence) as answer:
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    raise self._refused(answer.status, answer.headers, await answer.read())
                self._reachability.answered()
                begun = True
                yield _split(answer.content.iter_any())
        except (aiohttp.ClientError, CredentialsError, TimeoutError, OSError) as error:
            if begun:  # that it broke says nothing of the next one
                raise Unreachable(f"{self.credentials.server} broke off: {_what(error)}") from error
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        verb = "cannot be asked" if isinstance(error, CredentialsError) else "does not answer"
        message = f"{self.credentials.server} {verb}: {_what(error)}"
        self._reachability.failed(message)
        return Unreachable(message)

    def _refused(self, code: int, headers: Mapping[str, str], body: bytes) -> ApiError:
        refusal = _refusal(code, headers, body)
        if _is_beyond_itself(code):
            self._reachability.failed(f"{self.credentials.server} answers {refusal}")
        else:
            self._reachability.answered()
        return refusal


def _build_session(credentials: Credentials, user_agent: str) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_KEPT_SECONDS,
        ssl=credentials.context if credentials.context is not None else True,
        socket_factory=_lasting_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        auto_decompress=False,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
    )


def _lasting_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for option in _KEEPALIVE:
        made.setsockopt(*option)
    return made


async def _split(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Complete lines without their ends; a last one that was cut off is dropped, the change in it comes again."""
    pending: list[bytes] = []
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pending.append(first)
        for other in others:
            line = b"".join(pending)
            pending = [other]
            if line.strip():
                yield line


def _refusal(code: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    try:
        status = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        status = _Status(message=body[:200].decode(errors="replace").strip())
    wait = headers.get("Retry-After", "")
    return ApiError(code, status.reason or "", status.message or "", float(wait) if wait.isdigit() else None)


def _what(error: Exception) -> str:
    return str(error) or type(error).__name__
