"""P2: what a request costs on the last of N paths of one hostname, beside a hostname with a single path.

All routes answer by themselves, so that finding one is nearly all that Envoy does. In requests/s by turns, and (the
largest size) in instructions, which nothing disturbs.
"""

import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench import worlds
from bench.envoy_profiles import profile_requests
from bench.instructions import counted_envoy, instructions, requests
from bench.record import DESCENDING, Figure, Goal, figure
from bench.subject import BenchError, Subject, profiling
from bench.traffic import HOST, free_ports, wrk

HOSTNAME = "paths.example.com"
GATEWAY = f"{worlds.NAMESPACE}/gw"
KINDS = ("prefix", "exact", "mixed")
MATCHES_OF_A_ROUTE = 64
ROUTES_IN_A_PART = 100
CONNECTIONS, SECONDS, ROUNDS = 16, 1, 12


class Asked(NamedTuple):
    """A proxy with so many paths, and the last of them."""

    port: int
    path: str
    pid: int


def paths(sizes: Sequence[int]) -> Iterable[Figure]:
    """P2: requests/s on the last of N paths of one hostname against a single path, direct responses."""
    for kind in KINDS:
        with ExitStack() as stack:
            single = stack.enter_context(proxy(kind, 1))
            for size in sizes:
                with proxy(kind, size) as last:
                    if profiling():
                        send = requests(_url(last), last.port, CONNECTIONS, 1, "--h1")
                        profile_requests(f"P2 last path, {kind}", size, last.pid, partial(_rate, last), send)
                        continue
                    yield _compared(kind, size, single, last)
        if not profiling():
            yield _counted(kind, max(sizes))


def _compared(kind: str, size: int, single: Asked, last: Asked) -> Figure:
    rates: dict[Asked, list[float]] = {single: [], last: []}
    for number in range(ROUNDS):
        for asked in (single, last) if number % 2 else (last, single):
            rates[asked].append(_rate(asked, SECONDS))
    ratios = [value / floor for value, floor in zip(rates[last], rates[single], strict=True)]
    floor, goal = statistics.median(rates[single]), Goal(0.9, DESCENDING, of_floor=True)
    return figure("P2", size, f"last path, {kind}", rates[last], "requests/s", floor=floor, ratios=ratios, goal=goal)


def _counted(kind: str, size: int) -> Figure:
    counts = []
    for number in (1, size):
        with tempfile.TemporaryDirectory(prefix="pc") as place:
            directory = Path(place)
            with proxy(kind, number, counted_envoy(directory)) as asked:
                send = requests(_url(asked), asked.port, CONNECTIONS, 1, "--h1")
                counts.append(instructions(directory, asked.pid, send))
    goal = Goal(round(1 / 0.9, 2), of_floor=True)
    return figure(
        "P2", size, f"last path, {kind}: instructions of Envoy a request", counts[1:], "", floor=counts[0], goal=goal
    )


def _url(asked: Asked) -> str:
    return f"http://{HOSTNAME}{asked.path}"


def _rate(asked: Asked, seconds: int) -> float:
    totals = wrk(f"http://{HOST}:{asked.port}{asked.path}", HOSTNAME, CONNECTIONS, seconds)
    if totals.failed or not totals.requests:
        raise BenchError(f"{asked.path}: {totals.requests} requests, of which failed: {totals.failures}")
    return totals.rate


@contextmanager
def proxy(kind: str, size: int, program_of_envoy: Path | None = None) -> Iterator[Asked]:
    """A propylon with N paths of one hostname."""
    (port,) = free_ports(1)
    with Subject(_documents(kind, size, port), program_of_envoy=program_of_envoy) as subject:
        subject.ready(GATEWAY, seconds=600)
        path = f"/path/number/{size - 1}"
        yield Asked(port, path if kind == "exact" else f"{path}/x", subject.proxy_pid())


def _documents(kind: str, size: int, port: int) -> list[dict[str, Any]]:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "x.example.org"}}
    matches = [_path_match(kind, i) for i in range(size)]
    documents = worlds.base(port=port)
    for start in range(0, size, ROUTES_IN_A_PART):
        part = matches[start : start + ROUTES_IN_A_PART]
        document = worlds.route(f"r{start // ROUTES_IN_A_PART:04}", HOSTNAME, None)
        document["spec"]["rules"] = [
            {"matches": part[i : i + MATCHES_OF_A_ROUTE], "filters": [redirect]}
            for i in range(0, len(part), MATCHES_OF_A_ROUTE)
        ]
        documents.append(document)
    return documents


def _path_match(kind: str, number: int) -> dict[str, Any]:
    path = f"/path/number/{number}"
    if kind == "exact":
        return {"path": {"type": "Exact", "value": path}}
    match: dict[str, Any] = {"path": {"type": "PathPrefix", "value": path}}
    if kind == "mixed" and number % 10 == 3:
        match["headers"] = [{"name": "x-kind", "value": str(number)}]
    if kind == "mixed" and number % 10 == 7:
        match = {"path": {"type": "RegularExpression", "value": f"{path}/[a-z]+/end"}}
    return match
