"""The Graph: what the objects mean, in frozen structs that translation, status and `explain` all read.

Reading order: Gateway -> Listener -> Port; Route -> RouteParent -> Attachment; Rule -> BackendRef -> Cluster;
VirtualHost and the L4 routes are what is left for one hostname or port once attachment and precedence are settled.

Invalid pieces stay in the Graph with their `Finding`, so that everybody who speaks of them speaks of the same thing.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from propylon import api

PathType = Literal["Exact", "PathPrefix", "RegularExpression"]
MatchType = Literal["Exact", "RegularExpression"]
Protocol = Literal["HTTP", "HTTPS", "TLS", "TCP", "UDP"]
Transport = Literal["TCP", "UDP"]


class Value(msgspec.Struct, frozen=True, gc=False):
    """What is in the Graph or on its way there: made of what was there before it, so that no cycle can close."""


# --- keys -------------------------------------------------------------------------------------------------------------


class ListenerKey(NamedTuple):
    """One listener of a Gateway: its own (kind "Gateway") or one that a ListenerSet adds (kind "ListenerSet")."""

    gateway: api.ObjectKey
    kind: str
    namespace: str
    name: str
    section: str


class PortKey(NamedTuple):
    """What one Envoy Listener serves: all listeners of a Gateway that share a port and a transport."""

    gateway: api.ObjectKey
    port: int
    transport: Transport


class RouteTableKey(NamedTuple):
    """Where virtual hosts live together.

    HTTP listeners of a port share one table (`listener` is ""); an HTTPS listener has one of its own, named
    `<kind>/<namespace>/<name>/<section>`, because its filter chain was chosen by SNI before any Host was read.
    """

    gateway: api.ObjectKey
    port: int
    listener: str

    @classmethod
    @lru_cache(16_384)
    def of(cls, listener: ListenerKey, port: int, protocol: str) -> "RouteTableKey":
        """Return the table of an HTTP or HTTPS listener; kept, as all its virtual hosts have it."""
        return cls(listener.gateway, port, "/".join(listener[1:]) if protocol == "HTTPS" else "")


class VirtualHostKey(NamedTuple):
    """One effective hostname within a table: "*" for every host, "*.example.com", or an exact name (lower case)."""

    table: RouteTableKey
    hostname: str


class L4Key(NamedTuple):
    """Where an L4 route is effective: `hostname` is the SNI for TLS ("*" for any), "" for TCP and UDP."""

    gateway: api.ObjectKey
    port: int
    transport: Transport
    hostname: str


class BackendKey(NamedTuple):
    """One port of a Service or an XBackend, wherever it is referred to from."""

    kind: str
    namespace: str
    name: str
    port: int


ApplicationProtocol = Literal["HTTP", "HTTP2", "GRPC", "TCP", "UDP", "PASSTHROUGH"]
"""How a proxy speaks to the backend: HTTP/1.1, HTTP/2 (prior knowledge, or by ALPN under TLS), raw bytes, datagrams.

GRPC is HTTP/2 to a backend that names no protocol, for gRPC calls by an HTTPRoute alone (see `grpc_calls`).

