"""P4: failed requests while everything that can change does, under load of HTTP, HTTPS and new connections.

Once on a small Gateway, and once on one whose hostnames are scopes and whose HTTPS listeners are discovered: there
changes travel another way.
"""

import base64
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench import worlds
from bench.record import Figure, Goal, figure
from bench.subject import BenchError, Subject, profiling, until
from bench.traffic import HOST, Backend, Totals, Visits, Wrk, certificate, serial_shown

PORT, TLS_PORT = 18080, 18443
HOSTNAME = "shop.example.com"
GATEWAY = f"{worlds.NAMESPACE}/gw"
UNRELATED = 1000


class World(NamedTuple):
    """How much there is beside the shop: routes with a hostname each, and ListenerSets with an HTTPS listener each, to
    which the first of these routes are attached too."""

    routes: int
    listener_sets: int

    def route(self, number: int, backend: str, tag: str = "") -> dict[str, Any]:
        document = worlds.route(f"r{number}", worlds.hostname_of(number), backend, tag=tag)
        if number < self.listener_sets:
            own = {"group": worlds.GROUP, "kind": "ListenerSet", "name": f"ls{number}"}
            document["spec"]["parentRefs"].append(own)
        return document


SMALL, LARGE = World(50, 0), World(2000, 500)


class Shop(Subject):
    """A propylon with one shop of two backends, whose process can be killed."""

    def __init__(self, backend: Backend, directory: Path, size: World = SMALL) -> None:
        self.directory_of_keys = directory
        self.backend = backend
        self.size = size
        super().__init__(self._world())

    def kill(self) -> None:
        """kill -9: no chance to tidy up. The proxy goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _world(self) -> list[dict[str, Any]]:
        documents = [*worlds.base(port=PORT), self.secret(1)]
        documents[2] = gateway()
        for name, port in self.backend.ports.items():
            documents += [worlds.service(name), worlds.endpoint_slice(name, port=port)]
        documents += [shop("a")]
        documents += [self.size.route(i, "a") for i in range(self.size.routes)]
        documents += [listener_set(i) for i in range(self.size.listener_sets)]
        return documents

    def secret(self, serial: int) -> dict[str, Any]:
        """A certificate with that serial number."""
        chain, key = certificate(self.directory_of_keys, ["*.example.com"], serial)
        data = {
            "tls.crt": base64.b64encode(chain.encode()).decode(),
            "tls.key": base64.b64encode(key.encode()).decode(),
        }
        metadata = {"name": "tls", "namespace": worlds.NAMESPACE}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


def gateway(*more: int) -> dict[str, Any]:
    """HTTP, HTTPS, and listeners on more ports."""
    document = worlds.gateway(port=PORT)
    document["spec"]["allowedListeners"] = {"namespaces": {"from": "Same"}}
    document["spec"]["listeners"] += [
        {"name": "https", "protocol": "HTTPS", "port": TLS_PORT, "tls": {"certificateRefs": [{"name": "tls"}]}},
        *({"name": f"more-{port}", "protocol": "HTTP", "port": port} for port in more),
    ]
    return document


def listener_set(number: int) -> dict[str, Any]:
    """A ListenerSet of one HTTPS listener, on the port of the Gateway's own."""
    listener = {
        "name": "https",
        "protocol": "HTTPS",
        "port": TLS_PORT,
        "hostname": worlds.hostname_of(number),
        "tls": {"certificateRefs": [{"name": "tls"}]},
    }
    return {
        "apiVersion": f"{worlds.GROUP}/v1",
        "kind": "ListenerSet",
        "metadata": {"name": f"ls{number}", "namespace": worlds.NAMESPACE},
        "spec": {"parentRef": {"name": "gw"}, "listeners": [listener]},
    }


