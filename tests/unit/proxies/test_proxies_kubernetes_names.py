"""Names and labels of what is made for Gateways."""

import re

from hypothesis import given
from hypothesis import strategies as st

from propylon.proxies.kubernetes.names import LONGEST, base_name, dns_label, label_value

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
LABEL_VALUE = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
OURS = "propylon.dev/gateway-controller"

names = st.from_regex(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", fullmatch=True).filter(
    lambda name: len(name) <= 253
)


def test_short_names_stay_readable() -> None:
    assert base_name("web", "propylon", OURS) == "web-propylon"
    assert base_name("web", "cilium", "io.cilium/gateway-controller") == "cilium-gateway-web"


def test_a_name_of_253_characters_is_cut_and_told_from_its_neighbours() -> None:
    one, other = base_name("a" * 252 + "b", "c", OURS), base_name("a" * 252 + "c", "c", OURS)
    assert len(one) == len(other) == LONGEST
    assert one != other
    assert one.startswith("a" * 52 + "-")


def test_dots_and_leading_digits_are_replaced_without_meeting_others() -> None:
    assert dns_label("a.b").startswith("a-b-")
    assert dns_label("a.b") != dns_label("a-b")
    assert dns_label("1a").startswith("gw-1a-")
    assert dns_label("1a") != dns_label("gw-1a")


def test_a_suffix_survives() -> None:
    assert dns_label("web", "-xds") == "web-xds"
    assert dns_label("a" * 63, "-xds").endswith("-xds")
    assert len(dns_label("a" * 63, "-xds")) == LONGEST


@given(names, names)
def test_every_gateway_gets_a_valid_name_and_label(gateway: str, class_name: str) -> None:
    for controller in (OURS, "io.cilium/gateway-controller"):
        name = base_name(gateway, class_name, controller)
        assert DNS_LABEL.match(name)
        assert len(name) <= LONGEST
        secret = dns_label(name, "-xds")
        assert DNS_LABEL.match(secret)
        assert len(secret) <= LONGEST
    assert LABEL_VALUE.match(label_value(gateway))
    assert len(label_value(gateway)) <= LONGEST


@given(names, names)
def test_labels_of_different_names_differ(one: str, other: str) -> None:
    assert (label_value(one) == label_value(other)) == (one == other)
