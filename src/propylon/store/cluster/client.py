"""HTTP to one API server: bytes in, bytes out, refusals as exceptions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from propylon.store.cluster.connections import Connections
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
    return status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.UNAUTHORIZED


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
        extensions: dict[str, Any] = {}
        if credentials.server_name is not None:
            extensions["sni_hostname"] = credentials.server_name
        self._extensions = extensions
        self._user_agent = user_agent
        self._rotations = credentials.rotations()
        self._requests = _build_connections(credentials, user_agent)
        self._streams = _build_pool(credentials, user_agent)
        self._retired: list[httpx.AsyncClient] = []
        """With connections that present a certificate of yesterday; what is under way on them comes to its end."""

    async def close(self) -> None:
        """Close every connection."""
        self._requests.close()
        for pool in (self._streams, *self._retired):
            await pool.aclose()

    def _renew_pools(self) -> None:
        """Present the certificate of today from the next request on."""
        if self._rotations != self.credentials.rotations():
            self._rotations = self.credentials.rotations()
            self._requests.close()
            self._requests = _build_connections(self.credentials, self._user_agent)
            self._retired = [*self._retired[-1:], self._streams]
            self._streams = _build_pool(self.credentials, self._user_agent)

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
        self._renew_pools()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._requests.ask(method, target, headers, body)
        except (CredentialsError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if answer.status >= httpx.codes.BAD_REQUEST:
            raise self._refused(answer.status, answer.headers, answer.body)
        self._reachability.answered()
        return answer.body

    @asynccontextmanager
    async def lines(
        self, path: str, parameters: Mapping[str, str], *, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A GET whose answer is read line by line as it comes, for as long as the server is not silent for `silence`
        seconds. Raises ApiError, Unreachable, also out of the iteration.
        """
        self._renew_pools()
        begun = False
        timeout = httpx.Timeout(REQUEST_SECONDS, read=silence)
        try:
            async with self._streams.stream(
                "GET", path, params=parameters, timeout=timeout, extensions=self._extensions
            ) as answer:
                if answer.is_error:
                    raise self._refused(answer.status_code, answer.headers, await answer.aread())
                self._reachability.answered()
                begun = True
                yield _split(answer.aiter_raw())
        except (httpx.HTTPError, CredentialsError, OSError) as error:
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


def _build_connections(credentials: Credentials, user_agent: str) -> Connections:
    headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
    return Connections(credentials, headers, _KEEPALIVE, REQUEST_SECONDS)


def _build_pool(credentials: Credentials, user_agent: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=credentials.server,
        auth=credentials.auth,
        trust_env=False,
        timeout=httpx.Timeout(REQUEST_SECONDS),
        headers={"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"},
        transport=httpx.AsyncHTTPTransport(
            verify=credentials.context if credentials.context is not None else False,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60.0),
            socket_options=_KEEPALIVE,
        ),
    )


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
    wait = headers.get("retry-after", "")
    return ApiError(code, status.reason or "", status.message or "", float(wait) if wait.isdigit() else None)


def _what(error: Exception) -> str:
    return str(error) or type(error).__name__
