"""Older served versions whose schema differs from the newest one, and the way from them to it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from propylon.api.meta import ObjectMeta
from propylon.api.references import GATEWAY_GROUP
from propylon.api.routes import (
    DefaultGateways,
    ParentRefs,
    RouteStatus,
    TCPRoute,
    TCPRouteRule,
    TCPRouteSpec,
    TLSRoute,
    TLSRouteRule,
    TLSRouteSpec,
    UDPRoute,
    UDPRouteRule,
    UDPRouteSpec,
)
from propylon.api.schema import Hostname, Model, atomic


class TLSRouteSpecV1Alpha2(Model, frozen=True):
    """A TLSRoute's spec when hostnames were optional and rules many."""

    rules: Annotated[tuple[TLSRouteRule, ...], atomic(min=1, max=16)]
    hostnames: Annotated[tuple[Hostname, ...], atomic(max=1024)] = ()
    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None


class TLSRouteV1Alpha2(Model, frozen=True):
    """TLSRoute, v1alpha2."""

    metadata: ObjectMeta
    spec: TLSRouteSpecV1Alpha2
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1alpha2"
    kind: str = "TLSRoute"


class TCPRouteSpecV1Alpha2(Model, frozen=True):
    """A TCPRoute's spec when rules were many."""

    rules: Annotated[tuple[TCPRouteRule, ...], atomic(min=1, max=16)]
    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None


class TCPRouteV1Alpha2(Model, frozen=True):
    """TCPRoute, v1alpha2."""

    metadata: ObjectMeta
    spec: TCPRouteSpecV1Alpha2
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1alpha2"
    kind: str = "TCPRoute"


class UDPRouteSpecV1Alpha2(Model, frozen=True):
    """A UDPRoute's spec when rules were many."""

    rules: Annotated[tuple[UDPRouteRule, ...], atomic(min=1, max=16)]
    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None


class UDPRouteV1Alpha2(Model, frozen=True):
    """UDPRoute, v1alpha2."""

    metadata: ObjectMeta
    spec: UDPRouteSpecV1Alpha2
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1alpha2"
    kind: str = "UDPRoute"


_NEWEST: dict[type, tuple[type, type]] = {
    TLSRouteV1Alpha2: (TLSRoute, TLSRouteSpec),
    TCPRouteV1Alpha2: (TCPRoute, TCPRouteSpec),
    UDPRouteV1Alpha2: (UDPRoute, UDPRouteSpec),
}


def to_newest(obj: Any) -> Any:
    """The same object as a struct of the newest version: every field of old versions exists there under its name."""
    if type(obj) not in _NEWEST:
        return obj
    newest, newest_spec = _NEWEST[type(obj)]
    spec = newest_spec(**msgspec.structs.asdict(obj.spec))
    return newest(metadata=obj.metadata, spec=spec, status=obj.status)