def shop(backend: str, *, tag: str = "", turn: int = 0) -> dict[str, Any]:
    """The route that is asked: a header that shows `tag`, rules in an order that `turn` shifts."""
    header = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-tag", "value": tag}]}}
    rules = [
        {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": backend, "port": 80}]}
        for path in ("/", "/b", "/c", "/d/e")
    ]
    for rule in rules:
        rule["filters"] = [header] if tag else []
    document = worlds.route("shop", HOSTNAME, None)
    document["spec"]["rules"] = rules[turn % 4 :] + rules[: turn % 4]
    return document


Change = Callable[[Shop, int], None]


def _route(subject: Shop, n: int) -> None:
    subject.apply(shop("a", tag=f"t{n}"))
    subject.idle()


def _swap(subject: Shop, n: int) -> None:
    subject.apply(shop("ba"[n % 2]))
    subject.idle()


def _reorder(subject: Shop, n: int) -> None:
    subject.apply(shop("a", turn=n + 1))
    subject.idle()


def _rotate(subject: Shop, n: int) -> None:
    subject.apply(subject.secret(0x100 + n))
    until(lambda: serial_shown(TLS_PORT, HOSTNAME) == 0x100 + n, "the new certificate is shown", 30)


def _listener(subject: Shop, n: int) -> None:
    subject.apply(gateway(*([PORT + 10] if n % 2 == 0 else [])))
    subject.idle()


def _unrelated(subject: Shop, n: int) -> None:
    for k in range(UNRELATED):
        number = (n * 7 + k) % subject.size.routes
        subject.apply(subject.size.route(number, "ab"[n % 2], tag=f"u{n}-{k}"))
    subject.idle()


def _listener_set(subject: Shop, n: int) -> None:
    number = subject.size.listener_sets + 1
    if n % 2 == 0:
        subject.apply(listener_set(number))
    else:
        subject.call("delete", "ListenerSet", f"ls{number}")
    subject.idle()


def _kill(subject: Shop, n: int) -> None:
    subject.kill()
    subject.start()
    subject.apply(shop("ba"[n % 2]))
    subject.ready(GATEWAY)


def _hot_restart(subject: Shop, n: int) -> None:
    before = subject.proxy_pid()
    subject.call("replace", *GATEWAY.split("/"), ("info", "warning")[n % 2])
    until(lambda: subject.proxy_pid() != before, "another Envoy process", 60)
    until(lambda: not Path(f"/proc/{before}").exists(), "the old Envoy has drained and ended", 60)
    subject.idle()


CHANGES: dict[str, tuple[Change, int]] = {
    "route change": (_route, 20),
    "backend swap": (_swap, 20),
    "rule reorder": (_reorder, 20),
    "certificate rotation": (_rotate, 10),
    "listener added or removed": (_listener, 10),
    f"{UNRELATED:,} unrelated changes": (_unrelated, 1),
    "controller kill -9 and restart": (_kill, 3),
    "Envoy hot restart": (_hot_restart, 3),
}
"""Each with how often it is done at least."""
CHANGES_OF_LARGE: dict[str, tuple[Change, int]] = {
    **{name: CHANGES[name] for name in CHANGES if name not in {"backend swap", "rule reorder"}},
    "listener of a ListenerSet added or removed": (_listener_set, 10),
}


PROFILED = ("route change", f"{UNRELATED:,} unrelated changes")
"""Kinds of change that a profile of the controller is kept of; the others are one of these, or take their time
elsewhere."""


def zero_drop(sizes: Sequence[int]) -> Iterable[Figure]:
    """P4: of N requests during each kind of change, how many failed."""
    large = f"{LARGE.routes:,} hostnames, {LARGE.listener_sets} ListenerSets: "
    for size in sizes:
        for prefix, world, changes in (("", SMALL, CHANGES), (large, LARGE, CHANGES_OF_LARGE)):
            for name, (change, least) in changes.items():
                if profiling() and name not in PROFILED:
                    continue
                yield from _failures(size, f"{prefix}{name}", world, change, least)


def _failures(size: int, name: str, world: World, change: Change, least: int) -> Iterable[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="pk") as directory,
        Backend("a", "b") as backend,
        Shop(backend, Path(directory), world) as subject,
    ):
        subject.ready(GATEWAY, seconds=300)
        with subject.profiled(f"P4 {name}", size):
            totals, changes = _under_load(subject, change, least, size)
    failed = sum(total.failed for total in totals)
    answered = sum(total.requests for total in totals)
    if failed:
        print(f"P4 {name}: {[total.failures for total in totals]}", flush=True)
    yield figure("P4", size, f"{name}: failed requests", [failed], "requests", goal=Goal(0))
    yield figure("P4", size, f"{name}: requests meanwhile", [answered], "requests")
    yield figure("P4", size, f"{name}: times it was done", [changes], "times")


def _under_load(subject: Shop, change: Change, least: int, requests: int) -> tuple[list[Totals], int]:
    """Change at least so often, and until so many requests were answered."""
    totals: list[Totals] = []
    numbers = itertools.count()
    done = 0
    while sum(total.requests for total in totals) < requests:
        loads: list[Wrk | Visits] = [
            Wrk(f"http://{HOST}:{PORT}/", HOSTNAME, 8),
            Wrk(f"https://{HOST}:{TLS_PORT}/", HOSTNAME, 8),
            Wrk(f"http://{HOST}:{PORT}/b", HOSTNAME, 2, fresh=True),
            Wrk(f"https://{HOST}:{TLS_PORT}/b", HOSTNAME, 2, fresh=True),
        ]
        if subject.size.listener_sets:
            loads.append(Visits(TLS_PORT, [worlds.hostname_of(n) for n in range(0, subject.size.listener_sets, 7)]))
        with ExitStack() as stack:
            for load in loads:
                stack.callback(load.abandon)
                load.start()
            # What is not enough at the rate seen so far is gone on with in another round.
            rate = sum(t.requests for t in totals) / sum(t.seconds for t in totals) * 4 if totals else 8000.0
            left = requests - sum(total.requests for total in totals)
            until_then = time.monotonic() + 1.1 * left / rate
            while done < least or time.monotonic() < until_then:
                change(subject, next(numbers))
                done += 1
            totals += [load.stop() for load in loads]
        if not any(total.requests for total in totals):
            raise BenchError("no request was answered")
    return totals, done
