"""P1s: one HTTPS listener of N changed, added, removed; each ListenerSet has one. Its floor is raw Envoy with FCDS.

`python -m bench.listeners SIZE PORT` is the floor as a process (see `bench.floor`): filter chains by name, and a
matcher that is joined from ready-made parts.
"""

import asyncio
import base64
import functools
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from bench import worlds
from bench.floor import ADS, LDS, TYPE, Floor, Server, serve
from bench.record import Figure, Goal, figure
from bench.subject import BenchError, Commanded, Subject, until
from propylon.certificates.local_authority import LocalAuthority
from propylon.envoy.filter_chain_matcher import build_entry, build_matcher

HOST, PORT, FLOOR_PORT = "127.0.0.1", 18443, 18444
REPEATS = 15
OTHERS = 50
"""Connections to other listeners that are held over all changes."""
FCDS = TYPE + "envoy.config.listener.v3.FilterChain"
SDS = TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret"
assert tls_inspector_pb2 is not None  # its type must be registered for json_format


@functools.cache
def pairs() -> tuple[tuple[bytes, bytes], ...]:
    """Two certificates for every hostname of the scenario, with their keys (PEM). A change swaps them."""
    with tempfile.TemporaryDirectory(prefix="pa") as directory:
        authority = LocalAuthority(Path(directory))
        return tuple(authority.issue([f"*.{worlds.DOMAIN}"]) for _ in range(2))


class ListenerFloor(Floor):
    """Commands."""

    def __init__(self, size: int, port: int) -> None:
        self.server = Server()
        self.envoy = None
        self.port = port
        resources = self.server.resources
        resources[SDS] = {}
        for number, (chain, key) in enumerate(pairs()):
            secret = secret_pb2.Secret(name=f"s{number}")
            secret.tls_certificate.certificate_chain.inline_bytes = chain
            secret.tls_certificate.private_key.inline_bytes = key
            resources[SDS][secret.name] = secret.SerializeToString()
        resources[FCDS] = {f"h{i}": filter_chain(f"h{i}", i % 2) for i in range(size)}
        self.entries = {i: entry(i) for i in range(size)}
        resources[LDS] = {"l": self._listener()}

    def _listener(self) -> bytes:
        head = {
            "name": "l",
            "address": {"socket_address": {"address": HOST, "port_value": self.port}},
            "listener_filters": [
                {"name": "tls", "typed_config": {"@type": TYPE + _name(tls_inspector_pb2.TlsInspector)}}
            ],
            "fcds_config": {"name": "l", "config_source": ADS},
            "filter_chains": [{"name": "none"}],
        }
        body: bytes = json_format.ParseDict(head, listener_pb2.Listener()).SerializeToString()
        return body + build_matcher(self.entries.values())

    async def swap(self, number: int, pair: int) -> dict[str, Any]:
        """Have one listener show another certificate."""
        self.server.resources[FCDS][f"h{number}"] = filter_chain(f"h{number}", pair)
        self.server.push(FCDS, [f"h{number}"])
        return {}

    async def add(self, number: int) -> dict[str, Any]:
        """Add a listener."""
        self.server.resources[FCDS][f"h{number}"] = filter_chain(f"h{number}", 0)
        self.entries[number] = entry(number)
        self.server.resources[LDS]["l"] = self._listener()
        self.server.push(LDS, ["l"])
        return {}

    async def remove(self, number: int) -> dict[str, Any]:
        """Take a listener away: the chain first, so that its connections are drained."""
        del self.server.resources[FCDS][f"h{number}"], self.entries[number]
        gone = discovery_pb2.DeltaDiscoveryResponse(
            type_url=FCDS, nonce=f"gone-{number}", removed_resources=[f"h{number}"]
        )
        self.server.queue.put_nowait(gone)
        self.server.resources[LDS]["l"] = self._listener()
        self.server.push(LDS, ["l"])
        return {}


def entry(number: int) -> tuple[str, bytes]:
    hostname = worlds.hostname_of(number)
    return hostname, build_entry(hostname, f"h{number}")


def filter_chain(name: str, pair: int) -> bytes:
    """A chain that answers everything with 404."""
    context = {"common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": f"s{pair}", "sds_config": ADS}]}}
    manager = {
        "stat_prefix": "s",
        "route_config": {"name": name},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"}}
        ],
    }
    document = {
        "name": name,
        "transport_socket": {
            "name": "tls",
            "typed_config": {"@type": TYPE + _name(tls_pb2.DownstreamTlsContext), **context},
        },
        "filters": [
            {
                "name": "hcm",
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    **manager,
                },
            }
        ],
    }
    body: bytes = json_format.ParseDict(document, listener_components_pb2.FilterChain()).SerializeToString()
    return body


def _name(message: Any) -> str:
    return str(message.DESCRIPTOR.full_name)


