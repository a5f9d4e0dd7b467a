"""Every kind at once: reflectors, and the queue of what they tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from propylon.api.kinds import KindInfo
from propylon.api.meta import ObjectRef
from propylon.store.cluster.client import Client
from propylon.store.cluster.discovery import Discovery, ResourcePath
from propylon.store.cluster.reflector import Change, Reflector

FIELD_SELECTORS: Mapping[tuple[str, str], str] = {
    # Releases of Helm are the bulk of many clusters' Secrets, and no certificate is of these types.
    ("", "Secret"): "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token",
}


class ClusterWatch:
    """Follows kinds; `on_change` rings (in the event loop) when `drain` has something or `complete` changed."""

    def __init__(
        self,
        client: Client,
        kinds: Iterable[KindInfo],
        on_change: Callable[[], None],
        *,
        field_selectors: Mapping[tuple[str, str], str] = FIELD_SELECTORS,
    ) -> None:
        self.discovery = Discovery(client)
        self._on_change = on_change
        self._queue: list[Change] = []
        self._reflectors = {
            (info.group, info.kind): Reflector(
                client,
                self.discovery,
                info,
                self._emit,
                field_selector=field_selectors.get((info.group, info.kind), ""),
            )
            for info in kinds
        }

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for (_, kind), reflector in self._reflectors.items():
                group.create_task(reflector.run(), name=f"watch {kind}")

    @property
    def complete(self) -> bool:
        """Whether every kind has told all its objects once: before that, what is known is half a world."""
        return all(reflector.synced for reflector in self._reflectors.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """The kinds that `complete` still waits for."""
        return tuple(kind for (_, kind), reflector in self._reflectors.items() if not reflector.synced)

    def drain(self) -> list[Change]:
        """What changed since the last call, in order; of several changes of one object the last one."""
        queue, self._queue = self._queue, []
        latest = {change.ref: change for change in queue}
        return list(latest.values())

    def path_of(self, ref: ObjectRef) -> ResourcePath | None:
        """Where the kind of an object is served; None if it is not, or not followed."""
        reflector = self._reflectors.get((ref.group, ref.kind))
        return reflector.path if reflector is not None else None

    def _emit(self, changes: Sequence[Change]) -> None:
        self._queue.extend(changes)
        self._on_change()
