from propylon import api
from propylon.app.acknowledgements import Acknowledgements, merge_findings, rejection_findings
from propylon.xds import FCDS, LDS, RDS, Acknowledged, Rejected, version_of

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
