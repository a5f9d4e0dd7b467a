"""The translation as collections: each resource is recomputed when, and only when, what it is made of changes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from propylon import api
from propylon.envoy import names
from propylon.envoy.cluster import build_passthrough_cluster, build_weighted_udp_cluster, named_bodies
from propylon.envoy.endpoint import build_weighted_load_assignment, is_ip, load_assignment_body
from propylon.envoy.filter_chain import (
    ChainKey,
    ChainPlan,
    FilterChain,
    build_filter_chain,
    is_matched,
    listener_chain,
    plan_chain,
    route_chain,
)
from propylon.envoy.filter_chain_matcher import build_entry, build_matcher, join_entries, share_of_name
from propylon.envoy.forms import Forms, build_forms
from propylon.envoy.http_filters.ext_authz import AuthorizationFilter, filters_of, listener_filters, may_ask, usable
from propylon.envoy.listener import PortHead, build_listener, join_listener
from propylon.envoy.redirect import Place
from propylon.envoy.resource import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    EXTENSION,
    FILTER_CHAIN,
    LISTENER,
    ROUTE_CONFIGURATION,
    SCOPED_ROUTE_CONFIGURATION,
    SECRET,
    Resource,
    serialize,
    unique,
)
from propylon.envoy.route_configuration import RouteTable, build_route_configuration
from propylon.envoy.route_tables import Tables, build_route_tables
from propylon.envoy.scope import ANY, build_completeness, build_fallback_scope, build_scope, is_exact, scope_name
from propylon.envoy.secret import build_secret
from propylon.envoy.secret_keeper import build_secret_keeper, share_of
from propylon.envoy.settings import EnvoySettings
from propylon.envoy.udp_proxy import live_backends, weighted
from propylon.envoy.virtual_host import origins_of, virtual_host_fragments
from propylon.graph.gateways import by_specificity, port_key
from propylon.graph.model import (
    ApplicationProtocol,
    BackendKey,
    BoundPort,
    Certificate,
    Cluster,
    ClusterKey,
    Endpoint,
    L4Key,
    L4Route,
    Listener,
    ListenerKey,
    PortKey,
    RouteTableKey,
    SecretKey,
    VirtualHost,
    VirtualHostKey,
)
from propylon.incremental import Collection, Engine, Index, Look
from propylon.incremental.union import Union

if TYPE_CHECKING:
    from propylon.graph import Graph

GATEWAY_GROUP = "gateway.networking.k8s.io"
Resources = Collection[tuple[api.ObjectKey, str], Resource]
Named = dict[tuple[api.ObjectKey, str], Resource]
BackendUse = tuple[api.ObjectKey, BackendKey, Literal["EDS", "DNS"]]
"""A backend as a Gateway's proxies find it."""

_RAW: frozenset[ApplicationProtocol] = frozenset({"TCP", "PASSTHROUGH"})
_ONE, _SCOPE, _BOTH = (False,), (True,), (False, True)
"""Whether a virtual host is to be `final`, as a scope is, for each place it is needed in."""
_MANY_ENDPOINTS = 16
"""From so many on, to find an assignment again costs less than to make it again for the next Gateway."""


class Translation(NamedTuple):
    """Everything that proxies are to be told, keyed by (Gateway, resource name)."""

    listeners: Resources
    filter_chains: Resources
    """Those that are not inside their Listener."""
    route_configurations: Resources
    scopes: Resources
    """In place of route configurations where there are many hostnames."""
    clusters: Resources
    endpoints: Resources
    secrets: Resources


class Served(NamedTuple):
    """What the virtual hosts of a table have to know of it."""

    place: Place
    """Of no hostname."""
    in_one: bool
    in_scopes: bool


class Fragment(msgspec.Struct, frozen=True):
    """A virtual host ready to be joined into its RouteConfiguration."""

    hostname: str
    body: bytes
    """Empty where it is a scope only."""
    scope: bytes
    """For a scope of its own; empty where it is none."""
    origins: tuple[api.ObjectRef, ...]


def build_translation(engine: Engine, graph: Graph, settings: EnvoySettings, forms: Forms | None = None) -> Translation:
    """Create the collections that hold Envoy's configuration of every Gateway in `graph`."""
    forms = forms or build_forms(engine, graph, settings)

    with engine.ahead():  # what others refer to, so that proxies can be told of it while the rest is computed
        weighted_udp = _weighted_udp_routes(engine, graph)
        plans = _plans(engine, graph, settings)
        keepers = _secret_keepers(engine, plans)
        backends = _backends(graph)
        clusters = Union(
            engine, "envoy: every cluster", keepers, *_clusters(engine, graph, backends, weighted_udp, settings)
        )
        endpoints = _endpoints(engine, graph, backends, weighted_udp)
        secrets = _secrets(engine, graph)
    tables = build_route_tables(engine, graph, settings)
    route_configurations, scopes = _route_configurations(engine, graph, tables, forms, settings)
    listeners, filter_chains = _listeners(engine, graph, plans, tables, forms, settings)
    return Translation(
        listeners=listeners,
        filter_chains=filter_chains,
        route_configurations=route_configurations,
        scopes=scopes,
        clusters=clusters,
        endpoints=endpoints,
        secrets=secrets,
    )


