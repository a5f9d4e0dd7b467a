"""A simulated Envoy, random worlds and random delays: it converges, and nothing is referred to before it is there."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from propylon.xds import CDS, EDS, LDS, RDS, ResourceName
from propylon.xds.machine import Stream
from propylon.xds.messages import Request, Response
from propylon.xds.world import World

Bodies = dict[ResourceName, bytes]

BAD = b"bad"
PARTLY = {CDS: "Error adding/updating cluster(s)", LDS: "Error adding/updating listener(s)"}


def cluster(name: str, mark: str) -> bytes:
    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS, alt_stat_name=mark)
    return bytes(message.SerializeToString(deterministic=True))


def references(body: bytes) -> set[str]:
    """What a listener or a route configuration of these tests refers to: `1:a,b`."""
    return {name for name in body.decode().split(":")[1].split(",") if name}


class Envoy:
    """What Envoy does with delta xDS as far as order and refusals go; cluster responses are answered once all are
    warm.
    """

    def __init__(self, random: Random, names_offenders: bool) -> None:
        self.random = random
        self.names_offenders = names_offenders
        self.has: dict[str, dict[str, bytes]] = {CDS: {}, EDS: {}, LDS: {}, RDS: {}}
        self.versions: dict[str, dict[str, str]] = {CDS: {}, EDS: {}, LDS: {}, RDS: {}}
        self.subscribed: dict[str, set[str]] = {EDS: set(), RDS: set()}
        self.cold: set[str] = set()
        self.withheld: list[Request] = []
        self.broken: list[str] = []
        self.unrecorded: set[ResourceName] = set()
        self.left_behind: set[ResourceName] = set()
        self.received = 0

    def connect(self) -> list[Request]:
        self.withheld.clear()
        # A changed cluster whose endpoints got lost with the stream: Envoy gives up after its initial fetch timeout.
        self.cold = {name for name in self.cold if name not in self.has[EDS]}
        requests = [Request(t, initial_versions=dict(self.versions[t])) for t in (CDS, LDS)]
        for type_url, names in self.subscribed.items():
            if names:
                had = {name: v for name, v in self.versions[type_url].items() if name in names}
                requests.append(Request(type_url, subscribe=tuple(sorted(names)), initial_versions=had))
        return requests

    def handle(self, response: Response) -> list[Request]:
        t = response.type_url
        self.received += len(response.resources)
        # Names that Envoy unsubscribed from while they were under way concern it no more.
        wanted = {n: r for n, r in response.resources.items() if t not in self.subscribed or n in self.subscribed[t]}
        bad = [name for name, r in wanted.items() if BAD in r.body]
        follow_up: list[Request] = []
        for name in response.removed:
            self.has[t].pop(name, None)
            self.versions[t].pop(name, None)
            if t == EDS:
                self.cold.discard(name)
        for name, resource in wanted.items():
            if name in bad:
                if t in PARTLY:
                    continue
                break
            self.apply(t, name, resource.body)
        if t == CDS:
            follow_up += self.subscribe(EDS, set(self.has[CDS]))
        if t == LDS:
            follow_up += self.subscribe(RDS, set().union(*(references(b) for b in self.has[LDS].values())))
        if bad:
            error = "refused" if not self.names_offenders else f"{', '.join(bad)}: refused"
            if t in PARTLY:
                error = f"{PARTLY[t]} {error}"
            answer = Request(t, nonce=response.nonce, error=error)
            self.unrecorded.update((t, name) for name in wanted if name not in bad)
        else:
            self.unrecorded.difference_update((t, name) for name in wanted)
            self.versions[t].update((name, r.version) for name, r in wanted.items())
            answer = Request(t, nonce=response.nonce)
        if t == CDS and self.cold:
            self.withheld.append(answer)
            return follow_up
        if not self.cold:
            follow_up += self.withheld
            self.withheld = []
        return [*follow_up, answer]

    def apply(self, t: str, name: str, body: bytes) -> None:
        if t == CDS and self.has[CDS].get(name) != body:
            self.cold.add(name)
        if t == EDS:
            self.cold.discard(name)
        if t == RDS:
            # A cluster that gets warm again after a change still serves as it was before.
            served = {c for c in self.has[CDS] if c not in self.cold or c in self.has[EDS]}
            self.broken += [f"{name} -> {c}" for c in references(body) - served]
        self.has[t][name] = body

    def subscribe(self, t: str, names: set[str]) -> list[Request]:
        added, gone = names - self.subscribed[t], self.subscribed[t] - names
        self.subscribed[t] = names
        for name in gone:
            self.has[t].pop(name, None)
            self.versions[t].pop(name, None)
            self.cold.discard(name)
        if not added and not gone:
            return []
        return [Request(t, subscribe=tuple(sorted(added)), unsubscribe=tuple(sorted(gone)))]

    def missing(self) -> list[str]:
        """Routes in use that refer to clusters that are not there."""
        return [
            f"{name} -> {c}" for name, body in self.has[RDS].items() for c in references(body) if c not in self.has[CDS]
        ]


def random_world(random: Random, bad: float) -> Bodies:
    """A consistent world: listeners use routes, routes use clusters, clusters have endpoints."""

    def mark() -> str:
        return "bad" if random.random() < bad else str(random.randrange(3))

    clusters = random.sample("abcdef", random.randrange(1, 6))
    routes = random.sample("rstu", random.randrange(1, 4))
    world: Bodies = {}
    for name in clusters:
        world[CDS, name] = cluster(name, mark())
        world[EDS, name] = str(random.randrange(3)).encode()
    for name in routes:
        world[RDS, name] = f"{mark()}:{','.join(random.sample(clusters, random.randrange(len(clusters)) + 1))}".encode()
    for name in random.sample("lmn", random.randrange(1, 4)):
        world[LDS, name] = f"{mark()}:{random.choice(routes)}".encode()
    return world


class Simulation:
    """One Envoy, one control plane, and a wire on which everything takes its time."""

    def __init__(self, seed: int, bad: float) -> None:
        self.random = Random(seed)
        self.bad = bad
        self.desired = random_world(self.random, bad)
        self.world = World()
        self.envoy = Envoy(self.random, names_offenders=self.random.random() < 0.5)
        self.up: deque[Request] = deque()
        self.down: deque[Response] = deque()
        self.world.update(self.desired, complete=True)
        self.connect()

    def reconnect(self) -> None:
        self.stream.close()
        self.connect()

    def connect(self) -> None:
        self.up.clear()
        self.down.clear()
        self.stream = Stream(self.world)
        self.up.extend(self.envoy.connect())
        self.introduction = len(self.up)

    def change(self) -> None:
        old, self.desired = self.desired, random_world(self.random, self.bad)
        changes = {**dict.fromkeys(old), **self.desired}
        self.stream.desire(self.world.update(changes, complete=True))

    def restart(self) -> None:
        # What Envoy applied of a response it refused has no version: a new control plane cannot know of it.
        self.envoy.left_behind |= self.envoy.unrecorded
        self.world = World()
        if self.random.random() < 0.5:
            self.world.update(self.desired, complete=True)
            self.connect()
        else:
            self.connect()
            self.deliver(self.random.randrange(10))
            self.stream.desire(self.world.update(self.desired, complete=True))

    def deliver(self, steps: int) -> None:
        for _ in range(steps):
            if self.up and (not self.down or self.random.random() < 0.5):
                self.stream.receive(self.up.popleft())
                self.introduction -= 1
                if self.introduction == 0:
                    self.stream.allow_removals()
            elif self.down:
                self.up.extend(self.envoy.handle(self.down.popleft()))
            if self.random.random() < 0.7:
                self.down.extend(self.stream.take())

    def settle(self) -> None:
        for _ in range(2000):
            self.down.extend(self.stream.take())
            if not self.up and not self.down:
                return
            self.deliver(1)
        raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("seed", range(60))
def test_it_converges_to_the_desired_or_the_last_good_state(seed: int) -> None:
    simulation = Simulation(seed, bad=0.15)
    random = simulation.random
    for _ in range(12):
        random.choices((simulation.change, simulation.reconnect, simulation.restart), (6, 1, 1))[0]()
        simulation.deliver(random.randrange(40))
    simulation.settle()
    envoy = simulation.envoy
    assert simulation.stream.settled
    assert not any(BAD in body for bodies in envoy.has.values() for body in bodies.values())
    for t in (CDS, LDS, EDS, RDS):
        wanted = {name: body for (kind, name), body in simulation.desired.items() if kind == t}
        if t in envoy.subscribed:
            wanted = {name: body for name, body in wanted.items() if name in envoy.subscribed[t]}
        left_behind = {name for kind, name in envoy.left_behind if kind == t}
        assert set(envoy.has[t]) - left_behind <= set(wanted), "what is gone is removed"
        for name, body in wanted.items():
            if BAD not in body:
                assert envoy.has[t].get(name) == body


@pytest.mark.parametrize("seed", range(60))
def test_no_route_ever_refers_to_a_cluster_that_is_not_there_and_warm(seed: int) -> None:
    simulation = Simulation(seed, bad=0)
    random = simulation.random
    simulation.settle()
    for _ in range(12):
        random.choices((simulation.change, simulation.reconnect), (6, 1))[0]()
        for _ in range(random.randrange(40)):
            simulation.deliver(1)
            assert simulation.envoy.missing() == []
    simulation.settle()
    assert simulation.envoy.missing() == simulation.envoy.broken == []
    before = simulation.envoy.received
    simulation.restart()
    simulation.settle()
    assert simulation.envoy.received == before, "a restarted control plane resends nothing"
