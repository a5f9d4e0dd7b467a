"""Resources that a proxy asks for when it needs them, while there are many."""

from __future__ import annotations

from random import Random

import pytest
from test_xds_convergence import Envoy, Simulation, cluster
from test_xds_machine import Proxy

from propylon.xds import CDS, EDS, ResourceName, version_of
from propylon.xds.messages import Request, Response
from propylon.xds.world import World


def is_twin(name: ResourceName) -> bool:
    return name[0] == CDS and name[1] in "def"


def world(many: int, *names: str) -> World:
    out = World(is_twin, many)
    out.update({(CDS, name): cluster(name, "") for name in names}, complete=True)
    return out


def taken(proxy: Proxy, responses: list[Response]) -> tuple[list[str], list[str]]:
    """Clusters that a proxy is sent, and told to be gone, until it has acknowledged everything."""
    told = [(names, removed) for type_url, names, removed in proxy.settle(responses) if type_url == CDS]
    assert proxy.stream.settled
    return sorted(n for names, _ in told for n in names), sorted(n for _, removed in told for n in removed)


def test_few_are_sent_unasked_and_many_to_those_who_ask() -> None:
    few = Proxy(world(2, "a", "d", "e"))
    assert taken(few, few.ask(CDS)) == (["a", "d", "e"], [])
    many = Proxy(world(1, "a", "d", "e"))
    assert taken(many, many.ask(CDS)) == (["a"], [])
    assert taken(many, many.ask(CDS, "d")) == (["d"], [])


def test_what_nobody_asks_for_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []

    def noting(body: bytes) -> str:
        hashed.append(body)
        return version_of(body)

    monkeypatch.setattr("propylon.xds.world.version_of", noting)
    proxy = Proxy(world(1, "a", "d", "e"))
    assert taken(proxy, proxy.ask(CDS)) == (["a"], [])
    assert hashed == [cluster("a", "")]
    assert taken(proxy, proxy.ask(CDS, "d")) == (["d"], [])
    assert hashed == [cluster("a", ""), cluster("d", "")]


def test_what_is_not_there_is_said_to_be_gone_and_sent_when_it_comes() -> None:
    proxy = Proxy(world(0, "a"))
    taken(proxy, proxy.ask(CDS))
    assert taken(proxy, proxy.ask(CDS, "d")) == ([], ["d"])
    changes: dict[ResourceName, bytes | None] = {(CDS, n): cluster(n, "") for n in "de"}
    assert taken(proxy, proxy.update(changes)) == (["d"], [])


def test_what_a_proxy_has_is_changed_and_removed() -> None:
    proxy = Proxy(world(0, "a", "d", "e"))
    taken(proxy, proxy.ask(CDS))
    taken(proxy, proxy.ask(CDS, "d"))
    changes: dict[ResourceName, bytes | None] = {(CDS, n): cluster(n, "new") for n in "de"}
    assert taken(proxy, proxy.update(changes)) == (["d"], [])
    assert taken(proxy, proxy.update({(CDS, "d"): None, (CDS, "e"): None})) == ([], ["d"])


def test_what_was_sent_unasked_stays_when_there_get_many() -> None:
    proxy = Proxy(world(1, "a", "d"))
    taken(proxy, proxy.ask(CDS))
    assert taken(proxy, proxy.update({(CDS, n): cluster(n, "") for n in "ef"})) == ([], [])
    assert taken(proxy, proxy.update({(CDS, "d"): cluster("d", "new")})) == (["d"], [])
    assert taken(proxy, proxy.update({(CDS, "d"): None})) == ([], ["d"])


def test_when_there_are_few_again_all_are_sent() -> None:
    proxy = Proxy(world(1, "a", "d", "e", "f"))
    assert taken(proxy, proxy.ask(CDS)) == (["a"], [])
    assert taken(proxy, proxy.update({(CDS, "d"): None, (CDS, "e"): None})) == (["f"], [])