def _listeners(
    engine: Engine,
    graph: Graph,
    plans: Collection[ChainKey, ChainPlan],
    tables: Tables,
    forms: Forms,
    settings: EnvoySettings,
) -> tuple[Resources, Resources]:
    def l4_place(key: L4Key, _: L4Route) -> tuple[PortKey]:
        return (PortKey(key.gateway, key.port, key.transport),)

    def asking(key: VirtualHostKey, host: VirtualHost) -> tuple[VirtualHostKey, ...]:
        return (key,) if may_ask(host) else ()

    def asked(key: VirtualHostKey, _: object, look: Look) -> tuple[AuthorizationFilter, ...] | None:
        host = look.get(graph.virtual_hosts, key)
        return (filters_of(host) or None) if host is not None else None

    def of_table(
        table: RouteTableKey, hosts: tuple[VirtualHostKey, ...], look: Look
    ) -> tuple[AuthorizationFilter, ...]:
        found = {each.name: each for host in hosts for each in look.get(authorization, host) or ()}
        return tuple(found[name] for name in sorted(found))

    def of_listeners(_: RouteTableKey, table: RouteTable, __: Look) -> tuple[AuthorizationFilter, ...] | None:
        return tuple(each for _, filters in table.filters for each in listener_filters(filters)) or None

    def authorization_of(look: Look, table: RouteTableKey) -> tuple[AuthorizationFilter, ...]:
        every = (*(look.get(authorization_by_listener, table) or ()), *(look.get(authorization_by_table, table) or ()))
        found = {each.name: each for each in every if usable(each.auth)}
        return tuple(found[name] for name in sorted(found))

    def chain(key: ChainKey, plan: ChainPlan, look: Look) -> FilterChain:
        table = plan.route_table
        authorizations = authorization_of(look, table) if table is not None else ()
        scoped = table is not None and forms.in_scopes(look, table)
        message = build_filter_chain(key, plan, authorizations, settings, scoped=scoped)
        origins = [_holder(plan.listener.key), *((plan.route.route,) if plan.route is not None else ())]
        return FilterChain(message.name, serialize(message), plan.discovered, unique(origins))

    def joined(_: tuple[PortKey, int], keys: tuple[ChainKey, ...], __: Look) -> tuple[tuple[str, bytes], ...]:
        return join_entries((key.sni, build_entry(key.sni, names.filter_chain(*key))) for key in keys)

    def head(key: PortKey, port: BoundPort, look: Look) -> PortHead | None:
        if not port.addresses:
            return None
        matched = is_matched(port, settings)
        holders: tuple[api.ObjectRef, ...] = (api.ObjectRef(GATEWAY_GROUP, "Gateway", *key.gateway),)
        if not matched:
            listeners = sorted((each for _, each in look.by(graph.listeners_by_port, key)), key=by_specificity)
            holders = unique(_holder(each.key) for each in listeners)
        return PortHead(key, port.addresses, port.bound_port, port.tls, matched, holders)

    def listener(key: PortKey, port: PortHead, look: Look) -> Named:
        routes = [route for _, route in look.by(l4_by_port, key)] if key.transport == "UDP" else []
        inside = [each for _, each in look.by(chains_inside, key)]
        matcher = (
            build_matcher(part for _, parts in look.by(parts_by_port, key) for part in parts) if port.matched else b""
        )
        body = join_listener(build_listener(port, routes[0] if routes else None), [each.body for each in inside])
        causes = [*(route.route for route in routes), *(origin for each in inside for origin in each.origins)]
        origins = unique([*port.origins, *causes])
        length = len(body) if matcher else 0
        return _named(key.gateway, Resource(LISTENER, names.listener(key), body + matcher, origins, length))

    def discovered(key: ChainKey, each: FilterChain, _: Look) -> Named:
        if not each.discovered:
            return {}
        return _named(key.port.gateway, Resource(FILTER_CHAIN, each.name, each.body, each.origins))

    l4_by_port = graph.l4_routes.index("envoy: L4 routes by port", l4_place)
    hosts_asking = graph.virtual_hosts.index("envoy: virtual hosts that may ask", asking)
    authorization = engine.derive("envoy: authorization of virtual hosts", hosts_asking, asked)
    by_table = authorization.index("envoy: authorization by table", lambda key, _: (key.table,))
    authorization_by_table = engine.derive("envoy: authorization of tables", by_table, of_table)
    authorization_by_listener = engine.derive("envoy: authorization of listeners", tables, of_listeners)
    chains = engine.derive("envoy: filter chains", plans, chain)
    chains_inside = chains.index("envoy: chains inside", lambda key, each: () if each.discovered else (key.port,))
    by_share = plans.index(
        "envoy: chains by share of the matcher", lambda key, _: ((key.port, share_of_name(key.sni)),)
    )
    parts = engine.derive("envoy: parts of matchers", by_share, joined)
    parts_by_port = parts.index("envoy: parts by port", lambda key, _: (key[0],))
    heads = engine.derive("envoy: heads of ports", graph.bound_ports, head)
    return (
        engine.flat_derive("envoy: listeners", heads, listener),
        engine.flat_derive("envoy: discovered chains", chains, discovered),
    )


