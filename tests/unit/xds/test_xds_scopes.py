"""Scopes travel in parts, and the extensions that Listeners wait for come when all of them are there."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from propylon.xds import CDS, RDS, ResourceName, version_of
from propylon.xds.machine import SCOPES_BYTES, Stream
from propylon.xds.messages import Outcome, Request, Response
from propylon.xds.type_urls import ECDS, LDS, SRDS
from propylon.xds.world import World

SIZE = 1000
PART = SCOPES_BYTES // SIZE
"""So many scopes fit into a response."""
COUNT = 3 * PART

Changes = dict[ResourceName, bytes | None]


class Proxy:
    """Says what a proxy says, and remembers what it was sent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stream = Stream(world)
        self.stream.allow_removals()

    def ask(self, type_url: str, *names: str, **more: object) -> list[Response]:
        self.stream.receive(Request(type_url, subscribe=names, **more))  # type: ignore[arg-type]
        return self.stream.take()

    def acknowledge(self, *responses: Response) -> list[Response]:
        for response in responses:
            self.stream.receive(Request(response.type_url, nonce=response.nonce))
        return self.stream.take()

    def refuse(self, response: Response) -> tuple[Outcome, list[Response]]:
        outcome = self.stream.receive(Request(response.type_url, nonce=response.nonce, error="no"))
        return outcome, self.stream.take()

    def update(self, changes: Changes) -> list[Response]:
        self.stream.desire(self.world.update(changes, complete=True))
        return self.stream.take()

    def settle(self, responses: list[Response]) -> list[Response]:
        """Acknowledge everything until nothing comes; all that came."""
        told = []
        while responses:
            told += responses
            responses = self.acknowledge(*responses)
        return told


def proxy(changes: Changes) -> Proxy:
    world = World()
    world.update(changes, complete=True)
    return Proxy(world)


def scopes(count: int, mark: bytes = b"x") -> Changes:
    return {(SRDS, f"s{number}"): mark * SIZE for number in range(count)}


def world_of(count: int) -> Changes:
    """Scopes, and what their Listener waits for."""
    return {**scopes(count), (ECDS, "complete"): b"e"}


def kinds(responses: Iterable[Response]) -> list[str]:
    names = {SRDS: "scopes", ECDS: "complete", LDS: "listener", CDS: "clusters", RDS: "routes"}
    return [names[response.type_url] for response in responses]


def cluster(name: str) -> bytes:
    return bytes(cluster_pb2.Cluster(name=name).SerializeToString())


def test_first_scopes_come_in_parts_and_the_extension_after_the_last() -> None:
    p = proxy(world_of(COUNT))
    told = p.settle([*p.ask(SRDS), *p.ask(ECDS, "complete")])
    parts = len(told) - 1
    assert kinds(told) == [*["scopes"] * parts, "complete"]
    assert parts in {3, 4}
    assert sorted(name for part in told[:-1] for name in part.resources) == sorted(name for _, name in scopes(COUNT))
    assert p.stream.settled


def test_the_extension_waits_for_whoever_has_not_asked_for_scopes_yet() -> None:
    p = proxy(world_of(1))
    assert p.ask(ECDS, "complete") == []
    assert not p.stream.settled
    assert kinds(p.settle(p.ask(SRDS))) == ["scopes", "complete"]


def test_the_extension_waits_for_scopes_that_are_younger_than_itself() -> None:
    p = proxy(world_of(1))
    p.world.update(scopes(COUNT))
    p.ask(ECDS, "complete")
    assert kinds(p.settle(p.ask(SRDS)))[-1] == "complete"


def test_a_listener_that_comes_later_waits_for_its_own_scopes_and_nobody_else_does() -> None:
    p = proxy({**world_of(COUNT), (RDS, "r"): b"r"})
    p.settle([*p.ask(SRDS), *p.ask(ECDS, "complete"), *p.ask(RDS, "r")])
    p.settle(p.ask(LDS))
    more: Changes = {(SRDS, f"t{number}"): b"x" * SIZE for number in range(COUNT)}
    responses = p.update({**more, (LDS, "m"): b"m", (ECDS, "complete too"): b"e", (RDS, "r"): b"r2"})
    assert kinds(responses) == ["listener", "scopes", "routes"]
    assert p.ask(ECDS, "complete too") == []
    told = p.settle(responses)
    assert set(kinds(told[3:-1])) == {"scopes"}
    assert list(told[-1].resources) == ["complete too"]


def test_a_proxy_that_lost_its_stream_among_first_scopes_still_waits_for_the_others() -> None:
    p = proxy(world_of(COUNT))
    first = p.ask(SRDS)
    p.acknowledge(*first)
    had = {name: resource.version for name, resource in first[0].resources.items()}
    again = Proxy(p.world)
    assert again.ask(ECDS, "complete") == []
    told = again.settle(again.ask(SRDS, initial_versions=had))
    assert kinds(told)[-1] == "complete"
    assert not any(name in part.resources for name in had for part in told)


def test_a_proxy_that_has_everything_is_sent_nothing_again() -> None:
    p = proxy(world_of(COUNT))
    had = {name: version_of(b"x" * SIZE) for _, name in scopes(COUNT)}
    assert p.ask(SRDS, initial_versions=had) == []
    assert p.ask(ECDS, "complete", initial_versions={"complete": version_of(b"e")}) == []
    assert p.stream.settled


