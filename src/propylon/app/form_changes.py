"""Tells the translation when every connection reads a route table in its present form (see `envoy.forms`)."""

from collections.abc import Iterable

from propylon.envoy import Forms
from propylon.graph.model import RouteTableKey
from propylon.incremental import Engine

SETTLING_SECONDS = 30.0
"""After so long a proxy has warmed the new Listener and drained the connections of the old one (5 s, at the default of
`ProxySettings.drain_seconds`). Until then a table that changed is kept in both forms.
"""


class FormChanges:
    """Follows the forms that tables are wanted in; time is the caller's (seconds, monotonic)."""

    def __init__(self, engine: Engine, forms: Forms) -> None:
        self._forms = forms
        self._wanted = engine.observe(forms.wanted)
        self._changing: dict[RouteTableKey, float] = {}
        self.large: set[RouteTableKey] = set()
        """Tables that are scopes now."""

    def follow(self, now: float) -> bool:
        """Take in the last commit and the time; whether another commit is due to make something of it."""
        settled = self._forms.settled
        for table, (_, wanted) in self._wanted.take().items():
            (self.large.add if wanted else self.large.discard)(table)
            known = settled.get(table)
            if wanted is not None and known is None:
                settled.set(table, "scopes" if wanted else "one")  # no connection knows anything else
            elif wanted and known == "one":
                settled.set(table, "both")
                self._changing[table] = now + SETTLING_SECONDS
        due = [table for table, at in self._changing.items() if at <= now]
        for table in due:
            del self._changing[table]
            settled.set(table, "scopes")
        return bool(due)

    def adopt(self, tables: Iterable[RouteTableKey], now: float) -> bool:
        """Take over that these are scopes for others who serve the same proxies; whether a commit is due.

        Who was started when a table had become small again would not know that it once was large.
        """
        settled = self._forms.settled
        news = False
        for table in tables:
            known = settled.get(table)
            if known is None:
                settled.set(table, "scopes")
            elif known == "one":
                settled.set(table, "both")
                self._changing[table] = now + SETTLING_SECONDS
            news = news or known in {None, "one"}
        return news

    @property
    def next_at(self) -> float | None:
        """When to follow again though nothing happens."""
        return min(self._changing.values(), default=None)
