"""RouteConfiguration: all virtual hosts of one route table."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from envoy.config.route.v3 import route_pb2

from propylon.envoy import names
from propylon.envoy.resource import serialize
from propylon.envoy.virtual_host import as_fragment, empty_virtual_host, misdirected_virtual_host
from propylon.graph.model import Filter, ListenerKey, Port, RouteTableKey


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


def claims_of(port: Port) -> tuple[Claim, ...]:
    """One per HTTP or HTTPS listener of the port."""
    return tuple(
        Claim(each.key, each.port, each.protocol, each.hostname or "*", each.filters)
        for each in port.listeners
        if each.protocol in {"HTTP", "HTTPS"}
    )


def route_tables(claims: Sequence[Claim], misdirected_limit: int) -> dict[RouteTableKey, RouteTable]:
    """The tables that a port's HTTP and HTTPS listeners use.

    A request over TLS whose Host belongs to another listener of the port is misdirected (421); one that belongs to none
    is not found (404). With a listener for every host, any foreign host is that one's. Otherwise the others' hostnames
    are listed, unless there are more than `misdirected_limit`: then every foreign host counts as misdirected.
    """
    tables: dict[RouteTableKey, RouteTable] = {}
    hostnames = sorted({claim.hostname for claim in claims if claim.protocol == "HTTPS"})
    inside = _inside(hostnames)
    every = "*" in hostnames
    for claim in claims:
        key = RouteTableKey.of(claim.listener, claim.port, claim.protocol)
        own = claim.hostname
        filters = ((own, claim.filters),) if claim.filters else ()
        if claim.protocol == "HTTPS":
            within = inside.get(own, [])
            foreign = len(hostnames) - 1 - len(within)
            if own == "*":
                misdirected = tuple(within)
            elif every or foreign > misdirected_limit:
                # Hosts of the others' more specific hostnames would fall to "*" anyway.
                misdirected = (*within, "*")
            else:
                known = {own, *within}
                misdirected = (*within, *(hostname for hostname in hostnames if hostname not in known))
            tables[key] = RouteTable(key, (own,), misdirected, (claim.listener,), filters)
        else:
            known_table = tables.get(key, RouteTable(key, ()))
            tables[key] = RouteTable(
                key,
                (*known_table.claimed, own),
                (),
                (*known_table.listeners, claim.listener),
                (*known_table.filters, *filters),
            )
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


def _inside(hostnames: Sequence[str]) -> dict[str, list[str]]:
    """Per wildcard, the more specific hostnames that other listeners claim."""
    inside: dict[str, list[str]] = {hostname: [] for hostname in hostnames if hostname.startswith("*")}
    for hostname in hostnames:
        parent = hostname.removeprefix("*.")
        while parent and hostname != "*":
            parent = parent.partition(".")[2]
            wider = f"*.{parent}" if parent else "*"
            if wider in inside:
                inside[wider].append(hostname)
    return inside