def test_a_refused_scope_keeps_nobody_waiting_for_ever() -> None:
    p = proxy({**world_of(COUNT), (SRDS, "s7"): b"bad"})
    responses = [*p.ask(SRDS), *p.ask(ECDS, "complete")]
    told: list[Response] = []
    refused = []
    while responses:
        (response,) = responses
        if any(resource.body.startswith(b"bad") for resource in response.resources.values()):
            outcome, responses = p.refuse(response)
            refused += outcome.rejected
        else:
            told.append(response)
            responses = p.acknowledge(response)
    assert [name for name, _, _ in refused] == [(SRDS, "s7")]
    assert kinds(told)[-1] == "complete"
    assert len({name for part in told[:-1] for name in part.resources}) == COUNT - 1
    assert p.stream.settled


def test_what_others_refused_comes_last_and_alone() -> None:
    p = proxy(world_of(5))
    for name in ("s1", "s3"):
        p.world.reject((SRDS, name), version_of(b"x" * SIZE), "no")
    told = p.settle([*p.ask(SRDS), *p.ask(ECDS, "complete")])
    assert [list(part.resources) for part in told] == [["s0", "s2", "s4"], ["s1"], ["s3"], ["complete"]]


def test_first_scopes_wait_for_the_clusters_that_were_there_when_they_were_asked_for() -> None:
    p = proxy({(SRDS, "old"): b"old"})
    p.update({(CDS, "a"): cluster("a"), (SRDS, "new"): b"new"})
    (clusters,) = p.ask(CDS)
    assert p.ask(SRDS) == [], "the cluster is not there yet"
    p.update({(CDS, "b"): cluster("b"), (SRDS, "new"): b"changed", (SRDS, "newer"): b"newer"})
    responses = p.acknowledge(clusters)
    assert [(r.type_url, set(r.resources)) for r in responses] == [(CDS, {"b"}), (SRDS, {"old", "new"})]
    assert p.acknowledge(responses[1]) == [], "what is newer waits for its own cluster"
    (last,) = p.acknowledge(responses[0])
    assert set(last.resources) == {"newer"}


def test_a_world_that_never_rests_does_not_keep_a_listener_waiting() -> None:
    p = proxy(world_of(COUNT))
    p.ask(ECDS, "complete")
    responses = p.ask(SRDS)
    for turn in range(20):
        responses = [*p.acknowledge(*responses), *p.update({(SRDS, f"s{turn}"): b"%d" % turn})]
        if "complete" in kinds(responses):
            return
    raise AssertionError("it waits for scopes that are newer than its question")


def test_each_part_costs_a_look_at_itself_and_not_at_all_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    original = Stream._target

    def counting(self: Stream, *arguments: object) -> object:
        nonlocal looks
        looks += 1
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Stream, "_target", counting)
    p = proxy(world_of(20 * PART))
    p.settle(p.ask(SRDS))
    assert looks < 3 * 20 * PART


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_nothing_that_was_there_is_missing_when_the_extension_comes(seed: int) -> None:
    random = Random(seed)
    p = proxy(world_of(random.randrange(1, COUNT)))
    had: dict[str, str] = {}
    asked: set[str] = set()
    flying: list[Response] = []
    for _ in range(200):
        if not asked or random.random() < 0.05:  # a new stream
            p = Proxy(p.world)
            asked = {name for _, name in scopes(COUNT) if p.world.get(SRDS, name)}
            flying = p.ask(SRDS, initial_versions=dict(had))
            flying += p.ask(ECDS, "complete")
        elif random.random() < 0.3:
            name = f"s{random.randrange(COUNT)}"
            gone = random.random() < 0.3
            if gone:
                asked.discard(name)
            flying += p.update({(SRDS, name): None if gone else b"%d" % random.randrange(5) * SIZE})
        elif flying:
            answered = flying.pop(random.randrange(len(flying)))
            if answered.type_url == ECDS:
                assert asked <= set(had)
                return
            for name in answered.removed:
                had.pop(name, None)
            had.update((name, resource.version) for name, resource in answered.resources.items())
            flying += p.acknowledge(answered)
    raise AssertionError("it never comes")


def test_what_was_in_a_refused_response_is_told_anew() -> None:
    """Envoy would take it for what it knows, and it does not serve what it knows of a refused response."""
    p = proxy(world_of(4))
    (first,) = p.ask(SRDS)
    before = {name: resource.body for name, resource in first.resources.items()}
    _, responses = p.refuse(first)
    bodies: list[bytes] = []
    while responses:
        (response,) = responses
        for name, resource in response.resources.items():
            assert resource.body.startswith(before[name])
            assert resource.version == version_of(before[name])
            bodies.append(resource.body)
        _, responses = p.refuse(response) if len(response.resources) > 1 else (None, p.acknowledge(response))
    assert len(set(bodies)) == len(bodies) > len(before)
    assert not set(bodies) & set(before.values())
    (change,) = p.update({(SRDS, "s1"): b"new"})
    assert change.resources["s1"].body == b"new", "it was acknowledged alone"
    assert p.world.good[SRDS, "s2"].body == before["s2"]


def test_what_a_proxy_lacks_that_comes_back_is_told_anew() -> None:
    """Before its stream ended it may have refused a response."""
    changes = world_of(4)
    for known, is_new in (({"s1": version_of(changes[SRDS, "s1"] or b"")}, True), ({}, False)):
        p = proxy(changes)
        (response,) = p.ask(SRDS, initial_versions=known)
        assert {name: resource.body != changes[SRDS, name] for name, resource in response.resources.items()} == {
            name: is_new for _, name in changes if (SRDS, name) in changes and name not in known
        }
