"""Gateways: own listeners and those of ListenerSets merged, addresses, and the ports that come of it."""

from collections import defaultdict
from typing import NamedTuple

import msgspec

from propylon import api
from propylon.graph.assignment import Assignment, assign, assignment_finding
from propylon.graph.classes import GatewayHead, judge_parameters
from propylon.graph.conflicts import resolve_conflicts
from propylon.graph.hostnames import normalized, specificity
from propylon.graph.listeners import GatewayTls, Holder, build_listener
from propylon.graph.model import (
    Backend,
    BackendKey,
    Finding,
    Gateway,
    Listener,
    ListenerKey,
    ListenerSetNode,
    Port,
    PortKey,
    SecretKey,
)
from propylon.graph.references import Grants, Referrer, namespace_allowed
from propylon.graph.sources import GatewayAddresses, Settings, Sources
from propylon.graph.targets import Resolver
from propylon.incremental import Collection, Engine, Look


class Candidates(msgspec.Struct, frozen=True):
    """The listeners of a ListenerSet, before they meet others; none if the Gateway does not let the set in."""

    node: ListenerSetNode
    created: str
    listeners: tuple[Listener, ...]


class Binding(msgspec.Struct, frozen=True):
    """What a port needs to know of its Gateway."""

    addresses: tuple[str, ...]
    port_offset: int
    client_certificate: SecretKey | None


class Parent(NamedTuple):
    """The object that holds listeners: a Gateway or a ListenerSet."""

    kind: str
    namespace: str
    name: str


class Tables(NamedTuple):
    """What listeners are judged by."""

    engine: Engine
    sources: Sources
    grants: Grants
    heads: Collection[api.ObjectKey, GatewayHead]
    backends: Collection[BackendKey, Backend]
    tls: Collection[api.ObjectKey, GatewayTls]
    settings: Settings

    def resolver(self, look: Look, kind: str, namespace: str) -> Resolver:
        """Resolve references of a Gateway or ListenerSet."""
        referrer = Referrer(api.GATEWAY_GROUP, kind, namespace)
        return Resolver(look, self.sources, self.grants, self.backends, referrer, "HTTPRoute")


def build_listener_sets(tables: Tables) -> Collection[api.ObjectKey, Candidates]:
    """Judge ListenerSets that point at a Gateway of ours."""

    def judge(key: api.ObjectKey, listener_set: api.ListenerSet, look: Look) -> Candidates | None:
        parent = listener_set.spec.parent_ref
        if (parent.group, parent.kind) != (api.GATEWAY_GROUP, "Gateway"):
            return None
        gateway_key = api.ObjectKey(parent.namespace or key.namespace, parent.name)
        head = look.get(tables.heads, gateway_key)
        if head is None:
            return None
        created, generation = listener_set.metadata.creation_timestamp, listener_set.metadata.generation
        allowed = head.allowed_listeners
        if not namespace_allowed(
            look, tables.sources, allowed.from_, allowed.selector, gateway_key.namespace, key.namespace
        ):
            message = _not_allowed(gateway_key, allowed.from_, key.namespace)
            finding = Finding("Accepted", "NotAllowed", message, "spec.parentRef")
            return Candidates(ListenerSetNode(key, gateway_key, generation, False, (finding,)), created, ())
        holder = Holder(gateway_key, "ListenerSet", key, listener_set.metadata.annotations)
        resolver = tables.resolver(look, "ListenerSet", key.namespace)
        tls = look.get(tables.tls, gateway_key)
        listeners = tuple(
            build_listener(resolver, holder, i, spec, tls) for i, spec in enumerate(listener_set.spec.listeners)
        )
        return Candidates(ListenerSetNode(key, gateway_key, generation, True), created, listeners)

    return tables.engine.derive("listener sets", tables.sources.listener_sets, judge)


def _not_allowed(gateway: api.ObjectKey, from_: str, namespace: str) -> str:
    lets_in = {
        "Same": "ListenerSets of its own namespace only",
        "Selector": "ListenerSets of namespaces with certain labels only",
    }.get(from_, "no ListenerSets")
    return f"Gateway {gateway} lets in {lets_in} (spec.allowedListeners), and this one is in {namespace}"


def build_gateways(tables: Tables, sets: Collection[api.ObjectKey, Candidates]) -> Collection[api.ObjectKey, Gateway]:
    """Merge listeners and gather all that was found out about each Gateway."""
    sources = tables.sources

    def judge_own(key: api.ObjectKey, gateway: api.Gateway, look: Look) -> tuple[Listener, ...] | None:
        if look.get(tables.heads, key) is None:
            return None
        holder = Holder(key, "Gateway", key, gateway.metadata.annotations)
        resolver = tables.resolver(look, "Gateway", key.namespace)
        tls = look.get(tables.tls, key)
        return tuple(build_listener(resolver, holder, i, spec, tls) for i, spec in enumerate(gateway.spec.listeners))

    own = tables.engine.derive("own listeners", sources.gateways, judge_own)
    sets_of = sets.index("listener sets by gateway", lambda _key, candidates: (candidates.node.gateway,))

    def merge(key: api.ObjectKey, gateway: api.Gateway, look: Look) -> Gateway | None:
        head = look.get(tables.heads, key)
        if head is None:
            return None
        candidates = sorted((c for _, c in look.by(sets_of, key)), key=lambda c: (c.created, c.node.key))
        added = [listener for c in candidates for listener in c.listeners]
        own_listeners = look.get(own, key)
        listeners = resolve_conflicts(own_listeners or (), added)
        valid: dict[api.ObjectKey, bool] = defaultdict(bool)
        for listener in listeners[len(listeners) - len(added) :]:
            valid[api.ObjectKey(listener.key.namespace, listener.key.name)] |= listener.servable
        offered = look.get(sources.addresses, key)
        assigned = assign(gateway.spec.addresses, offered or GatewayAddresses())
        tls = look.get(tables.tls, key)
        findings = (
            *parameter_findings(tables, look, gateway),
            *address_findings(gateway, offered, assigned),
            *(tls.findings if tls is not None else ()),
            *listener_findings(listeners),
        )
        return Gateway(
            key=key,
            generation=gateway.metadata.generation,
            class_name=gateway.spec.gateway_class_name,
            controller_name=head.controller_name,
            created=gateway.metadata.creation_timestamp,
            listeners=listeners,
            listener_sets=tuple(_with_validity(c.node, valid[c.node.key]) for c in candidates),
            addresses=assigned.addresses,
            client_certificate=tls.client_certificate if tls is not None else None,
            findings=findings,
            unassigned=tuple(request for _, request in assigned.missing) if offered is not None else (),
        )

    return tables.engine.derive("gateways", sources.gateways, merge)


