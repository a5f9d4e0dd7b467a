"""Every name that a resource, filter or chain has, in one place. Resource names are unique per Gateway and type.

Names are made of what a thing is, never of its place in a list, so that reordering renames nothing.
"""

from propylon import api
from propylon.envoy.resource import CLUSTER
from propylon.graph.model import ApplicationProtocol, BackendKey, ClusterKey, L4Key, PortKey, RouteTableKey, SecretKey

ROUTER = "envoy.filters.http.router"
CORS = "envoy.filters.http.cors"
STATEFUL_SESSION = "envoy.filters.http.stateful_session"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
ON_DEMAND = "envoy.filters.http.on_demand"
SCOPE_FALLBACK = "propylon.scope_fallback"
SCOPE_AUTHORIZATION = "propylon.scope_authorization"
AUTHORIZATION = "propylon.authorization"
"""Dynamic metadata of requests whose route was found late: which filters are to be asked (see `ext_authz`)."""
HTTP_CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
TCP_PROXY = "envoy.filters.network.tcp_proxy"
UDP_PROXY = "envoy.filters.udp_listener.udp_proxy"
TLS_INSPECTOR = "envoy.filters.listener.tls_inspector"
NO_FILTER_CHAIN = "none"
"""A chain inside every Listener whose chains are discovered, which no connection is led to (see `filter_chain`)."""
TLS_TRANSPORT_SOCKET = "envoy.transport_sockets.tls"
HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

UNRESOLVED = "unresolved"
"""A cluster that never exists: the share of a backendRef that leads nowhere is sent to it, and fails at once."""


def listener(port: PortKey) -> str:
    """Envoy Listener of a port: `tcp/443`."""
    return f"{port.transport.lower()}/{port.port}"


def place_of_chain(name: str) -> tuple[int, str]:
    """Port and SNI of a filter chain's name."""
    _, port, sni = name.split("/", 2)
    return int(port), "" if sni == "*" else sni


def route_configuration(table: RouteTableKey) -> str:
    """RouteConfiguration: `http/80`, or `https/443/Gateway/ns/name/section` for an HTTPS listener's own."""
    return f"https/{table.port}/{table.listener}" if table.listener else f"http/{table.port}"


def scopes_complete(table: RouteTableKey) -> str:
    """The extension that a table's Listeners wait for: `scopes/http/80` (see `scope`)."""
    return f"scopes/{route_configuration(table)}"


def filter_chain(port: PortKey, sni: str) -> str:
    """Filter chain of a port's SNI: `tcp/443/www.example.com`, or with "*" that of every other connection."""
    return f"{listener(port)}/{sni or '*'}"


def l4_filter_chain(key: L4Key) -> str:
    """Place of a TLSRoute, TCPRoute or UDPRoute, as statistics name it."""
    return f"{key.transport.lower()}/{key.port}/{key.hostname}"


def cluster(key: ClusterKey) -> str:
    """Cluster: `Service/ns/name/8080/HTTP`."""
    return cluster_at(cluster_load_assignment(key.backend), key.protocol)


def cluster_at(load_assignment: str, protocol: ApplicationProtocol) -> str:
    """The same where the name of the backend's ClusterLoadAssignment is known."""
    return f"{load_assignment}/{protocol}"


def is_on_demand(resource: tuple[str, str]) -> bool:
    """Whether a resource (type URL, name) is a cluster that Envoy asks for itself if it was not given it."""
    return resource[1].endswith("/GRPC") and resource[0] == CLUSTER


def awaited_endpoints(cluster: str, _body: bytes = b"") -> str:
    """The ClusterLoadAssignment that a cluster of this name waits for, if its endpoints are discovered at all."""
    return "/".join(cluster.split("/", 4)[:4])


def passthrough_cluster(key: ClusterKey) -> str:
    """The same backend for bytes that are TLS already: `Service/ns/name/443/TCP/passthrough`."""
    return f"{cluster(key)}/passthrough"


def cluster_load_assignment(key: BackendKey) -> str:
    """ClusterLoadAssignment: `Service/ns/name/8080`, shared by the clusters of that backend."""
    kind, namespace, name, port = key
    return f"{kind}/{namespace}/{name}/{port}"


def weighted_udp_cluster(key: L4Key) -> str:
    """The cluster that several weighted UDP backends make up together, and its ClusterLoadAssignment."""
    return f"weighted/udp/{key.port}"


def secret(key: SecretKey) -> str:
    """Secret delivered by SDS: `certificate/ns/name`."""
    return f"{key.kind}/{key.namespace}/{key.name}"


def secret_keeper(share: int) -> str:
    """The cluster that has Envoy fetch a share of the Secrets (see `secret_keeper`)."""
    return f"secrets/{share}"


def route(ref: api.ObjectRef, rule: int) -> str:
    """Route entry, as the access log shows it: `HTTPRoute/ns/name/0` (the rule's index)."""
    _, kind, namespace, name = ref
    return f"{kind}/{namespace}/{name}/{rule}"
