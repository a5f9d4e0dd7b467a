"""What need not be said of a Gateway that was just made: that it has no address yet.

Whoever gives addresses takes a moment. Only what still holds after that is worth an Event and a line in the log.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from propylon.graph.model import Finding

PATIENCE_SECONDS = 5.0
PASSING = frozenset({"AddressNotAssigned"})
"""Reasons of findings that mostly pass by themselves."""
Findings = tuple[Finding, ...]
K = TypeVar("K")


class Patience(Generic[K]):
    """Holds findings back that will probably have passed when they would be read. `now` tells the time in seconds."""

    def __init__(self, now: Callable[[], float], seconds: float = PATIENCE_SECONDS) -> None:
        self._now = now
        self._seconds = seconds
        self._since: dict[K, float] = {}
        self._held: dict[K, Findings] = {}

    def tell(self, key: K, findings: Findings) -> Findings:
        """Take in what holds of something now; what is to be said of it at once."""
        if not any(finding.reason in PASSING for finding in findings):
            self._since.pop(key, None)
            self._held.pop(key, None)
            return findings
        if self._now() - self._since.setdefault(key, self._now()) >= self._seconds:
            return findings
        self._held[key] = findings
        return tuple(finding for finding in findings if finding.reason not in PASSING)

    def due(self) -> dict[K, Findings]:
        """What was held back and still holds: it is to be said now."""
        now = self._now()
        found = {key: held for key, held in self._held.items() if now - self._since[key] >= self._seconds}
        for key in found:
            del self._held[key]
        return found

    @property
    def next_at(self) -> float | None:
        """When something may be due."""
        return min((self._since[key] + self._seconds for key in self._held), default=None)
