"""How long to wait before asking again."""

from __future__ import annotations

import random


class Pauses:
    """Growing, jittered pauses: `first` seconds, doubled at each failure up to `longest`; `reset` after a success."""

    def __init__(self, first: float = 0.2, longest: float = 15.0) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        """It worked: the next failure is a first one."""
        self._next = self._first

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait now; not less than what the other side asked for."""
        pause = self._next * random.uniform(0.75, 1.25)
        self._next = min(self._next * 2, self._longest)
        return max(pause, at_least or 0.0)