def _plans(engine: Engine, graph: Graph, settings: EnvoySettings) -> Collection[ChainKey, ChainPlan]:
    def chain_of_listener(key: ListenerKey, each: Listener) -> tuple[ChainKey, ...]:
        port = port_key(key, each)
        return (listener_chain(port, each),) if port.transport == "TCP" else ()

    def chain_of_route(key: L4Key, _: L4Route) -> tuple[ChainKey, ...]:
        return (route_chain(key),) if key.transport == "TCP" else ()

    def plan(key: ChainKey, _: object, look: Look) -> ChainPlan | None:
        port = look.get(graph.bound_ports, key.port)
        if port is None or not port.addresses:
            return None
        listeners = sorted((each for _, each in look.by(listeners_by_chain, key)), key=by_specificity)
        routes = [(route, look.get(graph.served_listeners, route.listener)) for _, route in look.by(l4_by_chain, key)]
        at_port = [(route, each) for route, each in routes if each is not None and port_key(each.key, each) == key.port]
        return plan_chain(key, listeners, at_port, matched=is_matched(port, settings))

    listeners_by_chain = graph.served_listeners.index("envoy: listeners by chain", chain_of_listener)
    l4_by_chain = graph.l4_routes.index("envoy: L4 routes by chain", chain_of_route)
    chain_keys: Collection[ChainKey, Any] = Union(engine, "envoy: keys of chains", listeners_by_chain, l4_by_chain)
    return engine.derive("envoy: plans of filter chains", chain_keys, plan)


def _secret_keepers(engine: Engine, plans: Collection[ChainKey, ChainPlan]) -> Resources:
    def used(key: ChainKey, plan: ChainPlan) -> set[tuple[api.ObjectKey, SecretKey]]:
        return {(key.port.gateway, secret) for secret in plan.secrets} if plan.discovered else set()

    def share(key: tuple[api.ObjectKey, SecretKey], _: object, __: Look) -> int:
        return share_of(key[1])

    def keeper(
        key: tuple[api.ObjectKey, int], secrets: tuple[tuple[api.ObjectKey, SecretKey], ...], _: Look
    ) -> Resource:
        body = serialize(build_secret_keeper(key[1], [secret for _, secret in secrets]))
        return Resource(CLUSTER, names.secret_keeper(key[1]), body, ())

    secrets = plans.index("envoy: secrets of discovered chains", used)
    shares = engine.derive("envoy: shares of secrets", secrets, share)
    by_share = shares.index("envoy: secrets by share", lambda key, number: ((key[0], number),))
    keepers = engine.derive("envoy: keepers by share", by_share, keeper)
    return engine.flat_derive("envoy: secret keepers", keepers, lambda key, each, _: _named(key[0], each))


