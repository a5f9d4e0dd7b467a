"""Whose status is still to be written, in an order in which people miss them least."""

from collections.abc import Iterable
from itertools import chain, islice

from propylon import api

FIRST = frozenset({"GatewayClass", "Gateway", "ListenerSet"})
"""Kinds that go first: few objects, and they say whether anything is served at all."""


class StatusQueue:
    """Objects whose status differs from the stored one, each once."""

    def __init__(self) -> None:
        # Dicts, for they keep the order of arrival.
        self._first: dict[api.ObjectRef, None] = {}
        self._rest: dict[api.ObjectRef, None] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._rest)

    def add(self, refs: Iterable[api.ObjectRef]) -> None:
        """Put in what is not there yet."""
        for ref in refs:
            (self._first if ref.kind in FIRST else self._rest)[ref] = None

    def head(self, count: int) -> list[api.ObjectRef]:
        """Return up to `count` that are next."""
        return list(islice(chain(self._first, self._rest), count))

    def done(self, refs: Iterable[api.ObjectRef]) -> None:
        """Take out what was written."""
        for ref in refs:
            self._first.pop(ref, None)
            self._rest.pop(ref, None)
