"""P1C and P10: `propylon controller` on a real kube-apiserver with etcd, beside what these need by themselves."""

import json
import re
import select
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from bench import load, worlds
from bench.apis import GROUP, Kubernetes
from bench.propagation import PORT, effects, effects_under_load, floor_times
from bench.record import Figure, Goal, figure, percentile
from bench.subject import BenchError, Commanded, until

GATEWAY = f"{worlds.NAMESPACE}/gw"
KINDS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants", "backendtlspolicies")
KINDS += ("listenersets", "tcproutes", "tlsroutes", "udproutes")
REPEATS = 25
ENDPOINT = "10.0.0.1"
"""Nobody asks it anything; kube-apiserver takes no loopback address."""
WRITES_AT_ONCE = 8
"""As many as propylon.store.cluster.status.WORKERS: the floor of P10 must not have more, nor less."""
MERGE_PATCH = "application/merge-patch+json"
_CREATORS = 8
_NAME = re.compile(rb'"name":"(r[0-9]+)","namespace"')
_VERSION = re.compile(rb'"resourceVersion":"([0-9]+)"')
ROUNDS = 3
NOBODY = "of-nobody"
"""A GatewayClass that does not exist: whoever names it is left alone."""
CONTROLLER = b'"controllerName":"propylon.dev/gateway-controller"'


