"""One kind, listed and then watched for ever: whatever the connection or the server does, every change arrives.

List in pages, then watch from the list's resourceVersion with bookmarks; a broken watch goes on where it was, an
expired one (410) lists again and tells only the differences
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from propylon.api.decode import DecodeError, decode_as
from propylon.api.kinds import KindInfo
from propylon.api.meta import ObjectKey, ObjectRef
from propylon.store.cluster.client import ApiError, Client, Unreachable, is_said
from propylon.store.cluster.discovery import RECHECK_SECONDS, Discovery, ResourcePath
from propylon.store.cluster.pauses import Pauses

log = logging.getLogger("propylon.store.cluster")

PAGE = 500
"""Objects a page of a list holds."""
WATCH_SECONDS = 300
"""After so long (up to twice as long, so that not all watches end at once) the server ends a watch."""
SILENCE_SECONDS = 150.0
"""A watch that brings nothing for so long, not even one of the bookmarks that come every minute, is taken for dead."""
PATIENCE_SECONDS = 10.0
"""What passes within this time is not worth a line: while a CRD is replaced, its objects cannot be read."""
REFUSALS = 8
"""So often a watch is tried from where it was; perhaps a list is answered."""
_GONE = 410


class Change(NamedTuple):
    """One object as it is now."""

    ref: ObjectRef
    object: Any | None
    """Decoded; None if it is gone, or cannot be read (then `error` says why)."""
    raw: bytes
    """Its JSON as it came, empty if it is gone. Items of lists carry no apiVersion and kind."""
    error: DecodeError | None = None

    @property
    def gone(self) -> bool:
        """Whether there is no such object any more."""
        return not self.raw


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct, frozen=True):
    metadata: _Meta


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _ErrorStatus(msgspec.Struct, frozen=True):
    code: int = 0
    reason: str | None = None
    message: str | None = None


_decode_list = msgspec.json.Decoder(_List).decode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_head = msgspec.json.Decoder(_Head).decode


class _ListAgain(Exception):  # noqa: N818 - control flow: what we know is too old to go on from
    pass


class Reflector:
    """Follows one kind. `emit` is called on the event loop with what changed, and must not block."""

    def __init__(
        self,
        client: Client,
        discovery: Discovery,
        info: KindInfo,
        emit: Callable[[Sequence[Change]], None],
        *,
        field_selector: str = "",
        pauses: Pauses | None = None,
    ) -> None:
        self.info = info
        self._client = client
        self._discovery = discovery
        self._emit = emit
        self._selector = {"fieldSelector": field_selector} if field_selector else {}
        self._pauses = pauses or Pauses()
        self._known: dict[ObjectKey, str] = {}
        """Every object that was told, and its resourceVersion."""
        self._said = ""
        self._failing_since: float | None = None
        """The first of the failures that nothing came in between."""
        self.synced = False
        """Whether all objects were told once, or the kind is not served."""
        self.path: ResourcePath | None = None
        """Where the kind is served; None before it was found, or if it is not."""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                self.path = await self._discovery.find(self.info)
                if self.path is None:
                    self._not_served()
                    await asyncio.sleep(RECHECK_SECONDS)
                    continue
                await self._watch(self.path, await self._list(self.path))
            except _ListAgain:
                continue
            except (ApiError, Unreachable, msgspec.DecodeError) as error:
                if isinstance(error, ApiError) and error.status == 404:
                    self._discovery.forget(self.info.group)
                await self._pause(error)

    # -- listing -----------------------------------------------------------------------------------------------------

    async def _list(self, path: ResourcePath) -> str:
        """Tell every object that is new or changed, then which ones are gone; the list's resourceVersion."""
        seen: set[ObjectKey] = set()
        page_size = PAGE
        position = ""
        while True:
            parameters = {"limit": str(page_size), **self._selector} if page_size else dict(self._selector)
            if position:
                parameters["continue"] = position
            try:
                answer = await self._client.request("GET", path.collection, parameters=parameters)
            except ApiError as error:
                if error.status != _GONE or not position:
                    raise
                # The pages were too old for the server before the last one was read: all in one piece is never too old.
                seen, page_size, position = set(), 0, ""
                continue
            page = _decode_list(answer)
            changes = [change for raw in page.items or () if (change := self._listed(path, bytes(raw), seen))]
            if changes:
                self._emit(changes)
            position = page.metadata.continue_
            if not position:
                break
        if vanished := [key for key in self._known if key not in seen]:
            self._emit([self._forget(key) for key in vanished])
        self._in_order()
        self._mark_synced()
        return page.metadata.resource_version

    def _listed(self, path: ResourcePath, raw: bytes, seen: set[ObjectKey]) -> Change | None:
        meta = _decode_head(raw).metadata
        key = ObjectKey(meta.namespace, meta.name)
        seen.add(key)
        if self._known.get(key) == meta.resource_version:
            return None
        return self._learn(path, key, meta.resource_version, raw)

    def _learn(self, path: ResourcePath, key: ObjectKey, resource_version: str, raw: bytes) -> Change:
        self._known[key] = resource_version
        ref = ObjectRef(self.info.group, self.info.kind, *key)
        try:
            return Change(ref, decode_as(self.info, raw, path.version), raw)
        except DecodeError as error:
            return Change(ref, None, raw, error)

    def _forget(self, key: ObjectKey) -> Change:
        self._known.pop(key, None)
        return Change(ObjectRef(self.info.group, self.info.kind, *key), None, b"")

    def _not_served(self) -> None:
        self._say(logging.INFO, "not served by this cluster; looked for again every %.0f s", RECHECK_SECONDS)
        if self._known:
            self._emit([self._forget(key) for key in list(self._known)])
        self._mark_synced()

    def _mark_synced(self) -> None:
        if not self.synced:
            self.synced = True
            self._emit(())

    # -- watching ----------------------------------------------------------------------------------------------------

    async def _watch(self, path: ResourcePath, resource_version: str) -> None:
        """Tell changes after that version for ever. Raises _ListAgain, ApiError (404, 403...), msgspec.DecodeError."""
        version = resource_version
        refusals = 0
        while True:
            parameters = {
                "watch": "1",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(int(WATCH_SECONDS * random.uniform(1, 2))),
                **self._selector,
            }
            before = version
            try:
                async with self._client.lines(path.collection, parameters, silence=SILENCE_SECONDS) as lines:
                    self._accepted()
                    async for line in lines:
                        reached = self._take(path, line)
                        if _is_before(reached, version):
                            raise _ListAgain
                        version, refusals = reached, 0
                        self._in_order()
            except Unreachable as error:
                await self._pause(error)
            except ApiError as error:
                if error.status == _GONE:
                    raise _ListAgain from None
                refusals += 1
                if error.status in {401, 403, 404} or refusals == REFUSALS:
                    raise
                await self._pause(error)
            else:
                if version == before:  # it ended at once or brought nothing: do not spin
                    await asyncio.sleep(self._pauses.next())

    def _take(self, path: ResourcePath, line: bytes) -> str:
        """Tell what one line says; the resourceVersion to go on from."""
        event = _decode_line(line)
        raw = bytes(event.object)
        if event.type == "ERROR":
            status = msgspec.json.decode(raw, type=_ErrorStatus)
            raise ApiError(status.code or 500, status.reason or "", status.message or "")
        meta = _decode_head(raw).metadata
        if event.type == "BOOKMARK":
            return meta.resource_version
        key = ObjectKey(meta.namespace, meta.name)
        if event.type == "DELETED":
            self._emit([self._forget(key)])
        else:
            self._emit([self._learn(path, key, meta.resource_version, raw)])
        return meta.resource_version

    # -- telling -----------------------------------------------------------------------------------------------------

    async def _pause(self, error: Exception) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if isinstance(error, ApiError) and error.status == 403:
            self._say(logging.ERROR, "may not be read, see the ClusterRole: %s", error)
        elif is_said(error) or now - self._failing_since < PATIENCE_SECONDS:
            log.debug("%s: cannot be followed at the moment: %s", self.info.kind, error)
        else:
            self._say(logging.WARNING, "cannot be followed at the moment: %s", error)
        await asyncio.sleep(self._pauses.next(error.retry_after if isinstance(error, ApiError) else None))

    def _in_order(self) -> None:
        self._pauses.reset()
        self._accepted()

    def _accepted(self) -> None:
        """The server lets us read; whether anything comes of it is another question."""
        self._failing_since = None
        if self._said:
            self._said = ""
            log.info("%s: followed", self.info.kind)

    def _say(self, level: int, message: str, *arguments: object) -> None:
        """The same thing is said once, not at every try."""
        said = message % arguments
        if said != self._said:
            self._said = said
            log.log(level, "%s: %s", self.info.kind, said)


def _is_before(one: str, other: str) -> bool:
    """Whether a resourceVersion lies before another of the same kind (KEP-5504). It does where the store of the server
    was set back to a backup: then what we know is of a future that is no more.
    """
    return one.isdigit() and other.isdigit() and int(one) < int(other)
