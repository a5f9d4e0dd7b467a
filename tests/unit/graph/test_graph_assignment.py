"""Which address answers which request (GEP-5093)."""

from hypothesis import given
from hypothesis import strategies as st

from propylon import api
from propylon.graph import GatewayAddresses
from propylon.graph.assignment import CLUSTER, SENTINEL, assign
from propylon.graph.model import Finding

POOL, INSIDE = "192.0.2.1", "10.96.0.1"


def offered(*values: str, inside: tuple[str, ...] = (), finding: Finding | None = None) -> GatewayAddresses:
    return GatewayAddresses(
        addresses=tuple(api.GatewayStatusAddress(value=value) for value in values),
        bind=values,
        finding=finding,
        reserve=tuple(api.GatewayStatusAddress(value=value, routability=CLUSTER) for value in inside),
    )


def request(
    value: str | None = None, routability: str | None = None, kind: str = "IPAddress"
) -> api.GatewaySpecAddress:
    return api.GatewaySpecAddress(type=kind, value=value, routability=routability)


def given_to(requests: list[api.GatewaySpecAddress], addresses: GatewayAddresses) -> list[tuple[str, str]]:
    return [(a.value, a.routability or "") for a in assign(requests, addresses).addresses]


def test_who_asks_for_nothing_gets_what_is_for_all() -> None:
    assert given_to([], offered(POOL, inside=(INSIDE,))) == [(POOL, "")]


def test_order_does_not_matter() -> None:
    both = offered(POOL, inside=(INSIDE,))
    assert given_to([request(), request(routability=CLUSTER)], both) == [(POOL, ""), (INSIDE, CLUSTER)]
    assert given_to([request(routability=CLUSTER), request()], both) == [(INSIDE, CLUSTER), (POOL, "")]


def test_a_wish_for_any_address_does_not_take_the_one_that_somebody_needs() -> None:
    two = offered("192.0.2.1", "192.0.2.2")
    assert given_to([request(), request("192.0.2.1")], two) == [("192.0.2.2", ""), ("192.0.2.1", "")]
    # Of a Service of type ClusterIP every address is one of the cluster.
    inside = GatewayAddresses(
        addresses=(
            api.GatewayStatusAddress(value=INSIDE, routability=CLUSTER),
            api.GatewayStatusAddress(value="fd00::1", routability=CLUSTER),
        )
    )
    assert given_to([request(), request("FD00:0::1", CLUSTER)], inside) == [(INSIDE, CLUSTER), ("fd00::1", CLUSTER)]


def test_a_cluster_ip_is_not_given_to_who_did_not_ask() -> None:
    only_inside = offered(inside=(INSIDE,))
    assert given_to([request()], only_inside) == []
    assert given_to([request(INSIDE)], only_inside) == [(INSIDE, CLUSTER)]


def test_the_sentinel_is_reported_as_it_was_asked_for() -> None:
    assert given_to([request(routability=SENTINEL)], offered(POOL)) == [(POOL, SENTINEL)]


def test_what_nobody_knows_is_not_answered() -> None:
    for unknown in ("example.com/x", "testing.x-k8s.io/other"):
        assert given_to([request(routability=unknown)], offered(POOL, inside=(INSIDE,))) == []
    assert given_to([request("x.example.com", kind="Hostname")], offered(POOL)) == []


REQUESTS = st.lists(
    st.builds(
        request,
        st.sampled_from([None, "192.0.2.1", "192.0.2.2", INSIDE]),
        st.sampled_from([None, "", CLUSTER, SENTINEL, "example.com/x"]),
    ),
    min_size=1,
    max_size=6,
)
OFFERS = st.builds(
    lambda values, inside: offered(*values, inside=tuple(inside)),
    st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.3"]), unique=True),
    st.lists(st.sampled_from([INSIDE, "10.96.0.2"]), unique=True),
)


@given(REQUESTS, OFFERS)
def test_every_request_has_an_address_of_its_own_that_matches_or_is_missing(
    requests: list[api.GatewaySpecAddress], addresses: GatewayAddresses
) -> None:
    assignment = assign(requests, addresses)
    missing = {index for index, _ in assignment.missing}
    answered = [each for index, each in enumerate(requests) if index not in missing]
    assert len(answered) == len(assignment.addresses)
    assert len({address.value for address in assignment.addresses}) == len(assignment.addresses)
    every = {a.value: a.routability or "" for a in (*addresses.addresses, *addresses.reserve)}
    for each, address in zip(answered, assignment.addresses, strict=True):
        assert not each.value or each.value == address.value
        assert each.routability in {None, ""} or each.routability == address.routability
        assert address.routability == SENTINEL or (address.routability or "") == every[address.value]