PASSTHROUGH is raw bytes of a TLS session that is the client's own: no TLS is put around it, whatever policies say.
"""


class ClusterKey(NamedTuple):
    """Identity of an Envoy cluster, made of content only: renaming or reordering rules leaves it as it is."""

    backend: BackendKey
    protocol: ApplicationProtocol


class SecretKey(NamedTuple):
    """A resource delivered by SDS: kind "certificate" (a Secret) or "validation" (CA certificates of an owner)."""

    kind: Literal["certificate", "validation"]
    namespace: str
    name: str


# --- findings ---------------------------------------------------------------------------------------------------------


class Finding(Value, frozen=True):
    """A named reason why something holds or does not; `field` is a path within the object it is about."""

    condition: str
    """Condition type that it bears upon: Accepted, ResolvedRefs, Programmed, Conflicted..."""
    reason: str
    message: str
    field: str = ""
    status: Literal["True", "False", "Unknown"] = "False"


# --- classes, gateways, listeners -------------------------------------------------------------------------------------


class GatewayClass(Value, frozen=True):
    """A class that we adopted."""

    name: str
    controller_name: str
    generation: int
    findings: tuple[Finding, ...] = ()

    @property
    def accepted(self) -> bool:
        """Gateways of a class that is not accepted are left alone."""
        return not any(f.condition == "Accepted" for f in self.findings)


class ClientValidation(Value, frozen=True):
    """Frontend validation (GEP-91): client certificates checked against CA certificates."""

    secret: SecretKey
    """`validation` secret with the concatenated CA certificates."""
    required: bool
    """False for AllowInsecureFallback."""


class ListenerTls(Value, frozen=True):
    """TLS of a listener; `certificates` holds those that are usable."""

    mode: Literal["Terminate", "Passthrough"]
    certificates: tuple[SecretKey, ...] = ()
    client_validation: ClientValidation | None = None
    options: dict[str, str] = {}


class Listener(Value, frozen=True):
    """One listener of a Gateway, own or from a ListenerSet, with all that was found out about it."""

    key: ListenerKey
    index: int
    """Position in spec.listeners of the object that holds it."""
    port: int
    protocol: str
    hostname: str
    """Lower case; "" if the listener takes every host."""
    tls: ListenerTls | None
    supported_kinds: tuple[api.RouteGroupKind, ...]
    allowed_routes: api.AllowedRoutes
    filters: tuple["Filter", ...] = ()
    """Listener filters (GEP-5224), already resolved."""
    findings: tuple[Finding, ...] = ()

    @property
    def conflicted(self) -> bool:
        """Lost against a listener with precedence: it serves nothing."""
        return bool(self.findings) and any(f.condition == "Conflicted" for f in self.findings)

    @property
    def accepted(self) -> bool:
        """Whether its own specification can be served at all."""
        return not (self.findings and any(f.condition in {"Accepted", "Conflicted"} for f in self.findings))

    @property
    def servable(self) -> bool:
        """Accepted, and (for HTTPS and terminated TLS) at least one usable certificate: it gets an Envoy listener."""
        tls = self.tls
        if tls is not None and tls.mode == "Terminate" and not tls.certificates:
            return False
        return self.accepted

    @property
    def route_table(self) -> RouteTableKey:
        """Where the virtual hosts of an HTTP or HTTPS listener live."""
        return RouteTableKey.of(self.key, self.port, self.protocol)


class ListenerSetNode(Value, frozen=True):
    """A ListenerSet that points at a Gateway of ours."""

    key: api.ObjectKey
    gateway: api.ObjectKey
    generation: int
    attached: bool
    """Allowed by the Gateway's allowedListeners."""
    findings: tuple[Finding, ...] = ()


class Candidates(Value, frozen=True):
    """The listeners of a ListenerSet, before they meet others; none if the Gateway does not let the set in."""

    node: ListenerSetNode
    created: str
    listeners: tuple[Listener, ...]


class Gateway(Value, frozen=True):
    """A Gateway of an adopted class. Of its ListenerSets, of which there may be thousands, it knows sums only."""

    key: api.ObjectKey
    generation: int
    class_name: str
    controller_name: str
    created: str
    listeners: tuple[Listener, ...]
    """Its own; `Graph.merged_listeners` has all."""
    ports: tuple["PortKey", ...] = ()
    """Of accepted listeners, its own and those of ListenerSets."""
    attached_listener_sets: int = 0
    addresses: tuple[api.GatewayStatusAddress, ...] = ()
    """Assigned, as they will stand in status."""
    client_certificate: SecretKey | None = None
    """Presented to TLS backends (spec.tls.backend.clientCertificateRef)."""
    findings: tuple[Finding, ...] = ()
    unassigned: tuple[api.GatewaySpecAddress, ...] = ()
    """Requests of spec.addresses that none of `addresses` answers."""

    @property
    def accepted(self) -> bool:
        """Whether it is served at all. ListenersNotValid on some listeners does not stop the others."""
        return not any(f.condition == "Accepted" and f.status == "False" for f in self.findings)


class BoundPort(Value, frozen=True):
    """One port and transport with at least one servable listener, without these: they change more often."""

    key: PortKey
    addresses: tuple[str, ...]
    """IP addresses to bind."""
    bound_port: int
    """The port to bind: `key.port` unless an offset is in force."""
    tls: bool = False
    """Some listener of it uses TLS."""
    client_certificate: SecretKey | None = None