def _route_configurations(
    engine: Engine, graph: Graph, tables: Tables, forms: Forms, settings: EnvoySettings
) -> tuple[Resources, Resources]:
    def offset(_: PortKey, port: BoundPort, __: Look) -> int | None:
        return port.bound_port - port.key.port or None

    def served(table: RouteTableKey, _: bool, look: Look) -> Served:
        bound = look.get(offsets, PortKey(table.gateway, table.port, "TCP")) or 0
        place = Place("https" if table.listener else "http", table.port, bound, "")
        return Served(place, forms.in_one(look, table), forms.in_scopes(look, table))

    def fragment(key: VirtualHostKey, host: VirtualHost, look: Look) -> Fragment | None:
        table, hostname = key
        how = look.get(tables_served, table)
        if how is None:  # which cannot be: a table with a hostname has a form
            return None
        scheme, port, port_offset, _ = how.place
        is_scope = how.in_scopes and is_exact(hostname)
        in_one = how.in_one or not is_scope
        forms_asked = _ONE if not is_scope else _BOTH if in_one else _SCOPE
        made = virtual_host_fragments(host, Place(scheme, port, port_offset, hostname), forms_asked)
        return Fragment(hostname, made[0] if in_one else b"", made[-1] if is_scope else b"", origins_of(host))

    def of_table(key: RouteTableKey, table: RouteTable, look: Look) -> Named:
        named: Named = {}
        if forms.in_one(look, key):
            body, origins = joined(table, [each for _, each in look.by(fragments_by_table, key)])
            resource = Resource(ROUTE_CONFIGURATION, names.route_configuration(key), body, origins)
            named |= _named(key.gateway, resource)
        if forms.in_scopes(look, key):
            body, origins = joined(table, [each for _, each in look.by(fallbacks_by_table, key)])
            body = build_fallback_scope(key, body)
            named |= _named(key.gateway, Resource(SCOPED_ROUTE_CONFIGURATION, scope_name(key, ANY), body, origins))
            named |= _named(key.gateway, Resource(EXTENSION, names.scopes_complete(key), build_completeness(key)))
        return named

    def joined(table: RouteTable, hosts: Sequence[Fragment]) -> tuple[bytes, tuple[api.ObjectRef, ...]]:
        holders = (_holder(listener) for listener in table.listeners)
        origins = unique([*holders, *(origin for each in hosts for origin in each.origins)])
        return build_route_configuration(table, ((each.hostname, each.body) for each in hosts)), origins

    def of_host(key: VirtualHostKey, host: Fragment, _: Look) -> Named:
        if not host.scope:
            return {}
        name = scope_name(key.table, key.hostname)
        body = build_scope(key.table, key.hostname, host.scope)
        return _named(key.table.gateway, Resource(SCOPED_ROUTE_CONFIGURATION, name, body, host.origins))

    offsets = engine.derive("envoy: port offsets", graph.bound_ports, offset)
    tables_served = engine.derive("envoy: how tables are served", forms.wanted, served)
    fragments = engine.derive("envoy: virtual hosts", graph.virtual_hosts, fragment)
    fragments_by_table = fragments.index("envoy: virtual hosts by table", lambda key, _: (key.table,))
    fallbacks_by_table = fragments.index(
        "envoy: virtual hosts without a scope by table", lambda key, _: () if is_exact(key.hostname) else (key.table,)
    )
    return (
        engine.flat_derive("envoy: route configurations", tables, of_table),
        engine.flat_derive("envoy: scopes of hostnames", fragments, of_host),
    )


def _weighted_udp_routes(engine: Engine, graph: Graph) -> Collection[L4Key, L4Route]:
    def chosen(key: L4Key, route: L4Route, _: Look) -> L4Route | None:
        return route if key.transport == "UDP" and weighted(route) else None

    return engine.derive("envoy: weighted UDP routes", graph.l4_routes, chosen)


def _backends(graph: Graph) -> Index[BackendUse, tuple[api.ObjectKey, ClusterKey], Cluster]:
    """The clusters of each Gateway by backend: what they have in common is worked out once."""

    def use(key: tuple[api.ObjectKey, ClusterKey], cluster: Cluster) -> tuple[BackendUse]:
        return ((key[0], key[1].backend, cluster.backend.discovery),)

    return graph.clusters.index("envoy: clusters by backend", use)


