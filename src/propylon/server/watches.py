"""Watches: one reader of the store's change log for all of them, and what each client is sent.

The hub lives in one event loop. A watch first catches up with the change log by itself and then takes what the hub
reads. What a change looks like is made once, however many watch; a client that does not keep up is cut off and lists
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from propylon.api.meta import ObjectRef
from propylon.server.errors import ApiError, of_store
from propylon.server.lists import Query, list_page
from propylon.server.objects import Document, Shape, Target
from propylon.server.requests import Sink, Stream
from propylon.store import Event, EventType, Gone, GroupKind, LocalStore, StoreError

BOOKMARK_SECONDS = 60.0
"""How often a watch that wants to know is told how far it has come."""
QUEUE_LIMIT = 20_000
"""How many pieces may wait for one client."""
DEFAULT_SECONDS = 1800.0

INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Render = Callable[[str, Document], bytes]
"""A line of a watch in another form than plain objects, from the type of an event and its object."""

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Document] = msgspec.json.Decoder(dict[str, object]).decode


class Change:
    """An event, with the forms in which it was sent, so that each is made once."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self._shown: dict[str, bytes] = {}
        self._documents: dict[str, Document] = {}
        self._lines: dict[tuple[str, str], bytes] = {}

    def shown(self, shape: Shape) -> bytes:
        """The object, as that version of its kind shows it."""
        found = self._shown.get(shape.api_version)
        if found is None:
            found = self._shown[shape.api_version] = shape.shown(self.event.raw)
        return found

    def document(self, shape: Shape) -> Document:
        """The same, decoded. Not to be changed."""
        found = self._documents.get(shape.api_version)
        if found is None:
            found = self._documents[shape.api_version] = _decode(self.shown(shape))
        return found

    def line(self, kind: str, shape: Shape) -> bytes:
        """The line of a watch."""
        found = self._lines.get((kind, shape.api_version))
        if found is None:
            found = self._lines[kind, shape.api_version] = _line(kind, self.shown(shape))
        return found


def _line(kind: str, raw: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), raw)


