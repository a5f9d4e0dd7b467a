"""RouteConfiguration: all virtual hosts of one route table."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from envoy.config.route.v3 import route_pb2

from propylon.envoy import names
from propylon.envoy.resource import serialize
from propylon.envoy.virtual_host import as_fragment, empty_virtual_host, misdirected_virtual_host
from propylon.graph.hostnames import covers
from propylon.graph.model import Filter, Listener, ListenerKey, Port, RouteTableKey


class RouteTable(msgspec.Struct, frozen=True):
    """What a table must answer apart from its routes."""

    key: RouteTableKey
    claimed: tuple[str, ...]
    """Hostnames ("*" for every host) that its listeners claim: each has a virtual host even without routes."""
    misdirected: tuple[str, ...] = ()
    """Hostnames of other listeners, which answer 421 here."""
    listeners: tuple[ListenerKey, ...] = ()
    filters: tuple[tuple[str, tuple[Filter, ...]], ...] = ()
    """Of those of `claimed` whose listener has filters of its own."""


class Claim(NamedTuple):
    """What the tables of a port are made of: a listener without its TLS, which changes more often."""

    listener: ListenerKey
    port: int
    protocol: str
    hostname: str
    filters: tuple[Filter, ...]


def claim_of(listener: Listener) -> Claim | None:
    """Return what the tables need of an HTTP or HTTPS listener."""
    if listener.protocol not in {"HTTP", "HTTPS"}:
        return None
    return Claim(listener.key, listener.port, listener.protocol, listener.hostname or "*", listener.filters)


def claims_of(port: Port) -> tuple[Claim, ...]:
    """One per HTTP or HTTPS listener of the port."""
    return tuple(claim for each in port.listeners if (claim := claim_of(each)) is not None)


def table_of(claim: Claim) -> RouteTableKey:
    """Return the table that a listener uses."""
    return RouteTableKey.of(claim.listener, claim.port, claim.protocol)


def http_table(claims: Sequence[Claim]) -> RouteTable:
    """The table of a port's HTTP listeners, the most specific hostname first."""
    filters = tuple((claim.hostname, claim.filters) for claim in claims if claim.filters)
    hostnames = tuple(claim.hostname for claim in claims)
    return RouteTable(table_of(claims[0]), hostnames, (), tuple(claim.listener for claim in claims), filters)


def https_table(claim: Claim, within: Sequence[str], foreign: Sequence[str] | None) -> RouteTable:
    """The table of an HTTPS listener.

    A request over TLS whose Host belongs to another listener of the port is misdirected (421); one that belongs to none
    is not found (404). `within` are the others' hostnames inside its own, `foreign` those outside: None if every host
    counts as misdirected.
    """
    own = claim.hostname
    if own == "*":
        misdirected = tuple(within)
    elif foreign is None:
        # Hosts of the others' more specific hostnames would fall to "*" anyway.
        misdirected = (*within, "*")
    else:
        misdirected = (*within, *foreign)
    filters = ((own, claim.filters),) if claim.filters else ()
    return RouteTable(table_of(claim), (own,), misdirected, (claim.listener,), filters)


def foreign_hostnames(own: str, within: Sequence[str], hostnames: Sequence[str], limit: int) -> tuple[str, ...] | None:
    """Those of a port's HTTPS `hostnames` (sorted) that are neither `own` nor within it; None if they are not listed.

    With a listener for every host, any foreign host is that one's. Beyond `limit` they would be too many.
    """
    if "*" in hostnames or len(hostnames) - 1 - len(within) > limit:
        return None
    known = {own, *within}
    return tuple(hostname for hostname in hostnames if hostname not in known)


def route_tables(claims: Sequence[Claim], misdirected_limit: int) -> dict[RouteTableKey, RouteTable]:
    """The tables that a port's HTTP and HTTPS listeners use, all at once."""
    tables: dict[RouteTableKey, RouteTable] = {}
    hostnames = sorted({claim.hostname for claim in claims if claim.protocol == "HTTPS"})
    for claim in claims:
        key = table_of(claim)
        if claim.protocol == "HTTPS":
            own = claim.hostname
            within = [each for each in hostnames if each != own and covers(own, each)]
            tables[key] = https_table(claim, within, foreign_hostnames(own, within, hostnames, misdirected_limit))
        elif key not in tables:
            tables[key] = http_table([each for each in claims if table_of(each) == key])
    return tables


def build_route_configuration(table: RouteTable, hosts: Iterable[tuple[str, bytes]]) -> bytes:
    """RouteConfiguration of a table and its virtual hosts, given as (hostname, fragment)."""
    head = route_pb2.RouteConfiguration(
        name=names.route_configuration(table.key),
        # A Host with a port matches, and reaches the backend as it came.
        ignore_port_in_host_matching=True,
    )
    fragments = [serialize(head)]
    served = set()
    for hostname, fragment in hosts:
        served.add(hostname)
        fragments.append(fragment)
    filters = dict(table.filters)
    fragments.extend(
        as_fragment(empty_virtual_host(h, filters.get(h, ()))) for h in sorted(set(table.claimed) - served)
    )
    foreign = [h for h in table.misdirected if h not in served]
    if foreign:
        fragments.append(as_fragment(misdirected_virtual_host(foreign)))
    return b"".join(fragments)
