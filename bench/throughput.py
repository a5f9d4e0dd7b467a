"""P3: requests/s, p99 and what a request costs through a typical Gateway, beside a hand-written Envoy and a peer.

All proxy to the same nginx, with one Envoy worker each. Rounds of one proxy differ by 30 % on a machine that others
use, so there are many short ones, in turns (A B C C B A), and each is compared with its neighbours of the same turn:
the figure is the median of these ratios, with its interval beside it. What a request costs is measured a second time
as counts, which nothing disturbs (`instructions`).
"""

import base64
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench import worlds
from bench.envoy_gateway import OWN_GROUP, EnvoyGateway, version
from bench.envoy_gateway import backend as peer_backend
from bench.envoy_profiles import profile_requests
from bench.instructions import Requests, counted_envoy, instructions, requests, system_calls
from bench.machine import cpu_seconds
from bench.plain_envoy import PlainEnvoy, configuration
from bench.record import DESCENDING, Figure, Goal, figure
from bench.subject import BenchError, Subject, profiling, until
from bench.traffic import HOST, Backend, Totals, certificate, free_ports, h2load, listens, wrk

HOSTNAME = "shop.example.com"
GATEWAY = f"{worlds.NAMESPACE}/gw"
ROUNDS, ROUNDS_OF_DEFAULTS, SECONDS = 30, 16, 1
COUNTED_CONNECTIONS, STREAMS = 16, 10
HAND_WRITTEN = Goal(0.97, DESCENDING, of_floor=True)
PEER = Goal(1.1, DESCENDING, of_floor=True)
DEFAULTS = "with the access log of its defaults, "


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


class Proxies:
    """All that are compared, before the same nginx: propylon, a hand-written configuration, and Envoy Gateway."""

    def __init__(self, program_of_envoy: Path | None = None) -> None:
        """`program_of_envoy` is run in place of Envoy."""
        self._stack = ExitStack()
        self._program = program_of_envoy

    def __enter__(self) -> "Proxies":
        with ExitStack() as stack:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pk")))
            self._backend = stack.enter_context(Backend("web"))
            self._pair = certificate(self._directory, [f"*.{worlds.DOMAIN}"])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def plain(self) -> Proxy:
        """An Envoy with a configuration that somebody wrote by hand."""
        port, tls_port = free_ports(2)
        document = configuration(self._backend.ports["web"], port=port, tls_port=tls_port, certificate=self._pair)
        envoy = self._stack.enter_context(PlainEnvoy(document, port, self._program))
        return Proxy(port, tls_port, envoy.pid)

    def ours(self, *, access_log: bool = False) -> Proxy:
        """A propylon with a typical Gateway."""
        return self._stack.enter_context(gateway(self._backend, self._pair, access_log, self._program))

    def peer(self, *, access_log: bool = False) -> Proxy | None:
        """Envoy Gateway with the same Gateway; None where there is none, which is said."""
        try:
            return self._stack.enter_context(peer(self._backend, self._pair, access_log, self._program))
        except BenchError as error:
            print(f"P3: without Envoy Gateway: {error}", flush=True)
            return None


def throughput(sizes: Sequence[int]) -> Iterable[Figure]:
    """P3: propylon beside a hand-written Envoy and Envoy Gateway, at so many connections; counts of a request first."""
    if profiling():
        _profile(max(sizes))
        return
    yield from _counted()
    peers = f"(floor: Envoy Gateway {version()})"
    with Proxies() as proxies:
        ours, others = proxies.ours(), {"": (proxies.plain(), HAND_WRITTEN)}
        if found := proxies.peer():
            others[f" {peers}"] = found, PEER
        for size in sizes:
            for name, load in LOADS.items():
                yield from _compared(size, name, load, ours, others)
    with Proxies() as proxies:
        if found := proxies.peer(access_log=True):
            ours = proxies.ours(access_log=True)
            for size in sizes:
                for name, load in LOADS.items():
                    beside = {f" {peers}": (found, PEER)}
                    yield from _compared(size, f"{DEFAULTS}{name}", load, ours, beside, ROUNDS_OF_DEFAULTS)


@contextmanager
def peer(
    backend: Backend, pair: tuple[str, str], access_log: bool = False, program: Path | None = None
) -> Iterator[Proxy]:
    """Envoy Gateway with the same Gateway."""
    ports = free_ports(2)
    documents = [found for found in world(backend, pair, *ports) if found["kind"] not in _NOT_FOR_PEERS]
    for document in documents:
        document["metadata"]["namespace"] = worlds.NAMESPACE
        if document["kind"] == "Gateway":
            del document["spec"]["addresses"]
        for rule in document["spec"]["rules"] if document["kind"] == "HTTPRoute" else ():
            rule["backendRefs"] = [{"group": OWN_GROUP, "kind": "Backend", "name": "web"}]
    documents.append(peer_backend("web", backend.ports["web"], worlds.NAMESPACE))
    with EnvoyGateway(documents, access_log=access_log, program_of_envoy=program) as running:
        until(lambda: _answers(ports[0]), "Envoy Gateway answers", 120, 0.1)
        # Not before: it runs Envoys of other purposes first.
        yield Proxy(*ports, running.proxy_pid())


_NOT_FOR_PEERS = {"GatewayClass", "Namespace", "Service", "EndpointSlice"}


def _answers(port: int) -> bool:
    return listens(port) and not wrk(f"http://{HOST}:{port}/", HOSTNAME, 1, 1).failed


