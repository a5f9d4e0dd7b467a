"""A1 to A4: the embedded Kubernetes API beside a real kube-apiserver with etcd, in one run, by the same clients."""

import json
import time
from collections.abc import Callable, Iterable, Sequence

from bench import load
from bench.apis import ROUTES, Embedded, Kubernetes, Served
from bench.record import DESCENDING, Figure, Goal, figure, percentile

SECONDS = 6.0
WATCHERS = 100
EVENTS = 150
PAUSE = 0.03

OURS: dict[str, Callable[[], Served]] = {"API alone": Embedded, "propylon up": lambda: Embedded(whole=True)}
PROGRAMMED = "propylon up, of a programmed Gateway"


def route(name: str) -> bytes:
    """An HTTPRoute as users write it. Mostly no Gateway of that name exists, so that nobody has to act on it."""
    match = {"path": {"type": "PathPrefix", "value": f"/{name}"}, "headers": [{"name": "x-version", "value": "2"}]}
    spec = {
        "parentRefs": [{"name": "gateway"}],
        "hostnames": [f"{name}.example.com"],
        "rules": [{"matches": [match], "backendRefs": [{"name": "web", "port": 80}]}],
    }
    metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
    document = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec}
    return json.dumps(document).encode()


def creation(sizes: Sequence[int]) -> Iterable[Figure]:
    """A1: objects created a second, by N clients."""

    def measured(served: Served) -> dict[int, float]:
        load.create(served.address, 4, 2.0, ROUTES, route)  # warm
        return {size: load.create(served.address, size, SECONDS, ROUTES, route).per_second for size in sizes}

    with Kubernetes() as real:
        floors = measured(real)
    for name, make in {**OURS, PROGRAMMED: lambda: Embedded(whole=True, programmed=True)}.items():
        with make() as served:
            rates = measured(served)
        for size in sizes:
            goal = Goal(0.7, DESCENDING, of_floor=True)
            yield figure("A1", size, f"creates, {name}", [rates[size]], "/s", floor=floors[size], goal=goal)


def watching(sizes: Sequence[int]) -> Iterable[Figure]:
    """A2: from before a create until each of N watchers has read its event."""

    def measured(served: Served, size: int) -> list[float]:
        documents = [(f"w{number}", route(f"w{number}")) for number in range(EVENTS)]
        return [1000 * one for one in load.watch(served.address, size, ROUTES, documents, PAUSE)]

    for size in sizes:
        with Kubernetes() as real:
            floor = measured(real, size)
        for name, make in OURS.items():
            with make() as served:
                times = measured(served, size)
            for share in (0.5, 0.99):
                goal = Goal(1.0, of_floor=True) if share == 0.5 else None
                said = f"watch latency p{share * 100:.0f}, {name}"
                low = percentile(floor, share)
                yield figure("A2", size, said, [percentile(times, share)], "ms", floor=low, goal=goal)


def holding(sizes: Sequence[int]) -> Iterable[Figure]:
    """A3: a list of N HTTPRoutes, and the memory of what holds them."""

    def measured(served: Served, size: int) -> tuple[list[float], float]:
        load.fill(served.address, ROUTES, [route(f"r{number}") for number in range(size)])
        api = load.Api(served.address)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            count = api.send("GET", ROUTES).count(b'"hostnames":[')
            times.append((time.perf_counter() - began) * 1000)
            assert count >= size, count
        api.close()
        return times, served.memory()

    for size in sizes:
        with Kubernetes() as real:
            floor_times, floor_memory = measured(real, size)
        for name, make in OURS.items():
            with make() as served:
                times, memory = measured(served, size)
            yield figure("A3", size, f"list, {name}", times, "ms", floor=sorted(floor_times)[2])
            goal = Goal(1 / 3, of_floor=True)
            yield figure("A3", size, f"memory, {name}", [memory], "MiB", floor=floor_memory, goal=goal)


def starting(sizes: Sequence[int]) -> Iterable[Figure]:
    """A4: from the start of the processes until /readyz answers, N times each; and the CPU time until then, which says
    more where others use the machine."""

    def measured(make: Callable[[], Served], size: int) -> tuple[list[float], list[float]]:
        found = []
        for _ in range(size):
            with make() as served:
                found.append((served.started, served.cpu))
        return [time for time, _ in found], [cpu for _, cpu in found]

    for size in sizes:
        floor_times, floor_cpu = (sorted(values)[size // 2] for values in measured(Kubernetes, size))
        for name, make in OURS.items():
            times, cpu = measured(make, size)
            yield figure("A4", size, f"start to ready, {name}", times, "s", floor=floor_times, goal=Goal(1.0))
            yield figure("A4", size, f"CPU until ready, {name}", cpu, "s", floor=floor_cpu)


API_SCENARIOS: dict[str, tuple[Callable[[Sequence[int]], Iterable[Figure]], tuple[int, ...]]] = {
    "A1": (creation, (1, 16)),
    "A2": (watching, (WATCHERS,)),
    "A3": (holding, (10_000,)),
    "A4": (starting, (3,)),
}
