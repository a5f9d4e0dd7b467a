"""Wires the collections of the Graph together. The order of creation is the order of computation."""

from typing import NamedTuple

from propylon import api
from propylon.graph.assembled import Assembled
from propylon.graph.attachment import Tables as AttachmentTables
from propylon.graph.attachment import host_keys, parents_of
from propylon.graph.backends import build_backends
from propylon.graph.classes import GatewayHead, build_classes, build_heads
from propylon.graph.endpoints import build_endpoints
from propylon.graph.gateways import (
    Binding,
    Parent,
    Tables,
    build_bindings,
    build_bound_ports,
    build_gateways,
    build_listener_set_nodes,
    build_listener_sets,
    build_own_listeners,
    build_served,
    gather_port,
    port_key,
)
from propylon.graph.listeners import build_gateway_tls
from propylon.graph.merging import build_listeners
from propylon.graph.model import (
    Backend,
    BackendKey,
    BoundPort,
    Candidates,
    Certificate,
    Cluster,
    ClusterKey,
    Endpoint,
    Finding,
    Gateway,
    GatewayClass,
    L4Key,
    L4Route,
    Listener,
    ListenerKey,
    ListenerSetNode,
    Policy,
    Port,
    PortKey,
    Route,
    SecretKey,
    Unserved,
    VirtualHost,
    VirtualHostKey,
)
from propylon.graph.policies import build_policies
from propylon.graph.references import index_grants
from propylon.graph.routes import build_dangling, build_routes
from propylon.graph.sources import Settings, Sources
from propylon.graph.usage import (
    BackendUse,
    build_backend_uses,
    build_clusters,
    build_policy_nodes,
    build_secrets,
    build_unserved,
)
from propylon.graph.virtual_hosts import build_l4_routes, build_virtual_hosts
from propylon.incremental import Collection, Engine, Index
from propylon.incremental.union import Union


class Graph(NamedTuple):
    """The collections of the Graph."""

    settings: Settings
    classes: Collection[api.ObjectKey, GatewayClass]
    """Adopted ones."""
    heads: Collection[api.ObjectKey, GatewayHead]
    """Gateways of ours, without their listeners."""
    gateways: Collection[api.ObjectKey, Gateway]
    listener_sets: Collection[api.ObjectKey, Candidates]
    """ListenerSets of Gateways of ours, before they met other listeners."""
    listeners: Collection[ListenerKey, Listener]
    listeners_by_parent: Index[Parent, ListenerKey, Listener]
    served_listeners: Collection[ListenerKey, Listener]
    """Those that have their part in a port that is bound."""
    listeners_by_port: Index[PortKey, ListenerKey, Listener]
    """Served ones."""
    listener_set_nodes: Collection[api.ObjectKey, ListenerSetNode]
    """ListenerSets of Gateways of ours, with what came of their listeners."""
    listener_sets_by_gateway: Index[api.ObjectKey, api.ObjectKey, Candidates]
    bindings: Collection[api.ObjectKey, Binding]
    """Gateways that are served: accepted, with an address to bind."""
    bound_ports: Collection[PortKey, BoundPort]
    """Ports without their listeners."""
    ports: Assembled[PortKey, Port]
    """Ports with all their listeners, for those who look at the whole."""
    routes: Collection[api.ObjectRef, Route]
    virtual_hosts: Collection[VirtualHostKey, VirtualHost]
    l4_routes: Collection[L4Key, L4Route]
    backends: Collection[BackendKey, Backend]
    endpoints: Collection[BackendKey, tuple[Endpoint, ...]]
    """Of every backend; an empty tuple: nowhere."""
    clusters: Collection[tuple[api.ObjectKey, ClusterKey], Cluster]
    """By Gateway, only what it refers to."""
    secrets: Collection[tuple[api.ObjectKey, SecretKey], Certificate]
    """By Gateway, only what it refers to."""
    policies: Collection[api.ObjectKey, Policy]
    backend_uses: Index[BackendKey, BackendUse, bool]
    """Gateways through which a backend is referred to, usable or not."""
    unserved: Collection[BackendKey, Unserved]
    dangling: Collection[api.ObjectRef, tuple[Finding, ...]]
    """Objects whose parents do not exist: nobody may write that into their status."""

    def merged_listeners(self, gateway: api.ObjectKey) -> tuple[Listener, ...]:
        """Return all listeners of a Gateway in precedence order (GEP-1713): its own, then those of the oldest set."""
        found = self.gateways.get(gateway)
        keys = [listener.key for listener in found.listeners] if found is not None else []
        sets = [self.listener_sets.get(key) for key in self.listener_sets_by_gateway.get(gateway) or ()]
        for each in sorted((s for s in sets if s is not None), key=lambda s: (s.created, s.node.key)):
            keys += [listener.key for listener in each.listeners]
        return tuple(listener for key in keys if (listener := self.listeners.get(key)) is not None)


