"""Events on objects, for `kubectl describe`: what is wrong with an object, said once in a while."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from propylon.api.kinds import by_kind
from propylon.api.meta import ObjectRef
from propylon.store.cluster.client import ApiError, Client, Unreachable

log = logging.getLogger("propylon.store.cluster")

COMPONENT = "propylon"
QUEUE = 512
"""Events waiting to be written; more are dropped: they are a courtesy, statuses are the record."""
REMEMBERED = 4096
"""Events remembered in order not to repeat them."""
REPEAT_SECONDS = 600.0
"""The same event on the same object is written again after so long at the earliest."""
PER_SECOND = 10.0
"""Events written a second at most."""
_MESSAGE = 1024
_REASON = 128


class Note(NamedTuple):
    """One thing to be said of an object. `type` is Normal or Warning."""

    ref: ObjectRef
    uid: str
    type: str
    reason: str
    message: str


class Recorder:
    """Writes notes as Events (v1), bounded in number and pace. All methods belong to one event loop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[Note] = asyncio.Queue(QUEUE)
        self._told: OrderedDict[Note, float] = OrderedDict()
        self.enabled = False
        """Only the leader speaks."""

    def record(self, note: Note) -> None:
        """Say it, unless it was said lately, or too much is waiting already."""
        now = time.monotonic()
        if not self.enabled or now - self._told.get(note, -REPEAT_SECONDS) < REPEAT_SECONDS or self._queue.full():
            return
        self._told[note] = now
        self._told.move_to_end(note)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self._queue.put_nowait(note)

    async def run(self) -> None:
        """Write until cancelled. An Event that cannot be written is dropped."""
        while True:
            note = await self._queue.get()
            try:
                await self._write(note)
            except (ApiError, Unreachable) as error:
                log.debug("an Event on %s was dropped: %s", note.ref, error)
            await asyncio.sleep(1 / PER_SECOND)

    async def _write(self, note: Note) -> None:
        event = build_event(note, datetime.now(UTC))
        namespace = event["metadata"]["namespace"]
        await self._client.request("POST", f"/api/v1/namespaces/{namespace}/events", body=msgspec.json.encode(event))


def build_event(note: Note, now: datetime) -> dict[str, Any]:
    """The Event document; of a cluster-scoped object it lives in the namespace `default`, as Kubernetes' own do."""
    info = by_kind(note.ref.group, note.ref.kind)
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.blake2b(f"{note}{now.isoformat()}".encode(), digest_size=8).hexdigest()
    involved = {
        "apiVersion": info.api_version if info is not None else note.ref.group,
        "kind": note.ref.kind,
        "namespace": note.ref.namespace,
        "name": note.ref.name,
        "uid": note.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": note.ref.namespace or "default", "name": f"{note.ref.name[:200]}.{digest}"},
        "involvedObject": {key: value for key, value in involved.items() if value},
        "type": note.type,
        "reason": note.reason[:_REASON],
        "message": note.message[:_MESSAGE],
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
    }
