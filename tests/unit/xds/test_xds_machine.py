"""The stream machine, request by request."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from propylon.xds import CDS, EDS, FCDS, LDS, RDS, SDS, ResourceName, version_of
from propylon.xds.machine import RESPONSE_BYTES, Stream
from propylon.xds.messages import Outcome, Request, Response
from propylon.xds.refusals import mentioned, readable
from propylon.xds.world import World


def cluster(name: str, mark: str = "") -> bytes:
    """A cluster with endpoints by EDS, in a variant."""
    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS, alt_stat_name=mark)
    return bytes(message.SerializeToString(deterministic=True))


class Proxy:
    """Says what a proxy says, and holds the responses it was sent."""

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

    def refuse(self, response: Response, message: str) -> tuple[Outcome, list[Response]]:
        outcome = self.stream.receive(Request(response.type_url, nonce=response.nonce, error=message))
        return outcome, self.stream.take()

    def update(self, changes: dict[ResourceName, bytes | None]) -> list[Response]:
        self.stream.desire(self.world.update(changes, complete=True))
        return self.stream.take()

    def settle(self, responses: list[Response]) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Acknowledge everything until nothing comes, and tell in which order it came."""
        told = []
        while responses:
            told += [(r.type_url, tuple(r.resources), r.removed) for r in responses]
            responses = self.acknowledge(*responses)
        return told


def proxy(changes: dict[ResourceName, bytes | None] | None = None) -> Proxy:
    world = World()
    if changes is not None:
        world.update(changes, complete=True)
    return Proxy(world)


def bodies(response: Response) -> dict[str, bytes]:
    return {name: resource.body for name, resource in response.resources.items()}


def test_a_first_request_without_names_is_a_wildcard_for_clusters_and_listeners_only() -> None:
    p = proxy({(LDS, "a"): b"a", (LDS, "b"): b"b", (RDS, "r"): b"r"})
    (response,) = p.ask(LDS)
    assert bodies(response) == {"a": b"a", "b": b"b"}
    assert {r.version for r in response.resources.values()} == {version_of(b"a"), version_of(b"b")}
    assert p.ask(RDS) == []


def test_an_empty_wildcard_is_answered_once() -> None:
    p = proxy({(LDS, "a"): b"a"})
    (nothing,) = p.ask(CDS)
    assert (nothing.resources, nothing.removed) == ({}, ())
    assert not p.stream.settled
    assert p.acknowledge(nothing) == []


def test_a_reconnecting_proxy_is_not_told_nothing() -> None:
    p = proxy({(CDS, "a"): cluster("a")})
    assert p.ask(CDS, initial_versions={"a": version_of(cluster("a"))}) == []


def test_the_star_subscribes_and_unsubscribes() -> None:
    p = proxy({(LDS, "a"): b"a"})
    (response,) = p.ask(LDS, "*")
    p.acknowledge(response)
    p.stream.receive(Request(LDS, unsubscribe=("*",)))
    assert p.update({(LDS, "a"): b"a2", (LDS, "b"): b"b"}) == []


def test_named_subscriptions_get_what_they_name() -> None:
    p = proxy({(RDS, "a"): b"a", (RDS, "b"): b"b"})
    (response,) = p.ask(RDS, "b")
    assert bodies(response) == {"b": b"b"}
    assert p.acknowledge(response) == []
    assert p.update({(RDS, "a"): b"a2"}) == []
    (response,) = p.update({(RDS, "b"): b"b2"})
    assert bodies(response) == {"b": b"b2"}


def test_a_resource_asked_for_again_is_sent_again() -> None:
    p = proxy({(RDS, "a"): b"a"})
    p.acknowledge(*p.ask(RDS, "a"))
    (response,) = p.ask(RDS, "a")
    assert bodies(response) == {"a": b"a"}


def test_after_unsubscribing_nothing_more_comes() -> None:
    p = proxy({(RDS, "a"): b"a"})
    p.acknowledge(*p.ask(RDS, "a"))
    p.stream.receive(Request(RDS, unsubscribe=("a",)))
    assert p.update({(RDS, "a"): b"a2"}) == []
    assert p.stream.settled


def test_what_is_missing_is_said_to_be_missing_only_when_the_world_is_complete() -> None:
    p = proxy()
    assert p.ask(EDS, "ghost") == []
    p.stream.desire(p.world.update({(CDS, "a"): cluster("a")}))
    assert p.stream.take() == []
    assert not p.stream.settled
    (response,) = p.update({})
    assert (response.removed, response.resources) == (("ghost",), {})
    assert p.acknowledge(response) == []