class ClusterSubject(Commanded):
    """A `propylon controller` with its Envoys as processes, on a Kubernetes API."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__()
        self._kubeconfig = kubeconfig

    def command(self) -> list[str]:
        return ["bench.cluster_host", str(self.directory / "data"), str(self._kubeconfig)]

    def ready(self, seconds: float = 120) -> float:
        """Wait until the only Gateway is programmed and nothing is left to do; the seconds that took."""
        return until(
            lambda: bool(self.call("programmed", *GATEWAY.split("/"))["programmed"]), "programmed", seconds, 0.05
        )

    def idle(self, seconds: float = 60) -> None:
        """Wait until all that was seen has been worked off."""
        until(lambda: bool(self.call("idle")["idle"]), "idle", seconds, 0.005)


def path_of(document: dict[str, Any], *, of_object: bool = True) -> str:
    """Where an object of a bench world, or its collection, is served."""
    plural = {"GatewayClass": "gatewayclasses"}.get(document["kind"], document["kind"].lower() + "s")
    version, metadata = document["apiVersion"], document["metadata"]
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{prefix}{namespace}/{plural}" + (f"/{metadata['name']}" if of_object else "")


def create(address: load.Address, documents: Iterable[dict[str, Any]]) -> None:
    """Create these objects, one after the other, but those of a large kind at once."""
    kinds: dict[str, list[bytes]] = {}
    for document in documents:
        kinds.setdefault(path_of(document, of_object=False), []).append(json.dumps(document).encode())
    for path, bodies in kinds.items():
        load.fill(address, path, bodies, min(_CREATORS, len(bodies)))


# -- P1C ---


def cluster_propagation(sizes: Sequence[int]) -> Iterable[Figure]:
    """P1C: one route of N hostnames changed by a client of the Kubernetes API until a request sees it."""
    least: float | None = None
    for size in sizes:
        floor = floor_times("scoped", size)
        flat = statistics.median(floor)
        yield figure("P1C", size, "floor: scoped, p50", floor, "ms")
        with Kubernetes(KINDS) as real:
            create(real.address, worlds.hostnames(size, PORT, ENDPOINT))
            last = worlds.tagged(size, "none")
            patches, events = _bare(real.address, path_of(last), path_of(last, of_object=False))
            yield figure("P1C", size, "kube-apiserver: the PATCH itself, p50", patches, "ms")
            yield figure("P1C", size, "kube-apiserver: a bare watcher has it, p50", events, "ms")
            with ClusterSubject(real.kubeconfig) as subject:
                subject.ready(600)
                subject.idle(600)  # the statuses of all: kube-apiserver takes 6 ms for each
                with _changer(real.address, size) as change:
                    with subject.profiled("P1C one route changed", size):
                        times = effects(PORT, size, change, subject.idle, "t")
                    yield from _figures(size, times, flat, statistics.median(events))
                    least = least or statistics.median(times)
                    against = [statistics.median(times) / least]
                    yield figure(
                        "P1C", size, "cluster watch, p50: against the smallest size", against, "x", goal=Goal(2)
                    )
                    yield from effects_under_load("P1C", "cluster watch", size, change, subject.idle)


def _figures(size: int, times: list[float], flat: float, bare: float) -> Iterator[Figure]:
    goal = Goal(3, of_floor=True)
    beyond = [max(0.0, one - bare) for one in times]
    yield figure("P1C", size, "cluster watch, p50", times, "ms", floor=flat, goal=goal)
    yield figure("P1C", size, "cluster watch, p99", [percentile(times, 0.99)], "ms")
    yield figure("P1C", size, "cluster watch, p50: beyond what a bare watcher has", beyond, "ms", floor=flat)


@contextmanager
def _changer(address: load.Address, size: int) -> Iterator[Callable[[str], None]]:
    """Changes the last route, over one lasting connection."""
    api = load.Api(address)
    path = path_of(worlds.tagged(size, ""))

    def change(tag: str) -> None:
        api.send("PATCH", path, _spec_patch(worlds.tagged(size, tag)), MERGE_PATCH)

    try:
        yield change
    finally:
        api.close()


def _spec_patch(document: dict[str, Any]) -> bytes:
    return json.dumps({"spec": document["spec"]}).encode()


def _bare(address: load.Address, path: str, collection: str) -> tuple[list[float], list[float]]:
    """Milliseconds until a PATCH of an object is answered, and from before it until a watcher has read the event."""
    writer, watcher = load.Api(address), load.Api(address)
    try:
        before = json.loads(writer.send("GET", path))
        # From now on, not from the route's own version: others were made after it, and their events would wait unseen.
        version = json.loads(writer.send("GET", f"{collection}?limit=1"))["metadata"]["resourceVersion"]
        events = watcher.stream(f"{collection}?watch=1&resourceVersion={version}&timeoutSeconds=600")
        patches, arrivals = [], []
        for number in range(REPEATS):
            redirect = before["spec"]["rules"][0]["filters"][0]["requestRedirect"]
            redirect["hostname"] = tag = f"bare{number}.example.org"
            request = writer.request("PATCH", path, _spec_patch(before), MERGE_PATCH)
            began = time.perf_counter()
            writer.socket.sendall(request)
            answered = arrived = 0.0
            while not (answered and arrived):
                for ready in _readable(writer, watcher):
                    if ready is writer:
                        if writer.answer()[0] != 200:
                            raise BenchError("a PATCH was refused")
                        answered = time.perf_counter()
                    elif tag.encode() in next(events):
                        arrived = time.perf_counter()
            patches.append((answered - began) * 1000)
            arrivals.append((arrived - began) * 1000)
        return patches, arrivals
    finally:
        writer.close()
        watcher.close()


def _readable(*apis: load.Api) -> list[load.Api]:
    """Which of these have something to be read, waiting for the first."""
    if buffered := [api for api in apis if api.socket.pending()]:
        return buffered
    ready, _, _ = select.select([api.socket for api in apis], [], [], 30)
    if not ready:
        raise BenchError("the API says nothing")
    return [api for api in apis if api.socket in ready]


# -- P10 ---


def statuses(sizes: Sequence[int]) -> Iterable[Figure]:
    """P10: N routes that attach at once, until a watcher has seen each status; and as many bare status patches."""
    for size in sizes:
        with Kubernetes(KINDS) as real:
            base = worlds.base(port=PORT)
            base[-1]["spec"]["gatewayClassName"] = NOBODY
            web = [worlds.service("web"), worlds.endpoint_slice("web", ENDPOINT)]
            routes = [worlds.route(f"r{i}", worlds.hostname_of(i), "web") for i in range(size)]
            create(real.address, [*base, *web, *routes])
            collection = path_of(routes[0], of_object=False)
            before = _bare_patches(real.address, collection, size)
            yield figure("P10", size, "floor: one bare patch after the other", [before(1)], "s")
            with ClusterSubject(real.kubeconfig) as subject:
                until(lambda: bool(subject.call("idle")["idle"]), "ready", 120)
                times, floors, costs = [], [], []
                for _ in range(ROUNDS):
                    floors.append(before(WRITES_AT_ONCE))
                    cpu = subject.call("usage")["cpu"]
                    with subject.profiled("P10 routes attach", size):
                        times.append(_attach(subject, real.address, collection, size))
                    costs.append(subject.call("usage")["cpu"] - cpu)
                    _detach(subject, real.address, collection, size)
            yield figure("P10", size, f"floor: bare patches, {WRITES_AT_ONCE} at once", floors, "s")
            goal = Goal(1.5, of_floor=True)
            yield figure("P10", size, "every status written", times, "s", floor=statistics.median(floors), goal=goal)
            yield figure("P10", size, "every status written: CPU of propylon", costs, "s")


def _bare_patches(address: load.Address, collection: str, size: int) -> Callable[[int], float]:
    """What measures how long patches of all statuses take, so many at once, until a watcher has seen every one."""
    rounds = iter(range(1_000_000))

    def measured(at_once: int) -> float:
        # Another content each time: what changes nothing is not written.
        sign = f"floor-{next(rounds)}"
        body = json.dumps({"status": {"parents": [_parent(sign)]}}).encode()
        requests = [("PATCH", f"{collection}/r{i}/status", body) for i in range(size)]
        with _Watcher(address, collection) as watcher, load.sending(address, requests, at_once, MERGE_PATCH) as go:
            began = time.perf_counter()
            go()
            watcher.wait(sign.encode(), size)
            took = time.perf_counter() - began
        empty = json.dumps({"status": {"parents": []}}).encode()
        requests = [("PATCH", f"{collection}/r{i}/status", empty) for i in range(size)]
        with _Watcher(address, collection) as watcher, load.sending(address, requests, _CREATORS, MERGE_PATCH) as go:
            go()
            watcher.wait(b'"parents":[]', size)
        return took

    return measured


def _parent(sign: str) -> dict[str, Any]:
    """An entry as large as propylon's."""
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": kind,
            "message": sign,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
    return {
        "parentRef": {"group": GROUP, "kind": "Gateway", "name": "gw"},
        "controllerName": "example.com/floor",
        "conditions": conditions,
    }


