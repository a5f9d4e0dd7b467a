"""What wakes a loop that works off whatever happened: rung by many, waited for by one, until a time at most."""

from __future__ import annotations

import asyncio
import time


class Bell:
    """Remembers that it was rung until it is cleared. All methods belong to one event loop.

    It does what `asyncio.Event` under `asyncio.timeout` does, at a fraction of the cost: every change that comes alone
    waits twice.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Ring: whoever waits goes on."""
        self._rung = True
        _wake(self._waiter)

    def clear(self) -> None:
        """What is rung from here on is new."""
        self._rung = False

    def is_set(self) -> bool:
        """Whether it was rung since it was last cleared."""
        return self._rung

    async def wait(self, until: float | None = None) -> bool:
        """Wait until it is rung, or until this time (`time.monotonic`); whether it was rung."""
        if self._rung:
            return True
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if until is None else loop.call_later(max(0.0, until - time.monotonic()), _wake, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return self._rung


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