def test_a_resource_that_appears_after_it_was_missing_is_sent() -> None:
    p = proxy({})
    p.acknowledge(*p.ask(EDS, "late"))
    (response,) = p.update({(EDS, "late"): b"x"})
    assert bodies(response) == {"late": b"x"}


def test_a_reconnecting_proxy_is_sent_only_what_it_lacks_and_told_what_is_gone() -> None:
    p = proxy({(LDS, "same"): b"1", (LDS, "changed"): b"2", (LDS, "new"): b"3"})
    had = {"same": version_of(b"1"), "changed": "old", "gone": "old"}
    outcome = p.stream.receive(Request(LDS, initial_versions=had))
    assert outcome.acknowledged == {(LDS, "same"): version_of(b"1")}
    assert p.settle(p.stream.take()) == [(LDS, ("changed", "new"), ()), (LDS, (), ("gone",))]


def test_a_proxy_that_reconnects_before_the_world_is_known_is_sent_nothing_and_told_later() -> None:
    p = proxy()
    p.ask(RDS, "r", initial_versions={"r": version_of(b"r")})
    p.ask(LDS, initial_versions={"a": version_of(b"a")})
    outcome = p.stream.desire(p.world.update({(LDS, "a"): b"a", (RDS, "r"): b"r"}, complete=True))
    assert set(outcome.acknowledged) == {(LDS, "a"), (RDS, "r")}
    assert p.stream.take() == []
    assert p.stream.settled


def test_one_response_per_type_is_in_flight_and_later_changes_are_merged() -> None:
    p = proxy({(RDS, "a"): b"1", (RDS, "b"): b"1"})
    first = p.ask(RDS, "a", "b")
    for body in (b"2", b"3", b"4"):
        assert p.update({(RDS, "a"): body}) == []
    assert p.update({(RDS, "b"): b"2"}) == []
    (second,) = p.acknowledge(*first)
    assert bodies(second) == {"a": b"4", "b": b"2"}


def test_a_change_that_is_taken_back_during_the_flight_of_another_is_not_forgotten() -> None:
    p = proxy({(RDS, "a"): b"1"})
    p.acknowledge(*p.ask(RDS, "a"))
    second = p.update({(RDS, "a"): b"2"})
    p.update({(RDS, "a"): b"1"})
    (third,) = p.acknowledge(*second)
    assert bodies(third) == {"a": b"1"}


def test_stale_nonces_are_ignored() -> None:
    p = proxy({(RDS, "a"): b"1"})
    (response,) = p.ask(RDS, "a")
    assert not p.stream.receive(Request(RDS, nonce="another", error="no"))
    assert not p.stream.settled
    p.acknowledge(response)
    assert not p.stream.receive(Request(RDS, nonce=response.nonce, error="no"))
    assert p.stream.settled


def test_large_pushes_are_split_and_a_giant_travels_alone() -> None:
    half = RESPONSE_BYTES // 2 - 10
    changes: dict[ResourceName, bytes | None] = {(LDS, f"half{i}"): bytes([i]) * half for i in range(5)}
    changes[LDS, "giant"] = b"x" * (RESPONSE_BYTES * 3)
    p = proxy(changes)
    told = p.settle(p.ask(LDS))
    assert [names for _, names, _ in told] == [("half0", "half1"), ("half2", "half3"), ("half4",), ("giant",)]


def ready() -> Proxy:
    """A proxy that runs one listener, routes, cluster and endpoints."""
    p = proxy({(CDS, "old"): cluster("old"), (EDS, "old"): b"e", (LDS, "l"): b"l", (RDS, "r"): b"to old"})
    p.settle(p.ask(CDS))
    p.settle(p.ask(EDS, "old"))
    p.settle(p.ask(LDS))
    p.settle(p.ask(RDS, "r"))
    return p


def test_a_proxy_that_has_nothing_gets_clusters_of_any_age_before_listeners() -> None:
    p = proxy({(LDS, "l"): b"l", (CDS, "a"): cluster("a")})
    p.update({(CDS, "b"): cluster("b")})
    (clusters,) = p.ask(CDS)
    p.update({(CDS, "c"): cluster("c")})
    assert set(clusters.resources) == {"a", "b"}
    assert p.ask(LDS) == []
    assert {r.type_url for r in p.acknowledge(clusters)} == {CDS, LDS}