class Port(Value, frozen=True):
    """All servable listeners of one port and transport, most specific hostname first."""

    key: PortKey
    addresses: tuple[str, ...]
    """IP addresses to bind."""
    bound_port: int
    """The port to bind: `key.port` unless an offset is in force."""
    listeners: tuple[Listener, ...]
    client_certificate: SecretKey | None = None


# --- backends ---------------------------------------------------------------------------------------------------------


class Endpoint(Value, frozen=True, order=True):
    """One address behind a backend: an IP (v4 or v6), or a DNS name where the backend is one."""

    address: str
    port: int
    draining: bool = False
    """Terminating but still serving: takes requests only if nothing else is left (GEP-1867, KEP-1672)."""


class SubjectAltName(Value, frozen=True):
    """Accepted identity of a TLS backend."""

    type: Literal["DNS", "URI"]
    value: str


class BackendTls(Value, frozen=True):
    """How to speak TLS to a backend (BackendTLSPolicy or XBackend.tls)."""

    server_name: str
    """SNI, and the identity to verify unless `subject_alt_names` are given."""
    validation: SecretKey | None
    """None: the system's CA certificates."""
    subject_alt_names: tuple[SubjectAltName, ...] = ()
    client_certificate: SecretKey | None = None
    verify: bool = True
    options: dict[str, str] = {}
    origin: api.ObjectRef | None = None
    """The policy that asks for it."""


class Backend(Value, frozen=True):
    """What a BackendKey stands for."""

    key: BackendKey
    protocol: ApplicationProtocol | None
    """From appProtocol or XBackend.protocol; None: the route's own default (HTTP/1.1, HTTP/2 for gRPC, bytes)."""
    discovery: Literal["EDS", "DNS"]
    dns_name: str = ""
    tls: BackendTls | None = None
    websocket: bool = True
    finding: Finding | None = None
    """Why it cannot be used (BackendNotFound, UnsupportedProtocol, an invalid BackendTLSPolicy...)."""


class Cluster(Value, frozen=True):
    """A backend as one Gateway's proxies speak to it."""

    key: ClusterKey
    backend: Backend
    client_certificate: SecretKey | None = None
    """Of the Gateway; a certificate of the backend's own goes before it."""
    session: bool = False
    """Some rule keeps sessions on it."""


class BackendRef(Value, frozen=True):
    """One backendRef of a rule: where it leads, or why it leads nowhere (then its share gets 500)."""

    weight: int
    cluster: ClusterKey | None
    filters: tuple["Filter", ...] = ()
    finding: Finding | None = None
    target: BackendKey | None = None
    """What it names, usable or not; None if there is no such kind or no permission."""


# --- filters ----------------------------------------------------------------------------------------------------------


class Mirror(Value, frozen=True, tag=True):
    """RequestMirror with its backend resolved; the share is numerator/denominator."""

    backend: BackendRef
    numerator: int = 100
    denominator: int = 100


class RequestHeaders(Value, frozen=True, tag=True):
    """RequestHeaderModifier."""

    change: api.HTTPHeaderFilter


class ResponseHeaders(Value, frozen=True, tag=True):
    """ResponseHeaderModifier."""

    change: api.HTTPHeaderFilter


class Redirect(Value, frozen=True, tag=True):
    """RequestRedirect."""

    redirect: api.HTTPRequestRedirectFilter


class Rewrite(Value, frozen=True, tag=True):
    """URLRewrite."""

    rewrite: api.HTTPURLRewriteFilter


class Cors(Value, frozen=True, tag=True):
    """CORS (GEP-1767)."""

    cors: api.HTTPCORSFilter


class ExternalAuth(Value, frozen=True, tag=True):
    """ExternalAuth (GEP-1494) with its backend resolved."""

    auth: api.HTTPExternalAuthFilter
    backend: BackendRef


Filter = RequestHeaders | ResponseHeaders | Redirect | Rewrite | Mirror | Cors | ExternalAuth
REFERRING = (Mirror, ExternalAuth)
"""Filters that lead to a backend of their own."""


# --- routes -----------------------------------------------------------------------------------------------------------


class ValueMatch(Value, frozen=True):
    """A header or query parameter match; header names are lower case."""

    name: str
    value: str
    type: MatchType = "Exact"


class Match(Value, frozen=True):
    """One entry of `matches`; a GRPCRoute's method match is stated as the path and headers it stands for."""

    path: str = "/"
    path_type: PathType = "PathPrefix"
    method: str | None = None
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    grpc_service: str | None = None
    grpc_method: str | None = None