def build_graph(engine: Engine, sources: Sources, settings: Settings) -> Graph:
    """Derive the Graph from its sources. Call once per engine, before the first commit or after it."""
    with engine.ahead():  # what clusters, endpoints and Secrets come from
        grants = index_grants(engine, sources)
        classes = build_classes(engine, sources, settings)
        heads = build_heads(engine, sources, classes)
        policies = build_policies(engine, sources, grants)
        found_backends = build_backends(engine, sources, grants, policies, settings.cluster_domain)
        backends = found_backends.backends
        endpoints = build_endpoints(engine, sources, found_backends)

        gateway_tls, frontend_authorities = build_gateway_tls(engine, sources, grants)
        tables = Tables(engine, sources, grants, heads, backends, gateway_tls, settings)
        listener_sets = build_listener_sets(tables)
        own_listeners = build_own_listeners(tables)
        listeners = build_listeners(engine, own_listeners, listener_sets)
        listener_set_nodes = build_listener_set_nodes(engine, listener_sets, listeners)
        gateways = build_gateways(tables, own_listeners, listener_set_nodes, listeners)
        by_parent = listeners.index("listeners by parent", parents_of)
        by_host = listeners.index("listeners by host", host_keys)
        bindings = build_bindings(engine, sources, gateways)
        served = build_served(engine, listeners, bindings)
        by_port = served.index("listeners by port", lambda key, listener: (port_key(key, listener),))
        bound_ports = build_bound_ports(engine, served, by_port, bindings)
        by_gateway = listener_sets.index("listener sets by gateway", lambda _key, found: (found.node.gateway,))

        default_gateways = heads.index("default gateways", lambda _key, head: (head.default_scope or "None",))
        attachment = AttachmentTables(sources, heads, default_gateways, listener_sets, listeners, by_parent, by_host)
        routes, routes_of_ports = build_routes(engine, attachment, grants, backends)
        l4_routes = build_l4_routes(engine, routes_of_ports, listeners)

        clusters = build_clusters(engine, routes, l4_routes, listeners, bindings, backends)
        authorities: Collection[SecretKey, bytes] = Union(
            engine, "authorities", frontend_authorities, policies.authorities, found_backends.authorities
        )
        secrets = build_secrets(engine, sources, listeners, bindings, clusters, authorities)
    virtual_hosts = build_virtual_hosts(engine, routes, listeners, by_host)
    uses = build_backend_uses(engine, routes, listeners)
    return Graph(
        settings=settings,
        classes=classes,
        heads=heads,
        gateways=gateways,
        listener_sets=listener_sets,
        listeners=listeners,
        listeners_by_parent=by_parent,
        served_listeners=served,
        listeners_by_port=by_port,
        listener_set_nodes=listener_set_nodes,
        listener_sets_by_gateway=by_gateway,
        bindings=bindings,
        bound_ports=bound_ports,
        ports=Assembled(engine, bound_ports, lambda _key, bound: gather_port(bound, served, by_port)),
        routes=routes,
        virtual_hosts=virtual_hosts,
        l4_routes=l4_routes,
        backends=backends,
        endpoints=endpoints,
        clusters=clusters,
        secrets=secrets,
        policies=build_policy_nodes(engine, sources, policies, uses, heads),
        backend_uses=uses,
        unserved=build_unserved(engine, sources, found_backends, uses, endpoints),
        dangling=build_dangling(engine, attachment),
    )
