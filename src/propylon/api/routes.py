"""HTTPRoute, GRPCRoute, TLSRoute, TCPRoute and UDPRoute: which traffic goes to which backends."""

from __future__ import annotations

from typing import Annotated

import msgspec

from propylon.api.filters import GRPCFilters, HTTPFilters
from propylon.api.meta import Condition, ObjectMeta
from propylon.api.references import GATEWAY_GROUP, BackendRef, ParentReference
from propylon.api.schema import (
    EXPERIMENTAL,
    HEADER_VALUE,
    REQUIRED,
    Constraint,
    Doc,
    Duration,
    GatewayController,
    HeaderName,
    Hostname,
    InExperimental,
    Model,
    SectionName,
    atomic,
    keyed,
    one_of,
    set_of,
)

ParentRefs = Annotated[tuple[ParentReference, ...], atomic(max=32)]
DefaultGateways = Annotated[str | None, one_of("All", "None"), EXPERIMENTAL]
RouteHostnames = Annotated[tuple[Hostname, ...], atomic(max=16)]


class RouteParentStatus(Model, frozen=True):
    """How a route fares at one parent, by one controller."""

    parent_ref: ParentReference
    controller_name: GatewayController
    conditions: Annotated[tuple[Condition, ...], keyed("type", min=1, max=8)]


class RouteStatus(Model, frozen=True):
    """How a route fares at each of its parents."""

    parents: Annotated[tuple[RouteParentStatus, ...], atomic(max=32), REQUIRED] = ()


HTTPRouteStatus = GRPCRouteStatus = TLSRouteStatus = TCPRouteStatus = UDPRouteStatus = RouteStatus


class CookieConfig(Model, frozen=True):
    """The cookie of a persistent session."""

    name: HeaderName | None = None
    path: Annotated[str, Constraint(max_length=1024)] = "/"
    lifetime_type: Annotated[str, one_of("Permanent", "Session")] = "Session"


class HeaderConfig(Model, frozen=True):
    """The header of a persistent session."""

    name: HeaderName


class SessionPersistence(Model, frozen=True):
    """Keeps a client at the backend it got first, told apart by a cookie or a header."""

    cookie: CookieConfig | None = None
    header: HeaderConfig | None = None
    absolute_timeout: Duration | None = None
    type: Annotated[str, one_of("Cookie", "Header")] = "Cookie"


class HTTPPathMatch(Model, frozen=True):
    """A path: exact, a prefix of whole segments, or a regular expression over all of it."""

    type: Annotated[str, one_of("Exact", "PathPrefix", "RegularExpression")] = "PathPrefix"
    value: Annotated[str, Constraint(max_length=1024)] = "/"


class HTTPHeaderMatch(Model, frozen=True):
    """A header and the value it must have, or the regular expression the value must match."""

    name: HeaderName
    value: Annotated[str, Constraint(min_length=1, max_length=4096), InExperimental(HEADER_VALUE)]
    type: Annotated[str, one_of("Exact", "RegularExpression")] = "Exact"


class HTTPQueryParamMatch(Model, frozen=True):
    """A query parameter and the value it must have, or the regular expression the value must match."""

    name: HeaderName
    value: Annotated[str, Constraint(min_length=1, max_length=1024)]
    type: Annotated[str, one_of("Exact", "RegularExpression")] = "Exact"