def _attach(subject: ClusterSubject, address: load.Address, collection: str, size: int) -> float:
    """Make the Gateway that all routes name one of ours; seconds until a watcher has seen the status of every one."""
    took = _classify(address, collection, "bench", size, there=True)
    subject.ready(120)
    return took


def _detach(subject: ClusterSubject, address: load.Address, collection: str, size: int) -> None:
    _classify(address, collection, NOBODY, size, there=False)
    subject.idle()


def _classify(address: load.Address, collection: str, name: str, size: int, *, there: bool) -> float:
    """Give the Gateway another class; seconds until every route bears our status, or (not `there`) none."""
    api = load.Api(address)
    gateway = path_of(worlds.gateway())
    patch = json.dumps({"spec": {"gatewayClassName": name}}).encode()
    with _Watcher(address, collection) as watcher:
        began = time.perf_counter()
        api.send("PATCH", gateway, patch, MERGE_PATCH)
        watcher.wait(CONTROLLER, size, there=there)
        took = time.perf_counter() - began
    api.close()
    return took


class _Watcher:
    """Counts routes by what their events say. Use as a context manager."""

    def __init__(self, address: load.Address, collection: str) -> None:
        self._api = load.Api(address)
        found = _VERSION.search(self._api.send("GET", collection + "?limit=1"))
        assert found is not None
        self._lines = self._api.stream(f"{collection}?watch=1&resourceVersion={found[1].decode()}&timeoutSeconds=600")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def wait(self, sign: bytes, count: int, *, there: bool = True) -> None:
        """Until so many objects bear the sign, or (not `there`) bear it no more."""
        seen: set[bytes] = set()
        while len(seen) < count:
            line = next(self._lines)
            if (sign in line) == there and (name := _NAME.search(line)) is not None:
                seen.add(name[1])


CLUSTER_SCENARIOS: dict[str, tuple[Callable[[Sequence[int]], Iterable[Figure]], tuple[int, ...]]] = {
    "P1C": (cluster_propagation, (10, 1000, 5000, 10000)),
    "P10": (statuses, (1000,)),
}
