"""What travels over a stream of delta xDS, decoded, and what a stream's machine makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from propylon.xds.events import ResourceName
from propylon.xds.world import Resource


class Request(msgspec.Struct, frozen=True):
    """A DeltaDiscoveryRequest. `error` is None unless it is a NACK."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = {}
    nonce: str = ""
    error: str | None = None


class Response(msgspec.Struct, frozen=True):
    """A DeltaDiscoveryResponse."""

    type_url: str
    nonce: str
    resources: Mapping[str, Resource]
    removed: tuple[str, ...]


class Outcome(msgspec.Struct):
    """What a request or a desired change revealed: versions the proxy runs, and refusals (name, version, message)."""

    acknowledged: dict[ResourceName, str | None] = {}
    rejected: list[tuple[ResourceName | None, str, str]] = []

    def __bool__(self) -> bool:
        return bool(self.acknowledged or self.rejected)
