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
    absolute_timeout: Annotated[Duration | None, Doc("How long a session lasts, whether used or not.")] = None
    type: Annotated[str, one_of("Cookie", "Header")] = "Cookie"


class HTTPPathMatch(Model, frozen=True):
    """A path: exact, a prefix of whole segments, or a regular expression over all of it."""

    type: Annotated[str, one_of("Exact", "PathPrefix", "RegularExpression")] = "PathPrefix"
    value: Annotated[str, Constraint(max_length=1024), Doc("The path, prefix or regular expression.")] = "/"


class HTTPHeaderMatch(Model, frozen=True):
    """A header and the value it must have, or the regular expression the value must match."""

    name: Annotated[HeaderName, Doc("Compared without regard to case.")]
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
        str | None,
        one_of("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
        Doc("The HTTP method, in upper case."),
    ] = None


class HTTPRouteTimeouts(Model, frozen=True):
    """How long a request may take altogether, and one attempt at a backend; "0s" means without limit."""

    request: Annotated[
        Duration | None, Doc("From the request's first byte to the response's last, with all retries.")
    ] = None
    backend_request: Annotated[Duration | None, Doc("One attempt at a backend.")] = None


class HTTPRouteRetry(Model, frozen=True):
    """When and how often a failed request is tried again."""

    codes: Annotated[
        tuple[Annotated[int, Constraint(minimum=400, maximum=599)], ...],
        set_of(),
        Doc("Response codes of backends that are tried again."),
    ] = ()
    attempts: Annotated[int, Constraint(minimum=0), Doc("How many times at most, besides the first.")] = 1
    backoff: Annotated[Duration | None, Doc("The interval from which the waits between attempts grow.")] = None


class HTTPBackendRef(BackendRef, frozen=True):
    """A backend, its share of the traffic, and filters for that share."""

    filters: HTTPFilters = ()


class HTTPRouteRule(Model, frozen=True):
    """Requests that meet one of the matches, what is done to them, and where they go."""

    name: Annotated[SectionName | None, Doc("Unique within the route.")] = None
    matches: Annotated[
        tuple[HTTPRouteMatch, ...], atomic(max=64), Doc("One of them must fit; any request does when there is none.")
    ] = (HTTPRouteMatch(),)
    filters: Annotated[HTTPFilters, Doc("What is done to requests and responses.")] = ()
    backend_refs: Annotated[
        tuple[HTTPBackendRef, ...],
        atomic(max=16),
        Doc("Where requests go, by weight; without any they are answered with an error or redirect."),
    ] = ()
    timeouts: Annotated[HTTPRouteTimeouts | None, Doc("How long requests may take.")] = None
    retry: Annotated[HTTPRouteRetry | None, Doc("When a failed request is tried again.")] = None
    session_persistence: Annotated[SessionPersistence | None, EXPERIMENTAL, Doc("Keeps a client at one backend.")] = (
        None
    )


class HTTPRouteSpec(Model, frozen=True):
    """Parents, hostnames and rules of an HTTPRoute."""

    parent_refs: Annotated[ParentRefs, Doc("Gateways, ListenerSets or their sections that the route attaches to.")] = ()
    use_default_gateways: DefaultGateways = None
    hostnames: Annotated[RouteHostnames, Doc("Hosts to serve; those of the listener when empty.")] = ()
    rules: Annotated[
        tuple[HTTPRouteRule, ...],
        atomic(min=1, max=16),
        Doc("Tried in the order of how specific their matches are, not as written."),
    ] = (HTTPRouteRule(),)


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
    service: Annotated[str | None, Constraint(max_length=1024), Doc('The full name, such as "package.Service".')] = None
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
    matches: Annotated[
        tuple[GRPCRouteMatch, ...], atomic(max=64), Doc("One of them must fit; any call does when there is none.")
    ] = ()
    filters: GRPCFilters = ()
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], atomic(max=16)] = ()
    session_persistence: Annotated[SessionPersistence | None, EXPERIMENTAL] = None


class GRPCRouteSpec(Model, frozen=True):
    """Parents, hostnames and rules of a GRPCRoute."""

    parent_refs: Annotated[ParentRefs, Doc("Gateways, ListenerSets or their sections that the route attaches to.")] = ()
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

    hostnames: Annotated[
        tuple[Hostname, ...],
        atomic(min=1, max=1024),
        Doc("Server names (SNI) to serve, exact or with a leading wildcard label."),
    ]
    rules: Annotated[tuple[TLSRouteRule, ...], atomic(min=1, max=1)]
    parent_refs: Annotated[ParentRefs, Doc("Gateways, ListenerSets or their sections that the route attaches to.")] = ()
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
    parent_refs: Annotated[ParentRefs, Doc("Gateways, ListenerSets or their sections that the route attaches to.")] = ()
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
    parent_refs: Annotated[ParentRefs, Doc("Gateways, ListenerSets or their sections that the route attaches to.")] = ()
    use_default_gateways: DefaultGateways = None


class UDPRoute(Model, frozen=True):
    """Routes all UDP datagrams of a listener."""

    metadata: ObjectMeta
    spec: UDPRouteSpec
    status: RouteStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "UDPRoute"


__all__ = [name for name, value in globals().items() if isinstance(value, type) and issubclass(value, msgspec.Struct)]
