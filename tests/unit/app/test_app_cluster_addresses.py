"""Addresses of Gateways in a cluster: stable, never shared by accident, and said to be missing where they are."""

from hypothesis import given
from hypothesis import strategies as st

from propylon import api
from propylon.app.cluster_addresses import AddressBook, parse_pool

ANYTHING = "*"


def key(name: str) -> api.ObjectKey:
    return api.ObjectKey("shop", name)


def gateway(*requested: str, status: tuple[str, ...] = (), kind: str = "IPAddress") -> api.Gateway:
    return api.Gateway(
        metadata=api.ObjectMeta(name="x", namespace="shop"),
        spec=api.GatewaySpec(
            gateway_class_name="c",
            listeners=(),
            addresses=tuple(
                api.GatewaySpecAddress(type=kind, value=None if value == ANYTHING else value) for value in requested
            ),
        ),
        status=api.GatewayStatus(addresses=tuple(api.GatewayStatusAddress(value=value) for value in status)),
    )


def book(*pools: str, usable: str = "") -> AddressBook:
    """Addresses that start with `usable` can be bound."""
    return AddressBook([parse_pool(pool) for pool in pools], lambda address: address.startswith(usable))


def bound(addresses: AddressBook, **gateways: api.Gateway | None) -> dict[str, tuple[str, ...]]:
    placed = addresses.place({key(name): found for name, found in gateways.items()})
    assert all(tuple(a.value for a in found.addresses) == found.bind for found in placed.values())
    return {k.name: found.bind for k, found in placed.items()}


def test_the_lowest_free_address_of_the_first_pool_with_one_left() -> None:
    addresses = book("10.0.0.0/30", "fd00::/126")
    assert bound(addresses, b=gateway(), a=gateway()) == {"a": ("10.0.0.1",), "b": ("10.0.0.2",)}
    assert bound(addresses, c=gateway()) == {"c": ("fd00::1",)}
    assert bound(addresses, a=gateway()) == {"a": ("10.0.0.1",)}, "and keeps it"


def test_what_the_status_says_is_claimed_before_newcomers_get_anything() -> None:
    found = bound(book("10.0.0.0/24"), a=gateway(), z=gateway(status=("192.0.2.1", "10.0.0.1")))
    assert found == {"a": ("10.0.0.2",), "z": ("10.0.0.1",)}


def test_two_that_claim_the_same_do_not_share_it() -> None:
    found = bound(book("10.0.0.0/24"), a=gateway(status=("10.0.0.9",)), b=gateway(status=("10.0.0.9",)))
    assert found == {"a": ("10.0.0.9",), "b": ("10.0.0.1",)}


def test_an_address_that_was_given_back_is_used_last() -> None:
    addresses = book("10.0.0.0/29")
    bound(addresses, a=gateway(), b=gateway())
    assert bound(addresses, a=None, b=None) == {}
    assert bound(addresses, c=gateway(), d=gateway(), e=gateway(), f=gateway()) == {
        "c": ("10.0.0.3",),
        "d": ("10.0.0.4",),
        "e": ("10.0.0.5",),
        "f": ("10.0.0.6",),
    }
    assert bound(addresses, g=gateway()) == {"g": ("10.0.0.1",)}, "the one that is free for the longest time"


def test_a_requested_address_is_not_given_to_anybody_else() -> None:
    addresses = book("10.0.0.0/24")
    assert bound(addresses, a=gateway(), z=gateway("10.0.0.1")) == {"a": ("10.0.0.2",), "z": ("10.0.0.1",)}
    assert bound(addresses, z=None, b=gateway()) == {"b": ("10.0.0.1",)}


def test_an_address_without_value_is_chosen_beside_those_with_one() -> None:
    assert bound(book("10.0.0.0/24"), a=gateway("10.0.0.1", ANYTHING)) == {"a": ("10.0.0.1", "10.0.0.2")}


def test_a_gateway_that_asks_for_an_address_gives_its_chosen_one_back() -> None:
    addresses = book("10.0.0.0/31")
    assert bound(addresses, a=gateway(), b=gateway()) == {"a": ("10.0.0.0",), "b": ("10.0.0.1",)}
    assert bound(addresses, a=gateway("10.9.9.9")) == {"a": ("10.9.9.9",)}
    assert bound(addresses, c=gateway()) == {"c": ("10.0.0.0",)}


def test_what_cannot_be_bound_is_said_and_the_rest_is_used() -> None:
    addresses = book("10.0.0.0/24", usable="10.")
    (found,) = addresses.place({key("a"): gateway("198.51.100.0", "10.0.0.7")}).values()
    assert found.bind == ("10.0.0.7",)
    assert found.finding is not None
    assert (found.finding.reason, found.finding.field) == ("AddressNotUsable", "spec.addresses")
    assert "198.51.100.0" in found.finding.message


def test_without_an_address_left_it_says_what_to_do() -> None:
    addresses = book("10.0.0.1/32")
    bound(addresses, a=gateway())
    (none_left,) = addresses.place({key("b"): gateway()}).values()
    (no_pool,) = book().place({key("b"): gateway()}).values()
    for found, words in ((none_left, "no address is left in 10.0.0.1/32"), (no_pool, "there is no --address-pool")):
        assert found.bind == ()
        assert found.finding is not None
        assert found.finding.reason == "AddressNotAssigned"
        assert words in found.finding.message


def test_other_types_of_addresses_are_left_to_whoever_judges_them() -> None:
    (found,) = book("10.0.0.0/24").place({key("a"): gateway("example.com", kind="Hostname")}).values()
    assert (found.bind, found.finding) == ((), None)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.one_of(
            st.none(),
            st.builds(gateway),
            st.builds(gateway, st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.1"])),
            st.builds(lambda s: gateway(status=(s,)), st.sampled_from(["10.0.0.1", "10.0.0.3", "192.0.2.1"])),
        ),
    ),
    max_size=30,
)


@given(CHANGES)
def test_chosen_addresses_are_never_shared_and_never_move(changes: list[tuple[str, api.Gateway | None]]) -> None:
    addresses = book("10.0.0.0/28")
    chosen: dict[str, str] = {}
    for name, found in changes:
        (bind,) = bound(addresses, **{name: found}).values() or ((),)
        if found is None or found.spec.addresses:
            chosen.pop(name, None)
        else:
            assert chosen.get(name, bind[0]) == bind[0]
            chosen[name] = bind[0]
    assert len(set(chosen.values())) == len(chosen)
