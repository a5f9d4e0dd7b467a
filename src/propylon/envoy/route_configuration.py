"""RouteConfiguration: all virtual hosts of one route table."""

from collections.abc import Iterable

import msgspec
from envoy.config.route.v3 import route_pb2

from propylon.envoy import names
from propylon.envoy.resource import serialize
from propylon.envoy.virtual_host import as_fragment, empty_virtual_host, misdirected_virtual_host
from propylon.graph.model import ListenerKey, Port, RouteTableKey


class RouteTable(msgspec.Struct, frozen=True):
    """What a table must answer apart from its routes."""

    key: RouteTableKey
    claimed: tuple[str, ...]
    """Hostnames ("*" for every host) that its listeners claim: each has a virtual host even without routes."""
    misdirected: tuple[str, ...] = ()
    """Hostnames of other listeners, which answer 421 here."""
    listeners: tuple[ListenerKey, ...] = ()


def route_tables(port: Port, misdirected_limit: int) -> dict[RouteTableKey, RouteTable]:
    """The tables that a port's HTTP and HTTPS listeners use.

    A request over TLS whose Host belongs to another listener of the port is misdirected (421); one that belongs to none
    is not found (404). With a listener for every host, any foreign host is that one's. Otherwise the others' hostnames
    are listed, unless there are more than `misdirected_limit`: then every foreign host counts as misdirected.
    """
    tables: dict[RouteTableKey, RouteTable] = {}
    https = [listener for listener in port.listeners if listener.protocol == "HTTPS"]
    hostnames = {listener.hostname or "*" for listener in https}
    for listener in port.listeners:
        key = listener.route_table
        own = listener.hostname or "*"
        if listener.protocol == "HTTPS":
            others = sorted(hostnames - {own})
            tables[key] = RouteTable(key, (own,), _misdirected(own, others, misdirected_limit), (listener.key,))
        elif listener.protocol == "HTTP":
            known = tables.get(key, RouteTable(key, ()))
            tables[key] = RouteTable(key, (*known.claimed, own), (), (*known.listeners, listener.key))
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
    fragments.extend(as_fragment(empty_virtual_host(h)) for h in sorted(set(table.claimed) - served))
    foreign = [h for h in table.misdirected if h not in served]
    if foreign:
        fragments.append(as_fragment(misdirected_virtual_host(foreign)))
    return b"".join(fragments)


def _misdirected(own: str, others: list[str], limit: int) -> tuple[str, ...]:
    inside = [h for h in others if own == "*" or (own.startswith("*.") and h.endswith(own[1:]))]
    outside = [h for h in others if h not in inside] if own != "*" else []
    if "*" in outside or len(outside) > limit:
        # Hosts of more specific wildcards among the others would fall to "*" anyway.
        outside = ["*"]
    return (*inside, *outside)
