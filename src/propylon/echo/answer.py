"""What the echo server answers: who it is and what it received, as JSON. Pure."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from urllib.parse import parse_qsl, urlsplit

import msgspec

LARGEST_BODY = 1 << 20
"""Bytes of a request's body that are told; the rest is read and only counted."""
LONGEST_DELAY = 60.0
"""Seconds; the most that `echo_delay` can ask for."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class EchoIdentity(msgspec.Struct, frozen=True, order=True):
    """The port of a Service that an echo server stands in for."""

    namespace: str
    service: str
    port: int

    @property
    def hostname(self) -> str:
        """What a pod of a Deployment behind the Service might be called: the Service's name and a stable suffix."""
        return _hostname(self.namespace, self.service)


@functools.lru_cache(maxsize=1024)
def _hostname(namespace: str, service: str) -> str:
    number = int.from_bytes(hashlib.sha256(f"{namespace}/{service}".encode()).digest()[:10], "big")
    letters = []
    for _ in range(14):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return f"{service}-{''.join(letters[:9])}-{''.join(letters[9:])}"


class TlsInfo(msgspec.Struct, frozen=True):
    """The TLS session a request came through."""

    version: str
    cipher: str
    server_name: str
    alpn: str


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it was received. Header names are lower-case."""

    method: str
    target: str
    """Path and query as sent."""
    headers: list[tuple[str, str]]
    protocol: str
    """`HTTP/1.0`, `HTTP/1.1` or `HTTP/2`."""
    body: bytes = b""
    body_length: int = 0
    """Bytes of the body, of which `body` holds `LARGEST_BODY` at most."""
    trailers: list[tuple[str, str]] = []
    tls: TlsInfo | None = None
    client: str = ""


class Options(msgspec.Struct, frozen=True):
    """What the query asks of the answer.

    `echo_status=503` sets the status, `echo_delay=200ms` (ms, s, m; up to `LONGEST_DELAY`) waits before it, and
    `echo_header=Name:Value` (as often as wanted) adds a header.
    """

    status: int = 200
    delay: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """A response: status, headers beside the length, body, and seconds to wait before it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    delay: float = 0.0


def parse_options(query: str) -> Options:
    """The options in a query string. Raises ValueError, saying which is wrong."""
    if "echo_" not in query:
        return _NO_OPTIONS
    status, delay, headers = 200, 0.0, list[tuple[str, str]]()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "echo_status":
            if not value.isascii() or not value.isdigit() or not 200 <= int(value) <= 599:
                raise ValueError(f"echo_status={value} is not a status between 200 and 599")
            status = int(value)
        elif name == "echo_delay":
            match = _DURATION.fullmatch(value)
            if match is None:
                raise ValueError(f"echo_delay={value} is not a duration such as 200ms")
            delay = min(LONGEST_DELAY, float(match[1]) * _SECONDS[match[2]])
        elif name == "echo_header":
            header, colon, content = value.partition(":")
            if not colon or not _TOKEN.fullmatch(header) or not content.isprintable() or not content.isascii():
                raise ValueError(f"echo_header={value} is not Name:Value")
            headers.append((header.lower(), content.strip()))
    return Options(status, delay, tuple(headers))


_NO_OPTIONS = Options()


def join_headers(headers: list[tuple[str, str]]) -> dict[str, str]:
    """One value for each name: repeated ones joined as RFC 9110 section 5.3 allows, cookies as RFC 9113 section
    8.2.3 does.
    """
    joined: dict[str, str] = {}
    for name, value in headers:
        if name in joined:
            joined[name] += ("; " if name == "cookie" else ", ") + value
        else:
            joined[name] = value
    return joined


def build_answer(identity: EchoIdentity, request: Request) -> Answer:
    """The answer to a request: the options it carries, and everything about it as JSON."""
    parts = urlsplit("//h" + request.target if request.target.startswith("/") else request.target)
    origin = [
        ("content-type", "application/json"),
        ("x-echo-service", identity.service),
        ("x-echo-namespace", identity.namespace),
        ("x-echo-hostname", identity.hostname),
    ]
    try:
        options = parse_options(parts.query)
    except ValueError as error:
        return Answer(400, origin, msgspec.json.encode({"error": str(error)}) + b"\n")
    query: dict[str, str | list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        before = query.get(name)
        if before is None:
            query[name] = value
        else:
            query[name] = [*before, value] if isinstance(before, list) else [before, value]
    told: dict[str, object] = {
        "method": request.method,
        "path": parts.path,
        "query": query,
        "headers": join_headers(request.headers),
        **_body(request),
        "protocol": request.protocol,
        "client": request.client,
        "tls": None if request.tls is None else msgspec.structs.asdict(request.tls),
    }
    if request.trailers:
        told["trailers"] = join_headers(request.trailers)
    document = {
        "environment": {"HOSTNAME": identity.hostname},
        "request": told,
        "service": identity.service,
        "namespace": identity.namespace,
        "port": identity.port,
    }
    body = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    return Answer(options.status, [*origin, *options.headers], body, options.delay)


def _body(request: Request) -> dict[str, object]:
    told: dict[str, object]
    try:
        told = {"body": request.body.decode()}
    except UnicodeDecodeError:
        told = {"body": base64.b64encode(request.body).decode(), "bodyEncoding": "base64"}
    if request.body_length > len(request.body):
        told["bodyLength"] = request.body_length
    return told
