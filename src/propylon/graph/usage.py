"""What each Gateway's proxies need: clusters and secrets that something refers to, and nothing else."""

from collections.abc import Iterable
from itertools import starmap
from typing import NamedTuple, TypeVar

import msgspec

from propylon import api
from propylon.graph.backends import Backends, overridden
from propylon.graph.classes import GatewayHead
from propylon.graph.endpoints import slice_endpoints, transport_of
from propylon.graph.gateways import Binding
from propylon.graph.grpc_calls import grpc_twins, takes_grpc
from propylon.graph.model import (
    Backend,
    BackendKey,
    BackendRef,
    Certificate,
    Cluster,
    ClusterKey,
    Endpoint,
    ExternalAuth,
    L4Key,
    L4Route,
    Listener,
    ListenerKey,
    Policy,
    Route,
    SecretKey,
    Unserved,
)
from propylon.graph.policies import Policies, Target, targets
from propylon.graph.rules import references
from propylon.graph.sources import Sources
from propylon.graph.tls import key_pair
from propylon.incremental import Collection, Engine, Index, Look
from propylon.incremental.union import Union

K = TypeVar("K")

MAX_ANCESTORS = 16
"""PolicyStatus holds so many at most."""


ClusterUse = tuple[api.ObjectKey, ClusterKey]
"""(Gateway, cluster)"""
SecretUse = tuple[api.ObjectKey, SecretKey]
"""(Gateway, secret)"""


class BackendUse(NamedTuple):
    """A backend that something on a Gateway refers to, usable or not."""

    gateway: api.ObjectKey
    backend: BackendKey


def _gateways(route: Route) -> tuple[api.ObjectKey, ...] | set[api.ObjectKey]:
    parents = route.parents
    if len(parents) == 1:
        return (parents[0].gateway,) if parents[0].accepted else ()
    return {parent.gateway for parent in parents if parent.accepted}


def _of_gateways(route: Route, keys: list[K]) -> Iterable[tuple[api.ObjectKey, K]]:
    """Return what a route refers to with each Gateway that it is attached to. An index does not mind repetition."""
    return [(gateway, key) for gateway in _gateways(route) for key in keys] if keys else ()


def _listener_references(listener: Listener) -> Iterable[BackendRef]:
    return (f.backend for f in listener.filters if isinstance(f, ExternalAuth))


def build_clusters(
    engine: Engine,
    routes: Collection[api.ObjectRef, Route],
    l4_routes: Collection[L4Key, L4Route],
    listeners: Collection[ListenerKey, Listener],
    bindings: Collection[api.ObjectKey, Binding],
    backends: Collection[BackendKey, Backend],
) -> Collection[tuple[api.ObjectKey, ClusterKey], Cluster]:
    """Gather the clusters of each Gateway from rules, mirrors and authorizers; of L4 routes from those that won."""

    def of_route(ref: api.ObjectRef, route: Route) -> Iterable[ClusterUse]:
        if ref.kind not in {"HTTPRoute", "GRPCRoute"}:
            return ()
        keys: list[ClusterKey] = []
        for rule in route.rules:
            for reference in references(rule.filters, rule.backends):
                cluster = reference.cluster
                if cluster is not None:
                    keys.append(cluster)
            if rule.backends and takes_grpc(rule):
                keys += grpc_twins(rule)
        return _of_gateways(route, keys)

    def of_l4_route(key: L4Key, route: L4Route) -> set[ClusterUse]:
        return {(key.gateway, ref.cluster) for ref in route.backends if ref.cluster is not None}

    def of_listener(key: ListenerKey, listener: Listener) -> set[ClusterUse]:
        found = {ref.cluster for ref in _listener_references(listener) if ref.cluster is not None}
        return {(key.gateway, cluster) for cluster in found}

    def with_sessions(_ref: api.ObjectRef, route: Route) -> Iterable[ClusterUse]:
        keys: list[ClusterKey] = []
        for rule in route.rules:
            if rule.session is not None:
                keys += [ref.cluster for ref in rule.backends if ref.cluster is not None]
        return _of_gateways(route, keys)

    sessions = routes.index("routes with sessions by cluster", with_sessions)

    def build(use: ClusterUse, _members: object, look: Look) -> Cluster | None:
        gateway, key = use
        backend = look.get(backends, key.backend)
        if backend is None:
            return None
        if key.protocol == "PASSTHROUGH":
            return Cluster(key, msgspec.structs.replace(backend, tls=None, finding=None))
        client = None
        if backend.tls is not None and (binding := look.get(bindings, gateway)) is not None:
            client = binding.client_certificate
        return Cluster(key, backend, client, look.count(sessions, use) > 0)

    by_route = routes.index("routes by cluster", of_route)
    by_listener = listeners.index("listeners by cluster", of_listener)
    return Union(
        engine,
        "clusters",
        engine.derive("clusters of routes", by_route, build),
        engine.derive("clusters of L4 routes", l4_routes.index("L4 routes by cluster", of_l4_route), build),
        engine.derive("clusters of listeners", by_listener, build),
    )


