"""PEER: the start, and one of N routes in files changed until a request sees it: propylon beside Envoy Gateway, both
standalone with the same Envoy. The peer gets few changes, for they take long."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench import worlds
from bench.envoy_gateway import OWN_GROUP, EnvoyGateway, backend, version
from bench.record import Figure, figure
from bench.subject import BenchError, Client, Subject, until

HOST, PORT, PEER_PORT = "127.0.0.1", 18080, 18082
PATIENCE = 180.0
"""Seconds. What takes the peer longer is a figure of its own, "longer than", and is not waited for."""
CHANGES, PEER_CHANGES = 7, 3
LONG = 10.0
"""Seconds. After a change that took so long there is no other."""


def beside_a_peer(sizes: Sequence[int]) -> Iterable[Figure]:
    """PEER: both from files, a file for each object; the peer's time stands as the floor."""
    for size in sizes:
        start, times = _ours(size)
        peer_start, peer_times = _peer(size)
        label = f"(floor: Envoy Gateway {version()})"
        for name, values, unit, theirs in (
            ("start until a request is answered", [start], "s", peer_start),
            ("file edit, p50", times, "ms", peer_times),
        ):
            floor = statistics.median(theirs.seconds) * (1000 if unit == "ms" else 1)
            # What it gave up on took longer than that: the floor stands for at least so much.
            bound = "" if theirs.ended else ", it took longer"
            yield figure("PEER", size, f"{name} {label}{bound}", values, unit, floor=floor)
            times_as_fast = floor / statistics.median(values)
            yield figure("PEER", size, f"{name}: times as fast{' at least' if bound else ''}", [times_as_fast], "x")


class Times(NamedTuple):
    """Seconds that something took, or (not `ended`) after which nobody waited any more."""

    seconds: list[float]
    ended: bool = True


def _ours(size: int) -> tuple[float, list[float]]:
    directory = Path(tempfile.mkdtemp(prefix="pm"))
    try:
        documents = [*worlds.base(port=PORT), worlds.service("web"), worlds.endpoint_slice("web")]
        for document in [*documents, *(_route(number) for number in range(size))]:
            _write(directory, document)
        began = time.perf_counter()
        with Subject(manifests=directory) as subject:
            _answered(PORT, size - 1, began)
            start = time.perf_counter() - began
            return start, _changes(PORT, size, lambda document: _write(directory, document), CHANGES, subject.idle)
    finally:
        shutil.rmtree(directory)


def _peer(size: int) -> tuple[Times, Times]:
    """Its start and its changes. Raises BenchError if it cannot be built."""
    gateway = worlds.gateway(port=PEER_PORT)
    del gateway["spec"]["addresses"]
    documents = [gateway, backend("web", 1, worlds.NAMESPACE), *(_route(number, peer=True) for number in range(size))]
    peer = EnvoyGateway(documents)
    began = time.perf_counter()
    with peer:
        try:
            _answered(PEER_PORT, size - 1, began)
        except BenchError:
            return Times([PATIENCE], ended=False), Times([PATIENCE], ended=False)
        start = Times([time.perf_counter() - began])
        try:
            changes = _changes(PEER_PORT, size, peer.write, PEER_CHANGES, lambda: None, peer=True)
        except BenchError:
            return start, Times([PATIENCE], ended=False)
        return start, Times([each / 1000 for each in changes])


def _write(directory: Path, document: dict[str, Any]) -> None:
    new = directory / "new.tmp"
    new.write_text(yaml.safe_dump(document), encoding="utf-8")
    new.rename(directory / f"{document['kind'].lower()}-{document['metadata']['name']}.yaml")


def _route(number: int, tag: str = "first", *, peer: bool = False) -> dict[str, Any]:
    document = worlds.route(f"r{number}", worlds.hostname_of(number), "web", tag=tag)
    if peer:
        document["spec"]["rules"][1]["backendRefs"] = [{"group": OWN_GROUP, "kind": "Backend", "name": "web"}]
    return document


def _answered(port: int, number: int, began: float) -> None:
    def answers() -> bool:
        try:
            with Client(HOST, port) as client:
                return "location" in client.ask(worlds.hostname_of(number), "/tag")
        except (OSError, BenchError):
            return False

    until(answers, f"requests answered on port {port}", PATIENCE - (time.perf_counter() - began), 0.02)


def _changes(
    port: int,
    size: int,
    write: Callable[[dict[str, Any]], None],
    count: int,
    between: Callable[[], object],
    *,
    peer: bool = False,
) -> list[float]:
    """Milliseconds from each change until the first request that sees it."""
    times: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        write(_route(size - 1, f"t{number}", peer=peer))
        until(lambda number=number: f"//t{number}." in _ask(port, size - 1), "the change is effective", PATIENCE, 0.001)
        times.append((time.perf_counter() - began) * 1000)
        between()
        if times[-1] > LONG * 1000:
            break
    return times


def _ask(port: int, number: int) -> str:
    with Client(HOST, port) as client:
        return client.ask(worlds.hostname_of(number), "/tag")