def _with_validity(node: ListenerSetNode, valid: bool) -> ListenerSetNode:
    if valid or not node.attached:
        return node
    finding = Finding("Accepted", "ListenersNotValid", "none of its listeners can be served", "spec.listeners")
    return msgspec.structs.replace(node, findings=(*node.findings, finding))


def parameter_findings(tables: Tables, look: Look, gateway: api.Gateway) -> tuple[Finding, ...]:
    """Refuse parameters that are not there, not usable, or of a kind that nobody here understands."""
    infrastructure = gateway.spec.infrastructure
    if infrastructure is None or infrastructure.parameters_ref is None:
        return ()
    ref = infrastructure.parameters_ref
    target = api.ObjectRef(ref.group, ref.kind, gateway.metadata.namespace, ref.name)
    return judge_parameters(look, tables.sources, tables.settings, target, "spec.infrastructure.parametersRef")


def address_findings(
    gateway: api.Gateway, offered: GatewayAddresses | None, assigned: Assignment
) -> tuple[Finding, ...]:
    """Refuse kinds of addresses that cannot be bound, and pass on what went wrong with the others."""
    findings: list[Finding] = []
    for index, address in enumerate(gateway.spec.addresses):
        if address.type != "IPAddress":
            message = f"addresses of type {address.type!r} are not supported, only IPAddress"
            findings.append(Finding("Accepted", "UnsupportedAddress", message, f"spec.addresses[{index}].type"))
    if offered is None:
        findings.append(Finding("Programmed", "AddressNotAssigned", "no address was assigned yet"))
    elif offered.finding is not None:
        findings.append(offered.finding)
    elif not findings and (finding := assignment_finding(assigned, offered)) is not None:
        findings.append(finding)
    return tuple(findings)


def listener_findings(listeners: tuple[Listener, ...]) -> tuple[Finding, ...]:
    """Sum up invalid listeners: fatal only if no listener at all is left."""
    bad = [listener.key.section for listener in listeners if not listener.accepted and listener.key.kind == "Gateway"]
    names = ", ".join(bad)
    if not any(listener.accepted for listener in listeners):
        message = f"no listener can be served: {names}" if names else "there are no listeners"
        return (Finding("Accepted", "ListenersNotValid", message, "spec.listeners"),)
    if not bad:
        return ()
    good = ", ".join(
        listener.key.section for listener in listeners if listener.accepted and listener.key.kind == "Gateway"
    )
    message = f"listeners that cannot be served: {names}; listeners that are served: {good or 'those of ListenerSets'}"
    return (Finding("Accepted", "ListenersNotValid", message, "spec.listeners", "True"),)


def build_listeners(engine: Engine, gateways: Collection[api.ObjectKey, Gateway]) -> Collection[ListenerKey, Listener]:
    """Take the merged listeners apart again, so that each is depended on by itself."""

    def split(_key: api.ObjectKey, gateway: Gateway, _look: Look) -> dict[ListenerKey, Listener]:
        return {listener.key: listener for listener in gateway.listeners}

    return engine.flat_derive("listeners", gateways, split)


def build_bindings(
    engine: Engine, sources: Sources, gateways: Collection[api.ObjectKey, Gateway]
) -> Collection[api.ObjectKey, Binding]:
    """Tell where the Gateways that are served bind their ports."""

    def bind(key: api.ObjectKey, gateway: Gateway, look: Look) -> Binding | None:
        addresses = look.get(sources.addresses, key)
        if not gateway.accepted or addresses is None or not addresses.bind:
            return None
        return Binding(addresses.bind, addresses.port_offset, gateway.client_certificate)

    return engine.derive("bindings", gateways, bind)


def port_keys(key: ListenerKey, listener: Listener) -> tuple[PortKey, ...]:
    """Return the port a listener is served on, if it can be served."""
    if not listener.servable:
        return ()
    return (PortKey(key.gateway, listener.port, "UDP" if listener.protocol == "UDP" else "TCP"),)


def build_ports(
    engine: Engine,
    listeners: Collection[ListenerKey, Listener],
    bindings: Collection[api.ObjectKey, Binding],
) -> Collection[PortKey, Port]:
    """Gather the servable listeners of each port, the most specific hostname first."""
    by_port = listeners.index("listeners by port", port_keys)

    def gather(key: PortKey, _members: tuple[ListenerKey, ...], look: Look) -> Port | None:
        binding = look.get(bindings, key.gateway)
        if binding is None:
            return None
        members = [listener for _, listener in look.by(by_port, key)]
        members.sort(key=lambda listener: (specificity(normalized(listener.hostname)), listener.key))
        return Port(key, binding.addresses, key.port + binding.port_offset, tuple(members), binding.client_certificate)

    return engine.derive("ports", by_port, gather)
