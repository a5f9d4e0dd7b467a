"""The client of tests: one request to one port of a proxy, as a user's program would send it."""

import contextlib
import http.client
import socket
import ssl
from typing import NamedTuple

from propylon.explain.request import Asked
from propylon.testing.backends import MARK, RECORD_HEADER
from propylon.testing.model import Pairs
from propylon.testing.proxy import ROUTE_HEADER

PATIENCE = 10.0
"""Seconds to wait for an answer."""
SILENCE = 1.0
"""Seconds after which a datagram that is not answered counts as dropped."""


class Told(NamedTuple):
    """What came back. `status` None: no HTTP answer."""

    record: int | None
    """Number of the backend's record; None if no backend was reached."""
    status: int | None = None
    headers: Pairs = ()
    refused: bool = False


class Client:
    """Keeps connections open between requests. Certificates are not verified: that is no matter of routing."""

    def __init__(self) -> None:
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._connections: dict[tuple[tuple[str, int], bool, str], http.client.HTTPConnection] = {}
        self._passing: set[tuple[tuple[str, int], str]] = set()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def ask(self, place: tuple[str, int], asked: Asked) -> Told:
        """Send a request and tell what came back. Raises nothing: what goes wrong is an answer as well."""
        if asked.scheme == "udp":
            return self._datagram(place)
        if asked.scheme in {"tls", "https"} and (place, asked.sni) not in self._passing:
            told = self._through(place, asked.sni)
            if told is not None:
                return told
            self._passing.add((place, asked.sni))
        if asked.scheme in {"http", "https"}:
            return self._request(place, asked)
        return self._bytes(place, asked)

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def _request(self, place: tuple[str, int], asked: Asked) -> Told:
        key = (place, asked.scheme == "https", asked.sni)
        for fresh in (False, True):  # a connection that was kept may have been closed meanwhile
            if fresh and key in self._connections:
                self._connections.pop(key).close()
            kept = key in self._connections
            try:
                return self._exchange(key, asked)
            except ConnectionRefusedError:
                return Told(None, refused=True)
            except (OSError, http.client.HTTPException):
                self._connections.pop(key, http.client.HTTPConnection("")).close()
                if not kept:
                    break
        return Told(None)

    def _exchange(self, key: tuple[tuple[str, int], bool, str], asked: Asked) -> Told:
        connection = self._connections.get(key)
        if connection is None:
            place, tls, sni = key
            connection = http.client.HTTPConnection(*place, timeout=PATIENCE)
            raw = socket.create_connection(place, timeout=PATIENCE)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = self._context.wrap_socket(raw, server_hostname=sni or None) if tls else raw
            connection.auto_open = 0
            self._connections[key] = connection
        connection.putrequest(asked.method, asked.target, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", asked.authority), *asked.headers):
            connection.putheader(name, value.encode("utf-8"))
        if asked.method in {"POST", "PUT", "PATCH"} and not any(n == "content-length" for n, _ in asked.headers):
            connection.putheader("Content-Length", "0")
        connection.endheaders()
        response = connection.getresponse()
        response.read()
        record = response.getheader(RECORD_HEADER)
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        if record and response.getheader(ROUTE_HEADER) is None:  # passed on as bytes: a connection stays where it is
            self._connections.pop(key).close()
        return Told(int(record) if record else None, response.status, headers)

    # -- bytes -------------------------------------------------------------------------------------------------------

    def _through(self, place: tuple[str, int], sni: str) -> Told | None:
        """Begin TLS. A backend that gets these bytes unopened tells so; None if it is the proxy that speaks TLS."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        handshake = self._context.wrap_bio(incoming, outgoing, server_hostname=sni or None)
        with contextlib.suppress(ssl.SSLWantReadError):
            handshake.do_handshake()
        return self._told(place, outgoing.read(), tls=True)

    def _bytes(self, place: tuple[str, int], asked: Asked) -> Told:
        if asked.scheme == "tcp":
            return self._told(place, b"propylon test\n", tls=False) or Told(None)
        try:
            with (
                socket.create_connection(place, timeout=PATIENCE) as raw,
                self._context.wrap_socket(raw, server_hostname=asked.sni or None) as tls,
            ):
                tls.sendall(b"propylon test\n")
                return _marked(tls.recv(4096)) or Told(None)
        except ConnectionRefusedError:
            return Told(None, refused=True)
        except OSError:
            return Told(None)

    def _told(self, place: tuple[str, int], data: bytes, *, tls: bool) -> Told | None:
        try:
            with socket.create_connection(place, timeout=PATIENCE) as raw:
                raw.sendall(data)
                answer = raw.recv(4096)
        except ConnectionRefusedError:
            return Told(None, refused=True)
        except OSError:
            return Told(None)
        if tls and answer[:1] == b"\x16":  # a handshake record (RFC 8446 5.1)
            return None
        return _marked(answer) or Told(None)

    def _datagram(self, place: tuple[str, int]) -> Told:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(SILENCE)
            try:
                client.connect(place)
                client.send(b"propylon test\n")
                return _marked(client.recv(4096)) or Told(None)
            except OSError:
                return Told(None)


def _marked(answer: bytes) -> Told | None:
    number = answer.removeprefix(MARK).partition(b"\n")[0]
    return Told(int(number)) if answer.startswith(MARK) and number.isdigit() else None
