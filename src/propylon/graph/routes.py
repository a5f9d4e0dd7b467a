"""Routes: attachment and rules of all five kinds, and routes whose parents do not exist."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from propylon import api
from propylon.graph.attachment import Candidate, Tables, attach, object_key
from propylon.graph.model import Backend, BackendKey, Finding, Route, RouteParent
from propylon.graph.references import Grants, Referrer
from propylon.graph.rules import Rules
from propylon.graph.rules_grpc import build_grpc_rules
from propylon.graph.rules_http import build_http_rules
from propylon.graph.rules_l4 import build_l4_rules
from propylon.graph.targets import Resolver
from propylon.incremental import Collection, Engine, Look, Source
from propylon.incremental.union import Union

AnyParent = api.ParentReference | api.ParentGatewayReference
RuleBuilder = Callable[[Resolver, api.ObjectRef, Any], Rules]


class Kind(NamedTuple):
    """One kind of route: where its objects come from and how its rules are read."""

    name: str
    source: Source[api.ObjectKey, Any]
    build_rules: RuleBuilder


def kinds(tables: Tables) -> tuple[Kind, ...]:
    """Return the five kinds of routes."""
    sources = tables.sources

    def l4(resolver: Resolver, _ref: api.ObjectRef, spec: Any) -> Rules:
        return build_l4_rules(resolver, spec)

    return (
        Kind("HTTPRoute", sources.http_routes, build_http_rules),
        Kind("GRPCRoute", sources.grpc_routes, build_grpc_rules),
        Kind("TLSRoute", sources.tls_routes, l4),
        Kind("TCPRoute", sources.tcp_routes, l4),
        Kind("UDPRoute", sources.udp_routes, l4),
    )


def candidate(ref: api.ObjectRef, route: Any) -> Candidate:
    """Return what attachment looks at."""
    spec = route.spec
    hostnames: tuple[str, ...] = getattr(spec, "hostnames", ())
    for hostname in hostnames:
        if not hostname.islower():  # hardly ever: else what is there can be shared
            hostnames = tuple([h.lower() for h in hostnames])
            break
    return Candidate(ref, hostnames, spec.parent_refs, spec.use_default_gateways)


def build_routes(
    engine: Engine, tables: Tables, grants: Grants, backends: Collection[BackendKey, Backend]
) -> tuple[Collection[api.ObjectRef, Route], Collection[api.ObjectRef, Route]]:
    """Build every route that has a parent of ours; those of TLS, TCP and UDP also by themselves, as few are."""

    def builder(kind: Kind) -> Callable[[api.ObjectKey, Any, Look], dict[api.ObjectRef, Route]]:
        referrer = lru_cache(1024)(lambda namespace: Referrer(api.GATEWAY_GROUP, kind.name, namespace))

        def build(key: api.ObjectKey, route: Any, look: Look) -> dict[api.ObjectRef, Route]:
            ref = api.ObjectRef(api.GATEWAY_GROUP, kind.name, *key)
            seen = candidate(ref, route)
            parents = attach(look, tables, seen)
            if not parents:
                return {}
            resolver = Resolver(look, tables.sources, grants, backends, referrer(key.namespace), kind.name)
            rules = kind.build_rules(resolver, ref, route.spec)
            findings = rules.findings
            invalid: tuple[Finding, ...] = ()
            if findings:
                invalid = tuple(f for f in findings if f.condition == "Accepted")
                findings = tuple(f for f in findings if f.condition != "Accepted")
            return {
                ref: Route(
                    ref,
                    route.metadata.creation_timestamp,
                    route.metadata.generation,
                    seen.hostnames,
                    rules.rules,
                    tuple(_refused(parent, invalid) for parent in parents) if invalid else parents,
                    findings,
                )
            }

        return build

    http, grpc, *others = (
        engine.flat_derive(f"routes of kind {kind.name}", kind.source, builder(kind)) for kind in kinds(tables)
    )
    l4 = Union(engine, "routes of L4 kinds", *others)
    return Union(engine, "routes", http, grpc, l4), l4


def _refused(parent: RouteParent, invalid: tuple[Finding, ...]) -> RouteParent:
    """A route without a single usable rule takes no part anywhere; what its parent says goes first."""
    return RouteParent(
        parent.index, parent.ref, parent.gateway, parent.controller_name, (), (*parent.findings, *invalid)
    )


def build_dangling(engine: Engine, tables: Tables) -> Collection[api.ObjectRef, tuple[Finding, ...]]:
    """Find parentRefs that lead nowhere: status may not speak of them, so people are told otherwise."""

    def finder(kind: str) -> Callable[[api.ObjectKey, Any, Look], dict[api.ObjectRef, tuple[Finding, ...]]]:
        def find(key: api.ObjectKey, route: Any, look: Look) -> dict[api.ObjectRef, tuple[Finding, ...]]:
            found = []
            for i, ref in enumerate(route.spec.parent_refs):
                if not _is_there(look, tables, key.namespace, ref):
                    found.append(_dangling(look, tables, key.namespace, ref, f"spec.parentRefs[{i}]"))
            return {api.ObjectRef(api.GATEWAY_GROUP, kind, *key): tuple(found)} if found else {}

        return find

    def of_listener_set(
        key: api.ObjectKey, listener_set: api.ListenerSet, look: Look
    ) -> dict[api.ObjectRef, tuple[Finding, ...]]:
        ref = listener_set.spec.parent_ref
        if _is_there(look, tables, key.namespace, ref):
            return {}
        return {api.ref_of(listener_set): (_dangling(look, tables, key.namespace, ref, "spec.parentRef"),)}

    def of_gateway(key: api.ObjectKey, gateway: api.Gateway, look: Look) -> dict[api.ObjectRef, tuple[Finding, ...]]:
        name = gateway.spec.gateway_class_name
        if look.get(tables.sources.gateway_classes, api.ObjectKey("", name)) is not None:
            return {}
        near = _near(name, [k.name for k in look.all(tables.sources.gateway_classes)])
        message = f"GatewayClass {name} does not exist{near}"
        finding = Finding("Accepted", "Pending", message, "spec.gatewayClassName", "Unknown")
        return {api.ref_of(gateway): (finding,)}

    parts = [engine.flat_derive(f"dangling {kind.name}s", kind.source, finder(kind.name)) for kind in kinds(tables)]
    parts.append(engine.flat_derive("dangling ListenerSets", tables.sources.listener_sets, of_listener_set))
    parts.append(engine.flat_derive("dangling Gateways", tables.sources.gateways, of_gateway))
    return Union(engine, "dangling", *parts)


def _parents(tables: Tables, ref: AnyParent) -> Collection[api.ObjectKey, Any] | None:
    """Return where the parent would be found; None if it is of a kind that is not ours to know."""
    if ref.group != api.GATEWAY_GROUP:
        return None
    if ref.kind == "Gateway":
        return tables.sources.gateways
    return tables.sources.listener_sets if ref.kind == "ListenerSet" else None


def _is_there(look: Look, tables: Tables, namespace: str, ref: AnyParent) -> bool:
    parents = _parents(tables, ref)
    return parents is None or look.get(parents, object_key(ref.namespace or namespace, ref.name)) is not None


def _dangling(look: Look, tables: Tables, namespace: str, ref: AnyParent, field: str) -> Finding:
    key = api.ObjectKey(ref.namespace or namespace, ref.name)
    parents = _parents(tables, ref)
    known = () if parents is None else look.all(parents)
    # Whoever mistypes a name or forgets a namespace is helped by what there is.
    near = _near(str(key), [str(other) for other in known], same_name=ref.name)
    return Finding("Accepted", "NoMatchingParent", f"{ref.kind} {key} does not exist{near}", field)


def _near(wanted: str, known: list[str], same_name: str = "") -> str:
    elsewhere = [name for name in known if same_name and name.rpartition("/")[2] == same_name]
    close = elsewhere or get_close_matches(wanted, known, 1, 0.5) or (known if len(known) == 1 else [])
    return f"; there is {close[0]}" if close else ""
