"""A Graph written by hand: the few calls that tests of the translation need to state one."""

from types import SimpleNamespace

from propylon import api
from propylon.envoy import EnvoySettings, build_forms, build_translation
from propylon.graph.gateways import port_key
from propylon.graph.model import (
    Backend,
    BackendKey,
    BackendRef,
    BoundPort,
    Certificate,
    Cluster,
    ClusterKey,
    Endpoint,
    L4Key,
    L4Route,
    Listener,
    ListenerKey,
    Match,
    Port,
    PortKey,
    RouteTableKey,
    Rule,
    SecretKey,
    VirtualHost,
    VirtualHostEntry,
    VirtualHostKey,
)
from propylon.incremental import Engine

GATEWAY = api.ObjectKey("default", "gw")
GROUP = "gateway.networking.k8s.io"
COLLECTIONS = ("bound_ports", "served_listeners", "virtual_hosts", "l4_routes", "endpoints", "clusters", "secrets")


def listener(name, protocol, port, hostname="", tls=None, filters=(), index=0, listener_set=None):
    """One of the Gateway's own, or of the ListenerSet of that name."""
    holder = ("ListenerSet", GATEWAY.namespace, listener_set) if listener_set else ("Gateway", *GATEWAY)
    return Listener(
        key=ListenerKey(GATEWAY, *holder, name),
        index=index,
        port=port,
        protocol=protocol,
        hostname=hostname,
        tls=tls,
        supported_kinds=(),
        allowed_routes=api.AllowedRoutes(),
        filters=filters,
    )


def backend_key(name, port=80):
    return BackendKey("Service", "default", name, port)


def cluster_key(name, protocol="HTTP", port=80):
    return ClusterKey(backend_key(name, port), protocol)


def ref(name, weight=1, filters=(), protocol="HTTP"):
    """A backendRef; None leads nowhere."""
    return BackendRef(weight, cluster_key(name, protocol) if name else None, filters)


def entry(match=None, kind="HTTPRoute", route="route", original="", **rule):
    """One match of one rule of a route."""
    match = match or Match()
    rule.setdefault("index", 0)
    rule.setdefault("name", None)
    return VirtualHostEntry(
        api.ObjectRef(GROUP, kind, "default", route), original, Rule(matches=(match,), **rule), match
    )


def table_of(each):
    return each.route_table


class Ports:
    """Ports as a whole, in place of the sources that hold their parts."""

    def __init__(self, graph):
        self._graph = graph
        self._ports = {}

    def set(self, key, port):
        self.remove(key)
        self._ports[key] = port
        tls = any(each.tls is not None for each in port.listeners)
        bound = BoundPort(key, port.addresses, port.bound_port, tls, port.client_certificate)
        self._graph.bound_ports.set(key, bound if port.listeners else None)
        for each in port.listeners:
            self._graph.served_listeners.set(each.key, each)

    def remove(self, key):
        port = self._ports.pop(key, None)
        self._graph.bound_ports.remove(key)
        for each in port.listeners if port is not None else ():
            self._graph.served_listeners.remove(each.key)

    def __iter__(self):
        return iter(sorted(self._ports))

    def items(self):
        return sorted(self._ports.items())


class World:
    """Sources in place of the Graph's collections, and the translation of them."""

    def __init__(self, settings=None):
        self.engine = Engine()
        with self.engine.ahead():
            self.graph = SimpleNamespace(**{name: self.engine.source(f"graph: {name}") for name in COLLECTIONS})
        self.graph.listeners_by_port = self.graph.served_listeners.index(
            "graph: listeners by port", lambda key, each: (port_key(key, each),)
        )
        self.graph.ports = Ports(self.graph)
        settings = settings or EnvoySettings(access_log=False)
        self.forms = build_forms(self.engine, self.graph, settings)
        self.translation = build_translation(self.engine, self.graph, settings, self.forms)

    def port(self, *listeners, bound=None, transport="TCP", addresses=("127.0.0.1",), **more):
        number = listeners[0].port
        key = PortKey(GATEWAY, number, transport)
        self.graph.ports.set(key, Port(key, addresses, bound or number, listeners, **more))
        return key

    def host(self, table, hostname, *entries, filters=()):
        """`table` is a listener or a RouteTableKey."""
        if not isinstance(table, RouteTableKey):
            table = table.route_table
        key = VirtualHostKey(table, hostname)
        self.graph.virtual_hosts.set(key, VirtualHost(key, entries, filters))
        return key

    def backend(self, name, *addresses, protocol="HTTP", port=80, client_certificate=None, **more):
        """A Service and the cluster for it; `addresses` are (host, port) or ports on loopback."""
        key = backend_key(name, port)
        more.setdefault("discovery", "EDS")
        endpoints = tuple(Endpoint("127.0.0.1", a) if isinstance(a, int) else Endpoint(*a) for a in addresses)
        self.graph.endpoints.set(key, endpoints)
        cluster = ClusterKey(key, protocol)
        self.graph.clusters.set(
            (GATEWAY, cluster), Cluster(cluster, Backend(key, protocol, **more), client_certificate=client_certificate)
        )
        return cluster

    def l4(self, at, *refs, hostname="", mode=None, kind="TCPRoute", route="l4", transport="TCP"):
        """An L4 route at a listener."""
        key = L4Key(GATEWAY, at.port, transport, hostname)
        self.graph.l4_routes.set(key, L4Route(key, api.ObjectRef(GROUP, kind, "default", route), at.key, mode, refs))
        return key

    def secret(self, kind, name, chain, private_key=b""):
        key = SecretKey(kind, "default", name)
        self.graph.secrets.set((GATEWAY, key), Certificate(key, chain, private_key))
        return key

    def resources(self):
        """{(type URL, name): Resource} of the Gateway, after a commit."""
        for failure in self.engine.commit().failures:
            raise failure.exception
        return {(r.type_url, r.name): r for part in self.translation for _, r in part.items()}
