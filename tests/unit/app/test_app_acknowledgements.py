import pytest

from propylon import api
from propylon.app.acknowledgements import (
    Acknowledgements,
    NodeSaid,
    OwnSource,
    Source,
    merge_findings,
    rejection_findings,
)
from propylon.xds import (
    FCDS,
    LDS,
    RDS,
    Acknowledged,
    Connected,
    Disconnected,
    Event,
    Rejected,
    ResourceName,
    version_of,
)

NODE = "default/web"
BODY = b"listener"
VERSION = version_of(BODY)


def acknowledged(*, settled: bool) -> Acknowledged:
    return Acknowledged(NODE, 1, {(LDS, "tcp/80"): VERSION}, settled)


def test_programmed_means_acknowledged_and_nothing_left() -> None:
    known = Acknowledgements()
    assert known.port_state(NODE, "tcp/80", BODY).state == "Pending"
    known.accept(acknowledged(settled=False))
    assert known.port_state(NODE, "tcp/80", BODY).state == "Pending", "its routes are still to come"
    known.accept(Acknowledged(NODE, 1, {(RDS, "http/80"): "v"}, True))
    assert known.port_state(NODE, "tcp/80", BODY).state == "Programmed"
    assert known.port_state(NODE, "tcp/80", b"changed").state == "Pending"
    assert known.port_state(NODE, "tcp/80", None).state == "Pending"


def test_a_new_process_has_nothing() -> None:
    known = Acknowledgements()
    known.accept(acknowledged(settled=True))
    known.restarted(NODE)
    assert known.port_state(NODE, "tcp/80", BODY).state == "Pending"


def test_a_refusal_is_told_until_it_is_outdated() -> None:
    known = Acknowledgements()
    known.accept(Rejected(NODE, 1, (LDS, "tcp/80"), VERSION, "cannot bind", True))
    state = known.port_state(NODE, "tcp/80", BODY)
    assert (state.state, state.message) == ("Rejected", "cannot bind")
    assert known.nodes_with_rejections == (NODE,)
    known.drop_outdated(NODE, {(LDS, "tcp/80"): "another"})
    assert known.nodes_with_rejections == ()
    assert known.port_state(NODE, "tcp/80", b"another").state == "Pending"


def test_refusals_are_told_to_the_objects_behind_them() -> None:
    ref = api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "default", "shop")
    found = rejection_findings({(RDS, "http/80"): ("v", "bad regex")}, {(RDS, "http/80"): (ref,)})
    assert "bad regex" in found[ref][0].message
    assert merge_findings([found, found]) == found


def test_filter_chains_stand_for_themselves() -> None:
    known = Acknowledgements()
    one, two = (FCDS, "tcp/443/one.test"), (FCDS, "tcp/443/two.test")
    known.accept(Acknowledged(NODE, 1, {(LDS, "tcp/80"): VERSION, one: version_of(b"1")}, False))
    assert known.state(NODE, one, b"1").state == "Pending"
    known.accept(Rejected(NODE, 1, two, version_of(b"2"), "no such filter", True))
    assert known.state(NODE, one, b"1").state == "Programmed"
    assert known.state(NODE, one, b"another").state == "Pending"
    assert known.state(NODE, two, b"2").message == "no such filter"
    assert known.port_state(NODE, "tcp/80", BODY).state == "Programmed"
    known.accept(Acknowledged(NODE, 1, {one: None}, True))
    assert known.state(NODE, one, b"1").state == "Pending"


def test_a_matcher_that_grows_leaves_the_others_programmed() -> None:
    known = Acknowledgements()
    inside, first, second = b"inside", b"inside and one", b"inside and two"
    assert known.port_state(NODE, "tcp/80", first, len(inside)).state == "Pending"
    known.accept(Acknowledged(NODE, 1, {(LDS, "tcp/80"): version_of(first)}, True))
    assert known.port_state(NODE, "tcp/80", first, len(inside)).state == "Programmed"
    assert known.port_state(NODE, "tcp/80", second, len(inside)).state == "Programmed"
    assert known.port_state(NODE, "tcp/80", b"INSIDE and two", len(inside)).state == "Pending"
    known.accept(Rejected(NODE, 1, (LDS, "tcp/80"), version_of(second), "no", True))
    assert known.port_state(NODE, "tcp/80", second, len(inside)).state == "Rejected"
    known.restarted(NODE)
    known.drop_outdated(NODE, {})
    assert known.port_state(NODE, "tcp/80", second, len(inside)).state == "Pending"


# --- several replicas -------------------------------------------------------------------------------------------------

PORT = (LDS, "tcp/80")


class Replicas:
    """The bookkeeping of a leader, with its own proxies and those of others."""

    def __init__(self) -> None:
        self.known = Acknowledgements()

    def own(self, *bodies: bytes) -> None:
        """A proxy is connected here, and has had these."""
        self.known.accept(Connected(NODE, 1, first=NODE not in self.known.own.connected))
        for body in bodies:
            self.known.accept(Acknowledged(NODE, 1, {PORT: version_of(body)}, True))

    def own_leaves(self) -> None:
        self.known.accept(Disconnected(NODE, 1, last=True))

    def other(self, name: str, body: bytes | None = None, *, connected: bool = True) -> None:
        if name not in self.known.others:
            self.known.replace(name, Source())
        complete = () if body is None else ((*PORT, version_of(body)),)
        self.known.take(name, NodeSaid(NODE, connected, complete))

    def refuses(self, name: str, body: bytes | None) -> None:
        refusal = (version_of(body), "cannot bind") if body is not None else None
        self.known.take(name, NodeSaid(NODE, True, refused=((*PORT, refusal),)))

    def state(self, body: bytes = BODY) -> str:
        return self.known.port_state(NODE, "tcp/80", body).state