class HTTPRouteMatch(Model, frozen=True):
    """Demands on a request, all of which must be met."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: Annotated[tuple[HTTPHeaderMatch, ...], keyed("name", max=16)] = ()
    query_params: Annotated[tuple[HTTPQueryParamMatch, ...], keyed("name", max=16)] = ()
    method: Annotated[
        str | None, one_of("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
    ] = None


class HTTPRouteTimeouts(Model, frozen=True):
    """How long a request may take altogether, and one attempt at a backend; "0s" means without limit."""

    request: Duration | None = None
    backend_request: Duration | None = None


class HTTPRouteRetry(Model, frozen=True):
    """When and how often a failed request is tried again."""

    codes: Annotated[tuple[Annotated[int, Constraint(minimum=400, maximum=599)], ...], set_of()] = ()
    attempts: Annotated[int, Constraint(minimum=0)] = 1
    backoff: Duration | None = None


class HTTPBackendRef(BackendRef, frozen=True):
    """A backend, its share of the traffic, and filters for that share."""

    filters: HTTPFilters = ()


class HTTPRouteRule(Model, frozen=True):
    """Requests that meet one of the matches, what is done to them, and where they go."""

    name: SectionName | None = None
    matches: Annotated[tuple[HTTPRouteMatch, ...], atomic(max=64)] = (HTTPRouteMatch(),)
    filters: HTTPFilters = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], atomic(max=16)] = ()
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: Annotated[SessionPersistence | None, EXPERIMENTAL] = None


class HTTPRouteSpec(Model, frozen=True):
    """Parents, hostnames and rules of an HTTPRoute."""

    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None
    hostnames: Annotated[RouteHostnames, Doc("Hosts to serve; those of the listener when empty.")] = ()
    rules: Annotated[tuple[HTTPRouteRule, ...], atomic(min=1, max=16)] = (HTTPRouteRule(),)


class HTTPRoute(Model, frozen=True):
    """Routes HTTP requests by host, path, headers, query and method."""

    metadata: ObjectMeta
    spec: HTTPRouteSpec
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "HTTPRoute"


class GRPCMethodMatch(Model, frozen=True):
    """A gRPC service and method, exact or as regular expressions; one of the two may be left out."""

    type: Annotated[str, one_of("Exact", "RegularExpression")] = "Exact"
    service: Annotated[str | None, Constraint(max_length=1024)] = None
    method: Annotated[str | None, Constraint(max_length=1024)] = None


class GRPCHeaderMatch(Model, frozen=True):
    """A header and the value it must have, or the regular expression the value must match."""

    name: HeaderName
    value: Annotated[str, Constraint(min_length=1, max_length=4096)]
    type: Annotated[str, one_of("Exact", "RegularExpression")] = "Exact"


class GRPCRouteMatch(Model, frozen=True):
    """Demands on a call, all of which must be met."""

    method: GRPCMethodMatch | None = None
    headers: Annotated[tuple[GRPCHeaderMatch, ...], keyed("name", max=16)] = ()


class GRPCBackendRef(BackendRef, frozen=True):
    """A backend, its share of the calls, and filters for that share."""

    filters: GRPCFilters = ()


class GRPCRouteRule(Model, frozen=True):
    """Calls that meet one of the matches (any when there are none), what is done to them, and where they go."""

    name: SectionName | None = None
    matches: Annotated[tuple[GRPCRouteMatch, ...], atomic(max=64)] = ()
    filters: GRPCFilters = ()
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], atomic(max=16)] = ()
    session_persistence: Annotated[SessionPersistence | None, EXPERIMENTAL] = None


class GRPCRouteSpec(Model, frozen=True):
    """Parents, hostnames and rules of a GRPCRoute."""

    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None
    hostnames: RouteHostnames = ()
    rules: Annotated[tuple[GRPCRouteRule, ...], atomic(max=16)] = ()


class GRPCRoute(Model, frozen=True):
    """Routes gRPC calls by host, service, method and headers."""

    metadata: ObjectMeta
    spec: GRPCRouteSpec
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "GRPCRoute"


BackendRefs = Annotated[tuple[BackendRef, ...], atomic(min=1, max=16)]


class TLSRouteRule(Model, frozen=True):
    """Where the connections go."""

    backend_refs: BackendRefs
    name: SectionName | None = None


class TLSRouteSpec(Model, frozen=True):
    """Parents, server names (SNI) and the rule of a TLSRoute."""

    hostnames: Annotated[tuple[Hostname, ...], atomic(min=1, max=1024)]
    rules: Annotated[tuple[TLSRouteRule, ...], atomic(min=1, max=1)]
    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None


class TLSRoute(Model, frozen=True):
    """Routes TLS connections by the server name the client asks for."""

    metadata: ObjectMeta
    spec: TLSRouteSpec
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "TLSRoute"


class TCPRouteRule(Model, frozen=True):
    """Where the connections go."""

    backend_refs: BackendRefs
    name: SectionName | None = None


class TCPRouteSpec(Model, frozen=True):
    """Parents and the rule of a TCPRoute."""

    rules: Annotated[tuple[TCPRouteRule, ...], atomic(min=1, max=1)]
    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None


class TCPRoute(Model, frozen=True):
    """Routes all TCP connections of a listener."""

    metadata: ObjectMeta
    spec: TCPRouteSpec
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "TCPRoute"


class UDPRouteRule(Model, frozen=True):
    """Where the datagrams go."""

    backend_refs: BackendRefs
    name: SectionName | None = None


class UDPRouteSpec(Model, frozen=True):
    """Parents and the rule of a UDPRoute."""

    rules: Annotated[tuple[UDPRouteRule, ...], atomic(min=1, max=1)]
    parent_refs: ParentRefs = ()
    use_default_gateways: DefaultGateways = None


class UDPRoute(Model, frozen=True):
    """Routes all UDP datagrams of a listener."""

    metadata: ObjectMeta
    spec: UDPRouteSpec
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "UDPRoute"


__all__ = [name for name, value in globals().items() if isinstance(value, type) and issubclass(value, msgspec.Struct)]
