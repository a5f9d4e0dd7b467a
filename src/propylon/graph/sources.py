"""What the Graph is computed from: one source per kind, and what the surroundings decide."""

from typing import Any, NamedTuple

import msgspec

from propylon import api
from propylon.graph.model import BackendKey, Endpoint, Finding
from propylon.incremental import Engine, Source

CONTROLLER_NAME = "propylon.dev/gateway-controller"
CERTIFICATES_GROUP = "certificates.k8s.io"


class GatewayAddresses(msgspec.Struct, frozen=True):
    """What a Gateway can have: addresses for its status, and where its ports are bound. See `assignment.assign`."""

    addresses: tuple[api.GatewayStatusAddress, ...] = ()
    """Those that it has if it asks for none."""
    bind: tuple[str, ...] = ()
    """IP addresses; without any, nothing is served."""
    port_offset: int = 0
    """Added to every port when binding."""
    finding: Finding | None = None
    """Why addresses are missing or unusable."""
    reserve: tuple[api.GatewayStatusAddress, ...] = ()
    """Those that lead to it as well, for who asks for just them."""


class Parameters(msgspec.Struct, frozen=True):
    """An object that a `parametersRef` may lead to; whoever runs the proxies knows what is in it."""

    error: str = ""
    """Why it cannot be used."""


class Settings(msgspec.Struct, frozen=True):
    """How the Graph is to be read."""

    controllers: frozenset[str] | None = None
    """Controller names whose GatewayClasses are adopted; None: every class."""
    our_name: str = CONTROLLER_NAME
    cluster_domain: str = "cluster.local"
    parameter_kinds: frozenset[tuple[str, str]] = frozenset()
    """(group, kind) of the objects that a `parametersRef` may lead to: see `Sources.parameters`."""


class Sources(NamedTuple):
    """One incremental Source per kind, keyed by ObjectKey (namespace "" for cluster-scoped kinds)."""

    gateway_classes: Source[api.ObjectKey, api.GatewayClass]
    gateways: Source[api.ObjectKey, api.Gateway]
    listener_sets: Source[api.ObjectKey, api.ListenerSet]
    http_routes: Source[api.ObjectKey, api.HTTPRoute]
    grpc_routes: Source[api.ObjectKey, api.GRPCRoute]
    tls_routes: Source[api.ObjectKey, api.TLSRoute]
    tcp_routes: Source[api.ObjectKey, api.TCPRoute]
    udp_routes: Source[api.ObjectKey, api.UDPRoute]
    reference_grants: Source[api.ObjectKey, api.ReferenceGrant]
    backend_tls_policies: Source[api.ObjectKey, api.BackendTLSPolicy]
    x_backends: Source[api.ObjectKey, api.XBackend]
    services: Source[api.ObjectKey, api.Service]
    endpoint_slices: Source[api.ObjectKey, api.EndpointSlice]
    secrets: Source[api.ObjectKey, api.Secret]
    config_maps: Source[api.ObjectKey, api.ConfigMap]
    namespaces: Source[api.ObjectKey, api.Namespace]
    cluster_trust_bundles: Source[api.ObjectKey, api.ClusterTrustBundle]
    addresses: Source[api.ObjectKey, GatewayAddresses]
    """By Gateway."""
    endpoint_overrides: Source[BackendKey, tuple[Endpoint, ...]]
    """Endpoints that stand in for a Service's own; port 0 means all of its ports."""
    fallback_endpoints: Source[BackendKey, tuple[Endpoint, ...]]
    """Endpoints for Service ports that have none otherwise: see `Graph.unserved`."""
    parameters: Source[api.ObjectRef, Parameters]
    """Those that exist, of the kinds in `Settings.parameter_kinds`."""
    lacking: Source[str, bool]
    """Names of features (as in `supportedFeatures`) that the surroundings rule out: an API that is not served, the
    channel of the CRDs, nothing that could do it."""
    crds: Source[str, tuple[tuple[str, str], ...]]
    """Under the key `installed`: the CRDs of the Gateway API by name, and the bundle version that each says it is of,
    "" if it says none. Nothing where there are no CRDs."""

    @classmethod
    def create(cls, engine: Engine) -> "Sources":
        """Create the sources of an engine."""
        with engine.ahead():
            return cls(*(engine.source(f"{name.replace('_', ' ')} (source)") for name in cls._fields))

    def by_kind(self, group: str, kind: str) -> Source[api.ObjectKey, Any] | None:
        """Return the source of a kind, or None if the Graph does not look at that kind."""
        name = FIELD_OF_KIND.get((group, kind))
        return None if name is None else getattr(self, name)


FIELD_OF_KIND = {
    (api.GATEWAY_GROUP, "GatewayClass"): "gateway_classes",
    (api.GATEWAY_GROUP, "Gateway"): "gateways",
    (api.GATEWAY_GROUP, "ListenerSet"): "listener_sets",
    (api.GATEWAY_GROUP, "HTTPRoute"): "http_routes",
    (api.GATEWAY_GROUP, "GRPCRoute"): "grpc_routes",
    (api.GATEWAY_GROUP, "TLSRoute"): "tls_routes",
    (api.GATEWAY_GROUP, "TCPRoute"): "tcp_routes",
    (api.GATEWAY_GROUP, "UDPRoute"): "udp_routes",
    (api.GATEWAY_GROUP, "ReferenceGrant"): "reference_grants",
    (api.GATEWAY_GROUP, "BackendTLSPolicy"): "backend_tls_policies",
    (api.EXPERIMENTAL_GROUP, "XBackend"): "x_backends",
    ("", "Service"): "services",
    ("discovery.k8s.io", "EndpointSlice"): "endpoint_slices",
    ("", "Secret"): "secrets",
    ("", "ConfigMap"): "config_maps",
    ("", "Namespace"): "namespaces",
    (CERTIFICATES_GROUP, "ClusterTrustBundle"): "cluster_trust_bundles",
}
