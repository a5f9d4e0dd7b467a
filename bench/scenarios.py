"""The scenarios. Each measures propylon, its floor in the same run, and states its goal."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench import worlds
from bench.documents import documents
from bench.fleet import many_proxies
from bench.listener_sets import many_listener_sets
from bench.listeners import listeners
from bench.machine import cpu_seconds, resident_kib
from bench.many_envoys import start_many
from bench.memory_profiles import profile_memory
from bench.paths import paths
from bench.peer_propagation import beside_a_peer
from bench.propagation import FLOOR_PORT, PORT, effects, effects_under_load, floor_times, serving
from bench.record import Figure, Goal, figure, percentile
from bench.subject import FloorProcess, Subject, profiling
from bench.throughput import throughput
from bench.zero_drop import zero_drop

GATEWAY = f"{worlds.NAMESPACE}/gw"
GATEWAYS = 100
REST_SECONDS = 0.1
Scenario = Callable[[Sequence[int]], Iterable[Figure]]


def propagation(sizes: Sequence[int]) -> Iterable[Figure]:
    """P1: one route of N hostnames changed until a request sees it, from a file edit and from a store write, with
    Envoy idle and under load."""
    least: float | None = None
    least_file: float | None = None
    for size in sizes:
        floors = {form: floor_times(form, size) for form in ("rds", "scoped")}
        plain, flat = (statistics.median(floors[form]) for form in ("rds", "scoped"))
        yield figure("P1", size, "floor: one RouteConfiguration, p50", floors["rds"], "ms")
        yield figure("P1", size, "floor: scoped, p50", floors["scoped"], "ms", floor=plain)
        hot = floor_times("scoped", size, 0)
        yield figure("P1", size, "floor: scoped, one change right after the other, p50", hot, "ms", floor=plain)
        with _manifests(size) as directory, Subject(manifests=directory) as subject:
            subject.ready(GATEWAY, seconds=600)
            changed = directory / "changed.yaml"
            text = yaml.dump(worlds.tagged(size, "TAG"))  # beforehand: it takes 1 ms that is not propylon's

            def edit(tag: str, file: Path = changed, text: str = text) -> None:
                file.with_suffix(".tmp").write_text(text.replace("TAG", tag), encoding="utf-8")
                file.with_suffix(".tmp").rename(file)

            with subject.profiled("P1 file edit", size):
                times = effects(PORT, size, edit, subject.idle)
            yield figure("P1", size, "file edit, p50", times, "ms", floor=flat, goal=Goal(3, of_floor=True))
            least_file = least_file or statistics.median(times)
            against = [statistics.median(times) / least_file]
            yield figure("P1", size, "file edit, p50: against the smallest size", against, "x", goal=Goal(2))
            yield figure("P1", size, "file edit, p99", [percentile(times, 0.99)], "ms")
            yield from effects_under_load("P1", "file edit", size, edit, subject.idle)
        with Subject(worlds.hostnames(size, PORT)) as subject:
            subject.ready(GATEWAY, seconds=600)

            def write(tag: str, subject: Subject = subject, size: int = size) -> None:
                subject.apply(worlds.tagged(size, tag))

            with subject.profiled("P1 store write", size):
                times = effects(PORT, size, write, subject.idle)
            yield figure("P1", size, "store write, p50", times, "ms", floor=flat, goal=Goal(3, of_floor=True))
            yield figure("P1", size, "store write, p99", [percentile(times, 0.99)], "ms")
            least = least or statistics.median(times)
            against = [statistics.median(times) / least]
            yield figure("P1", size, "store write, p50: against the smallest size", against, "x", goal=Goal(2))
            yield from effects_under_load("P1", "store write", size, write, subject.idle)


def controller_cost(sizes: Sequence[int]) -> Iterable[Figure]:
    """P5: CPU time of propylon per endpoint change and per route change, store write and status included; all sizes by
    turns, as the machine takes half as long again for the same in one minute as in another."""
    with ExitStack() as stack:
        subjects: dict[int, Subject] = {}
        for place, size in enumerate(sizes):
            subjects[size] = stack.enter_context(Subject(worlds.many_routes(size, port=PORT + place)))
            subjects[size].ready(GATEWAY, seconds=900)
        for name, change, bound in (("endpoint change", _endpoint, 3.0), ("route change", _route, 10.0)):
            with ExitStack() as profiles:
                for size, subject in reversed(subjects.items()):  # the profile of the last size is written last
                    profiles.enter_context(subject.profiled(f"P5 {name}", size))
                costs = _costs_by_turns(subjects, change)
            least = statistics.median(costs[sizes[0]].propylon)
            for size, cost in costs.items():
                yield figure("P5", size, f"{name}: CPU of propylon", cost.propylon, "ms", goal=Goal(bound))
                yield figure("P5", size, f"{name}: taken off for being asked", cost.asked, "ms")
                yield figure("P5", size, f"{name}: CPU of Envoy", [cost.envoy], "ms")
                flat = statistics.median(cost.propylon) / least
                yield figure("P5", size, f"{name}: against the smallest size", [flat], "x", goal=Goal(1.5))


def cold_start(sizes: Sequence[int]) -> Iterable[Figure]:
    """P6: from the start of the process to all programmed: first ever, and with statuses already written; on 64
    listeners of one Gateway, and on 100 Gateways, which are as many Envoys; the floor of these has no control plane."""
    for size in sizes:
        with FloorProcess("rds", size, FLOOR_PORT, size) as floor:
            began = time.perf_counter()
            serving(floor, FLOOR_PORT, size)
            least = time.perf_counter() - began
            yield figure("P6", size, "floor: raw Envoy with as many clusters", [least], "s")
            yield figure("P6", size, "floor: CPU of Envoy", [cpu_seconds(floor.proxy_pid())], "s")
        yield from _starts(size, "", _on_listeners(size), [GATEWAY], "P6 64 listeners", least)
        gateways = [f"{worlds.NAMESPACE}/gw{i}" for i in range(GATEWAYS)]
        documents = list(worlds.many_routes(size, gateways=GATEWAYS, port=PORT))
        alone = start_many(GATEWAYS, size, FLOOR_PORT)
        yield figure("P6", size, f"floor: {GATEWAYS} raw Envoys, by files", [alone.seconds], "s")
        yield figure("P6", size, f"floor: {GATEWAYS} raw Envoys, by files: CPU of Envoy", [alone.cpu], "s")
        prefix, profile = f"{GATEWAYS} Gateways: ", f"P6 {GATEWAYS} Gateways"
        yield from _starts(size, prefix, documents, gateways, profile, alone.seconds)


def _starts(
    size: int,
    prefix: str,
    documents: list[dict[str, Any]],
    gateways: list[str],
    profile: str,
    least: float,
) -> Iterable[Figure]:
    with Subject(documents) as subject:
        began = time.perf_counter()
        first = subject.ready(*gateways, seconds=900)
        written = time.perf_counter() - began
        cpu = subject.call("usage")["cpu"]
        pids = subject.call("proxies")["pids"]
        proxies = sum(cpu_seconds(pid) for pid in pids)
        memory = sum(resident_kib(pid) for pid in pids) / 1024
        subject.profile_end(profile, size)
        subject.stop()
        subject.start()
        began = time.perf_counter()
        again = subject.ready(*gateways, seconds=900)
        compared = time.perf_counter() - began
        yield figure("P6", size, f"{prefix}first start", [first], "s", floor=least, goal=Goal(5))
        yield figure("P6", size, f"{prefix}first start: every status written", [written], "s")
        yield figure("P6", size, f"{prefix}first start: CPU of propylon", [cpu], "s")
        yield figure("P6", size, f"{prefix}first start: CPU of Envoy", [proxies], "s")
        yield figure("P6", size, f"{prefix}first start: memory of Envoy", [memory], "MiB")
        yield figure("P6", size, f"{prefix}restart", [again], "s", floor=least, goal=Goal(5))
        yield figure("P6", size, f"{prefix}restart: every status compared", [compared], "s")
        yield figure("P6", size, f"{prefix}restart: CPU of propylon", [subject.call("usage")["cpu"]], "s")


def memory(sizes: Sequence[int]) -> Iterable[Figure]:
    """P8: resident memory of propylon and of Envoy, with N hostnames; the floor has the same, and a scope for each.

    One table for all is the least that Envoy can hold, and a figure of its own: its changes cost in proportion to N.
    """
    if profiling():
        profile_memory(max(sizes))
        return
    for size in sizes:
        floors = {}
        for form in ("rds", "scoped"):
            with FloorProcess(form, size, FLOOR_PORT) as floor:
                serving(floor, FLOOR_PORT, size)
                floors[form] = resident_kib(floor.proxy_pid()) / 1024
        least = floors["scoped"]
        yield figure("P8", size, "floor: one table", [floors["rds"]], "MiB", floor=least)
        with Subject(worlds.hostnames(size, PORT)) as subject:
            subject.ready(GATEWAY, seconds=900)
            proxy = resident_kib(subject.proxy_pid()) / 1024
            goal = Goal(1.1, of_floor=True)
            yield figure("P8", size, "Envoy, hostnames alone", [proxy], "MiB", floor=least, goal=goal)
        with Subject(worlds.many_routes(size, port=PORT)) as subject:
            subject.ready(GATEWAY, seconds=900)
            goal = Goal(300)
            yield figure("P8", size, "propylon, a Service each", [resident_kib(subject.pid) / 1024], "MiB", goal=goal)
            yield figure("P8", size, "Envoy, a cluster each", [resident_kib(subject.proxy_pid()) / 1024], "MiB")


SCENARIOS: dict[str, tuple[Scenario, tuple[int, ...]]] = {
    "P1": (propagation, (10, 1000, 5000, 10000)),
    "P1S": (listeners, (500, 5000)),
    "P2": (paths, (100, 1000, 10000)),
    "P3": (throughput, (16, 256)),
    "P4": (zero_drop, (100_000,)),
    "P5": (controller_cost, (100, 1000, 5000, 10000)),
    "P6": (cold_start, (1000, 10000)),
    "P7": (many_proxies, (100, 1000)),
    "P8": (memory, (5000,)),
    "P9": (many_listener_sets, (250, 2500)),
    "P11": (documents, (100, 10_000)),
    "PEER": (beside_a_peer, (10, 100, 1000)),
}


# -- worlds of the scenarios ---


def _on_listeners(size: int) -> list[dict[str, Any]]:
    """N routes with a Service each, spread over 64 listeners (a Gateway has no more of its own)."""
    count = 64
    documents = list(worlds.many_routes(size))
    for document in documents:
        if document["kind"] == "Gateway":
            document["spec"]["listeners"] = [
                {"name": f"l{i}", "protocol": "HTTP", "port": PORT + i} for i in range(count)
            ]
        elif document["kind"] == "HTTPRoute":
            number = int(document["metadata"]["name"][1:])
            document["spec"]["parentRefs"][0]["sectionName"] = f"l{number % count}"
    return documents


@contextmanager
def _manifests(size: int) -> Any:
    """The same as files: a hundred routes in each, and the one that changes in its own."""
    directory = Path(tempfile.mkdtemp(prefix="pm"))
    try:
        *rest, changed = worlds.hostnames(size, PORT)
        for number, part in enumerate(_parts(rest)):
            (directory / f"part-{number}.yaml").write_text(
                yaml.dump_all(part, Dumper=yaml.CSafeDumper), encoding="utf-8"
            )
        (directory / "changed.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
        yield directory
    finally:
        shutil.rmtree(directory)


def _parts(documents: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    return (documents[i : i + 100] for i in range(0, len(documents), 100))


# -- measuring ---


class Cost(NamedTuple):
    """CPU milliseconds a change: of propylon in each group, what was taken off in each, and of Envoy over all."""

    propylon: list[float]
    asked: list[float]
    envoy: float


Change = Callable[[int, int], dict[str, Any]]
"""What is written, of the number of routes and that of the change."""


def _endpoint(size: int, number: int) -> dict[str, Any]:
    return worlds.endpoint_slice(f"r{size - 1}", f"127.0.0.{number + 2}")


def _route(size: int, number: int) -> dict[str, Any]:
    last = f"r{size - 1}"
    return worlds.route(last, worlds.hostname_of(size - 1), last, tag=f"t{number}")


def _costs_by_turns(
    subjects: Mapping[int, Subject], change: Change, groups: int = 25, each: int = 5
) -> dict[int, Cost]:
    """By size, what a change costs. Groups rest in between: the machine's speed changes within less."""
    costs = {size: Cost([], [], 0.0) for size in subjects}
    before = {size: cpu_seconds(subject.proxy_pid()) for size, subject in subjects.items()}
    for group in range(groups):
        for size, subject in subjects.items():
            total, asked = _group(subject, [change(size, group * each + number) for number in range(each)])
            costs[size].asked.append(asked)
            costs[size].propylon.append(total - asked)
            time.sleep(REST_SECONDS)
    return {
        size: cost._replace(envoy=(cpu_seconds(subjects[size].proxy_pid()) - before[size]) / (groups * each) * 1000)
        for size, cost in costs.items()
    }


def _group(subject: Subject, changes: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """CPU milliseconds of propylon for each of these changes, and for being told of it and asked about it.

    What the process takes to be told of a change by the bench, and to be asked whether it is settled, is no part of
    what propylon does: it is told as much again that it does nothing about.
    """
    used = [subject.call("usage")["cpu"]]
    for command in ("apply", "nothing"):
        for document in changes:
            subject.call(command, [document])
            subject.settle()
        used.append(subject.call("usage")["cpu"])
    before, changed, after = used
    return (changed - before) / len(changes) * 1000, (after - changed) / len(changes) * 1000