def test_routes_wait_for_new_clusters_and_their_endpoints_and_removals_for_the_routes() -> None:
    p = ready()
    (clusters,) = p.update(
        {
            (CDS, "old"): None,
            (EDS, "old"): None,
            (CDS, "new"): cluster("new"),
            (EDS, "new"): b"e",
            (RDS, "r"): b"to new",
        }
    )
    assert tuple(clusters.resources) == ("new",)
    (endpoints,) = p.ask(EDS, "new")  # Envoy asks before it acknowledges the cluster
    assert p.acknowledge(clusters) == []
    (routes,) = p.acknowledge(endpoints)
    assert bodies(routes) == {"r": b"to new"}
    removals = p.acknowledge(routes)
    assert sorted((r.type_url, r.removed) for r in removals) == [(CDS, ("old",)), (EDS, ("old",))]
    assert p.settle(removals)


def test_a_route_change_alone_goes_out_at_once_even_behind_a_later_endpoint_change() -> None:
    p = ready()
    (routes,) = p.update({(RDS, "r"): b"2"})
    (endpoints,) = p.update({(EDS, "old"): b"e2"})
    assert (routes.type_url, endpoints.type_url) == (RDS, EDS)


def test_a_later_cluster_change_does_not_hold_an_earlier_route_change() -> None:
    p = ready()
    (first,) = p.update({(EDS, "old"): b"e2", (RDS, "r"): b"2"})
    assert p.update({(EDS, "old"): b"e3"}) == []
    responses = p.acknowledge(first)
    assert [r.type_url for r in responses] == [EDS, RDS]


def test_listeners_go_before_the_routes_they_no_longer_use_are_removed() -> None:
    p = ready()
    responses = p.update({(LDS, "l"): None, (RDS, "r"): None, (CDS, "old"): None})
    assert [(r.type_url, r.removed) for r in responses] == [(LDS, ("l",))]
    assert [t for t, _, _ in p.settle(responses)] == [LDS, RDS, CDS]


def test_filter_chains_and_listeners_travel_after_the_secrets() -> None:
    p = proxy({(SDS, "s"): b"1", (FCDS, "f"): b"1", (LDS, "l"): b"1"})
    for type_url, names in ((LDS, ()), (FCDS, ("f",)), (SDS, ("s",))):
        p.settle(p.ask(type_url, *names))
    (secrets,) = p.update({(SDS, "s"): b"2", (FCDS, "f"): b"2", (LDS, "l"): b"2"})
    assert secrets.type_url == SDS
    assert [r.type_url for r in p.acknowledge(secrets)] == [FCDS, LDS]


def test_a_filter_chain_goes_before_the_listener_that_no_longer_names_it() -> None:
    p = proxy({(FCDS, "f"): b"1", (FCDS, "g"): b"1", (LDS, "l"): b"f g"})
    p.settle(p.ask(LDS))
    p.settle(p.ask(FCDS, "f", "g"))
    responses = p.update({(FCDS, "f"): None, (FCDS, "g"): b"2", (LDS, "l"): b"g"})
    assert p.settle(responses) == [(FCDS, ("g",), ()), (FCDS, (), ("f",)), (LDS, ("l",), ())]
    assert p.stream.settled


def test_a_filter_chain_and_its_listener_wait_for_the_secret_of_another() -> None:
    p = proxy({(SDS, "s"): b"1", (FCDS, "f"): b"1", (LDS, "l"): b"f"})
    for type_url, names in ((LDS, ()), (FCDS, ("f",)), (SDS, ("s",))):
        p.settle(p.ask(type_url, *names))
    responses = p.update({(SDS, "s"): b"2", (FCDS, "f"): None, (LDS, "l"): b"g"})
    assert p.settle(responses) == [(SDS, ("s",), ()), (FCDS, (), ("f",)), (LDS, ("l",), ())]


def test_a_refused_cluster_does_not_hold_the_routes() -> None:
    p = ready()
    (clusters,) = p.update({(CDS, "bad"): cluster("bad"), (RDS, "r"): b"to bad"})
    _, (routes,) = p.refuse(clusters, "Error adding/updating cluster(s) bad: no")
    assert routes.type_url == RDS


def test_a_cluster_that_stays_cold_is_overtaken_and_may_still_be_acknowledged() -> None:
    p = ready()
    (cold,) = p.update({(CDS, "cold"): cluster("cold"), (RDS, "r"): b"to cold"})
    assert p.stream.awaited == {cold.nonce: False}
    p.stream.overtake([cold.nonce])
    (routes,) = p.stream.take()
    assert routes.type_url == RDS
    p.acknowledge(routes)
    assert not p.stream.settled
    (repaired,) = p.update({(CDS, "cold"): cluster("cold", "2")})
    assert p.stream.awaited == {repaired.nonce: True}
    p.acknowledge(cold, repaired)
    assert p.stream.settled
    assert p.stream.subscriptions[CDS].acked["cold"] == version_of(cluster("cold", "2"))


