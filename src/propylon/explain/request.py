"""Requests as people write them, and as a proxy reads them."""

import ipaddress
import re
from typing import Literal
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

Scheme = Literal["http", "https", "tls", "tcp", "udp"]
_SCHEMES: dict[str, Scheme] = {
    "http": "http",
    "https": "https",
    "ws": "http",
    "wss": "https",
    "grpc": "http",
    "grpcs": "https",
    "tls": "tls",
    "tcp": "tcp",
    "udp": "udp",
}
_DEFAULT_PORTS = {"http": 80, "https": 443, "tls": 443}
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


class ExplainError(Exception):
    """A question that cannot be answered as it was put; the message says what to change."""


class Request(msgspec.Struct, frozen=True):
    """What is asked. `Request("https://shop.example.com/cart", method="POST", headers=(("x-a", "1"),))`."""

    url: str
    """http(s), ws(s), grpc(s), tls, tcp or udp; `http` if no scheme is written."""
    method: str = ""
    """GET if empty (POST for gRPC)."""
    headers: tuple[tuple[str, str], ...] = ()
    """In the order they are sent; Host overrides the URL's."""
    gateway: str = ""
    """NAME, NAMESPACE/NAME or an address; needed only where several Gateways fit."""
    sni: str | None = None
    """Server name of the TLS handshake; None: the URL's host."""
    grpc: str = ""
    """SERVICE/METHOD, in place of a path."""


class Asked(msgspec.Struct, frozen=True):
    """A request as it arrives at a proxy."""

    scheme: Scheme
    host: str
    """The URL's host: where the client connects to."""
    port: int
    authority: str
    """The Host header (`:authority`) as sent."""
    method: str
    target: str
    """Path and query as sent."""
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, without Host."""
    sni: str
    """Lower case; "" for none."""
    gateway: str
    grpc: bool

    def values(self, name: str) -> tuple[str, ...]:
        """The lines of a header, `host` and `:method` included."""
        if name in {"host", ":authority"}:
            return (without_trailing_dot(self.authority),)
        return tuple(value for key, value in self.headers if key == name)


def parse(request: Request) -> Asked:
    """Read a request. Raises ExplainError."""
    parts, port = _split(request.url)
    scheme = _SCHEMES.get(parts.scheme.lower())
    if scheme is None:
        known = ", ".join(_SCHEMES)
        raise ExplainError(f"scheme {parts.scheme!r} of {request.url!r} is not one of {known}")
    if port is None:
        port = _DEFAULT_PORTS.get(scheme)
    if port is None:
        raise ExplainError(
            f"{request.url!r} needs a port, such as {scheme}://{parts.hostname or 'db.example.com'}:5432"
        )
    host = (parts.hostname or "").lower()
    headers = []
    authority = parts.netloc.rpartition("@")[2]
    if port == _DEFAULT_PORTS.get(scheme):
        authority = authority.removesuffix(f":{port}")  # as clients do (RFC 9110 4.2.3)
    for name, value in request.headers:
        if _TOKEN.fullmatch(name) is None:
            raise ExplainError(f"{name!r} is not a header name")
        if any(character in value for character in "\r\n\0"):
            raise ExplainError(f"header {name} has a line break in its value")
        if name.lower() == "host":
            authority = value.strip()
        else:
            headers.append((name.lower(), value.strip(" \t")))
    grpc = bool(request.grpc) or parts.scheme.lower() in {"grpc", "grpcs"}
    target = _target(parts)
    if request.grpc:
        service, slash, method = request.grpc.strip("/").rpartition("/")
        if not (slash and service and method):
            raise ExplainError(f"--grpc {request.grpc!r} is not SERVICE/METHOD, such as shop.v1.Cart/Add")
        target = f"/{service}/{method}"
    if grpc and not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/grpc"))
    grpc = grpc or any(n == "content-type" and _is_grpc(v) for n, v in headers)
    sni = host if request.sni is None else request.sni.lower()
    return Asked(
        scheme=scheme,
        host=host,
        port=port,
        authority=authority,
        method=request.method or ("POST" if request.grpc else "GET"),
        target=target,
        headers=tuple(headers),
        sni="" if is_address(sni) else without_trailing_dot(sni),
        gateway=request.gateway,
        grpc=grpc,
    )


def _is_grpc(content_type: str) -> bool:
    return content_type == "application/grpc" or content_type.startswith(("application/grpc+", "application/grpc;"))


def _split(url: str) -> tuple[SplitResult, int | None]:
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ExplainError(f"{url!r} is not a URL: {error}") from error
    if parts.hostname is None and parts.scheme.lower() not in {"tcp", "udp"}:
        raise ExplainError(f"{url!r} has no host; a URL looks like https://shop.example.com/cart")
    if parts.hostname is not None and _HOST.fullmatch(parts.hostname) is None:
        raise ExplainError(f"{parts.hostname!r} in {url!r} is not a host")
    if port == 0:
        raise ExplainError(f"port 0 in {url!r} cannot be connected to")
    return parts, port


def _target(parts: SplitResult) -> str:
    """Path and query as a client sends them: characters that may not stand in a URL are encoded, no fragment."""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._|^`{}\"<>\\[]")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._|^`{}\"<>\\[]?")
    return f"{path}?{query}" if "?" in parts.geturl().partition("#")[0] and query else path


def without_trailing_dot(authority: str) -> str:
    """`shop.example.com.:80` is `shop.example.com:80`."""
    host, colon, port = authority.rpartition(":")
    if colon and port.isdigit() and host.endswith("."):
        return f"{host[:-1]}:{port}"
    return authority.removesuffix(".")


def host_of(authority: str) -> str:
    """The host that virtual hosts are chosen by: lower case, without port and trailing dot."""
    text = without_trailing_dot(authority).lower()
    return re.sub(r":[0-9]+$", "", text) if not text.endswith("]") else text


def is_address(text: str) -> bool:
    """Whether a host is an IP address (which is no server name, RFC 6066 3)."""
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED = frozenset('|^`{}"<>')


def normalized_path(target: str) -> str | None:
    """A path (with its query) as the proxy reads it, or None if it answers 400.

    `.` and `..` are resolved, a backslash is a slash, encoded letters, digits and `-._~` are decoded (RFC 3986 6.2.2);
    repeated and encoded slashes stay.
    """
    path, question, query = target.partition("?")
    if not path.startswith("/") or "#" in target or any(not " " < c < "\x7f" for c in target):
        return None

    def decoded(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0]

    if "%00" in path:
        return None
    path = _ENCODED.sub(decoded, path.replace("\\", "/"))
    path = "".join(f"%{ord(c):02X}" if c in _ESCAPED else c for c in path)
    out: list[str] = []
    segments = path.split("/")[1:]
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "..":
            if out:
                out.pop()
            if last:
                out.append("")
        elif segment == ".":
            if last:
                out.append("")
        else:
            out.append(segment)
    return "/" + "/".join(out) + question + query