def test_what_gets_many_while_it_is_under_way_is_known_to_be_there() -> None:
    proxy = Proxy(world(1, "a", "d"))
    responses = proxy.ask(CDS)
    assert not proxy.update({(CDS, "e"): cluster("e", ""), (CDS, "f"): cluster("f", "")})
    assert taken(proxy, responses) == (["a", "d"], [])
    assert taken(proxy, proxy.update({(CDS, "d"): None})) == ([], ["d"])


def test_how_many_there_are_is_known_when_the_world_is_complete() -> None:
    proxy = Proxy(World(is_twin, 1))
    proxy.stream.desire(proxy.world.update({(CDS, "a"): cluster("a", ""), (CDS, "d"): cluster("d", "")}))
    responses = proxy.ask(CDS)
    assert [tuple(r.resources) for r in responses] == [("a",)]
    assert not proxy.acknowledge(*responses)
    assert taken(proxy, proxy.update({})) == (["d"], [])


def test_a_proxy_that_reconnects_keeps_what_it_asked_for() -> None:
    had = {"a": version_of(cluster("a", "")), "d": version_of(cluster("d", "old")), "f": version_of(cluster("f", ""))}
    proxy = Proxy(world(0, "a", "d", "e"))
    assert taken(proxy, proxy.ask(CDS, "*", "d", "f", initial_versions=had)) == (["d"], ["f"])


def test_a_proxy_that_reconnects_keeps_what_it_was_given_unasked() -> None:
    had = {"a": version_of(cluster("a", "")), "d": version_of(cluster("d", "old"))}
    proxy = Proxy(world(0, "a", "d", "e"))
    assert taken(proxy, proxy.ask(CDS, initial_versions=had)) == (["d"], [])


class CallingEnvoy(Envoy):
    """Asks for twins by name, and goes on asking for them."""

    asked: set[str]

    def connect(self) -> list[Request]:
        first, *others = super().connect()
        subscribe = ("*", *sorted(self.asked)) if self.asked else ()
        return [Request(CDS, subscribe=subscribe, initial_versions=first.initial_versions), *others]

    def call(self, name: str) -> list[Request]:
        if name in self.asked or name in self.has[CDS]:
            return []
        self.asked.add(name)
        request = Request(CDS, subscribe=(name,))
        if self.cold:  # while clusters get warm, it says nothing about clusters
            self.withheld.append(request)
            return []
        return [request]


@pytest.mark.parametrize("seed", range(60))
def test_it_converges_to_what_was_asked_for(seed: int) -> None:
    random = Random(seed)
    many = random.randrange(3)

    class Calling(Simulation):
        def connect(self) -> None:
            if not isinstance(self.envoy, CallingEnvoy):
                self.envoy = CallingEnvoy(self.random, names_offenders=True)
                self.envoy.asked = set()
                self.world = World(is_twin, many)
                self.world.update(self.desired, complete=True)
            super().connect()

        def restart(self) -> None:
            self.world = World(is_twin, many)
            self.world.update(self.desired, complete=True)
            self.connect()

    simulation = Calling(seed, bad=0)
    envoy = simulation.envoy
    assert isinstance(envoy, CallingEnvoy)
    for _ in range(12):
        random.choices((simulation.change, simulation.reconnect, simulation.restart), (6, 1, 1))[0]()
        for _ in range(random.randrange(6)):
            simulation.deliver(random.randrange(8))
            if random.random() < 0.3 and simulation.introduction <= 0:
                simulation.up.extend(envoy.call(random.choice("def")))
        simulation.settle()
        assert simulation.stream.settled
        wanted = {name: body for (kind, name), body in simulation.desired.items() if kind == CDS}
        assert wanted.items() >= envoy.has[CDS].items()
        lacks = set(wanted) - set(envoy.has[CDS])
        assert lacks <= {name for name in "def" if name not in envoy.asked}
        assert not lacks or len(set(wanted) & set("def")) > many
        assert {name for name in envoy.has[CDS] if (EDS, name) in simulation.desired} <= set(envoy.has[EDS])
    assert envoy.asked
