"""Resource types by the names Envoy's documentation gives them, and the order that make-before-break asks for."""

from __future__ import annotations

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SRDS = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
VHDS = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
SDS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
FCDS = "type.googleapis.com/envoy.config.listener.v3.FilterChain"
ECDS = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
RTDS = "type.googleapis.com/envoy.service.runtime.v3.Runtime"

MADE_FIRST = (RTDS, SDS, CDS, EDS)
"""What others refer to: sent, and acknowledged, before the change that refers to it. In the order they are sent."""

MADE_SECOND = (FCDS, LDS, SRDS, ECDS, RDS, VHDS)
"""What refers to the above, in the order they are sent. Types nobody knows count here and come last."""

WILDCARD = frozenset({CDS, LDS, SRDS})
"""Types for which a first request without names asks for everything (the legacy wildcard of the xDS protocol)."""


def is_made_first(type_url: str) -> bool:
    """Whether resources of this type are what others refer to."""
    return type_url in MADE_FIRST


def send_rank(type_url: str) -> int:
    """Return the position of a type in a flush; lower is sent earlier."""
    order = MADE_FIRST + MADE_SECOND
    return order.index(type_url) if type_url in order else len(order)


def removal_rank(type_url: str) -> int:
    """Return when a type's removals come: listeners (0), what they use (1), what everything refers to (2)."""
    if type_url == LDS:
        return 0
    return 2 if is_made_first(type_url) else 1


def short_name(type_url: str) -> str:
    """Return the message name without package, for people: `Listener`."""
    return type_url.rpartition(".")[2]
