"""P3: requests/s, p99 and CPU time a request through a typical Gateway, beside a hand-written Envoy and a peer.

Both proxy to the same nginx, with one Envoy worker each, in turns: what disturbs one round disturbs its neighbour. The
proxy's own CPU time a request says the same as requests/s where the worker is what is busy, and is hardly disturbed by
others on the machine.
"""

import base64
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench import worlds
from bench.envoy_gateway import OWN_GROUP, EnvoyGateway, version
from bench.envoy_gateway import backend as peer_backend
from bench.machine import cpu_seconds
from bench.plain_envoy import PlainEnvoy, configuration
from bench.record import DESCENDING, Figure, Goal, figure
from bench.subject import BenchError, Subject, until
from bench.traffic import HOST, Backend, Totals, certificate, h2load, listens, wrk

PORT, TLS_PORT, PLAIN_PORT, PLAIN_TLS_PORT, PEER_PORT, PEER_TLS_PORT = 18080, 18443, 18081, 18444, 18082, 18445
HOSTNAME = "shop.example.com"
GATEWAY = f"{worlds.NAMESPACE}/gw"
ROUNDS, SECONDS = 7, 2


class Proxy(NamedTuple):
    """A proxy that is loaded: where it listens, and the process id of its Envoy."""

    port: int
    tls_port: int
    pid: int


class Round(NamedTuple):
    """One round: requests/s, p99 in milliseconds, microseconds of the proxy's CPU a request."""

    rate: float
    p99: float
    cpu: float


Load = Callable[[Proxy, int, int], Totals]
LOADS: dict[str, Load] = {
    "HTTP/1.1": lambda proxy, connections, seconds: wrk(f"http://{HOST}:{proxy.port}/", HOSTNAME, connections, seconds),
    "HTTPS": lambda proxy, connections, seconds: wrk(
        f"https://{HOST}:{proxy.tls_port}/", HOSTNAME, connections, seconds
    ),
    "h2": lambda proxy, connections, seconds: h2load(proxy.tls_port, HOSTNAME, connections, seconds),
}


def throughput(sizes: Sequence[int]) -> Iterable[Figure]:
    """P3: propylon beside a hand-written Envoy and Envoy Gateway, at so many connections."""
    with tempfile.TemporaryDirectory(prefix="pk") as directory, Backend("web") as backend, ExitStack() as stack:
        pair = certificate(Path(directory), [f"*.{worlds.DOMAIN}"])
        ours = stack.enter_context(gateway(backend, pair))
        plain = configuration(backend.ports["web"], port=PLAIN_PORT, tls_port=PLAIN_TLS_PORT, certificate=pair)
        envoy = stack.enter_context(PlainEnvoy(plain, PLAIN_PORT))
        others = {"": Proxy(PLAIN_PORT, PLAIN_TLS_PORT, envoy.pid)}
        try:
            others[f" (floor: Envoy Gateway {version()})"] = stack.enter_context(peer(backend, pair))
        except BenchError as error:
            print(f"P3: without Envoy Gateway: {error}", flush=True)
        for size in sizes:
            for name, load in LOADS.items():
                yield from _compared(size, name, load, ours, others)


@contextmanager
def peer(backend: Backend, pair: tuple[str, str]) -> Iterator[Proxy]:
    """Envoy Gateway with the same Gateway, its access log off like ours."""
    documents = [found for found in world(backend, pair) if found["kind"] not in _NOT_FOR_PEERS]
    for document in documents:
        document["metadata"]["namespace"] = worlds.NAMESPACE
        if document["kind"] == "Gateway":
            del document["spec"]["addresses"]
            for listener, port in zip(document["spec"]["listeners"], (PEER_PORT, PEER_TLS_PORT), strict=True):
                listener["port"] = port
        for rule in document["spec"]["rules"] if document["kind"] == "HTTPRoute" else ():
            rule["backendRefs"] = [{"group": OWN_GROUP, "kind": "Backend", "name": "web"}]
    documents.append(peer_backend("web", backend.ports["web"], worlds.NAMESPACE))
    with EnvoyGateway(documents) as running:
        pid = running.proxy_pid()
        until(lambda: _answers(PEER_PORT), "Envoy Gateway answers", 60, 0.1)
        yield Proxy(PEER_PORT, PEER_TLS_PORT, pid)


_NOT_FOR_PEERS = {"GatewayClass", "Namespace", "Service", "EndpointSlice"}


def _answers(port: int) -> bool:
    return listens(port) and not wrk(f"http://{HOST}:{port}/", HOSTNAME, 1, 1).failed


@contextmanager
def gateway(backend: Backend, pair: tuple[str, str]) -> Iterator[Proxy]:
    """A propylon with a typical Gateway: HTTP and HTTPS, some hostnames with some rules each, one backend."""
    with Subject(world(backend, pair)) as subject:
        subject.ready(GATEWAY)
        yield Proxy(PORT, TLS_PORT, subject.proxy_pid())


def world(backend: Backend, pair: tuple[str, str]) -> list[dict[str, Any]]:
    """Its objects."""
    documents = worlds.base(port=PORT)
    documents[-1]["spec"]["listeners"].append(
        {"name": "https", "protocol": "HTTPS", "port": TLS_PORT, "tls": {"certificateRefs": [{"name": "tls"}]}}
    )
    data = {
        name: base64.b64encode(text.encode()).decode() for name, text in zip(("tls.crt", "tls.key"), pair, strict=True)
    }
    metadata = {"name": "tls", "namespace": worlds.NAMESPACE}
    documents += [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data},
        worlds.service("web"),
        worlds.endpoint_slice("web", port=backend.ports["web"]),
    ]
    for name in ("shop", "blog", "mail", "wiki"):
        document = worlds.route(name, f"{name}.{worlds.DOMAIN}", "web")
        document["spec"]["rules"] = [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": "web", "port": 80}],
            }
            for path in ("/api", "/static", "/")
        ]
        documents.append(document)
    return documents


def _compared(size: int, name: str, load: Load, ours: Proxy, others: dict[str, Proxy]) -> Iterable[Figure]:
    """All in turns; ours beside each of the others."""
    proxies = [ours, *others.values()]
    for proxy in proxies:
        load(proxy, size, 1)
    rounds: dict[Proxy, list[Round]] = {proxy: [] for proxy in proxies}
    for number in range(ROUNDS):
        for proxy in proxies if number % 2 else reversed(proxies):
            rounds[proxy].append(_round(proxy, load, size))

    def column(proxy: Proxy, field: str) -> list[float]:
        return [getattr(found, field) for found in rounds[proxy]]

    for label, other in others.items():
        goal = Goal(1.1 if label else 0.97, DESCENDING, of_floor=True)
        for field, what, unit, judged in (
            ("rate", "requests/s", "requests/s", goal),
            ("p99", "p99", "ms", None),
            ("cpu", "CPU of Envoy a request", "us", None),
        ):
            floor = statistics.median(column(other, field))
            yield figure("P3", size, f"{name}: {what}{label}", column(ours, field), unit, floor=floor, goal=judged)


def _round(proxy: Proxy, load: Load, connections: int) -> Round:
    before = cpu_seconds(proxy.pid)
    totals = load(proxy, connections, SECONDS)
    used = cpu_seconds(proxy.pid) - before
    if totals.failed or not totals.requests:
        raise BenchError(f"{totals.requests} requests, of which failed: {totals.failures}")
    return Round(totals.rate, totals.p99, used / totals.requests * 1e6)
