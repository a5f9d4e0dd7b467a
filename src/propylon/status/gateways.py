"""Status of GatewayClasses, Gateways and ListenerSets."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from propylon import api
from propylon.graph import Graph, Sources
from propylon.graph.assignment import describe_request
from propylon.graph.gateways import Parent
from propylon.graph.model import Finding, Gateway, GatewayClass, Listener, ListenerKey, PortKey, Route
from propylon.incremental import Collection, Engine, Index, Look, Source
from propylon.status.conditions import REJECTED, Document, Judgement, Status, joined, judge
from propylon.status.features import SUPPORTED_FEATURES, SUPPORTED_RELEASES, release_of
from propylon.status.programmed import (
    Programmed,
    gateway_obstacle,
    listener_programmed,
    place_judgement,
    port_judgement,
    worst,
)

Rejections = Source[api.ObjectRef, tuple[Finding, ...]]


class Inputs(NamedTuple):
    """What these statuses are computed from."""

    sources: Sources
    graph: Graph
    programmed: Programmed
    rejections: Rejections
    attached: Index[ListenerKey, api.ObjectRef, Route]
    ports: Index[api.ObjectKey, PortKey, tuple[ListenerKey, ...]]
    """Ports that are served, by Gateway."""


class Obstacle(msgspec.Struct, frozen=True):
    """What keeps the listeners of a Gateway from being served; `accepted` is the Gateway's."""

    accepted: bool
    judgement: Judgement | None


def attached_to(_ref: api.ObjectRef, route: Route) -> set[ListenerKey]:
    """Return the listeners that count a route (attachedRoutes): those that accepted it, served or not."""
    return {a.listener for parent in route.parents if parent.accepted for a in parent.attachments}


def version_judgement(crds: tuple[tuple[str, str], ...]) -> Judgement:
    """Return SupportedVersion: whether all CRDs, each with its bundle version, are of releases that we know."""
    installed = dict(crds)
    known = f"releases {SUPPORTED_RELEASES[0]} to {SUPPORTED_RELEASES[-1]} are supported"
    strange = {name: found for name, found in installed.items() if release_of(found) not in SUPPORTED_RELEASES}
    if strange:
        listed = ", ".join(f"{name} of {found or 'no version'}" for name, found in sorted(strange.items()))
        return Judgement("False", "UnsupportedVersion", f"{known}, and these CRDs are of others: {listed}")
    versions = ", ".join(sorted(set(installed.values())))
    return Judgement("True", "SupportedVersion", f"{known}, {versions} is installed" if versions else known)


def class_status(inputs: Inputs, gateway_class: GatewayClass, look: Look) -> Status:
    """Return the status of an adopted GatewayClass."""
    accepted = judge(gateway_class.findings, "Accepted", "Accepted", f"adopted as {gateway_class.controller_name}")
    version = version_judgement(look.get(inputs.sources.crds, "installed") or ())
    return Status(
        {
            "conditions": [
                accepted.condition("Accepted", gateway_class.generation),
                version.condition("SupportedVersion", gateway_class.generation),
            ],
            "supportedFeatures": [
                {"name": name} for name in SUPPORTED_FEATURES if not look.get(inputs.sources.lacking, name)
            ],
        }
    )


def build_obstacles(engine: Engine, graph: Graph) -> Collection[api.ObjectKey, Obstacle]:
    """Tell of every Gateway what keeps it from being served."""

    def build(key: api.ObjectKey, gateway: Gateway, look: Look) -> Obstacle:
        bound = look.get(graph.bindings, key) is not None
        return Obstacle(gateway.accepted, gateway_obstacle(gateway.findings, bound))

    return engine.derive("gateway obstacles", graph.gateways, build)


def listener_status(inputs: Inputs, look: Look, listener: Listener, generation: int, obstacle: Obstacle) -> Document:
    """Return the entry of one listener, own or of a ListenerSet."""
    findings = listener.findings
    conflict = judge(findings, "Conflicted", "NoConflicts", "it is distinct from the other listeners")
    accepted = judge(findings, "Accepted", "Accepted", "the listener is valid")
    if listener.conflicted:
        accepted = Judgement("False", conflict.reason, conflict.message)
    programmed = listener_programmed(look, inputs.programmed, listener, obstacle.judgement)
    resolved = judge(findings, "ResolvedRefs", "ResolvedRefs", "every reference was resolved")
    conflicted = conflict if listener.conflicted else Judgement("False", "NoConflicts", conflict.message)
    conditions = [
        accepted.condition("Accepted", generation),
        programmed.condition("Programmed", generation),
        resolved.condition("ResolvedRefs", generation),
        conflicted.condition("Conflicted", generation),
    ]
    overlapping = [f for f in findings if f.condition == "OverlappingTLSConfig"]
    if overlapping:
        judgement = Judgement("True", overlapping[0].reason, joined(overlapping))
        conditions.append(judgement.condition("OverlappingTLSConfig", generation))
    return {
        "name": listener.key.section,
        "supportedKinds": [{"group": k.group, "kind": k.kind} for k in listener.supported_kinds],
        "attachedRoutes": look.count(inputs.attached, listener.key),
        "conditions": conditions,
    }


