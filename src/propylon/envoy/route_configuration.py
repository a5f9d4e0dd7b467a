"""RouteConfiguration: all virtual hosts of one route table."""

from collections.abc import Iterable, Sequence

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


def route_tables(port: Port, misdirected_limit: int) -> dict[RouteTableKey, RouteTable]:
    """The tables that a port's HTTP and HTTPS listeners use.

    A request over TLS whose Host belongs to another listener of the port is misdirected (421); one that belongs to none
    is not found (404). With a listener for every host, any foreign host is that one's. Otherwise the others' hostnames
    are listed, unless there are more than `misdirected_limit`: then every foreign host counts as misdirected.
    """
    tables: dict[RouteTableKey, RouteTable] = {}
    https = [listener for listener in port.listeners if listener.protocol == "HTTPS"]
    hostnames = sorted({listener.hostname or "*" for listener in https})
    inside = _inside(hostnames)
    for listener in port.listeners:
        key = listener.route_table
        own = listener.hostname or "*"
        filters = ((own, listener.filters),) if listener.filters else ()
        if listener.protocol == "HTTPS":
            misdirected = _misdirected(own, hostnames, inside.get(own, []), misdirected_limit)
            tables[key] = RouteTable(key, (own,), misdirected, (listener.key,), filters)
        elif listener.protocol == "HTTP":
            known = tables.get(key, RouteTable(key, ()))
            tables[key] = RouteTable(
                key, (*known.claimed, own), (), (*known.listeners, listener.key), (*known.filters, *filters)
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


def _misdirected(own: str, hostnames: Sequence[str], inside: list[str], limit: int) -> tuple[str, ...]:
    if own == "*":
        return tuple(inside)
    if "*" in hostnames or len(hostnames) - 1 - len(inside) > limit:
        # Hosts of the others' more specific hostnames would fall to "*" anyway.
        return (*inside, "*")
    known = {own, *inside}
    return (*inside, *(hostname for hostname in hostnames if hostname not in known))