def build_secrets(
    engine: Engine,
    sources: Sources,
    listeners: Collection[ListenerKey, Listener],
    bindings: Collection[api.ObjectKey, Binding],
    clusters: Collection[tuple[api.ObjectKey, ClusterKey], Cluster],
    authorities: Collection[SecretKey, bytes],
) -> Collection[tuple[api.ObjectKey, SecretKey], Certificate]:
    """Gather the certificates each Gateway's proxies need."""

    def of_listener(key: ListenerKey, listener: Listener) -> set[SecretUse]:
        if not listener.servable or listener.tls is None:
            return set()
        found = set(listener.tls.certificates)
        if listener.tls.client_validation is not None:
            found.add(listener.tls.client_validation.secret)
        return {(key.gateway, secret) for secret in found}

    def of_gateway(key: api.ObjectKey, binding: Binding) -> set[SecretUse]:
        return set() if binding.client_certificate is None else {(key, binding.client_certificate)}

    def of_cluster(key: tuple[api.ObjectKey, ClusterKey], cluster: Cluster) -> set[SecretUse]:
        tls = cluster.backend.tls
        found = set() if tls is None else {tls.validation, tls.client_certificate, cluster.client_certificate}
        return {(key[0], secret) for secret in found if secret is not None}

    def build(use: SecretUse, _members: object, look: Look) -> Certificate | None:
        key = use[1]
        if key.kind == "validation":
            pem = look.get(authorities, key)
            return Certificate(key, pem) if pem is not None else None
        secret = look.get(sources.secrets, api.ObjectKey(key.namespace, key.name))
        pair = key_pair(secret) if secret is not None else ""
        return None if isinstance(pair, str) else Certificate(key, *pair)

    return Union(
        engine,
        "certificates",
        engine.derive("secrets of listeners", listeners.index("listeners by secret", of_listener), build),
        engine.derive("secrets of gateways", bindings.index("gateways by secret", of_gateway), build),
        engine.derive("secrets of clusters", clusters.index("clusters by secret", of_cluster), build),
    )


def build_backend_uses(
    engine: Engine, routes: Collection[api.ObjectRef, Route], listeners: Collection[ListenerKey, Listener]
) -> Index[BackendKey, BackendUse, bool]:
    """Index the backends that are referred to, with the Gateways through which."""

    def of_route(_ref: api.ObjectRef, route: Route) -> Iterable[BackendUse]:
        keys: list[BackendKey] = []
        for rule in route.rules:
            for reference in references(rule.filters, rule.backends):
                target = reference.target
                if target is not None:
                    keys.append(target)
        return starmap(BackendUse, _of_gateways(route, keys))

    def of_listener(key: ListenerKey, listener: Listener) -> set[BackendUse]:
        return {BackendUse(key.gateway, r.target) for r in _listener_references(listener) if r.target is not None}

    def used(_use: BackendUse, _members: object, _look: Look) -> bool:
        return True

    uses: Collection[BackendUse, bool] = Union(
        engine,
        "backend uses",
        engine.derive("backend uses of routes", routes.index("routes by backend", of_route), used),
        engine.derive("backend uses of listeners", listeners.index("listeners by backend", of_listener), used),
    )
    return uses.index("backend uses by backend", lambda use, _: (use.backend,))


def build_unserved(
    engine: Engine,
    sources: Sources,
    found: Backends,
    uses: Index[BackendKey, BackendUse, bool],
    endpoints: Collection[BackendKey, tuple[Endpoint, ...]],
) -> Collection[BackendKey, Unserved]:
    """Find Service ports that are referred to and that have no endpoints but those of a fallback."""

    def find(key: BackendKey, _members: object, look: Look) -> Unserved | None:
        if look.get(endpoints, key) and look.get(sources.fallback_endpoints, key) is None:
            return None  # as nearly everywhere, and known by these two alone
        backend = look.get(found.backends, key)
        if backend is None or not key.kind.startswith("Service"):
            return None
        if backend.discovery == "DNS" or overridden(look, found.overrides, key):
            return None
        return None if slice_endpoints(look, sources, found, key) else Unserved(transport_of(backend))

    return engine.derive("unserved", uses, find)


def build_policy_nodes(
    engine: Engine,
    sources: Sources,
    policies: Policies,
    uses: Index[BackendKey, BackendUse, bool],
    heads: Collection[api.ObjectKey, GatewayHead],
) -> Collection[api.ObjectKey, Policy]:
    """Tell for each BackendTLSPolicy through which Gateways its targets are reached."""

    def build(key: api.ObjectKey, policy: api.BackendTLSPolicy, look: Look) -> Policy:
        verdict = look.get(policies.verdicts, key)
        gateways = sorted({use.gateway for target in targets(policy) for use in _uses(look, sources, uses, target)})
        ancestors = []
        for gateway in gateways[:MAX_ANCESTORS]:
            head = look.get(heads, gateway)
            if head is not None:
                ref = api.ParentReference(gateway.name, namespace=gateway.namespace)
                ancestors.append((ref, head.controller_name))
        findings = verdict.findings if verdict is not None else ()
        return Policy(api.ref_of(policy), policy.metadata.generation, tuple(ancestors), findings)

    return engine.derive("policies", sources.backend_tls_policies, build)


def _uses(
    look: Look, sources: Sources, uses: Index[BackendKey, BackendUse, bool], target: Target
) -> Iterable[BackendUse]:
    service = look.get(sources.services, api.ObjectKey(target.namespace, target.service))
    for port in service.spec.ports if service is not None else ():
        if target.section in {"", port.name}:
            yield from look.keys(uses, BackendKey("Service", target.namespace, target.service, port.port))