class ListenerFloorProcess(Commanded):
    """Raw Envoy with `size` HTTPS listeners by FCDS."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def command(self) -> list[str]:
        return ["bench.listeners", str(self.size), str(FLOOR_PORT)]


# -- the scenario ---


def listeners(sizes: Sequence[int]) -> Iterable[Figure]:
    """P1s: one of N HTTPS listeners changed, added, removed until a handshake sees it; nobody else may notice."""
    for size in sizes:
        with ListenerFloorProcess(size) as floor:
            call = floor.call
            floor_changes = tuple(functools.partial(call, name) for name in ("swap", "add", "remove"))
            floors, _ = _measure(FLOOR_PORT, size, floor_changes, lambda: None)
        with Subject(_documents(size)) as subject:
            subject.ready(f"{worlds.NAMESPACE}/gw", seconds=900)
            changes = _store_changes(subject)
            with subject.profiled("P1s one listener changed", size):
                times, dropped = _measure(PORT, size, changes, subject.idle)
        for what, several in times.items():
            least = sorted(floors[what])[len(floors[what]) // 2]
            yield figure("P1s", size, f"floor: FCDS, {what}", floors[what], "ms")
            yield figure("P1s", size, f"listener {what}", several, "ms", floor=least, goal=Goal(3, of_floor=True))
        yield figure("P1s", size, f"connections of others dropped, of {OTHERS}", [dropped], "", goal=Goal(0))


Changes = tuple[Callable[..., object], ...]
"""change(number, pair), add(number), remove(number)."""


def _store_changes(subject: Subject) -> Changes:
    def change(number: int, pair: int = 0) -> None:
        subject.apply(listener_set(number, pair))

    def remove(number: int) -> None:
        subject.call("delete", "ListenerSet", f"ls{number}")

    return change, change, remove


def _measure(
    port: int, size: int, changes: Changes, between: Callable[[], object]
) -> tuple[dict[str, list[float]], int]:
    """Milliseconds from each change until a handshake sees it, and how many lasting connections were closed."""
    change, add, remove = changes
    until(lambda: shown(port, size - 1) is not None, f"port {port} serving", 300, 0.1)
    step = max(1, size // OTHERS)
    others = [connect(port, number) for number in range(0, size - 1, step)]
    known = shown(port, size - 1)
    times: dict[str, list[float]] = {"changed": [], "added": [], "removed": []}
    current = (size - 1) % 2

    def effect(what: str, number: int, act: Callable[[], object], seen: Callable[[bytes | None], bool]) -> bytes | None:
        began = time.perf_counter()
        act()
        while not seen(found := shown(port, number)):
            if time.perf_counter() - began > 60:
                raise BenchError(f"{what}: no effect within 60 s")
        times[what].append((time.perf_counter() - began) * 1000)
        between()
        return found

    for _ in range(REPEATS):
        current = 1 - current
        unlike = functools.partial(_another, known)
        known = effect("changed", size - 1, functools.partial(change, size - 1, current), unlike)
    for number in range(size, size + REPEATS):
        effect("added", number, functools.partial(add, number), lambda found: found is not None)
    for number in range(size, size + REPEATS):
        effect("removed", number, functools.partial(remove, number), lambda found: found is None)
    dropped = sum(not alive(connection) for connection in others)
    return times, dropped


def _another(known: bytes | None, found: bytes | None) -> bool:
    return found is not None and found != known


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


CONTEXT = _context()


def connect(port: int, number: int) -> ssl.SSLSocket:
    raw = socket.create_connection((HOST, port), timeout=10)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return CONTEXT.wrap_socket(raw, server_hostname=worlds.hostname_of(number))


def shown(port: int, number: int) -> bytes | None:
    """The certificate that a listener shows; None if it turns connections away."""
    try:
        with connect(port, number) as secure:
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None


def alive(connection: ssl.SSLSocket) -> bool:
    """Whether a connection still answers, and is not asked to leave."""
    try:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: x.{worlds.DOMAIN}\r\n\r\n".encode())
        answer = connection.recv(4096)
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1") and b"connection: close" not in answer.lower()


def listener_set(number: int, pair: int) -> worlds.Document:
    """A ListenerSet of one HTTPS listener."""
    listener = {
        "name": "https",
        "protocol": "HTTPS",
        "port": PORT,
        "hostname": worlds.hostname_of(number),
        "tls": {"certificateRefs": [{"name": f"s{pair}"}]},
    }
    return {
        "apiVersion": f"{worlds.GROUP}/v1",
        "kind": "ListenerSet",
        "metadata": {"name": f"ls{number}", "namespace": worlds.NAMESPACE},
        "spec": {"parentRef": {"name": "gw"}, "listeners": [listener]},
    }


def _documents(size: int) -> list[worlds.Document]:
    documents = worlds.base(port=PORT + 100)
    documents[-1]["spec"]["allowedListeners"] = {"namespaces": {"from": "Same"}}
    for number, (chain, key) in enumerate(pairs()):
        data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data}
        documents.append({**secret, "metadata": {"name": f"s{number}", "namespace": worlds.NAMESPACE}})
    return [*documents, *(listener_set(i, i % 2) for i in range(size))]


if __name__ == "__main__":
    asyncio.run(serve(ListenerFloor(int(sys.argv[1]), int(sys.argv[2]))))
