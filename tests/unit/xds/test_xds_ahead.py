"""What a proxy is told before its world is complete."""

from __future__ import annotations

from envoy.config.cluster.v3 import cluster_pb2

from propylon.xds import CDS, EDS, LDS, RDS, SDS, ResourceName
from propylon.xds.machine import Stream
from propylon.xds.messages import Request, Response
from propylon.xds.world import World

Told = list[tuple[str, tuple[str, ...], tuple[str, ...]]]


def cluster(name: str, service: str = "") -> bytes:
    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS)
    message.eds_cluster_config.service_name = service
    return bytes(message.SerializeToString(deterministic=True))


class Proxy:
    """Answers everything with an acknowledgement."""

    def __init__(self) -> None:
        self.world = World()
        self.stream = Stream(self.world)
        self.stream.allow_removals()

    def ask(self, type_url: str, *names: str, versions: dict[str, str] | None = None) -> Told:
        self.stream.receive(Request(type_url, subscribe=names, initial_versions=versions or {}))
        return self.told()

    def update(self, changes: dict[ResourceName, bytes | None], *, complete: bool = False) -> Told:
        self.stream.desire(self.world.update(changes, complete=complete))
        return self.told()

    def told(self) -> Told:
        told = []
        while responses := self.stream.take():
            told += [self._acknowledged(response) for response in responses]
        return told

    def _acknowledged(self, response: Response) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        self.stream.receive(Request(response.type_url, nonce=response.nonce))
        return response.type_url, tuple(response.resources), response.removed


def test_a_new_proxy_is_told_of_what_others_will_refer_to() -> None:
    proxy = Proxy()
    assert proxy.ask(CDS) == [], "that there are no clusters is not known yet"
    assert proxy.update({(CDS, "a"): cluster("a"), (EDS, "a"): b"1", (LDS, "web"): b"l", (SDS, "s"): b"s"}) == [
        (CDS, ("a",), ())
    ]
    assert proxy.ask(EDS, "a") == [(EDS, ("a",), ())]
    assert proxy.ask(SDS, "s", "unknown") == [(SDS, ("s",), ())]
    assert proxy.ask(LDS) == []
    assert not proxy.stream.settled
    assert proxy.update({(RDS, "r"): b"r", (CDS, "b"): cluster("b")}) == [(CDS, ("b",), ())]
    told = proxy.update({(CDS, "c"): cluster("c")}, complete=True)
    assert [each for each in told if each[0] != SDS] == [(CDS, ("c",), ()), (LDS, ("web",), ())]
    assert (SDS, (), ("unknown",)) in told, "what is not there is said once that is known"
    assert proxy.ask(RDS, "r") == [(RDS, ("r",), ())]


def test_what_changed_or_went_meanwhile_is_put_right() -> None:
    proxy = Proxy()
    proxy.ask(CDS)
    proxy.update({(CDS, "a"): cluster("a"), (CDS, "b"): cluster("b"), (CDS, "c"): cluster("c")})
    assert proxy.update({(CDS, "a"): None}) == [], "nothing is removed before all is known"
    assert proxy.update({(CDS, "b"): cluster("b", "other")}) == [(CDS, ("b",), ())]
    told = proxy.update({(CDS, "c"): None, (LDS, "web"): b"l"}, complete=True)
    assert told == [(CDS, (), ("a", "c"))]
    assert proxy.ask(LDS) == [(LDS, ("web",), ())]


def test_a_cluster_that_shares_endpoints_gets_them_although_the_proxy_has_them() -> None:
    proxy = Proxy()
    proxy.ask(CDS)
    proxy.update({(CDS, "a"): cluster("a", "e"), (EDS, "e"): b"1"})
    proxy.ask(EDS, "e")
    assert proxy.update({(CDS, "twin"): cluster("twin", "e")}) == [(CDS, ("twin",), ()), (EDS, ("e",), ())]


def test_a_proxy_that_has_something_is_told_nothing() -> None:
    proxy = Proxy()
    old, kept = {"gone": "1", "a": "1"}, cluster("kept")
    world = World()
    world.update({(CDS, "kept"): kept})
    old["kept"] = world.desired[CDS]["kept"].version
    assert proxy.ask(CDS, versions=old) == []
    assert proxy.ask(EDS, "a", versions={"a": "1"}) == []
    assert proxy.update({(CDS, "a"): cluster("a"), (CDS, "new"): cluster("new"), (EDS, "a"): b"2"}) == []
    told = proxy.update({(CDS, "kept"): kept}, complete=True)
    assert told == [(CDS, ("a", "new"), ()), (EDS, ("a",), ()), (CDS, (), ("gone",))]
