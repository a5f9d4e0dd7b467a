"""HTTP: ASGI to requests and answers, with uvicorn underneath; whom a connection belongs to is read from its TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from propylon.api.meta import ObjectRef
from propylon.server import errors
from propylon.server.access import Attributes
from propylon.server.application import Application, refusal
from propylon.server.audit import AuditLog
from propylon.server.bodies import LIMIT
from propylon.server.credentials import Credentials
from propylon.server.errors import ApiError
from propylon.server.identity import ANONYMOUS, AUTHENTICATED, User, read_token, service_account, user_of_certificate
from propylon.server.logs import PodLogs, no_own_logs
from propylon.server.machine import OwnLog
from propylon.server.requests import Answer, Request
from propylon.server.watches import Hub
from propylon.store import LocalStore, NotFound

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_READING = ("GET", "HEAD", "OPTIONS")


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, which lets the application know the client's certificate."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app_state = {**self.app_state, "certificate": certificate}


class Front:
    """The ASGI application."""

    def __init__(
        self,
        store: LocalStore,
        hub: Hub,
        credentials: Credentials,
        address: str,
        audit: AuditLog,
        own_log: OwnLog = no_own_logs,
    ) -> None:
        self._store = store
        self._secret = credentials.token_secret()
        self._audit = audit
        self.application = Application(store, hub, self.user_of_token, address=address.removeprefix("https://"))
        self.application.verbs.token_secret = self._secret
        self.application.verbs.logs = PodLogs(store, credentials, own_log)

    def close(self) -> None:
        """Stop following the store."""
        self.application.close()
        self._audit.close()

    def user_of_token(self, token: str) -> User | None:
        """The service account that a token is of, while that account exists."""
        claims = read_token(self._secret, token)
        if claims is None:
            return None
        namespace, account = claims.kubernetes.namespace, claims.kubernetes.serviceaccount
        try:
            held = self._store.get(ObjectRef("", "ServiceAccount", namespace, account.name))
        except NotFound:
            return None
        return service_account(namespace, account.name, account.uid) if held["metadata"]["uid"] == account.uid else None

    def _user(self, scope: Scope, headers: dict[str, str]) -> User:
        """Who asks. Raises ApiError (401) for credentials that are none."""
        certificate = scope.get("state", {}).get("certificate")
        if certificate:
            return user_of_certificate(certificate)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not scheme:
            return ANONYMOUS
        user = self.user_of_token(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise errors.unauthorized()
        return user

    def _impersonated(self, user: User, scope: Scope) -> User:
        """Whom the request is to be taken for: the user, or another that he may impersonate. Raises ApiError (403)."""
        given = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        name = next((value for header, value in given if header == "impersonate-user"), "")
        groups = tuple(value for header, value in given if header == "impersonate-group")
        if not name:
            if groups or any(header.startswith("impersonate-") for header, _ in given):
                raise errors.bad_request("requested groups, uid or extra without impersonating a user")
            return user
        asked = [Attributes("impersonate", resource="users", name=name)]
        asked += [Attributes("impersonate", resource="groups", name=group) for group in groups]
        for one in asked:
            if not self.application.access.allows(user, one):
                raise ApiError(403, "Forbidden", f'{one.resource} "{one.name}" is forbidden: {one.sentence(user)}', {})
        return User(name, (*groups, AUTHENTICATED))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        request = Request(scope["method"], "", {}, headers)
        try:
            request.path = unquote(scope["raw_path"].decode("ascii").partition("?")[0], errors="strict")
            pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
            request.parameters = dict(pairs)
            request.user = self._impersonated(self._user(scope, headers), scope)
            request.body = await _read(receive, headers)
            answered = await self.application.handle(request)
        except ApiError as error:
            answered = refusal(error)
        except ValueError:
            answered = refusal(errors.bad_request("the request's path or query is not UTF-8"))
        except ConnectionError:
            return
        self._note(request, answered)
        if answered.stream is None:
            await _send_whole(send, request, answered)
        else:
            await _send_stream(send, receive, answered)

    def _note(self, request: Request, answered: Answer) -> None:
        if request.method in _READING and answered.code not in (401, 403):
            return
        self._audit.write(
            user=request.user.name,
            groups=list(request.user.groups),
            method=request.method,
            path=request.path,
            agent=request.headers.get("user-agent", ""),
            code=answered.code,
        )


async def _read(receive: Receive, headers: dict[str, str]) -> bytes:
    """The whole body. Raises ApiError (413), ConnectionError."""
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > LIMIT:
        raise errors.too_large(LIMIT)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError
        piece = message.get("body", b"")
        size += len(piece)
        if size > LIMIT:
            raise errors.too_large(LIMIT)
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


def _headers(answered: Answer) -> list[tuple[bytes, bytes]]:
    given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answered.headers]
    return [
        (b"content-type", answered.content_type.encode("latin-1")),
        (b"cache-control", b"no-cache, private"),
        *given,
    ]


async def _send_whole(send: Send, request: Request, answered: Answer) -> None:
    headers = [*_headers(answered), (b"content-length", str(len(answered.body)).encode())]
    if answered.code == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answered.code, "headers": headers})
    body = b"" if request.method == "HEAD" else answered.body
    await send({"type": "http.response.body", "body": body})


async def _send_stream(send: Send, receive: Receive, answered: Answer) -> None:
    """Send pieces as they come, until there are no more or the client leaves."""
    assert answered.stream is not None
    await send({"type": "http.response.start", "status": answered.code, "headers": _headers(answered)})
    await send({"type": "http.response.body", "body": b"", "more_body": True})

    async def pump() -> None:
        assert answered.stream is not None
        async for piece in answered.stream:
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    pumping, leaving = asyncio.create_task(pump()), asyncio.create_task(left())
    await asyncio.wait({pumping, leaving}, return_when=asyncio.FIRST_COMPLETED)
    for task in (pumping, leaving):
        task.cancel()
    await asyncio.gather(pumping, leaving, return_exceptions=True)
    if not pumping.cancelled() and (error := pumping.exception()) is not None and not isinstance(error, OSError):
        raise error


def make_server(front: Front, credentials: Credentials) -> uvicorn.Server:
    """A server for the application, with TLS."""
    config = uvicorn.Config(
        front,
        http=_Protocol,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        interface="asgi3",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
        proxy_headers=False,
        ssl_certfile=str(credentials.server_certificate),
        ssl_keyfile=str(credentials.server_key),
        ssl_ca_certs=str(credentials.ca_path),
        ssl_cert_reqs=ssl.CERT_OPTIONAL,  # a certificate is welcome, and then it must be of our authority
    )
    return uvicorn.Server(config)  # not in the main thread, so that it leaves signals alone
