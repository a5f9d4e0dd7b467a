"""Gateways: own listeners and those of ListenerSets merged, addresses, and the ports that come of it."""

from typing import NamedTuple

import msgspec

from propylon import api
from propylon.graph.assignment import Assignment, assign, assignment_finding
from propylon.graph.classes import GatewayHead, judge_parameters
from propylon.graph.conflicts import judge_own
from propylon.graph.hostnames import normalized, specificity
from propylon.graph.listeners import GatewayTls, Holder, build_listener
from propylon.graph.model import (
    Backend,
    BackendKey,
    BoundPort,
    Candidates,
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
from propylon.incremental import Collection, Engine, Index, Look


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


def build_own_listeners(tables: Tables) -> Collection[api.ObjectKey, tuple[Listener, ...]]:
    """Judge the listeners that Gateways of ours have themselves, each by itself and then among each other."""

    def judge(key: api.ObjectKey, gateway: api.Gateway, look: Look) -> tuple[Listener, ...] | None:
        if look.get(tables.heads, key) is None:
            return None
        holder = Holder(key, "Gateway", key, gateway.metadata.annotations)
        resolver = tables.resolver(look, "Gateway", key.namespace)
        tls = look.get(tables.tls, key)
        return tuple(
            judge_own([build_listener(resolver, holder, i, spec, tls) for i, spec in enumerate(gateway.spec.listeners)])
        )

    return tables.engine.derive("own listeners", tables.sources.gateways, judge)


def build_listener_set_nodes(
    engine: Engine, sets: Collection[api.ObjectKey, Candidates], listeners: Collection[ListenerKey, Listener]
) -> Collection[api.ObjectKey, ListenerSetNode]:
    """Tell of every ListenerSet whether anything of it can be served once it met the others."""

    def judge(_key: api.ObjectKey, found: Candidates, look: Look) -> ListenerSetNode:
        merged = (look.get(listeners, listener.key) for listener in found.listeners)
        return _with_validity(found.node, any(listener is not None and listener.servable for listener in merged))

    return engine.derive("listener set nodes", sets, judge)


def build_gateways(
    tables: Tables,
    own: Collection[api.ObjectKey, tuple[Listener, ...]],
    nodes: Collection[api.ObjectKey, ListenerSetNode],
    listeners: Collection[ListenerKey, Listener],
) -> Collection[api.ObjectKey, Gateway]:
    """Gather all that was found out about each Gateway."""
    sources = tables.sources

    def accepted_at(key: ListenerKey, listener: Listener) -> tuple[PortKey, ...]:
        return (port_key(key, listener),) if listener.accepted else ()

    def counted(_key: api.ObjectKey, node: ListenerSetNode) -> tuple[api.ObjectKey, ...]:
        return (node.gateway,) if node.attached and not node.findings else ()

    accepted = listeners.index("accepted listeners by port", accepted_at)
    ports_of = accepted.index("accepted ports by gateway", lambda key, _members: (key.gateway,))
    attached = nodes.index("attached listener sets by gateway", counted)

    def gather(key: api.ObjectKey, gateway: api.Gateway, look: Look) -> Gateway | None:
        head = look.get(tables.heads, key)
        if head is None:
            return None
        merged = (look.get(listeners, listener.key) for listener in look.get(own, key) or ())
        own_listeners = tuple(listener for listener in merged if listener is not None)
        ports = look.keys(ports_of, key)
        offered = look.get(sources.addresses, key)
        assigned = assign(gateway.spec.addresses, offered or GatewayAddresses())
        tls = look.get(tables.tls, key)
        findings = (
            *parameter_findings(tables, look, gateway),
            *address_findings(gateway, offered, assigned),
            *(tls.findings if tls is not None else ()),
            *listener_findings(own_listeners, some=bool(ports)),
        )
        return Gateway(
            key=key,
            generation=gateway.metadata.generation,
            class_name=gateway.spec.gateway_class_name,
            controller_name=head.controller_name,
            created=gateway.metadata.creation_timestamp,
            listeners=own_listeners,
            ports=ports,
            attached_listener_sets=look.count(attached, key),
            addresses=assigned.addresses,
            client_certificate=tls.client_certificate if tls is not None else None,
            findings=findings,
            unassigned=tuple(request for _, request in assigned.missing) if offered is not None else (),
        )

    return tables.engine.derive("gateways", sources.gateways, gather)


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


def listener_findings(own: tuple[Listener, ...], *, some: bool) -> tuple[Finding, ...]:
    """Sum up invalid listeners: fatal only if none is left (`some`: there are, of the Gateway or of ListenerSets)."""
    bad = [listener.key.section for listener in own if not listener.accepted]
    names = ", ".join(bad)
    if not some:
        message = f"no listener can be served: {names}" if names else "there are no listeners"
        return (Finding("Accepted", "ListenersNotValid", message, "spec.listeners"),)
    if not bad:
        return ()
    good = ", ".join(listener.key.section for listener in own if listener.accepted)
    message = f"listeners that cannot be served: {names}; listeners that are served: {good or 'those of ListenerSets'}"
    return (Finding("Accepted", "ListenersNotValid", message, "spec.listeners", "True"),)


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


def port_key(key: ListenerKey, listener: Listener) -> PortKey:
    """Return the port a listener wants."""
    return PortKey(key.gateway, listener.port, "UDP" if listener.protocol == "UDP" else "TCP")


def build_served(
    engine: Engine, listeners: Collection[ListenerKey, Listener], bindings: Collection[api.ObjectKey, Binding]
) -> Collection[ListenerKey, Listener]:
    """Keep the listeners that can be served, of Gateways that are bound."""

    def serve(key: ListenerKey, listener: Listener, look: Look) -> Listener | None:
        return listener if listener.servable and look.get(bindings, key.gateway) is not None else None

    return engine.derive("served listeners", listeners, serve)


def build_bound_ports(
    engine: Engine,
    served: Collection[ListenerKey, Listener],
    by_port: Index[PortKey, ListenerKey, Listener],
    bindings: Collection[api.ObjectKey, Binding],
) -> Collection[PortKey, BoundPort]:
    """Tell where every port is bound; `by_port` are the listeners that are served."""

    def with_tls(key: ListenerKey, listener: Listener) -> tuple[PortKey, ...]:
        return (port_key(key, listener),) if listener.tls is not None else ()

    tls_by_port = served.index("served listeners with TLS by port", with_tls)

    def bind(key: PortKey, _members: tuple[ListenerKey, ...], look: Look) -> BoundPort | None:
        binding = look.get(bindings, key.gateway)
        if binding is None:
            return None
        bound = key.port + binding.port_offset
        return BoundPort(key, binding.addresses, bound, look.count(tls_by_port, key) > 0, binding.client_certificate)

    return engine.derive("ports", by_port, bind)


def by_specificity(listener: Listener) -> tuple[tuple[int, int], ListenerKey]:
    """Return a sort key for the listeners of a port: the most specific hostname first."""
    return specificity(normalized(listener.hostname)), listener.key


def gather_port(
    bound: BoundPort, served: Collection[ListenerKey, Listener], by_port: Index[PortKey, ListenerKey, Listener]
) -> Port:
    """Put a port together with all its listeners."""
    members = [listener for key in by_port.get(bound.key) or () if (listener := served.get(key)) is not None]
    members.sort(key=by_specificity)
    return Port(bound.key, bound.addresses, bound.bound_port, tuple(members), bound.client_certificate)
