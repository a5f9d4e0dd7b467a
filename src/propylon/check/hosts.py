"""What surprises at hostnames: no falling through to wider ones, and places of L4 routes that another route has."""

from collections.abc import Iterator
from typing import NamedTuple

from propylon import api
from propylon.graph import Graph
from propylon.graph.hostnames import ancestors
from propylon.graph.model import L4Key, VirtualHost, VirtualHostEntry, VirtualHostKey
from propylon.graph.virtual_hosts import l4_keys


class Hidden(NamedTuple):
    """A host whose own routes leave requests over, which the routes of a wider hostname do not get."""

    entry: VirtualHostEntry
    """The first of the host's own."""
    host: str
    wider: VirtualHostEntry
    wider_host: str


class Lost(NamedTuple):
    """An L4 route that has none of the places it claims: others came first."""

    route: api.ObjectRef
    key: L4Key
    by: api.ObjectRef


def no_fall_through(graph: Graph) -> Iterator[Hidden]:
    """Hosts with routes of their own that leave requests over, below hosts that other routes serve (each host once)."""
    hosts = graph.virtual_hosts.snapshot()
    for key, host in hosts.items():
        if not host.entries or _takes_everything(host):
            continue
        own = {entry.route for entry in host.entries}
        for name in list(ancestors(key.hostname))[1:]:
            wider = hosts.get(VirtualHostKey(key.table, name))
            other = next((e for e in wider.entries if e.route not in own), None) if wider is not None else None
            if other is not None:
                yield Hidden(host.entries[0], key.hostname, other, name)
                break


def _takes_everything(host: VirtualHost) -> bool:
    return any(
        e.match.path_type == "PathPrefix"
        and e.match.path.rstrip("/") == ""
        and e.match.method is None
        and not e.match.headers
        and not e.match.query
        for e in host.entries
    )


def lost_places(graph: Graph) -> Iterator[Lost]:
    """TLSRoutes, TCPRoutes and UDPRoutes that are attached and serve nothing, since another route has their place."""
    for ref, route in graph.routes.snapshot().items():
        if ref.kind not in {"TLSRoute", "TCPRoute", "UDPRoute"}:
            continue
        winners = [(key, graph.l4_routes.get(key)) for key in sorted(l4_keys(ref, route))]
        if winners and all(winner is not None and winner.route != ref for _, winner in winners):
            key, winner = winners[0]
            if winner is not None:
                yield Lost(ref, key, winner.route)
