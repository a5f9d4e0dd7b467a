"""Status of routes, BackendTLSPolicies and XBackends: one entry per parent or ancestor."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from propylon import api
from propylon.graph import Graph
from propylon.graph.model import BackendKey, Finding, Policy, RouteParent
from propylon.incremental import Collection, Look
from propylon.status.conditions import Document, Judgement, Status, joined, judge, reference
from propylon.status.gateways import Rejections, rejected

MAX_PARENTS = 32
MAX_ANCESTORS = 16


def route_status(
    graph: Graph, rejections: Rejections, names: Collection[str, frozenset[str]], kind: str
) -> Callable[[api.ObjectKey, Any, Look], dict[api.ObjectRef, Status]]:
    """Return the function that computes the status of routes of a kind, ours or not.

    A route that has no parent of ours gets an empty list, so that entries of ours vanish when it is moved elsewhere.
    """

    def build(key: api.ObjectKey, _object: Any, look: Look) -> dict[api.ObjectRef, Status]:
        ref = api.ObjectRef(api.GATEWAY_GROUP, kind, *key)
        route = look.get(graph.routes, ref)
        refused = look.get(rejections, ref) or ()
        ours = look.get(names, "") or frozenset()
        if route is None:
            return {ref: _status((), (), 0, (), ours)}
        parents = tuple([_said_of(parent) for parent in route.parents[:MAX_PARENTS]])
        return {ref: _status(parents, route.findings, route.generation, refused, ours)}

    return build


class _Parent(NamedTuple):
    """What the status of a route depends on of a parent, which most routes of a listener have in common."""

    ref: api.ParentReference
    controller_name: str
    sections: tuple[str, ...]
    """Of the listeners that the route is attached to."""
    accepted: bool
    findings: tuple[Finding, ...]


def _said_of(parent: RouteParent) -> _Parent:
    sections = tuple([attachment.listener.section for attachment in parent.attachments])
    return _Parent(parent.ref, parent.controller_name, sections, parent.accepted, parent.findings)


@lru_cache(16_384)
def _status(
    parents: tuple[_Parent, ...],
    findings: tuple[Finding, ...],
    generation: int,
    refused: tuple[Finding, ...],
    controllers: frozenset[str],
) -> Status:
    """Return a status, the same for all routes of which the same is to be said: nobody may change it in place."""
    return Status({"parents": [_entry(each, findings, generation, refused) for each in parents]}, controllers)


def _entry(
    parent: _Parent, about_route: tuple[Finding, ...], generation: int, refused: tuple[Finding, ...]
) -> Document:
    """Return the entry of one parent."""
    accepted = judge(parent.findings, "Accepted", "Accepted", _accepted_message(parent.sections))
    findings = (*parent.findings, *about_route)
    warnings = [f for f in findings if f.condition == "Warning"]
    if warnings:
        accepted = Judgement(accepted.status, accepted.reason, f"{accepted.message}; but {joined(warnings)}")
    resolved = judge(about_route, "ResolvedRefs", "ResolvedRefs", "every reference was resolved")
    conditions = [
        accepted.condition("Accepted", generation),
        resolved.condition("ResolvedRefs", generation),
    ]
    partial = [f for f in about_route if f.condition == "PartiallyInvalid"]
    if partial and parent.accepted:
        message = "; ".join(f.message for f in partial)
        conditions.append(Judgement("True", partial[0].reason, message).condition("PartiallyInvalid", generation))
    if parent.accepted:
        conditions.extend(rejected(refused, generation))
    return {
        "parentRef": reference(parent.ref),
        "controllerName": parent.controller_name,
        "conditions": conditions,
    }


def _accepted_message(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"attached to listener {shown}" if len(names) == 1 else f"attached to listeners {shown}"


def policy_status(policy: Policy, names: frozenset[str]) -> Status:
    """Return the status of a BackendTLSPolicy, alike for every Gateway through which its targets are reached."""
    accepted = judge(policy.findings, "Accepted", "Accepted", "the policy is in force")
    resolved = judge(policy.findings, "ResolvedRefs", "ResolvedRefs", "every reference was resolved")
    conditions = [
        accepted.condition("Accepted", policy.generation),
        resolved.condition("ResolvedRefs", policy.generation),
    ]
    ancestors = [
        {"ancestorRef": reference(ref), "controllerName": name, "conditions": conditions}
        for ref, name in policy.ancestors
    ]
    return Status({"ancestors": ancestors[:MAX_ANCESTORS]}, names)


def x_backend_status(graph: Graph, x_backend: api.XBackend, look: Look, names: frozenset[str]) -> Status:
    """Return the status of an XBackend for every Gateway that refers to it."""
    key = BackendKey("XBackend", *api.key_of(x_backend), x_backend.spec.port.number or 0)
    backend = look.get(graph.backends, key)
    findings = () if backend is None or backend.finding is None else (backend.finding,)
    judgement = Judgement("True", "Accepted", "the backend is in use")
    if findings:
        judgement = Judgement("False", findings[0].reason, joined(findings))
    condition = judgement.condition("Accepted", x_backend.metadata.generation)
    ancestors = []
    for use in look.keys(graph.backend_uses, key):
        head = look.get(graph.heads, use.gateway)
        if head is not None:
            ref = api.ParentReference(use.gateway.name, namespace=use.gateway.namespace)
            ancestors.append(
                {"ancestorRef": reference(ref), "controllerName": head.controller_name, "conditions": [condition]}
            )
    return Status({"ancestors": ancestors[:MAX_PARENTS]}, names)
