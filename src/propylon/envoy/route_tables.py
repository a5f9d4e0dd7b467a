"""Which route tables there are, each found from what it has to know of the other listeners of its port."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from propylon.envoy.route_configuration import (
    Claim,
    RouteTable,
    claim_of,
    foreign_hostnames,
    http_table,
    https_table,
    table_of,
)
from propylon.envoy.settings import EnvoySettings
from propylon.graph.hostnames import ANY, ancestors, is_wildcard, specificity
from propylon.graph.model import Listener, ListenerKey, PortKey, RouteTableKey
from propylon.incremental import Collection, Engine, Look

if TYPE_CHECKING:
    from propylon.graph import Graph

Tables = Collection[RouteTableKey, RouteTable]


class Crowd(msgspec.Struct, frozen=True):
    """The HTTPS listeners of a port as one of them sees the others."""

    every: bool
    """One of them is for every host."""
    hostnames: tuple[str, ...] | None
    """Sorted; None if they are too many to be listed."""


class Wide(NamedTuple):
    """A hostname of a port that stands for many."""

    port: PortKey
    hostname: str


def build_route_tables(engine: Engine, graph: Graph, settings: EnvoySettings) -> Tables:
    """Derive the tables of all ports. One more or less among many listeners concerns the others' tables only where it
    is inside of their hostname, or where they list the hostnames of all.
    """
    limit = settings.misdirected_limit

    def claim(_: ListenerKey, listener: Listener, __: Look) -> Claim | None:
        return claim_of(listener)

    def port_of(each: Claim) -> PortKey:
        return PortKey(each.listener.gateway, each.port, "TCP")

    def https_port(_: ListenerKey, each: Claim) -> tuple[PortKey, ...]:
        return (port_of(each),) if each.protocol == "HTTPS" else ()

    def for_every_host(_: ListenerKey, each: Claim) -> tuple[PortKey, ...]:
        return (port_of(each),) if each.protocol == "HTTPS" and each.hostname == ANY else ()

    def around(_: ListenerKey, each: Claim) -> tuple[Wide, ...]:
        if each.protocol != "HTTPS":
            return ()
        return tuple(Wide(port_of(each), wider) for wider in ancestors(each.hostname) if wider != each.hostname)

    def crowd(key: PortKey, members: tuple[ListenerKey, ...], look: Look) -> Crowd:
        listed = sorted_hostnames(members, look) if len(members) - 1 <= limit else None
        return Crowd(look.count(for_every, key) > 0, listed)

    def sorted_hostnames(members: tuple[ListenerKey, ...], look: Look) -> tuple[str, ...]:
        found = (look.get(claims, key) for key in members)
        return tuple(sorted(each.hostname for each in found if each is not None))

    def foreign(own: str, within: tuple[str, ...], port: PortKey, look: Look) -> tuple[str, ...] | None:
        others = look.get(crowds, port)
        if own == ANY or others is None or others.every:
            return None
        if others.hostnames is not None:
            return foreign_hostnames(own, within, others.hostnames, limit)
        if not within or look.count(by_port, port) - 1 - len(within) > limit:
            return None
        return foreign_hostnames(own, within, sorted_hostnames(look.keys(by_port, port), look), limit)

    def table(_: RouteTableKey, members: tuple[ListenerKey, ...], look: Look) -> RouteTable | None:
        found = [each for key in members if (each := look.get(claims, key)) is not None]
        if not found:
            return None
        if found[0].protocol == "HTTP":
            return http_table(sorted(found, key=lambda each: (specificity(each.hostname), each.listener)))
        own, port = found[0].hostname, port_of(found[0])
        within = sorted_hostnames(look.keys(inside, Wide(port, own)), look) if is_wildcard(own) else ()
        return https_table(found[0], within, foreign(own, within, port, look))

    claims = engine.derive("envoy: claims of listeners", graph.served_listeners, claim)
    by_table = claims.index("envoy: claims by table", lambda _, each: (table_of(each),))
    by_port = claims.index("envoy: HTTPS claims by port", https_port)
    for_every = claims.index("envoy: HTTPS claims for every host", for_every_host)
    inside = claims.index("envoy: HTTPS claims inside a hostname", around)
    crowds = engine.derive("envoy: crowds of HTTPS listeners", by_port, crowd)
    return engine.derive("envoy: route tables", by_table, table)
