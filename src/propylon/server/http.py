"""From what came over a connection to requests and answers: who asks is read from its TLS or its token."""

from __future__ import annotations

import ssl
from urllib.parse import parse_qsl, unquote

from propylon.api.meta import ObjectRef
from propylon.server import errors
from propylon.server.access import Attributes
from propylon.server.application import Application
from propylon.server.audit import AuditLog
from propylon.server.credentials import Credentials
from propylon.server.errors import ApiError
from propylon.server.identity import ANONYMOUS, AUTHENTICATED, User, read_token, service_account, user_of_certificate
from propylon.server.logs import PodLogs, no_own_logs
from propylon.server.machine import OwnLog
from propylon.server.requests import Answer, Request, refusal
from propylon.server.watches import Hub
from propylon.server.wire import HttpServer, Received
from propylon.store import LocalStore, NotFound

_READING = ("GET", "HEAD", "OPTIONS")


class Front:
    """The API as connections see it."""

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

    def _user(self, received: Received) -> User:
        """Who asks. Raises ApiError (401) for credentials that are none."""
        if received.certificate:
            return user_of_certificate(received.certificate)
        scheme, _, token = dict(received.headers).get("authorization", "").partition(" ")
        if not scheme:
            return ANONYMOUS
        user = self.user_of_token(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise errors.unauthorized()
        return user

    def _impersonated(self, user: User, received: Received) -> User:
        """Whom the request is to be taken for: the user, or another that he may impersonate. Raises ApiError (403)."""
        given = [(name, value) for name, value in received.headers if name.startswith("impersonate-")]
        if not given:
            return user
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

    async def respond(self, received: Received) -> Answer:
        """Answer one request. Never raises for what the request is like."""
        request = Request(received.method, "", {}, dict(received.headers), received.body)
        try:
            path, _, query = _target(received.url).partition("?")
            request.path = unquote(path, errors="strict") if "%" in path else path
            if query:
                request.parameters = dict(parse_qsl(query, keep_blank_values=True, errors="strict"))
            request.user = self._impersonated(self._user(received), received)
            answered = await self.application.handle(request)
        except ApiError as error:
            answered = refusal(error)
        except ValueError:
            answered = refusal(errors.bad_request("the request's path or query is not UTF-8"))
        self._note(request, answered)
        return answered

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


def _target(url: bytes) -> str:
    """Path and query of a request target, in whatever form that is (RFC 9112 section 3.2). Raises ValueError."""
    text = url.decode("ascii")
    if text.startswith("/"):
        return text
    after_scheme = text.partition("://")[2]
    return after_scheme[after_scheme.find("/") :] if "/" in after_scheme else "/"


def make_server(front: Front, credentials: Credentials) -> HttpServer:
    """A server for the application, with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials.server_certificate, credentials.server_key)
    context.load_verify_locations(credentials.ca_path)
    context.verify_mode = ssl.CERT_OPTIONAL  # a certificate is welcome, and then it must be of our authority
    context.set_alpn_protocols(["http/1.1"])
    return HttpServer(front.respond, context)
