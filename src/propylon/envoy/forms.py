"""Which route tables are scopes: large ones, and those that once were.

A table that grows large gets a Listener with another source of routes. Envoy serves new connections by it, and those
that are there by the old one until they are drained. So until then the table is kept in both forms, or lasting
connections would be answered by routes of yesterday. The way back is never taken while a proxy lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from propylon.envoy.settings import EnvoySettings
from propylon.graph.model import RouteTableKey, VirtualHostKey
from propylon.incremental import Collection, Engine, Look, Source

if TYPE_CHECKING:
    from propylon.graph import Graph


Form = Literal["one", "both", "scopes"]
IN_ONE: frozenset[Form | None] = frozenset({"one", "both"})
STICKY: frozenset[Form | None] = frozenset({"both", "scopes"})


class Forms(NamedTuple):
    """How each route table is served."""

    wanted: Collection[RouteTableKey, bool]
    """Of every table that has hostnames with routes: whether Listeners are to read it as scopes."""
    settled: Source[RouteTableKey, Form]
    """As what connections read it, for whoever runs the proxies to say: one RouteConfiguration or scopes at once for a
    table that is new, "both" while one that grew may have connections of either kind. Without a word, what is wanted.
    """

    def in_scopes(self, look: Look, table: RouteTableKey) -> bool:
        """Whether Listeners read the table as scopes."""
        wanted = look.get(self.wanted, table)
        return look.get(self.settled, table) in STICKY if wanted is None else wanted

    def in_one(self, look: Look, table: RouteTableKey) -> bool:
        """Whether some connection reads the table as one RouteConfiguration."""
        return not self.in_scopes(look, table) or look.get(self.settled, table) in IN_ONE


def build_forms(engine: Engine, graph: Graph, settings: EnvoySettings) -> Forms:
    """Decide the form of every route table by the number of its hostnames."""
    settled: Source[RouteTableKey, Form] = engine.source("envoy: settled forms")

    def form(table: RouteTableKey, hosts: tuple[VirtualHostKey, ...], look: Look) -> bool:
        return len(hosts) >= settings.scopes_from or look.get(settled, table) in STICKY

    by_table = graph.virtual_hosts.index("envoy: hostnames by table", lambda key, _: (key.table,))
    return Forms(engine.derive("envoy: forms of route tables", by_table, form), settled)
