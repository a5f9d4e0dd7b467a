"""The load on a Kubernetes API: the same plain clients, whoever answers. A process per client, so that no client waits
for another; requests are made beforehand and answers only looked at as far as they must, so that clients cost little.
"""

import multiprocessing
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from bench import children
from bench.subject import BenchError

_FORK = multiprocessing.get_context("fork")
_ADDED = re.compile(rb'"type":"ADDED".{0,4000}?"name":"(w[0-9]+)"', re.DOTALL)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class Address(NamedTuple):
    """Where an API is, and the client certificate it knows."""

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path


class Api:
    """One connection that is kept open. Raises BenchError when the API does not answer as expected."""

    def __init__(self, address: Address) -> None:
        self._address = address
        context = ssl.create_default_context(cafile=str(address.authority))
        context.load_cert_chain(address.certificate, address.key)
        plain = socket.create_connection((address.host, address.port), timeout=120)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=address.host)
        self._left = b""

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def request(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """A request as it goes over the wire."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._address.host}:{self._address.port}"]
        lines += ["Accept: application/json", "User-Agent: bench/1"]
        if body:
            lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; the code and body of its answer."""
        self.socket.sendall(request)
        return self.answer()

    def send(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """A request that must succeed; its answer's body."""
        code, answered = self.ask(self.request(method, path, body, content_type))
        if code >= 300:
            raise BenchError(f"{method} {path}: {code} {answered[:300]!r}")
        return answered

    def stream(self, path: str) -> Iterator[bytes]:
        """The lines of an answer that does not end: a watch. It has begun when this returns."""
        self.socket.sendall(self.request("GET", path))
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        if not received.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"GET {path}: {received[:300]!r}")
        return self._lines(received[end + 4 :])

    def _lines(self, left: bytes) -> Iterator[bytes]:
        line = b""
        while True:
            while (end := left.find(b"\r\n")) < 0:
                left += self._more()
            length = int(left[:end], 16)
            piece, left = self._whole(left[end + 2 :], length + 2)
            *whole, line = (line + piece[:length]).split(b"\n")
            yield from whole

    def answer(self) -> tuple[int, bytes]:
        """The code and body of the answer to what was sent."""
        received = self._left
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head, body = received[:end], received[end + 4 :]
        found = _LENGTH.search(head)
        if found is not None:
            body, self._left = self._whole(body, int(found[1]))
        else:
            body = self._chunks(body)
        return int(head[9:12]), body

    def _whole(self, begun: bytes, length: int) -> tuple[bytes, bytes]:
        pieces, size = [begun], len(begun)
        while size < length:
            pieces.append(self._more())
            size += len(pieces[-1])
        whole = b"".join(pieces)
        return whole[:length], whole[length:]

    def _chunks(self, left: bytes) -> bytes:
        pieces: list[bytes] = []
        while True:
            while (end := left.find(b"\r\n")) < 0:
                left += self._more()
            length = int(left[:end], 16)
            piece, left = self._whole(left[end + 2 :], length + 2)
            if length == 0:
                self._left = left
                return b"".join(pieces)
            pieces.append(piece[:length])

    def _more(self) -> bytes:
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise BenchError("the API closed a connection")
        return piece


class Rate(NamedTuple):
    """What clients got done."""

    per_second: float
    latencies: list[float]


def create(address: Address, clients: int, seconds: float, path: str, document: Callable[[str], bytes]) -> Rate:
    """`clients` create one object after another for a while; objects a second and each answer's seconds."""

    def work(number: int, pipe: Connection) -> None:
        api = Api(address)
        api.send("GET", path + "?limit=1")
        pipe.send("ready")
        prefix, until = pipe.recv()
        latencies = []
        while (began := time.monotonic()) < until:
            code, body = api.ask(api.request("POST", path, document(f"{prefix}-{number}-{len(latencies)}")))
            if code != 201:
                raise BenchError(f"create: {code} {body[:300]!r}")
            latencies.append(time.monotonic() - began)
        pipe.send(latencies)

    with _Crowd(work, clients) as crowd:
        crowd.expect("ready")
        began = time.monotonic()
        crowd.tell((f"c{int(began * 1000)}", began + seconds))
        latencies = [one for several in crowd.hear() for one in several]
        return Rate(len(latencies) / (time.monotonic() - began), latencies)


def fill(address: Address, path: str, documents: Sequence[bytes], clients: int = 4) -> None:
    """Create all these objects."""

    def work(number: int, pipe: Connection) -> None:
        api = Api(address)
        for document in documents[number::clients]:
            api.send("POST", path, document)
        pipe.send("done")

    with _Crowd(work, clients) as crowd:
        crowd.expect("done")


@contextmanager
def sending(
    address: Address, requests: Sequence[tuple[str, str, bytes]], clients: int, content_type: str
) -> Iterator[Callable[[], None]]:
    """Clients that are ready to send these requests (method, path, body), all of which must succeed, when called."""

    def work(number: int, pipe: Connection) -> None:
        api = Api(address)
        prepared = [api.request(*request, content_type) for request in requests[number::clients]]
        api.send("GET", "/readyz")
        pipe.send("ready")
        pipe.recv()
        for request in prepared:
            code, body = api.ask(request)
            if code >= 300:
                raise BenchError(f"{request[:80]!r}: {code} {body[:300]!r}")
        pipe.send("done")

    with _Crowd(work, clients) as crowd:
        crowd.expect("ready")
        yield lambda: crowd.tell("go")
        crowd.expect("done")


def watch(
    address: Address, watchers: int, path: str, documents: Sequence[tuple[str, bytes]], pause: float, warm: int = 10
) -> list[float]:
    """Create objects (named w0, w1, ...) one by one while `watchers` watch; seconds from before each create until each
    watcher has read its event. The first `warm` objects do not count."""
    processes = 4

    def work(number: int, pipe: Connection) -> None:
        share = watchers // processes + (number < watchers % processes)
        apis = [Api(address) for _ in range(share)]
        selector = selectors.DefaultSelector()
        for api in apis:
            version = re.search(rb'"resourceVersion":"([0-9]+)"', api.send("GET", path + "?limit=1"))
            assert version is not None
            since = version[1].decode()
            api.socket.sendall(api.request("GET", f"{path}?watch=1&resourceVersion={since}&timeoutSeconds=600"))
            while b"\r\n\r\n" not in api.socket.recv(1 << 16):
                pass
            selector.register(api.socket, selectors.EVENT_READ, [])
        pipe.send("ready")
        pipe.recv()
        read: list[tuple[list[tuple[float, bytes]], Any]] = [(key.data, key.fileobj) for key in _keys(selector)]
        seen = 0
        while seen < share * len(documents):
            for key, _ in selector.select(60):
                piece = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
                if not piece:
                    raise BenchError("a watch ended")
                key.data.append((time.monotonic(), piece))
                seen += piece.count(b'"type":"ADDED"')
        pipe.send([_arrivals(pieces) for pieces, _ in read])

    with _Crowd(work, processes) as crowd:
        crowd.expect("ready")
        crowd.tell("go")
        api = Api(address)
        began: dict[str, float] = {}
        for name, body in documents:
            request = api.request("POST", path, body)
            began[name] = time.monotonic()
            code, answered = api.ask(request)
            if code != 201:
                raise BenchError(f"create: {code} {answered[:300]!r}")
            time.sleep(pause)
        found = [one for several in crowd.hear() for one in several]
    counted = {name for name, _ in documents[warm:]}
    return [at - began[name] for arrivals in found for name, at in arrivals.items() if name in counted]


def _keys(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    return list(selector.get_map().values())


def _arrivals(pieces: list[tuple[float, bytes]]) -> dict[str, float]:
    """When each object's event was whole: the time of the piece in which its name came."""
    found: dict[str, float] = {}
    before = b""
    for at, piece in pieces:
        before += piece
        for match in _ADDED.finditer(before):
            found.setdefault(match[1].decode(), at)
        before = before[-8000:]
    return found


def _client(work: Callable[[int, Connection], None], number: int, pipe: Connection) -> None:
    children.end_with_parent()
    work(number, pipe)


class _Crowd:
    """Processes that do the same; each has a pipe to talk over."""

    def __init__(self, work: Callable[[int, Connection], None], count: int) -> None:
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(count):
            ours, theirs = _FORK.Pipe()
            process = _FORK.Process(target=_client, args=(work, number, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> "_Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def tell(self, message: object) -> None:
        """To all."""
        for pipe in self._pipes:
            pipe.send(message)

    def hear(self) -> list[Any]:
        """From each."""
        try:
            return [pipe.recv() for pipe in self._pipes]
        except EOFError as error:
            raise BenchError("a client failed; its error is above") from error

    def expect(self, message: object) -> None:
        """The same from each."""
        if any(heard != message for heard in self.hear()):
            raise BenchError("a client failed")
