"""Whether the API server answers at all: noticed where requests are made, said once for all who ask."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

log = logging.getLogger("propylon.store.cluster")

PATIENCE_SECONDS = 3.0
"""So long nothing may be answered before it is worth a line: a connection that breaks is made again at once."""
REPEAT_SECONDS = 600.0
"""What still holds after so long is said again."""


class Reachability:
    """Of one API server, by the outcomes of requests to it. `now` tells the time in seconds."""

    def __init__(self, server: str, now: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._now = now
        self._since: float | None = None
        """The first of the failures that nothing came in between."""
        self._said = False

    def failed(self, why: str) -> None:
        """A request got no answer, or one that says that the server is not itself (5xx)."""
        now = self._now()
        if self._since is None:
            self._since = now
        if not self._said and now - self._since >= PATIENCE_SECONDS:
            self._said = True
            log.warning("%s; proxies go on with what they have", why)

    def answered(self) -> None:
        """A request was answered."""
        if self._said and self._since is not None:
            log.info("%s answers again, after %.0f s", self._server, self._now() - self._since)
        self._since = None
        self._said = False


class Seldom:
    """Lets the same thing be said once in a while. `now` tells the time in seconds."""

    def __init__(self, seconds: float = REPEAT_SECONDS, most: int = 1024, now: Callable[[], float] = time.monotonic):
        """`most`: so many things are remembered."""
        self._seconds = seconds
        self._most = most
        self._now = now
        self._told: OrderedDict[Hashable, float] = OrderedDict()

    def due(self, what: Hashable) -> bool:
        """Whether it is to be said now; who asks says it."""
        now = self._now()
        told = self._told.get(what)
        if told is not None and now - told < self._seconds:
            return False
        self._told[what] = now
        self._told.move_to_end(what)
        if len(self._told) > self._most:
            self._told.popitem(last=False)
        return True