def gateway_status(
    inputs: Inputs, obstacles: Collection[api.ObjectKey, Obstacle], key: api.ObjectKey, gateway: Gateway, look: Look
) -> Status:
    """Return the status of a Gateway of ours."""
    obstacle = look.get(obstacles, key) or Obstacle(False, None)
    generation = gateway.generation
    own = gateway.listeners
    accepted = judge(gateway.findings, "Accepted", "Accepted", "the Gateway is valid")
    conditions = [
        accepted.condition("Accepted", generation),
        _gateway_programmed(inputs, look, gateway, obstacle).condition("Programmed", generation),
        _gateway_resolved(gateway.findings, own).condition("ResolvedRefs", generation),
    ]
    insecure = [f for f in gateway.findings if f.condition == "InsecureFrontendValidationMode"]
    if insecure:
        judgement = Judgement("True", insecure[0].reason, joined(insecure))
        conditions.append(judgement.condition("InsecureFrontendValidationMode", generation))
    # With the feature every address says where it is reachable from, if only that nothing is promised (GEP-5093).
    routability = not look.get(inputs.sources.lacking, "GatewayAddressRoutability")
    source = look.get(inputs.sources.gateways, key)
    requested = source.spec.addresses if source is not None else ()
    if look.get(inputs.sources.addresses, key) is not None and (requested or (routability and gateway.addresses)):
        assigned = addresses_assigned(gateway, len(requested))
        conditions.append(assigned.condition("AddressesAssigned", generation))
    return Status(
        {
            "addresses": [_address(address, routability=routability) for address in gateway.addresses],
            "conditions": conditions,
            "listeners": [listener_status(inputs, look, listener, generation, obstacle) for listener in own],
            "attachedListenerSets": gateway.attached_listener_sets,
        }
    )


def _address(address: api.GatewayStatusAddress, *, routability: bool) -> Document:
    document: Document = {"type": address.type, "value": address.value}
    if routability:
        document["routability"] = address.routability or ""
    return document


def _gateway_programmed(inputs: Inputs, look: Look, gateway: Gateway, obstacle: Obstacle) -> Judgement:
    addresses = [f for f in gateway.findings if f.condition == "Programmed"]
    if obstacle.accepted and addresses:
        return Judgement("False", addresses[0].reason, joined(addresses))
    if obstacle.judgement is not None:
        return obstacle.judgement
    refused = look.get(inputs.rejections, api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *gateway.key)) or ()
    ports = look.keys(inputs.ports, gateway.key)
    if not ports:
        return Judgement("False", "Invalid", "no listener can be served")
    judgement = worst(port_judgement(look, inputs.programmed, port) for port in ports)
    if refused and judgement.status != "False":
        return Judgement("False", "Invalid", joined(refused))
    return judgement


def _gateway_resolved(findings: Iterable[Finding], own: Iterable[Listener]) -> Judgement:
    judgement = judge(findings, "ResolvedRefs", "ResolvedRefs", "every reference was resolved")
    bad = [listener.key.section for listener in own if any(f.condition == "ResolvedRefs" for f in listener.findings)]
    if judgement.status == "True" and bad:
        return Judgement("False", "ListenersNotResolved", f"listeners with unresolved references: {', '.join(bad)}")
    return judgement


def addresses_assigned(gateway: Gateway, requested: int) -> Judgement:
    """Compare how many addresses a Gateway asks for with those it got (GEP-5093)."""
    if not gateway.unassigned:
        return Judgement(
            "True", "AddressesAssigned", "every requested address was assigned" if requested else "it has an address"
        )
    names = ", ".join(map(describe_request, gateway.unassigned))
    reason = "NotAssigned" if len(gateway.unassigned) == requested else "PartiallyAssigned"
    return Judgement("False", reason, f"not assigned: {names}")


def listener_set_status(
    inputs: Inputs,
    obstacles: Collection[api.ObjectKey, Obstacle],
    key: api.ObjectKey,
    look: Look,
) -> Status | None:
    """Return the status of a ListenerSet whose Gateway is ours."""
    candidates = look.get(inputs.graph.listener_sets, key)
    if candidates is None:
        return None
    node = candidates.node
    obstacle = look.get(obstacles, node.gateway) or Obstacle(False, None)
    found = [listener for _, listener in look.by(inputs.graph.listeners_by_parent, Parent("ListenerSet", *key))]
    found.sort(key=lambda listener: listener.index)
    accepted, programmed = _listener_set_judgements(inputs, look, node.findings, found, obstacle)
    return Status(
        {
            "conditions": [
                accepted.condition("Accepted", node.generation),
                programmed.condition("Programmed", node.generation),
            ],
            "listeners": [listener_status(inputs, look, item, node.generation, obstacle) for item in found],
        }
    )


def _listener_set_judgements(
    inputs: Inputs, look: Look, findings: tuple[Finding, ...], listeners: list[Listener], obstacle: Obstacle
) -> tuple[Judgement, Judgement]:
    if findings:
        refused = judge(findings, "Accepted", "", "")
        return refused, refused
    if not obstacle.accepted:
        message = "the Gateway is not accepted"
        return Judgement("False", "ParentNotAccepted", message), Judgement("False", "ParentNotProgrammed", message)
    bad = [listener.key.section for listener in listeners if not listener.servable]
    names = ", ".join(bad)
    if len(bad) == len(listeners):
        refused = Judgement("False", "ListenersNotValid", f"none of its listeners can be served: {names}")
        return refused, refused
    accepted = Judgement("True", "Accepted", "the ListenerSet is valid")
    if bad:
        accepted = Judgement("True", "ListenersNotValid", f"listeners that cannot be served: {names}")
    if obstacle.judgement is not None:
        return accepted, Judgement("False", "ParentNotProgrammed", obstacle.judgement.message)
    judgements = [place_judgement(look, inputs.programmed, listener) for listener in listeners if listener.servable]
    return accepted, worst(dict.fromkeys(judgements))


def rejected(findings: tuple[Finding, ...], generation: int) -> list[Document]:
    """Return the condition of objects whose configuration Envoy refused; none if it took everything."""
    return [Judgement("False", "Invalid", joined(findings)).condition(REJECTED, generation)] if findings else []