@contextmanager
def gateway(
    backend: Backend, pair: tuple[str, str], access_log: bool = False, program: Path | None = None
) -> Iterator[Proxy]:
    """A propylon with a typical Gateway: HTTP and HTTPS, some hostnames with some rules each, one backend."""
    ports = free_ports(2)
    with Subject(world(backend, pair, *ports), access_log=access_log, program_of_envoy=program) as subject:
        subject.ready(GATEWAY)
        yield Proxy(*ports, subject.proxy_pid())


def world(backend: Backend, pair: tuple[str, str], port: int, tls_port: int) -> list[dict[str, Any]]:
    """Its objects."""
    documents = worlds.base(port=port)
    documents[-1]["spec"]["listeners"].append(
        {"name": "https", "protocol": "HTTPS", "port": tls_port, "tls": {"certificateRefs": [{"name": "tls"}]}}
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


def _profile(size: int) -> None:
    for label, access_log in (("", False), (" with access log", True)):
        with Proxies() as proxies:
            ours = proxies.ours(access_log=access_log)
            for name, send in _sends(ours).items():
                load = partial(LOADS[name], ours, size)
                profile_requests(f"P3 {name}{label}", size, ours.pid, load, send)


# -- in seconds ---


def _compared(
    size: int, name: str, load: Load, ours: Proxy, others: Mapping[str, tuple[Proxy, Goal]], count: int = ROUNDS
) -> Iterable[Figure]:
    """All in turns; ours beside each of the others."""
    proxies = [ours, *(other for other, _ in others.values())]
    for proxy in proxies:
        load(proxy, size, 1)
    rounds: dict[Proxy, list[Round]] = {proxy: [] for proxy in proxies}
    for number in range(count):
        for proxy in proxies if number % 2 else reversed(proxies):
            rounds[proxy].append(_round(proxy, load, size))

    def column(proxy: Proxy, field: str) -> list[float]:
        return [getattr(found, field) for found in rounds[proxy]]

    for label, (other, goal) in others.items():
        # As many requests in as much time, or as little time for as many requests.
        inverse = Goal(round(1 / goal.bound, 2), of_floor=True)
        for field, what, unit, judged in (
            ("rate", "requests/s", "requests/s", goal),
            ("p99", "p99", "ms", inverse),
            ("cpu", "CPU of Envoy a request", "us", None),
        ):
            values, floors = column(ours, field), column(other, field)
            ratios = [value / floor for value, floor in zip(values, floors, strict=True) if floor]
            floor = statistics.median(floors)
            yield figure("P3", size, f"{name}: {what}{label}", values, unit, floor=floor, ratios=ratios, goal=judged)


def _round(proxy: Proxy, load: Load, connections: int) -> Round:
    before = cpu_seconds(proxy.pid)
    totals = load(proxy, connections, SECONDS)
    used = cpu_seconds(proxy.pid) - before
    if totals.failed or not totals.requests:
        raise BenchError(f"{totals.requests} requests, of which failed: {totals.failures}")
    return Round(totals.rate, totals.p99, used / totals.requests * 1e6)


# -- as counts ---

Count = Callable[[int, Requests], float]
"""Of an Envoy's process id and of what sends it requests: something a request."""
STARTS: dict[str, Callable[[Proxies], Proxy | None]] = {
    "plain": lambda proxies: proxies.plain(),
    "ours": lambda proxies: proxies.ours(),
    "peer": lambda proxies: proxies.peer(),
    "ours, logging": lambda proxies: proxies.ours(access_log=True),
    "peer, logging": lambda proxies: proxies.peer(access_log=True),
}


def _counted() -> Iterable[Figure]:
    """What a request costs, by protocol, without and with the access log that each has by default."""
    executed, called = _counts("instructions"), _counts("system calls")
    label = f" (floor: Envoy Gateway {version()})"
    pairs = (
        ("", "", "ours", "plain", HAND_WRITTEN),
        ("", label, "ours", "peer", PEER),
        (DEFAULTS, label, "ours, logging", "peer, logging", PEER),
    )
    for what, counts in (("instructions", executed), ("system calls", called)):
        for prefix, suffix, one, other, goal in pairs:
            judged = Goal(round(1 / goal.bound, 2), of_floor=True) if what == "instructions" else None
            for protocol in LOADS if other in counts else ():
                name = f"{prefix}{protocol}: {what} of Envoy a request{suffix}"
                value, floor = counts[one][protocol], counts[other][protocol]
                yield figure("P3", COUNTED_CONNECTIONS, name, [value], "", floor=floor, goal=judged)


def _counts(what: str) -> dict[str, dict[str, float]]:
    """Of every proxy that there is, one after the other: by protocol."""
    found: dict[str, dict[str, float]] = {}
    for name, start in STARTS.items():
        with tempfile.TemporaryDirectory(prefix="pc") as place, ExitStack() as stack:
            directory = Path(place)
            count: Count = lambda pid, send: sum(system_calls(pid, send).values())  # noqa: E731 - one of two
            if what == "instructions":
                count = partial(instructions, directory)
            program = counted_envoy(directory) if what == "instructions" else None
            proxy = start(stack.enter_context(Proxies(program)))
            if proxy is not None:
                found[name] = {protocol: count(proxy.pid, send) for protocol, send in _sends(proxy).items()}
    return found


def _sends(proxy: Proxy) -> dict[str, Requests]:
    secure, number = f"https://{HOSTNAME}/", COUNTED_CONNECTIONS
    return {
        "HTTP/1.1": requests(f"http://{HOSTNAME}/", proxy.port, number, 1, "--h1"),
        "HTTPS": requests(secure, proxy.tls_port, number, 1, "--h1"),
        "h2": requests(secure, proxy.tls_port, number, STREAMS),
    }