def test_a_changed_cluster_is_followed_by_its_endpoints() -> None:
    p = ready()
    clusters, endpoints = p.update({(CDS, "old"): cluster("old", "2")})
    assert (clusters.type_url, bodies(endpoints)) == (CDS, {"old": b"e"})


def test_a_refused_listener_among_good_ones_is_not_tried_again() -> None:
    p = proxy({(LDS, name): name.encode() for name in ("a", "bad", "c")})
    (response,) = p.ask(LDS)
    outcome, more = p.refuse(response, "Error adding/updating listener(s) bad: cannot bind\n")
    assert outcome.acknowledged == {(LDS, "a"): version_of(b"a"), (LDS, "c"): version_of(b"c")}
    assert outcome.rejected == [
        ((LDS, "bad"), version_of(b"bad"), "Error adding/updating listener(s) bad: cannot bind")
    ]
    # Envoy applied the good ones without recording their versions: they are sent once more, to be named on a reconnect.
    assert p.settle(more) == [(LDS, ("a", "c"), ())]


@pytest.mark.parametrize("hint", ["route b: no", "no"], ids=["named", "unnamed"])
def test_the_offender_among_routes_is_found(hint: str) -> None:
    p = proxy({(RDS, name): name.encode() for name in "abcd"})
    responses = p.ask(RDS, *"abcd")
    applied: dict[str, bytes] = {}
    rejected: list[ResourceName | None] = []
    rounds = 0
    while responses:
        rounds += 1
        (response,) = responses
        if "b" in response.resources:
            outcome, responses = p.refuse(response, hint)
            rejected += [name for name, _, _ in outcome.rejected]
        else:
            applied.update(bodies(response))
            responses = p.acknowledge(response)
    assert (sorted(applied), rejected) == (["a", "c", "d"], [(RDS, "b")])
    assert rounds <= 5
    assert p.stream.settled


def test_a_refused_version_is_kept_from_a_new_stream_if_a_good_one_is_known() -> None:
    p = proxy({(RDS, "a"): b"good"})
    p.settle(p.ask(RDS, "a"))
    (response,) = p.update({(RDS, "a"): b"bad"})
    p.refuse(response, "no")
    another = Proxy(p.world)
    (response,) = another.ask(RDS, "a")
    assert bodies(response) == {"a": b"good"}
    another.acknowledge(response)
    assert another.stream.settled
    (response,) = another.update({(RDS, "a"): b"better"})
    assert bodies(response) == {"a": b"better"}


def test_a_refused_version_is_tried_again_after_it_changed_and_came_back() -> None:
    p = proxy({(RDS, "a"): b"bad"})
    _, more = p.refuse(*p.ask(RDS, "a"), "no")
    assert more == []
    assert p.update({(RDS, "b"): b"x"}) == []
    p.settle(p.update({(RDS, "a"): b"good"}))
    (response,) = p.update({(RDS, "a"): b"bad"})
    assert bodies(response) == {"a": b"bad"}


def test_a_refused_fallback_does_not_alternate_with_the_refused_wish() -> None:
    world = World()
    world.update({(RDS, "a"): b"1"}, complete=True)
    lucky, unlucky = Proxy(world), Proxy(world)
    lucky.settle(lucky.ask(RDS, "a"))
    (response,) = lucky.update({(RDS, "a"): b"2"})
    (fallback,) = unlucky.ask(RDS, "a")
    lucky.refuse(response, "no")
    seen = []
    responses = [fallback]
    while responses:
        seen.append(bodies(responses[0])["a"])
        _, responses = unlucky.refuse(responses[0], "no")
    assert seen == [b"2", b"1"]
    assert unlucky.stream.settled


def test_names_are_found_as_words() -> None:
    assert mentioned(["a", "ab", "a/b"], "listener ab: no") == ["ab"]
    assert mentioned(["x", "x.y"], 'name: "x.y"') == ["x.y"]
    assert mentioned(["web"], "in route web.") == ["web"]
    assert mentioned(["a"], "a problem") == ["a"]  # a wrong suspicion costs one more round, no more


def test_dumps_are_cut_out_of_messages() -> None:
    dump = 'goo.gle/debugproto   \nprivate_key { inline_bytes: "PEM" }\n'
    assert readable(f"{dump}: Proto constraint validation failed (x)") == "Proto constraint validation failed (x)"
    assert readable('Unable to unpack as X: goo.gle/debugproto \ntype_url: "t"\n') == "Unable to unpack as X"
    assert readable("plain: no\n") == "plain: no"
