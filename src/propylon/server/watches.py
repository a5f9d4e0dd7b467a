"""Watches: one reader of the store's change log for all of them, and what each client is sent.

The hub lives in one event loop. A watch first catches up with the change log by itself and then takes what the hub
reads; a client that does not keep up is cut off and lists again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from propylon.api.meta import ObjectRef
from propylon.server.errors import of_store
from propylon.server.lists import Query, list_page
from propylon.server.objects import Document, Target, present
from propylon.store import Event, EventType, Gone, GroupKind, LocalStore

BOOKMARK_SECONDS = 60.0
"""How often a watch that wants to know is told how far it has come."""
QUEUE_LIMIT = 20_000
"""How many events may wait for one client."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Sent = tuple[str, Document]
"""The type of an event and its object."""


class _Queue:
    """Events for one watch."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.filled = asyncio.Event()
        self.overrun = False

    def put(self, event: Event) -> None:
        if len(self.events) >= QUEUE_LIMIT:
            self.overrun = True
        else:
            self.events.append(event)
        self.filled.set()


class Hub:
    """Hands every change of the store to the watches it concerns."""

    def __init__(self, store: LocalStore) -> None:
        """Must be made in the event loop that serves the watches."""
        self.store = store
        self.version = store.resource_version
        self._queues: dict[GroupKind, set[_Queue]] = {}
        self._woken = asyncio.Event()
        self.closing = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._woken.set)

        self._unsubscribe = store.subscribe(wake)

    async def run(self) -> None:
        """Hand out changes until cancelled."""
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                self._hand_out()
        finally:
            self._unsubscribe()

    def close(self) -> None:
        """End every watch."""
        self.closing.set()
        for queues in self._queues.values():
            for queue in queues:
                queue.overrun = True
                queue.filled.set()

    def _hand_out(self) -> None:
        try:
            changes = self.store.changes_since(self.version)
        except Gone:
            self.version = self.store.resource_version
            for queues in self._queues.values():
                for queue in queues:
                    queue.overrun = True
                    queue.filled.set()
            return
        self.version = changes.resource_version
        for event in changes.events:
            for queue in self._queues.get(GroupKind(event.ref.group, event.ref.kind), ()):
                queue.put(event)

    @contextlib.contextmanager
    def listening(self, kind: GroupKind):  # type: ignore[no-untyped-def]
        """A queue that fills with the events of a kind."""
        queue = _Queue()
        self._queues.setdefault(kind, set()).add(queue)
        try:
            yield queue
        finally:
            self._queues[kind].discard(queue)


class WatchOptions(msgspec.Struct, frozen=True):
    """How a watch goes."""

    bookmarks: bool = False
    initial_events: bool | None = None
    seconds: float = 0.0
    """How long it lasts; 0 for half an hour."""


async def watch(hub: Hub, target: Target, query: Query, options: WatchOptions) -> AsyncIterator[list[Sent]]:
    """What to send, in batches; an ERROR event is the last. Raises ApiError before the first batch only."""
    sending = _Sending(target, query)
    deadline = time.monotonic() + (options.seconds or 1800.0)
    with hub.listening(target.resource.group_kind) as queue:
        first = _begin(hub.store, target, query, options, sending)
        yield first
        since = sending.version
        bookmark_at = time.monotonic() + BOOKMARK_SECONDS
        while not hub.closing.is_set():
            now = time.monotonic()
            if now >= deadline:
                return
            wait = min(deadline, bookmark_at) - now if options.bookmarks else deadline - now
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(queue.filled.wait(), wait)
            queue.filled.clear()
            if queue.overrun:
                if not hub.closing.is_set():
                    gone = of_store(Gone(sending.version, hub.version, hub.version), target.resource, "")
                    yield [("ERROR", gone.status())]
                return
            batch: list[Sent] = []
            while queue.events:
                event = queue.events.popleft()
                if event.resource_version > since:
                    batch += sending.take(event)
            if options.bookmarks and time.monotonic() >= bookmark_at:
                bookmark_at = time.monotonic() + BOOKMARK_SECONDS
                batch.append(_bookmark(target, max(hub.version, sending.version)))
            if batch:
                yield batch


def _begin(store: LocalStore, target: Target, query: Query, options: WatchOptions, sending: _Sending) -> list[Sent]:
    """The initial objects, or what happened since the version from which the client goes on."""
    from_now = query.resource_version in ("", "0")
    if options.initial_events or (options.initial_events is None and from_now):
        page = list_page(store, target, Query(query.selector))
        batch: list[Sent] = [("ADDED", document) for document in page.items]
        sending.version = int(page.metadata["resourceVersion"])
        sending.known(page.items)
        if options.initial_events and options.bookmarks:
            batch.append(_bookmark(target, sending.version, initial=True))
        return batch
    if from_now:
        sending.version = store.resource_version
        sending.known(list_page(store, target, Query(query.selector)).items)
        return []
    if query.selector is not None:
        sending.known(list_page(store, target, Query(query.selector)).items)
    changes = store.changes_since(int(query.resource_version), [target.resource.group_kind])
    sending.catching_up = True
    batch = [sent for event in changes.events for sent in sending.take(event)]
    sending.catching_up = False
    sending.version = changes.resource_version
    return batch


class _Sending:
    """What one client sees of events: selected, in its version, with DELETED for what is no longer selected."""

    def __init__(self, target: Target, query: Query) -> None:
        self._target = target
        self._select: Callable[[Document], bool] | None = query.selector
        self._namespace = target.resource.stored_namespace(target.namespace)
        self._seen: set[tuple[str, str]] = set()
        self.version = 0
        self.catching_up = False

    def known(self, documents: list[Document]) -> None:
        """The client has these objects."""
        if self._select is not None:
            place = self._target.resource.stored_namespace
            self._seen.update((place(d["metadata"].get("namespace", "")), d["metadata"]["name"]) for d in documents)

    def take(self, event: Event) -> list[Sent]:
        """What becomes of an event."""
        ref = event.ref
        self.version = event.resource_version
        if self._namespace and ref.namespace != self._namespace:
            return []
        document = present(self._target, event.document)
        if self._select is None:
            return [(event.type.value, document)]
        return self._selected(event, ref, document, self._select(document))

    def _selected(self, event: Event, ref: ObjectRef, document: Document, matches: bool) -> list[Sent]:
        key = (ref.namespace, ref.name)
        had = key in self._seen
        if event.type is EventType.DELETED or not matches:
            self._seen.discard(key)
            unknown = self.catching_up and event.type is not EventType.ADDED
            return [("DELETED", document)] if had or unknown or (event.type is EventType.DELETED and matches) else []
        self._seen.add(key)
        if self.catching_up:
            return [(event.type.value, document)]
        return [("MODIFIED" if had else "ADDED", document)]


def _bookmark(target: Target, version: int, *, initial: bool = False) -> Sent:
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if initial:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return "BOOKMARK", {"kind": target.resource.kind, "apiVersion": target.api_version, "metadata": metadata}
