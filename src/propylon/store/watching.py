"""Watching a local store: woken by its commits, never polling, except from another process, which sees commits only
by looking."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from propylon.api.meta import ObjectRef
from propylon.store.protocol import Event, EventType, GroupKind

if TYPE_CHECKING:
    from propylon.store.local import LocalStore

POLL_SECONDS = 0.05
"""How often a reader in another process looks for commits."""


class LocalWatch:
    """A watch that belongs to the event loop it was opened in. `resource_version` is how far it has come."""

    def __init__(
        self, store: LocalStore, kinds: Sequence[GroupKind], since: int | None, poll: Callable[[], bool] | None
    ) -> None:
        self._store = store
        self._kinds = tuple(kinds)
        self._initial = since is None
        self._poll = poll
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._unsubscribe = store.subscribe(self._wake)
        self.resource_version = 0 if since is None else since

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits
            self._loop.call_soon_threadsafe(self._woken.set)

    def close(self) -> None:
        """Forget the watch."""
        self._unsubscribe()

    async def next_batch(self) -> tuple[Event, ...]:
        """Wait for changes and return all that are there. Raises Gone when they are no longer retained."""
        if self._initial:
            self._initial = False
            return self._list()
        while True:
            self._woken.clear()
            changes = self._store.changes_since(self.resource_version, self._kinds)
            self.resource_version = changes.resource_version
            if changes.events:
                return changes.events
            await self._wait()

    async def _wait(self) -> None:
        if self._poll is None:
            await self._woken.wait()
            return
        while not self._poll():  # noqa: ASYNC110 - another process cannot wake this one
            await asyncio.sleep(POLL_SECONDS)

    def _list(self) -> tuple[Event, ...]:
        listing = self._store.list(self._kinds)
        self.resource_version = listing.resource_version
        added = (
            Event(EventType.ADDED, listing.resource_version, ref, raw)
            for ref, raw in zip(listing.refs, listing.raw, strict=True)
        )
        return (*added, Event(EventType.BOOKMARK, listing.resource_version, ObjectRef("", "", "", ""), b""))


async def watch_events(watch: LocalWatch) -> AsyncIterator[Event]:
    """The events of a watch one by one; the watch ends with the iteration."""
    try:
        while True:
            for event in await watch.next_batch():
                yield event
    finally:
        watch.close()
