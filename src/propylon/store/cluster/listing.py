"""What a cluster holds at the moment: every kind listed once, in pages, and nothing followed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from propylon.api.kinds import KindInfo
from propylon.api.meta import ObjectRef
from propylon.store.cluster.client import ApiError, Client
from propylon.store.cluster.credentials import Credentials
from propylon.store.cluster.discovery import Discovery, ResourcePath

PAGE = 500
"""Objects a page of a list holds."""
_GONE, _FORBIDDEN = 410, 403


class _ListMeta(msgspec.Struct, frozen=True):
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[dict[str, Any]] | None = None


class Contents(NamedTuple):
    """Objects by reference, complete with apiVersion and kind, and what could not be read."""

    documents: dict[ObjectRef, dict[str, Any]]
    forbidden: tuple[str, ...]
    """Kinds that these credentials may not list."""


async def list_cluster(credentials: Credentials, kinds: Sequence[KindInfo]) -> Contents:
    """List kinds of all namespaces; kinds that the cluster does not serve are passed over.

    Raises ApiError, Unreachable.
    """
    client = Client(credentials)
    try:
        discovery = Discovery(client)
        # Who may not connect is told so once, and not once a kind.
        await client.request("GET", "/version")
        found = await asyncio.gather(*(_list_kind(client, discovery, info) for info in kinds))
    finally:
        await client.close()
    documents = {
        _ref(info, document): document
        for info, listed in zip(kinds, found, strict=True)
        if listed is not None
        for document in listed
    }
    forbidden = tuple(info.kind for info, listed in zip(kinds, found, strict=True) if listed is None)
    return Contents(documents, forbidden)


def _ref(info: KindInfo, document: dict[str, Any]) -> ObjectRef:
    metadata = document["metadata"]
    return ObjectRef(info.group, info.kind, metadata.get("namespace", ""), metadata["name"])


async def _list_kind(client: Client, discovery: Discovery, info: KindInfo) -> list[dict[str, Any]] | None:
    """All objects of a kind; None if that is forbidden."""
    try:
        path = await discovery.find(info)
        if path is None:
            return []
        return await _list_pages(client, path, info)
    except ApiError as error:
        if error.status == _FORBIDDEN:
            return None
        if error.status == 404:
            return []
        raise


async def _list_pages(client: Client, path: ResourcePath, info: KindInfo) -> list[dict[str, Any]]:
    version = path.prefix.removeprefix("/apis/").removeprefix("/api/")
    found: list[dict[str, Any]] = []
    parameters = {"limit": str(PAGE)}
    while True:
        try:
            answer = await client.request("GET", path.collection, parameters=parameters)
        except ApiError as error:
            if error.status != _GONE or not found:
                raise
            # The pages became too old before the last one was read: all in one piece is never too old.
            found, parameters = [], {}
            continue
        page = msgspec.json.decode(answer, type=_List)
        # Items of lists carry no apiVersion and kind of their own.
        found += [{**item, "apiVersion": version, "kind": info.kind} for item in page.items or ()]
        if not page.metadata.continue_:
            return found
        parameters = {"limit": str(PAGE), "continue": page.metadata.continue_}
