"""Where requests can arrive on either side: ports, ways to connect, and a host for every name that somebody wrote."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from propylon import api
from propylon.explain.request import Scheme
from propylon.explain.witness import FRESH
from propylon.graph import Graph
from propylon.graph.hostnames import ancestors, is_wildcard, normalized
from propylon.graph.model import PortKey, RouteTableKey

_SCHEMES: dict[str, Scheme] = {"HTTP": "http", "HTTPS": "https", "TLS": "tls", "TCP": "tcp", "UDP": "udp"}


class Place(NamedTuple):
    """A host of a port, spoken to in one way."""

    port: PortKey
    scheme: Scheme
    name: str
    """As listeners and routes have it: exact, a wildcard, or "*"; "" where no host is named."""
    host: str
    """A host for which this is the nearest name."""


class Names:
    """Every name that listeners, virtual hosts and L4 routes of a port have on either side.

    They part all hosts: whatever is the nearest of them for a host decides, on both sides, what becomes of it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.all = frozenset(names) | {"*"}

    def nearest(self, host: str) -> str:
        """The name that a host comes under."""
        return next(name for name in ancestors(host) if name in self.all)

    def witness(self, name: str) -> str:
        """A host that comes under a name."""
        if not is_wildcard(name):
            return name
        base = name.removeprefix("*.") if name != "*" else "invalid"
        host = f"{FRESH}.{base}"
        while self.nearest(host) != name:
            host = f"{FRESH}-{host}"
        return host


def names_by_port(graphs: Iterable[Graph]) -> dict[PortKey, Names]:
    """The names of every port that is served on a side."""
    found: dict[PortKey, set[str]] = {}
    tables: dict[tuple[api.ObjectKey, int], set[str]] = {}
    for graph in graphs:
        for key, port in graph.ports.snapshot().items():
            found.setdefault(key, set()).update(normalized(listener.hostname) for listener in port.listeners)
        for host in graph.virtual_hosts.snapshot():
            table: RouteTableKey = host.table
            tables.setdefault((table.gateway, table.port), set()).add(host.hostname)
        for l4 in graph.l4_routes.snapshot():
            found.setdefault(PortKey(l4.gateway, l4.port, l4.transport), set()).add(l4.hostname or "*")
    for key in found:
        if key.transport == "TCP":
            found[key] |= tables.get((key.gateway, key.port), set())
    return {key: Names(found[key]) for key in sorted(found)}


def schemes(graphs: Iterable[Graph], key: PortKey) -> list[Scheme]:
    """The ways in which a port is spoken to on either side."""
    found: set[Scheme] = set()
    for graph in graphs:
        port = graph.ports.get(key)
        found |= {_SCHEMES[listener.protocol] for listener in port.listeners} if port is not None else set()
    return sorted(found)


def places(key: PortKey, names: Names, spoken: Iterable[Scheme]) -> Iterator[Place]:
    """Every host of a port in every way."""
    for scheme in spoken:
        if scheme in {"tcp", "udp"}:
            yield Place(key, scheme, "", "")
        else:
            for name in sorted(names.all):
                yield Place(key, scheme, name, names.witness(name))
