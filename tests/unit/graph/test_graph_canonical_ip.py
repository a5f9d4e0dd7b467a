"""One spelling of an IP address, found without `ipaddress` where there is only one."""

import ipaddress

import pytest

from propylon.graph.endpoints import canonical_ip

PARTS = ("0", "1", "01", "255", "256", "", " 1", "1 ", "+1", "0x1", "1e1", "\u0661", "1\0", "\ud800")


def told(address: str) -> str | None:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("part", PARTS)
def test_it_is_what_the_standard_library_says(part: str, place: int) -> None:
    parts = ["10", "0", "200", "7"]
    parts[place] = part
    address = ".".join(parts)
    assert canonical_ip(address) == told(address)


@pytest.mark.parametrize(
    "address",
    ["1.2.3", "1.2.3.4.5", "1.2.3.4/32", "127.1", "::1", "0:0::01", "fe80::1%eth0", "::ffff:1.2.3.4", "a.b"],
)
def test_and_for_what_is_no_four_numbers(address: str) -> None:
    assert canonical_ip(address) == told(address)
