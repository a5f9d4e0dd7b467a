"""Statuses written to the API server: optimistic, several at once, and only where something is to change.

What is written is computed from the object as it was last seen, and refused by the server (409) if that is outdated;
then it is read and computed again. So nobody's entries are lost, whoever else writes to the same status.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from propylon.api.kinds import by_kind
from propylon.api.meta import ObjectRef
from propylon.store.cluster.client import ApiError, Client, Unreachable, is_said
from propylon.store.cluster.discovery import ResourcePath
from propylon.store.cluster.pauses import Pauses
from propylon.store.cluster.reachability import Seldom
from propylon.store.status_queue import StatusQueue

log = logging.getLogger("propylon.store.cluster")

MergeStatus = Callable[[Mapping[str, Any], Any, str], Mapping[str, Any] | None]
"""(object: its apiVersion, kind, metadata and status; what is desired, None if nothing; time) -> the new status."""

WORKERS = 8
"""Writes under way at once."""
LOOK_AT_ONCE = 200
"""Objects compared with what is desired before anything else has its turn."""
FORBIDDEN_SECONDS = 30.0
"""How long a write that is not allowed waits for somebody to allow it."""


class _Standing(msgspec.Struct, frozen=True):
    """What is kept of an object: enough to compute and guard the next status."""

    metadata: dict[str, Any]
    status: dict[str, Any]


class _Parts(msgspec.Struct, frozen=True):
    metadata: dict[str, Any]
    status: dict[str, Any] | None = None


_decode_parts = msgspec.json.Decoder(_Parts).decode
_KEPT = ("name", "namespace", "uid", "generation", "resourceVersion")


class StatusWriter:
    """Brings objects to their desired status. All methods belong to one event loop; only `run` does I/O."""

    def __init__(
        self,
        client: Client,
        path_of: Callable[[ObjectRef], ResourcePath | None],
        merge: MergeStatus,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._path_of = path_of
        self._merge = merge
        self._now = now
        self._desired: dict[ObjectRef, Any] = {}
        self._standing: dict[ObjectRef, _Standing] = {}
        self._accepted: dict[ObjectRef, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        """What was sent last, and what the server made of it: defaults it fills in are no reason to write again."""
        self._queue = StatusQueue()
        """To be looked at, in this order."""
        self._waiting: list[tuple[float, ObjectRef]] = []
        """To be tried again, the earliest (`time.monotonic`) first."""
        self._pauses: dict[ObjectRef, Pauses] = {}
        """Of those whose last write failed."""
        self._writing: set[ObjectRef] = set()
        self._again: set[ObjectRef] = set()
        """Of those that are being written: something happened to them meanwhile."""
        self._bell = asyncio.Event()
        self._enabled = False
        self._seldom = Seldom()
        self.written = 0
        """Writes that the server accepted."""

    # -- what is wanted and what is there ----------------------------------------------------------------------------

    def want(self, ref: ObjectRef, desired: Any) -> None:
        """Have the object bear this status, or with None nothing of ours. The latest word counts."""
        if desired is None and ref not in self._standing:
            return
        if ref in self._pauses and self._desired.get(ref) != desired:
            del self._pauses[ref]  # what was refused is not what is wanted now
        self._desired[ref] = desired
        self._enqueue(ref)

    def seen(self, ref: ObjectRef, raw: bytes) -> None:
        """The object as a watch brought it; empty if it is gone. Repairs what somebody else made of our entries."""
        if not raw:
            self._forget(ref)
            return
        standing = _read(raw)
        before = self._standing.get(ref)
        if before is None or _is_newer(standing, before):
            self._standing[ref] = standing
        if ref in self._desired:
            self._enqueue(ref)

    def enable(self, enabled: bool) -> None:
        """Whether to write: only the leader does. Who becomes it looks at every object."""
        if enabled and not self._enabled:
            self._queue.add(self._desired)
        self._enabled = enabled
        self._bell.set()

    def look_again(self) -> None:
        """The server may keep what it dropped before (another CRD): compare every object anew."""
        self._accepted.clear()
        for ref in self._desired:
            self._enqueue(ref)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be written (or not ours to write)."""
        return not self._enabled or not (self._queue or self._writing or self._pauses)

    def _forget(self, ref: ObjectRef) -> None:
        self._standing.pop(ref, None)
        self._desired.pop(ref, None)
        self._accepted.pop(ref, None)
        self._queue.done([ref])
        self._pauses.pop(ref, None)

    def _enqueue(self, ref: ObjectRef) -> None:
        if self._enabled and ref not in self._pauses:
            self._queue.add([ref])
            self._bell.set()

    # -- writing -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until cancelled; what is under way is finished first come, first served."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._bell.clear()
                wait = self._start_due(group)
                try:
                    async with asyncio.timeout(wait):
                        await self._bell.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(0)  # the bell may ring all the time: let the others have their turn

    def _start_due(self, group: asyncio.TaskGroup) -> float | None:
        """Start what may be started; seconds until the next one that has to wait for its time."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, ref = heapq.heappop(self._waiting)
            if ref in self._pauses:
                self._queue.add([ref])
        for ref in self._queue.head(LOOK_AT_ONCE) if self._enabled else ():
            if len(self._writing) >= WORKERS:
                break
            self._queue.done([ref])
            if ref in self._writing:
                self._again.add(ref)
                continue
            if self._plan(ref) is None:
                self._pauses.pop(ref, None)
                continue
            self._writing.add(ref)
            group.create_task(self._write(ref), name=f"status {ref}")
        # With all workers busy, the end of a write rings.
        if self._queue and self._enabled and len(self._writing) < WORKERS:
            return 0.0
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None

    def _plan(self, ref: ObjectRef) -> Mapping[str, Any] | None:
        """The status to write; None if the object has it, or is not known (then a watch will ring)."""
        standing, info = self._standing.get(ref), by_kind(ref.group, ref.kind)
        if standing is None or info is None or ref not in self._desired:
            return None
        document = {
            "apiVersion": info.api_version,
            "kind": ref.kind,
            "metadata": standing.metadata,
            "status": standing.status,
        }
        merged = self._merge(document, self._desired[ref], self._now().strftime("%Y-%m-%dT%H:%M:%SZ"))
        if merged is None or merged == standing.status or self._accepted.get(ref) == (merged, standing.status):
            return None
        return merged

    async def _write(self, ref: ObjectRef) -> None:
        """Write until the object has what is desired, or refuse for a while."""
        try:
            while self._enabled and (status := self._plan(ref)) is not None:
                path = self._path_of(ref)
                if path is None:
                    break
                try:
                    await self._patch(ref, path, status)
                except ApiError as error:
                    if error.status != 409:
                        raise
                    if await self._read_again(ref, path):
                        break
            self._pauses.pop(ref, None)
        except (ApiError, Unreachable) as error:
            self._failed(ref, error)
        finally:
            self._writing.discard(ref)
            if ref in self._again:
                self._again.discard(ref)
                self._enqueue(ref)
            self._bell.set()

    async def _patch(self, ref: ObjectRef, path: ResourcePath, status: Mapping[str, Any]) -> None:
        version = self._standing[ref].metadata["resourceVersion"]
        # "replace" of the version is what makes the server compare it: a "test" that fails is a 422 like any other.
        operations = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/status", "value": status},
        ]
        answer = await self._client.request(
            "PATCH",
            f"{path.object(ref.namespace, ref.name)}/status",
            body=msgspec.json.encode(operations),
            content_type="application/json-patch+json",
        )
        self.written += 1
        self._learn(ref, answer)
        if ref in self._standing:
            self._accepted[ref] = (status, self._standing[ref].status)

    async def _read_again(self, ref: ObjectRef, path: ResourcePath) -> bool:
        """Whether the object is another one, or its spec is: then what is desired is about to change as well."""
        before = self._standing.get(ref)
        self._learn(ref, await self._client.request("GET", path.object(ref.namespace, ref.name)))
        after = self._standing.get(ref)
        if before is None or after is None:
            return True
        return any(before.metadata.get(key) != after.metadata.get(key) for key in ("uid", "generation"))

    def _learn(self, ref: ObjectRef, raw: bytes) -> None:
        """Take in an answer, unless the object went away meanwhile."""
        if ref in self._standing:
            self._standing[ref] = _read(raw)

    def _failed(self, ref: ObjectRef, error: ApiError | Unreachable) -> None:
        if ref not in self._desired or (isinstance(error, ApiError) and error.status == 404):
            self._pauses.pop(ref, None)
            return
        pause = self._pauses.setdefault(ref, Pauses()).next(error.retry_after if isinstance(error, ApiError) else None)
        if isinstance(error, ApiError) and error.status in {403, 422}:
            pause = FORBIDDEN_SECONDS
            # Who may not write one of a kind may write none of it.
            if self._seldom.due((ref if error.status == 422 else (ref.group, ref.kind), error.status)):
                log.error("the status of %s cannot be written: %s", ref, error)
        elif is_said(error) or not self._seldom.due((ref.group, ref.kind, str(error))):
            log.debug("the status of %s is written later: %s", ref, error)
        else:
            log.warning("the status of %s is written later, perhaps others as well: %s", ref, error)
        heapq.heappush(self._waiting, (time.monotonic() + pause, ref))


def _read(raw: bytes) -> _Standing:
    parts = _decode_parts(raw)
    metadata = {key: parts.metadata[key] for key in _KEPT if key in parts.metadata}
    return _Standing(metadata, parts.status or {})


def _is_newer(one: _Standing, other: _Standing) -> bool:
    """A watch may lag behind our own writes. Versions of one kind can be compared as numbers (KEP-5504)."""
    if one.metadata.get("uid") != other.metadata.get("uid"):
        return True
    try:
        return int(one.metadata["resourceVersion"]) >= int(other.metadata["resourceVersion"])
    except (KeyError, ValueError):
        return True
