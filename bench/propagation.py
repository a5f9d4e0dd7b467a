"""How long it takes until a request sees a change."""

import time
from collections.abc import Callable, Iterator

from bench import worlds
from bench.record import Figure, Goal, figure, percentile
from bench.subject import BenchError, Client, Commanded, FloorProcess, until
from bench.traffic import Wrk

HOST, PORT, FLOOR_PORT = "127.0.0.1", 18080, 18081
REPEATS = 25
PAUSE = 0.05
"""Seconds between a change that is settled and the next one: one that comes alone finds cold caches and sleeping cores,
which doubles what raw Envoy needs, too."""


def serving(process: Commanded, port: int, size: int) -> None:
    """Wait until the last of N hostnames is answered."""

    def serves() -> bool:
        try:
            with Client(HOST, port) as client:
                return "location" in client.ask(worlds.hostname_of(size - 1), "/tag")
        except (OSError, BenchError):
            return False

    until(serves, f"requests answered on port {port}: {process.log()[-500:]}", 120)


def floor_times(form: str, size: int, pause: float = PAUSE) -> list[float]:
    """The same of raw Envoy, with one RouteConfiguration ("rds") or a scope per hostname ("scoped")."""
    with FloorProcess(form, size, FLOOR_PORT) as floor:
        serving(floor, FLOOR_PORT, size)
        return effects(FLOOR_PORT, size, lambda tag: floor.call("change", size - 1, tag), lambda: None, pause=pause)


def effects(
    port: int,
    size: int,
    change: Callable[[str], object],
    between: Callable[[], object],
    prefix: str = "t",
    pause: float = PAUSE,
) -> list[float]:
    """Milliseconds from the beginning of each change of the last of N hostnames until the first request that sees it.

    `change` is given the tag that its redirect is to show; `between` is called after each, and then nothing is done for
    `pause` seconds.
    """
    times: list[float] = []
    hostname = worlds.hostname_of(size - 1)
    with Client(HOST, port) as client:
        for number in range(REPEATS):
            began = time.perf_counter()
            change(f"{prefix}{number}")
            while f"//{prefix}{number}." not in client.ask(hostname, "/tag"):
                if time.perf_counter() - began > 60:
                    raise BenchError("a change had no effect within 60 s")
            times.append((time.perf_counter() - began) * 1000)
            between()
            time.sleep(pause)
    return times


def effects_under_load(
    scenario: str, what: str, size: int, change: Callable[[str], object], between: Callable[[], object]
) -> Iterator[Figure]:
    """The same as figures, while four connections ask for the first hostname; none of their requests may fail."""
    load = Wrk(f"http://{HOST}:{PORT}/tag", worlds.hostname_of(0), 4)
    load.start()
    try:
        times = effects(PORT, size, change, between, "l")
        totals = load.stop()
    finally:
        load.abandon()
    yield figure(scenario, size, f"{what} under load, p50", times, "ms")
    yield figure(scenario, size, f"{what} under load, p99", [percentile(times, 0.99)], "ms")
    yield figure(scenario, size, f"{what} under load: failed requests", [totals.failed], "requests", goal=Goal(0))
    yield figure(scenario, size, f"{what} under load: requests", [totals.requests], "requests")
