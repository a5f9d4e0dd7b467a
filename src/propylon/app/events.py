"""Writes Events: gathers notes, counts repetitions, keeps the number of Events within bounds.

Nothing here waits or writes while proxies are programmed: notes are kept for a moment and written by a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Iterable

import msgspec

from propylon import api
from propylon.server.events import Note, event_ref, last_seen, outdated, rfc3339, tell
from propylon.store import GroupKind, LocalStore, NotFound, StoreError, StoreUnavailable

log = logging.getLogger("propylon")

EVENT = GroupKind("", "Event")
RETENTION = dt.timedelta(hours=1)
"""How long an Event is kept after it was last told: kube-apiserver's default (--event-ttl)."""
MOST = 2000
"""How many Events are kept, whoever wrote them."""
WAITING = 500
"""How many notes may wait to be written; further ones are lost, as with every recorder."""
BATCH = 50
QUIET_SECONDS = 0.5
PRUNE_SECONDS = 60.0
DIFFERENT = 10
"""So many different messages of one reason about one object get an Event each; those after share one."""


class EventRecorder:
    """Takes notes in the event loop and writes them as Events of the store."""

    def __init__(self, store: LocalStore, host: str) -> None:
        self._store = store
        self._host = host
        self._waiting: dict[Note, bool] = {}
        """Notes, and whether a repetition counts."""
        self._messages: dict[tuple[api.ObjectRef, str], set[str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()

    def start(self) -> None:
        """Begin writing, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="write events")

    async def stop(self) -> None:
        """Write what waits, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            self._write(self._take(WAITING))

    def note(self, note: Note, *, again: bool = True) -> None:
        """Have it told. Without `again`, an Event that tells it already stays as it is."""
        if len(self._waiting) >= WAITING:
            return
        self._waiting[self._combined(note)] = again
        self._filled.set()

    def _combined(self, note: Note) -> Note:
        """The note, or one for all further messages of its reason once there are many."""
        known = self._messages.setdefault((note.ref, note.reason), set())
        if note.message in known:
            return note
        if len(known) < DIFFERENT:
            known.add(note.message)
            return note
        return note._replace(message="(combined from similar events)", field="")

    async def _run(self) -> None:
        prune_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, prune_at - loop.time())):
                    await self._filled.wait()
                    await asyncio.sleep(QUIET_SECONDS)
            batch = self._take(BATCH)
            if batch:
                await asyncio.to_thread(self._write, batch)
            if loop.time() >= prune_at:
                prune_at = loop.time() + PRUNE_SECONDS
                await asyncio.to_thread(self.prune, dt.datetime.now(dt.UTC))

    def _take(self, count: int) -> dict[Note, bool]:
        taken = {note: self._waiting.pop(note) for note in list(self._waiting)[:count]}
        if not self._waiting:
            self._filled.clear()
        return taken

    def _write(self, notes: dict[Note, bool]) -> None:
        """Write them in one transaction; what the disk does not take is lost."""
        now = dt.datetime.now(dt.UTC)
        try:
            with self._store.transaction():
                for note, again in notes.items():
                    # The namespace is going, or gone.
                    with contextlib.suppress(StoreError):
                        self._write_one(note, again, now)
        except StoreUnavailable as error:
            log.info("events are not written: %s", error)

    def _write_one(self, note: Note, again: bool, now: dt.datetime) -> None:
        before = _found(self._store, event_ref(note))
        if before is None:
            self._store.create(tell(note, _found(self._store, note.ref), None, self._host, now))
        elif again or last_seen(before) < rfc3339(now - RETENTION):
            self._store.update(tell(note, None, before, self._host, now))

    def prune(self, now: dt.datetime) -> None:
        """Delete Events that are too old or too many."""
        self._messages = {}
        try:
            listing = self._store.list([EVENT])
            documents = map(msgspec.json.decode, listing.raw)
            gone = outdated(zip(listing.refs, documents, strict=True), now, keep=RETENTION, most=MOST)
            for refs in _slices(gone, BATCH):
                with self._store.transaction():
                    for ref in refs:
                        with contextlib.suppress(NotFound):
                            self._store.delete(ref)
        except StoreUnavailable as error:
            log.info("events are not pruned: %s", error)


def _found(store: LocalStore, ref: api.ObjectRef) -> dict[str, object] | None:
    try:
        return store.get(ref)
    except NotFound:
        return None


def _slices(refs: list[api.ObjectRef], size: int) -> Iterable[list[api.ObjectRef]]:
    return (refs[start : start + size] for start in range(0, len(refs), size))