class Timeouts(Value, frozen=True):
    """Seconds; 0 disables, None leaves the default (none)."""

    request: float | None = None
    backend_request: float | None = None


class Retry(Value, frozen=True):
    """GEP-1731 as v1.7.0 has it."""

    attempts: int
    """Retries after the first try."""
    codes: tuple[int, ...] = ()
    backoff: float | None = None
    """Base interval in seconds."""


class Session(Value, frozen=True):
    """Session persistence (GEP-1619)."""

    type: Literal["Cookie", "Header"]
    name: str
    path: str = "/"
    absolute_timeout: float | None = None
    """Seconds."""
    permanent: bool = False
    """The cookie outlives the browser."""


class Rule(Value, frozen=True):
    """One rule of a route, references resolved."""

    index: int
    name: str | None
    matches: tuple[Match, ...]
    filters: tuple[Filter, ...] = ()
    backends: tuple[BackendRef, ...] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session: Session | None = None
    finding: Finding | None = None
    """Set if the rule as a whole cannot be served as written (say an unsupported filter): it answers 500."""


class EffectiveHostname(Value, frozen=True):
    """One hostname under which a route is reachable through a listener."""

    hostname: str
    """The intersection: lower case, "*" for every host."""
    original: str
    """As the route writes it ("" if it writes none): precedence goes by this one (v1.7.0)."""


class Attachment(Value, frozen=True):
    """A route accepted by one listener."""

    listener: ListenerKey
    port: int
    protocol: str
    hostnames: tuple[EffectiveHostname, ...] = ()
    effective: tuple[EffectiveHostname, ...] = ()
    """Those of `hostnames` that no more specific listener of the port takes (listener isolation), and none if the
    listener cannot serve."""


class RouteParent(Value, frozen=True):
    """One parentRef that leads to a Gateway of ours."""

    index: int
    ref: api.ParentReference
    """Verbatim, as status must repeat it."""
    gateway: api.ObjectKey
    controller_name: str
    attachments: tuple[Attachment, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the route takes part in this parent's traffic."""
        if not self.findings:
            return bool(self.attachments)
        return bool(self.attachments) and not any(f.condition == "Accepted" for f in self.findings)


class Route(Value, frozen=True):
    """A route with at least one parent of ours."""

    ref: api.ObjectRef
    created: str
    """creationTimestamp: RFC 3339, so older sorts first."""
    generation: int
    hostnames: tuple[str, ...]
    rules: tuple[Rule, ...]
    parents: tuple[RouteParent, ...]
    findings: tuple[Finding, ...] = ()
    """About the route whatever its parent (ResolvedRefs, PartiallyInvalid...)."""


class VirtualHostEntry(Value, frozen=True):
    """One match of one rule, in its place in the order of precedence."""

    route: api.ObjectRef
    original: str
    rule: Rule
    match: Match


class VirtualHost(Value, frozen=True):
    """All that can answer under one hostname of a table, first match first. Empty: 404."""

    key: VirtualHostKey
    entries: tuple[VirtualHostEntry, ...]
    filters: tuple[Filter, ...] = ()
    """The listener's own request filters (GEP-5224)."""


class L4Route(Value, frozen=True):
    """The TLSRoute, TCPRoute or UDPRoute that won a place."""

    key: L4Key
    route: api.ObjectRef
    listener: ListenerKey
    tls_mode: Literal["Terminate", "Passthrough"] | None
    backends: tuple[BackendRef, ...]
    """Empty or without any usable one: connections are closed."""


class Certificate(Value, frozen=True, repr_omit_defaults=True):
    """What an SDS resource holds; `private_key` never appears in a repr."""

    key: SecretKey
    chain: bytes
    """PEM: leaf first, or CA certificates for kind "validation"."""
    private_key: bytes = b""

    def __repr__(self) -> str:
        return f"Certificate({self.key!r})"


class Unserved(Value, frozen=True):
    """A Service port that something refers to and that has no endpoints, fallbacks aside."""

    transport: Transport


class Policy(Value, frozen=True):
    """A BackendTLSPolicy, per Gateway through which its targets are reached (ancestors)."""

    ref: api.ObjectRef
    generation: int
    ancestors: tuple[tuple[api.ParentReference, str], ...]
    """(ancestorRef, controllerName)."""
    findings: tuple[Finding, ...] = ()