def _clusters(
    engine: Engine,
    graph: Graph,
    backends: Index[BackendUse, tuple[api.ObjectKey, ClusterKey], Cluster],
    weighted_udp: Collection[L4Key, L4Route],
    settings: EnvoySettings,
) -> tuple[Resources, Resources]:
    def of_backend(key: BackendUse, _: object, look: Look) -> Named:
        gateway, backend, discovery = key
        if discovery == "DNS":
            endpoints = look.get(graph.endpoints, backend) or ()
        else:
            endpoints = found[0][1] if (found := look.by(named_endpoints, backend)) else ()
        service = (_backend_ref(backend),)
        clusters = [each for _, each in look.by(backends, key)]
        named: Named = {}
        for cluster, (name, body) in zip(clusters, named_bodies(backend, clusters, endpoints, settings), strict=True):
            tls = cluster.backend.tls
            origins = service if tls is None or tls.origin is None else (tls.origin, *service)
            named[gateway, name] = Resource(CLUSTER, name, body, origins)
            if cluster.key.protocol in _RAW and look.count(passed_through, (gateway, cluster.key)):
                named |= _named(gateway, passthrough(cluster, endpoints, service))
        return named

    def passthrough(cluster: Cluster, endpoints: Sequence[Endpoint], origins: tuple[api.ObjectRef, ...]) -> Resource:
        body = serialize(build_passthrough_cluster(cluster, endpoints, settings))
        return Resource(CLUSTER, names.passthrough_cluster(cluster.key), body, origins)

    def passes_through(key: L4Key, route: L4Route) -> set[tuple[api.ObjectKey, ClusterKey]]:
        if route.tls_mode != "Passthrough":
            return set()
        return {(key.gateway, ref.cluster) for ref in route.backends if ref.cluster is not None}

    def of_route(key: L4Key, route: L4Route, _: Look) -> Named:
        name = names.weighted_udp_cluster(key)
        body = serialize(build_weighted_udp_cluster(name, settings))
        return _named(key.gateway, Resource(CLUSTER, name, body, (route.route,)))

    def with_names(key: BackendKey, endpoints: tuple[Endpoint, ...]) -> tuple[BackendKey, ...]:
        """Endpoints of which some are names (given by hand): Envoy has to resolve them itself."""
        for each in endpoints:
            if not is_ip(each.address):
                return (key,)
        return ()

    named_endpoints = graph.endpoints.index("envoy: endpoints with names", with_names)
    passed_through = graph.l4_routes.index("envoy: passthrough routes by cluster", passes_through)
    return (
        engine.flat_derive("envoy: clusters of backends", backends, of_backend),
        engine.flat_derive("envoy: clusters of weighted UDP routes", weighted_udp, of_route),
    )


def _endpoints(
    engine: Engine, graph: Graph, backends: Collection[BackendUse, Any], weighted_udp: Collection[L4Key, L4Route]
) -> Resources:
    def of_backend(key: BackendUse, _: object, look: Look) -> Named:
        gateway, backend, discovery = key
        if discovery == "DNS":
            return {}
        name = names.cluster_load_assignment(backend)
        endpoints = look.get(graph.endpoints, backend) or ()
        assign = _assignment if len(endpoints) < _MANY_ENDPOINTS else _shared_assignment
        resource = Resource(CLUSTER_LOAD_ASSIGNMENT, name, assign(name, endpoints), (_backend_ref(backend),))
        return {(gateway, name): resource}

    def of_route(key: L4Key, route: L4Route, look: Look) -> Named:
        name = names.weighted_udp_cluster(key)
        shares = []
        for ref in live_backends(route):
            endpoints = (look.get(graph.endpoints, ref.cluster.backend) or ()) if ref.cluster is not None else ()
            shares.append((ref.weight, [each for each in endpoints if is_ip(each.address)]))
        assigned = serialize(build_weighted_load_assignment(name, shares))
        return _named(key.gateway, Resource(CLUSTER_LOAD_ASSIGNMENT, name, assigned, (route.route,)))

    return Union(
        engine,
        "envoy: endpoints",
        engine.flat_derive("envoy: endpoints of backends", backends, of_backend),
        engine.flat_derive("envoy: endpoints of weighted UDP routes", weighted_udp, of_route),
    )


def _assignment(name: str, endpoints: Sequence[Endpoint]) -> bytes:
    return load_assignment_body(name, [each for each in endpoints if is_ip(each.address)])


_shared_assignment = lru_cache(maxsize=256)(_assignment)
"""The same bytes for every Gateway with that backend."""


def _secrets(engine: Engine, graph: Graph) -> Resources:
    def secret(key: tuple[api.ObjectKey, SecretKey], certificate: Certificate, _: Look) -> Named:
        kind = "Secret" if certificate.key.kind == "certificate" else "ConfigMap"
        origin = api.ObjectRef("", kind, certificate.key.namespace, certificate.key.name)
        return _named(
            key[0], Resource(SECRET, names.secret(certificate.key), serialize(build_secret(certificate)), (origin,))
        )

    return engine.flat_derive("envoy: secrets", graph.secrets, secret)


def _named(gateway: api.ObjectKey, resource: Resource) -> Named:
    return {(gateway, resource.name): resource}


def _holder(listener: ListenerKey) -> api.ObjectRef:
    """The object in which a listener is written."""
    return api.ObjectRef(GATEWAY_GROUP, listener.kind, listener.namespace, listener.name)


def _backend_ref(key: BackendKey) -> api.ObjectRef:
    group = "" if key.kind == "Service" else "gateway.networking.x-k8s.io"
    return api.ObjectRef(group, key.kind, key.namespace, key.name)
