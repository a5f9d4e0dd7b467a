"""Which of the addresses that a Gateway can have answer which of its requests (GEP-5093)."""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from propylon import api
from propylon.graph.model import Finding
from propylon.graph.sources import GatewayAddresses

CLUSTER = "Cluster"
"""Routability of a Service's cluster IP."""
SENTINEL = "testing.x-k8s.io/sentinel"
"""A routability that promises nothing and is reported as it was asked for (GEP-5093, "Well-Known Values")."""


class Assignment(NamedTuple):
    """What a Gateway gets, and which of its requests are not answered by that."""

    addresses: tuple[api.GatewayStatusAddress, ...]
    missing: tuple[tuple[int, api.GatewaySpecAddress], ...] = ()
    """With their positions in spec.addresses."""


def can_be_answered(request: api.GatewaySpecAddress) -> bool:
    """Whether anybody here could ever answer a request: an IP address, of a routability that is known."""
    return request.type == "IPAddress" and (request.routability or "") in {"", CLUSTER, SENTINEL}


def asks_for_nothing_possible(gateway: api.Gateway) -> bool:
    """Whether a Gateway asks for addresses, and for none that anybody here could give."""
    return bool(gateway.spec.addresses) and not any(map(can_be_answered, gateway.spec.addresses))


def assign(requests: Sequence[api.GatewaySpecAddress], offered: GatewayAddresses) -> Assignment:
    """Give every request an address of its own that matches it, the most demanding request first.

    Without requests a Gateway has what is offered to all.
    """
    if not requests:
        return Assignment(offered.addresses)
    common, reserve = list(offered.addresses), list(offered.reserve)
    given: dict[int, api.GatewayStatusAddress] = {}
    order = sorted(range(len(requests)), key=lambda i: (not requests[i].value, not requests[i].routability, i))
    for index in order:
        request = requests[index]
        # Who asks for nothing in particular is not led to an address that is kept for others.
        pools = (common, reserve) if request.value or request.wants_cluster_ip else (common,)
        for pool in pools:
            if (found := next((a for a in pool if _matches(request, a)), None)) is not None:
                pool.remove(found)
                wanted = SENTINEL if request.routability == SENTINEL else found.routability
                given[index] = msgspec.structs.replace(found, routability=wanted)
                break
    return Assignment(
        tuple(given[index] for index in sorted(given)),
        tuple((index, request) for index, request in enumerate(requests) if index not in given),
    )


def _matches(request: api.GatewaySpecAddress, address: api.GatewayStatusAddress) -> bool:
    if request.type != address.type or not can_be_answered(request):
        return False
    if request.wants_cluster_ip and address.routability != CLUSTER:
        return False
    return not request.value or canonical(request.value) == canonical(address.value)


def canonical(address: str) -> str:
    """An IP address in its shortest form; what is none, unchanged."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def describe_request(request: api.GatewaySpecAddress) -> str:
    """A request in words."""
    what = request.value or f"any {request.type}"
    return f"{what} of routability {request.routability}" if request.routability else what


def assignment_finding(assignment: Assignment, offered: GatewayAddresses) -> Finding | None:
    """What is wrong with an assignment, unless whoever offers the addresses said so already."""
    if not assignment.missing or offered.finding is not None:
        return None
    names = ", ".join(describe_request(request) for _, request in assignment.missing)
    field = f"spec.addresses[{assignment.missing[0][0]}]"
    if assignment.addresses:
        return Finding("AddressesAssigned", "PartiallyAssigned", f"not assigned: {names}", field)
    return Finding("Programmed", "AddressNotAssigned", f"none of the requested addresses was assigned: {names}", field)