class Hub:
    """Hands every change of the store to the watches it concerns."""

    def __init__(self, store: LocalStore) -> None:
        """Must be made in the event loop that serves the watches."""
        self.store = store
        self.version = store.resource_version
        self.closing = False
        self._watches: dict[GroupKind, set[WatchStream]] = {}
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._called = False
        self._unsubscribe = store.subscribe(self._wake)

    def _wake(self) -> None:
        """Called in the writer's thread."""
        if self._called:
            return
        self._called = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._hand_out)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._hand_out)

    async def run(self) -> None:
        """Hand out changes until cancelled."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._unsubscribe()

    def close(self) -> None:
        """End every watch."""
        self.closing = True
        for watch in self._all():
            watch.finish()

    def _all(self) -> list[WatchStream]:
        return [watch for watches in self._watches.values() for watch in watches]

    def _hand_out(self) -> None:
        self._called = False  # before reading: what is committed from now on calls again
        if not any(self._watches.values()):
            self.version = self.store.resource_version
            return
        try:
            changes = self.store.changes_since(self.version)
        except Gone as gone:
            self.version = gone.newest
            for watch in self._all():
                watch.fail(gone)
            return
        except StoreError as error:
            for watch in self._all():
                watch.fail(error)
            return
        self.version = changes.resource_version
        by_kind: dict[GroupKind, list[Change]] = {}
        for event in changes.events:
            kind = GroupKind(event.ref.group, event.ref.kind)
            if self._watches.get(kind):
                by_kind.setdefault(kind, []).append(Change(event))
        for kind, several in by_kind.items():
            for watch in tuple(self._watches[kind]):
                watch.take(several)

    def join(self, kind: GroupKind, watch: WatchStream) -> None:
        """Let a watch have the changes of a kind from now on."""
        self._watches.setdefault(kind, set()).add(watch)

    def leave(self, kind: GroupKind, watch: WatchStream) -> None:
        """No more."""
        self._watches.get(kind, set()).discard(watch)


class WatchOptions(msgspec.Struct, frozen=True):
    """How a watch goes."""

    bookmarks: bool = False
    initial_events: bool | None = None
    seconds: float = 0.0
    """How long it lasts; 0 for half an hour."""


class WatchStream(Stream):
    """One client's watch. What ends it early is told in its last line, an ERROR event."""

    def __init__(
        self, hub: Hub, target: Target, query: Query, options: WatchOptions, render: Render | None = None
    ) -> None:
        self._hub = hub
        self._target = target
        self._query = query
        self._options = options
        self._render = render
        self._shape = Shape(target)
        self._select = query.selector
        self._namespace = target.resource.stored_namespace(target.namespace)
        self._kind = target.resource.group_kind
        self._seen: set[tuple[str, str]] = set()
        self._version = 0
        self._sink: Sink | None = None
        self._backlog: deque[bytes] = deque()
        self._ended = False
        self._timers: list[asyncio.TimerHandle] = []

    # -- as a stream -------------------------------------------------------------------------------------------------

    def attach(self, sink: Sink) -> None:
        """Begin: initial objects or what the client missed, then changes."""
        self._sink = sink
        if self._hub.closing:
            self.finish()
            return
        self._hub.join(self._kind, self)
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(self._options.seconds or DEFAULT_SECONDS, self.finish))
        if self._options.bookmarks:
            self._timers.append(loop.call_later(BOOKMARK_SECONDS, self._remind))
        try:
            lines = self._begin()
        except StoreError as error:
            self.fail(error)
        except ApiError as error:
            self._fail(error)
        else:
            self._send(lines)

    def resume(self) -> None:
        """The client has read."""
        sink = self._sink
        while self._backlog and sink is not None and not sink.full:
            sink.write(self._backlog.popleft())
        if self._ended and not self._backlog and sink is not None:
            self._sink = None
            sink.end()

    def close(self) -> None:
        """The client has left."""
        self._sink = None
        self._ended = True
        self._backlog.clear()
        self._leave()

    def finish(self) -> None:
        """The time is over."""
        if self._ended:
            return
        self._ended = True
        self._leave()
        self.resume()

    def fail(self, error: StoreError) -> None:
        """Tell why there is no more."""
        self._fail(of_store(error, self._target.resource, ""))

    def _fail(self, error: ApiError) -> None:
        if self._ended:
            return
        self._backlog.append(_line("ERROR", _encode(error.status())))
        self.finish()

    def _leave(self) -> None:
        self._hub.leave(self._kind, self)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _send(self, lines: Sequence[bytes]) -> None:
        if not lines or self._sink is None or self._ended:
            return
        piece = lines[0] if len(lines) == 1 else b"".join(lines)
        if not self._backlog and not self._sink.full:
            self._sink.write(piece)
        elif len(self._backlog) < QUEUE_LIMIT:
            self._backlog.append(piece)
        else:
            self._backlog.clear()
            self.fail(Gone(self._version, self._hub.version, self._hub.version))

    def _remind(self) -> None:
        self._timers[1:] = [asyncio.get_running_loop().call_later(BOOKMARK_SECONDS, self._remind)]
        self._send([self._bookmark(max(self._hub.version, self._version))])

    # -- what the client sees ----------------------------------------------------------------------------------------

    def take(self, changes: Sequence[Change]) -> None:
        """Send what these changes mean to the client."""
        begun = self._version
        lines = (self._line_of(change) for change in changes if change.event.resource_version > begun)
        self._send([line for line in lines if line is not None])

    def _begin(self) -> list[bytes]:
        """The initial objects, or what happened since the version from which the client goes on."""
        store, query, options = self._hub.store, self._query, self._options
        from_now = query.resource_version in ("", "0")
        if options.initial_events or (options.initial_events is None and from_now):
            page = list_page(store, self._target, Query(query.selector))
            self._version = int(page.metadata["resourceVersion"])
            self._know(page.items if self._select is not None else [])
            if self._render is None:
                lines = [_line("ADDED", raw) for raw in page.raw]
            else:
                lines = [self._render("ADDED", document) for document in page.items]
            if options.initial_events and options.bookmarks:
                lines.append(self._bookmark(self._version, initial=True))
            return lines
        if query.selector is not None:
            self._know(list_page(store, self._target, Query(query.selector)).items)
        if from_now:
            self._version = store.resource_version
            return []
        changes = store.changes_since(int(query.resource_version), [self._kind])
        found = (self._line_of(Change(event), catching_up=True) for event in changes.events)
        lines = [line for line in found if line is not None]
        self._version = changes.resource_version
        return lines

    def _know(self, documents: list[Document]) -> None:
        """The client has these objects."""
        place = self._target.resource.stored_namespace
        self._seen.update((place(d["metadata"].get("namespace", "")), d["metadata"]["name"]) for d in documents)

    def _line_of(self, change: Change, *, catching_up: bool = False) -> bytes | None:
        """The line that a change makes; None for one that is none of the client's business."""
        ref = change.event.ref
        self._version = change.event.resource_version
        if self._namespace and ref.namespace != self._namespace:
            return None
        kind: str | None = change.event.type.value
        if self._select is not None:
            kind = self._selected(change.event, ref, self._select(change.document(self._shape)), catching_up)
        if kind is None:
            return None
        if self._render is not None:
            return self._render(kind, change.document(self._shape))
        return change.line(kind, self._shape)

    def _selected(self, event: Event, ref: ObjectRef, matches: bool, catching_up: bool) -> str | None:
        """The type of the event to the client: DELETED also for what is no longer selected."""
        key = (ref.namespace, ref.name)
        had = key in self._seen
        if event.type is EventType.DELETED or not matches:
            self._seen.discard(key)
            unknown = catching_up and event.type is not EventType.ADDED
            return "DELETED" if had or unknown or (event.type is EventType.DELETED and matches) else None
        self._seen.add(key)
        if catching_up:
            return event.type.value
        return "MODIFIED" if had else "ADDED"

    def _bookmark(self, version: int, *, initial: bool = False) -> bytes:
        metadata: dict[str, object] = {"resourceVersion": str(version)}
        if initial:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        document: Document = {
            "kind": self._target.resource.kind,
            "apiVersion": self._target.api_version,
            "metadata": metadata,
        }
        return _line("BOOKMARK", _encode(document)) if self._render is None else self._render("BOOKMARK", document)
