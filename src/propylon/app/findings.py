"""Findings by object, for the terminal and for `propylon status`: what status conditions say, and what they cannot.

Derived incrementally, so that a change costs what it concerns.
"""

from collections.abc import Iterable

from propylon import api
from propylon.graph import Graph
from propylon.graph.gateways import Parent
from propylon.graph.model import (
    REFERRING,
    BackendRef,
    Filter,
    Finding,
    Gateway,
    Listener,
    ListenerSetNode,
    Policy,
    Route,
    Rule,
)
from propylon.incremental import Collection, Engine, Look, Source

Findings = tuple[Finding, ...]


def build_findings(
    engine: Engine, graph: Graph, rejections: Source[api.ObjectRef, Findings]
) -> tuple[Collection[api.ObjectRef, Findings], ...]:
    """One collection per origin; an object may stand in several."""

    def of_gateway(key: api.ObjectKey, gateway: Gateway, _look: Look) -> dict[api.ObjectRef, Findings]:
        found = gateway_findings(gateway)
        return {api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *key): found} if found else {}

    def of_listener_set(key: api.ObjectKey, node: ListenerSetNode, look: Look) -> dict[api.ObjectRef, Findings]:
        listeners = look.by(graph.listeners_by_parent, Parent("ListenerSet", *key))
        found = listener_set_findings(node, (listener for _, listener in listeners))
        return {api.ObjectRef(api.GATEWAY_GROUP, "ListenerSet", *key): found} if found else {}

    def of_route(_ref: api.ObjectRef, route: Route, _look: Look) -> Findings | None:
        return route_findings(route) or None

    def of_policy(_key: api.ObjectKey, policy: Policy, _look: Look) -> dict[api.ObjectRef, Findings]:
        return {policy.ref: policy.findings} if policy.findings else {}

    return (
        engine.flat_derive("findings of gateways", graph.gateways, of_gateway),
        engine.flat_derive("findings of ListenerSets", graph.listener_set_nodes, of_listener_set),
        engine.derive("findings of routes", graph.routes, of_route),
        engine.flat_derive("findings of policies", graph.policies, of_policy),
        graph.dangling,
        rejections,
    )


def gateway_findings(gateway: Gateway) -> Findings:
    """Those of the Gateway and its own listeners."""
    return (*gateway.findings, *(finding for listener in gateway.listeners for finding in listener.findings))


def listener_set_findings(node: ListenerSetNode, listeners: Iterable[Listener]) -> Findings:
    """Those of a ListenerSet and its listeners."""
    ordered = sorted(listeners, key=lambda listener: listener.index)
    return (*node.findings, *(finding for listener in ordered for finding in listener.findings))


def route_findings(route: Route) -> Findings:
    """Those of the route, its parents, its rules and their references, each once."""
    found = [*route.findings]
    for parent in route.parents:
        found += parent.findings
    for rule in route.rules:
        found += rule_findings(rule)
    return tuple(dict.fromkeys(found)) if found else ()


def rule_findings(rule: Rule) -> list[Finding]:
    """Of a rule: its own, and of what it refers to."""
    found = [] if rule.finding is None else [rule.finding]
    if rule.filters:
        found += _filter_findings(rule.filters)
    for backend in rule.backends:
        if backend.finding is not None or backend.filters:
            found += _reference_findings(backend)
    return found


def _reference_findings(reference: BackendRef) -> Iterable[Finding]:
    if reference.finding is not None:
        yield reference.finding
    yield from _filter_findings(reference.filters)


def _filter_findings(filters: Iterable[Filter]) -> Iterable[Finding]:
    for f in filters:
        if isinstance(f, REFERRING):
            yield from _reference_findings(f.backend)
