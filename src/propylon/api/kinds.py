"""The one table of kinds: names, versions, scope and struct of everything this project interprets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from propylon.api import core, gateway, policies, routes, versions
from propylon.api.references import EXPERIMENTAL_GROUP, GATEWAY_GROUP
from propylon.api.schema import Channel

Scope = Literal["Namespaced", "Cluster"]


class KindInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A kind: `version` is the newest served one, described by `type`; `schemas` has those of other versions."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    scope: Scope
    type: Any
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    served_versions: tuple[str, ...]
    """Newest first; what the API of our own serves."""
    read_versions: tuple[str, ...] = ()
    """Newer ones, of the same fields, that a cluster may serve."""
    storage_version: str
    schemas: Mapping[str, type] = MappingProxyType({})
    status_subresource: bool = True
    interpreted: bool = True

    @property
    def api_version(self) -> str:
        """The apiVersion of the newest version."""
        return self.api_version_of(self.version)

    @property
    def namespaced(self) -> bool:
        """Whether objects of this kind live in namespaces."""
        return self.scope == "Namespaced"

    def api_version_of(self, version: str) -> str:
        """The apiVersion of a version: `v1` in the core group, `apps/v1` elsewhere."""
        return f"{self.group}/{version}" if self.group else version

    def served_in(self, channel: Channel) -> tuple[str, ...]:
        """The versions a channel serves, newest first: the standard channel of Gateway API has no alpha versions."""
        if channel == "experimental" or self.group not in (GATEWAY_GROUP, EXPERIMENTAL_GROUP):
            return self.served_versions
        return tuple(version for version in self.served_versions if "alpha" not in version)

    def schema(self, version: str) -> Any:
        """The struct that describes a served version."""
        return self.schemas.get(version, self.type)


def _kind(
    type_: type,
    group: str,
    plural: str,
    *versions_: str,
    scope: Scope = "Namespaced",
    short: tuple[str, ...] = (),
    schemas: Mapping[str, type] | None = None,
    storage: str | None = None,
    status: bool = True,
    read: tuple[str, ...] = (),
) -> KindInfo:
    kind = type_.__name__
    return KindInfo(
        group=group,
        version=versions_[0],
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        scope=scope,
        type=type_,
        short_names=short,
        categories=("gateway-api",) if group in (GATEWAY_GROUP, EXPERIMENTAL_GROUP) else (),
        served_versions=versions_,
        read_versions=read,
        storage_version=storage or versions_[0],
        schemas=MappingProxyType(dict(schemas or {})),
        status_subresource=status,
    )


_GATEWAY_KINDS = (
    _kind(gateway.GatewayClass, GATEWAY_GROUP, "gatewayclasses", "v1", "v1beta1", scope="Cluster", short=("gc",)),
    _kind(gateway.Gateway, GATEWAY_GROUP, "gateways", "v1", "v1beta1", short=("gtw",)),
    _kind(gateway.ListenerSet, GATEWAY_GROUP, "listenersets", "v1", short=("lset",)),
    _kind(routes.HTTPRoute, GATEWAY_GROUP, "httproutes", "v1", "v1beta1"),
    _kind(routes.GRPCRoute, GATEWAY_GROUP, "grpcroutes", "v1"),
    _kind(
        routes.TLSRoute,
        GATEWAY_GROUP,
        "tlsroutes",
        "v1",
        "v1alpha3",
        "v1alpha2",
        schemas={"v1alpha2": versions.TLSRouteV1Alpha2},
    ),
    _kind(
        routes.TCPRoute,
        GATEWAY_GROUP,
        "tcproutes",
        "v1",
        "v1alpha2",
        schemas={"v1alpha2": versions.TCPRouteV1Alpha2},
    ),
    _kind(
        routes.UDPRoute,
        GATEWAY_GROUP,
        "udproutes",
        "v1",
        "v1alpha2",
        schemas={"v1alpha2": versions.UDPRouteV1Alpha2},
    ),
    _kind(
        policies.ReferenceGrant,
        GATEWAY_GROUP,
        "referencegrants",
        "v1",
        "v1beta1",
        short=("refgrant",),
        storage="v1beta1",
        status=False,
    ),
    _kind(policies.BackendTLSPolicy, GATEWAY_GROUP, "backendtlspolicies", "v1", "v1alpha3", short=("btlspolicy",)),
    _kind(policies.XBackend, EXPERIMENTAL_GROUP, "xbackends", "v1alpha1", short=("xbackend",)),
)

_CORE_KINDS = (
    _kind(core.Namespace, "", "namespaces", "v1", scope="Cluster", short=("ns",)),
    _kind(core.Service, "", "services", "v1", short=("svc",)),
    _kind(core.Secret, "", "secrets", "v1", status=False),
    _kind(core.ConfigMap, "", "configmaps", "v1", short=("cm",), status=False),
    _kind(core.Node, "", "nodes", "v1", scope="Cluster", short=("no",)),
    _kind(core.Event, "", "events", "v1", short=("ev",), status=False),
    _kind(core.EndpointSlice, "discovery.k8s.io", "endpointslices", "v1", status=False),
    _kind(core.Lease, "coordination.k8s.io", "leases", "v1", status=False),
    _kind(
        core.ClusterTrustBundle,
        "certificates.k8s.io",
        "clustertrustbundles",
        "v1beta1",
        "v1alpha1",
        scope="Cluster",
        status=False,
        read=("v1",),  # from Kubernetes 1.37 on
    ),
)

KINDS: tuple[KindInfo, ...] = _GATEWAY_KINDS + _CORE_KINDS
"""Every interpreted kind, Gateway API first."""
ROUTE_KINDS = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
"""Those of them that attach to listeners."""

_BY_KIND = {(info.group, info.kind): info for info in KINDS}
_BY_RESOURCE = {(info.group, info.plural): info for info in KINDS}
_BY_TYPE = {info.type: info for info in KINDS}


def by_kind(group: str, kind: str) -> KindInfo | None:
    """The kind of that group and name; None if it is not interpreted."""
    return _BY_KIND.get((group, kind))


def by_resource(group: str, plural: str) -> KindInfo | None:
    """The kind of that group and plural name; None if it is not interpreted."""
    return _BY_RESOURCE.get((group, plural))


def by_type(type_: type) -> KindInfo:
    """The kind that a struct describes. KeyError for a struct that is no object."""
    return _BY_TYPE[type_]


def by_name(name: str) -> tuple[KindInfo, ...]:
    """The kinds people mean by a word, any case: kind, plural, singular or short name, maybe followed by `.group`."""
    word, _, group = name.lower().partition(".")
    return tuple(
        info
        for info in KINDS
        if word in (info.kind.lower(), info.plural, info.singular, *info.short_names) and group in ("", info.group)
    )
