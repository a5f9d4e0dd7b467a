"""Which kinds the API server serves, in which version, and under which paths."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import msgspec

from propylon.api.kinds import KindInfo
from propylon.store.cluster.client import ApiError, Client

RECHECK_SECONDS = 10.0
"""How long an answer holds. A CRD that is installed later is found within this time."""


class ResourcePath(NamedTuple):
    """Where the objects of one kind are, in the version that was chosen."""

    prefix: str
    """`/api/v1` or `/apis/GROUP/VERSION`."""
    version: str
    plural: str

    @property
    def collection(self) -> str:
        """All objects, of all namespaces."""
        return f"{self.prefix}/{self.plural}"

    def in_namespace(self, namespace: str) -> str:
        """The objects of one namespace; of a cluster-scoped kind ("") all of them."""
        return f"{self.prefix}/namespaces/{namespace}/{self.plural}" if namespace else self.collection

    def object(self, namespace: str, name: str) -> str:
        """One object."""
        return f"{self.in_namespace(namespace)}/{name}"


class _GroupVersion(msgspec.Struct, frozen=True):
    version: str


class _Group(msgspec.Struct, frozen=True):
    versions: tuple[_GroupVersion, ...] = ()


class _Resource(msgspec.Struct, frozen=True):
    name: str
    verbs: tuple[str, ...] = ()


class _Resources(msgspec.Struct, frozen=True):
    resources: tuple[_Resource, ...] = ()


class Discovery:
    """Asks each group at most once in `RECHECK_SECONDS`, however many kinds want to know."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._served: dict[str, tuple[float, frozenset[tuple[str, str]]]] = {}
        """group -> (when, (version, plural) that can be listed and watched)."""
        self._locks: dict[str, asyncio.Lock] = {}

    async def find(self, info: KindInfo) -> ResourcePath | None:
        """The newest version that both sides know; None if the kind is not served. Raises ApiError, Unreachable."""
        if not info.group:
            return ResourcePath("/api/v1", "v1", info.plural)
        served = await self._served_of(info.group)
        for version in (*info.read_versions, *info.served_versions):
            if (version, info.plural) in served:
                return ResourcePath(f"/apis/{info.group}/{version}", version, info.plural)
        return None

    def forget(self, group: str) -> None:
        """What was known of a group turned out to be wrong."""
        self._served.pop(group, None)

    async def _served_of(self, group: str) -> frozenset[tuple[str, str]]:
        async with self._locks.setdefault(group, asyncio.Lock()):
            known = self._served.get(group)
            if known is None or time.monotonic() - known[0] >= RECHECK_SECONDS:
                known = (time.monotonic(), await self._ask(group))
                self._served[group] = known
            return known[1]

    async def _ask(self, group: str) -> frozenset[tuple[str, str]]:
        answer = await self._get(f"/apis/{group}")
        if answer is None:
            return frozenset()
        found: set[tuple[str, str]] = set()
        for entry in msgspec.json.decode(answer, type=_Group).versions:
            listing = await self._get(f"/apis/{group}/{entry.version}")
            if listing is not None:
                resources = msgspec.json.decode(listing, type=_Resources).resources
                found |= {(entry.version, resource.name) for resource in resources if "watch" in resource.verbs}
        return frozenset(found)

    async def _get(self, path: str) -> bytes | None:
        try:
            return await self._client.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