@pytest.fixture
def replicas() -> Replicas:
    return Replicas()


def test_all_who_have_proxies_must_say_so(replicas: Replicas) -> None:
    replicas.own(BODY)
    replicas.other("b", b"before")
    assert replicas.state() == "Pending"
    replicas.other("b", BODY)
    assert replicas.state() == "Programmed"
    replicas.other("c", b"before", connected=False)
    assert replicas.state() == "Programmed", "it has no proxies of the node any more"
    assert replicas.state(b"next") == "Pending"


def test_a_replica_that_has_them_all_is_enough(replicas: Replicas) -> None:
    replicas.other("b", BODY)
    assert replicas.state() == "Programmed"
    assert replicas.known.served(NODE)


def test_any_refusal_counts(replicas: Replicas) -> None:
    replicas.own(BODY)
    replicas.other("b", b"before")
    replicas.refuses("b", BODY)
    assert replicas.state() == "Rejected"
    assert replicas.known.nodes_with_rejections == (NODE,)
    assert replicas.known.rejected(NODE) == {PORT: (VERSION, "cannot bind")}
    replicas.refuses("b", None)
    assert replicas.state() == "Pending"
    assert replicas.known.nodes_with_rejections == ()


def test_a_refusal_of_what_is_wanted_next_is_not_lost(replicas: Replicas) -> None:
    replicas.own(BODY)
    replicas.other("b", BODY)
    replicas.refuses("b", b"next")  # it was quicker than we are
    replicas.known.drop_outdated(NODE, {PORT: VERSION})
    assert replicas.known.rejected(NODE) == {}
    assert replicas.state() == "Programmed"
    replicas.known.drop_outdated(NODE, {PORT: version_of(b"next")})
    assert replicas.known.rejected(NODE) == {PORT: (version_of(b"next"), "cannot bind")}
    assert replicas.state(b"next") == "Rejected"


def test_proxies_that_move_take_nothing_back(replicas: Replicas) -> None:
    replicas.own(BODY)
    assert replicas.state() == "Programmed"
    replicas.own_leaves()
    assert replicas.state() == "Programmed", "it has a moment to come back"
    replicas.other("b")
    assert replicas.state() == "Programmed"
    replicas.known.restarted(NODE)
    assert replicas.state() == "Programmed"
    assert replicas.state(b"next") == "Pending"
    assert replicas.state() == "Pending", "nobody has said that it has this"
    replicas.other("b", BODY)
    assert replicas.state() == "Programmed"


def test_what_a_proxy_had_when_it_left_is_not_held_against_it(replicas: Replicas) -> None:
    replicas.own(b"before")
    replicas.other("b", b"before")
    replicas.own_leaves()
    replicas.other("b", BODY)
    assert replicas.state() == "Programmed"
    replicas.own()
    assert replicas.state() == "Programmed"
    replicas.other("b", connected=False)
    replicas.own(b"later")
    assert replicas.state(b"later") == "Programmed"
    replicas.other("b")  # with what it has: it has not told yet
    assert replicas.state(b"later") == "Programmed"
    replicas.other("b", BODY)
    assert replicas.state(b"later") == "Pending"


def test_a_listener_that_is_taken_away_elsewhere_is_not_programmed_when_it_returns(replicas: Replicas) -> None:
    replicas.other("b", BODY)
    assert replicas.state() == "Programmed"
    replicas.known.take("b", NodeSaid(NODE, True, ((*PORT, None),)))
    assert replicas.state() == "Pending"


def test_a_replica_that_is_gone_is_believed_for_a_while(replicas: Replicas) -> None:
    replicas.other("b", BODY)
    assert replicas.state() == "Programmed"
    replicas.known.lost("b")
    assert not replicas.known.connected(NODE)
    assert not replicas.known.served(NODE)
    assert replicas.state() == "Programmed"
    assert replicas.known.replace("b", None) == {NODE}
    assert replicas.state() == "Pending"


def test_what_one_tells_makes_the_other_know_the_same() -> None:
    own, other = OwnSource(), Source()
    touched: dict[str, set[ResourceName]] = {}
    own.on_change = lambda node, names: touched.setdefault(node, set()).update(names)
    chain, route = (FCDS, "tcp/443/one.test"), (RDS, "http/80")
    events: list[Event | None] = [
        Connected(NODE, 1, first=True),
        Acknowledged(NODE, 1, {PORT: "1", chain: "1"}, False),
        Acknowledged(NODE, 1, {}, True),
        Rejected(NODE, 1, route, "2", "bad", False),
        Rejected(NODE, 1, chain, "2", "bad", True),
        None,
        Acknowledged(NODE, 1, {route: "3"}, True),
        Acknowledged(NODE, 1, {chain: None}, True),
        Connected("default/other", 2, first=True),
        Disconnected(NODE, 1, last=True),
    ]
    for event in events:
        if event is not None:
            own.accept(event)
        else:
            own.drop_outdated(NODE, {route: "2"})
        for node, names in touched.items():
            other.take(own.said(node, names))
        touched.clear()
        assert other.connected == own.connected
        assert other.complete == {node: names for node, names in own.complete.items() if names}
        assert other.refused == {node: names for node, names in own.refused.items() if names}
    anew = Source()
    for node in own.nodes:
        anew.take(own.said(node))
    assert (anew.connected, anew.complete) == (other.connected, other.complete)
