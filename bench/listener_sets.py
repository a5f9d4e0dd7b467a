"""P9: many ListenerSets on one Gateway, each with routes of its own: attached, programmed, and one of them changed."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bench import worlds
from bench.machine import resident_kib
from bench.record import Figure, Goal, figure, percentile
from bench.subject import BenchError, Client, Subject

HOST, PORT = "127.0.0.1", 18080
GATEWAY = f"{worlds.NAMESPACE}/gw"
ROUTES_OF_EACH = 16
CHANGES = 10


def many_listener_sets(sizes: Sequence[int]) -> Iterable[Figure]:
    """P9: N ListenerSets of one HTTP listener with 16 routes each, from the start of the process to all programmed."""
    for size in sizes:
        with Subject(_world(size)) as subject:
            began = time.perf_counter()
            subject.ready(GATEWAY, seconds=900)
            ready = time.perf_counter() - began
            subject.profile_end("P9 first start", size)
            goal = Goal(90) if size <= 2500 else None
            yield figure("P9", size, "first start: programmed, every status written", [ready], "s", goal=goal)
            yield figure("P9", size, "first start: CPU of propylon", [subject.call("usage")["cpu"]], "s")
            yield figure("P9", size, "memory of propylon", [resident_kib(subject.pid) / 1024], "MiB")
            with subject.profiled("P9 one route changed", size):
                routes = _route_changes(subject, size)
            with subject.profiled("P9 one ListenerSet changed", size):
                sets = _listener_set_changes(subject, size)
            for name, times in (("one route changed", routes), ("one ListenerSet's hostname changed", sets)):
                yield figure("P9", size, f"{name}: effective, p50", times, "ms", goal=Goal(2000))
                yield figure("P9", size, f"{name}: effective, p99", [percentile(times, 0.99)], "ms", goal=Goal(2000))


def _world(size: int) -> Iterator[dict[str, Any]]:
    base = worlds.base(port=PORT)
    for document in base:
        if document["kind"] == "Gateway":
            document["spec"]["allowedListeners"] = {"namespaces": {"from": "Same"}}
    yield from base
    yield worlds.service("web")
    yield worlds.endpoint_slice("web")
    for number in range(size):
        yield _listener_set(number)
        for route in range(ROUTES_OF_EACH):
            yield _route(number, route)


def _listener_set(number: int, more: str = "") -> dict[str, Any]:
    """One listener for every host of `tN.example.com`, and for those of another domain that a change asks for."""
    hostnames = [f"*.t{number}.example.com", *([f"*.{more}.example.com"] if more else [])]
    listeners = [
        {"name": f"l{i}", "protocol": "HTTP", "port": PORT, "hostname": hostname}
        for i, hostname in enumerate(hostnames)
    ]
    return {
        "apiVersion": f"{worlds.GROUP}/v1",
        "kind": "ListenerSet",
        "metadata": {"name": f"ls{number}", "namespace": worlds.NAMESPACE},
        "spec": {"parentRef": {"name": "gw"}, "listeners": listeners},
    }


def _route(number: int, route: int, tag: str = "", hosts: Sequence[str] = ()) -> dict[str, Any]:
    document = worlds.route(f"r{number}-{route}", f"h{route}.t{number}.example.com", "web", tag=tag)
    document["spec"]["hostnames"].extend(hosts)
    document["spec"]["parentRefs"] = [{"group": worlds.GROUP, "kind": "ListenerSet", "name": f"ls{number}"}]
    return document


def _route_changes(subject: Subject, size: int) -> list[float]:
    number = size // 2

    def change(tag: str) -> str:
        subject.apply(_route(number, 3, tag=tag))
        return f"h3.t{number}.example.com"

    return _effects(subject, change)


def _listener_set_changes(subject: Subject, size: int) -> list[float]:
    """A ListenerSet gets a listener of another domain each time, and a route of it a host there."""
    number = size // 2

    def change(tag: str) -> str:
        host = f"h.{tag}.example.com"
        subject.apply(_listener_set(number, tag), _route(number, 3, tag=tag, hosts=[host]))
        return host

    return _effects(subject, change, "s")


def _effects(subject: Subject, change: Callable[[str], str], prefix: str = "t") -> list[float]:
    """Milliseconds from the beginning of each change until the first request that sees it."""
    times: list[float] = []
    with Client(HOST, PORT) as client:
        for count in range(CHANGES):
            tag = f"{prefix}{count}"
            began = time.perf_counter()
            host = change(tag)
            while f"//{tag}." not in client.ask(host, "/tag"):
                if time.perf_counter() - began > 60:
                    raise BenchError("a change had no effect within 60 s")
            times.append((time.perf_counter() - began) * 1000)
            subject.idle()
    return times
