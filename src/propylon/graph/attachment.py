"""Attachment: which listeners take a route, under which hostnames, and why others do not."""

from collections.abc import Iterable
from itertools import takewhile
from typing import NamedTuple

from propylon import api
from propylon.graph.classes import GatewayHead
from propylon.graph.gateways import Parent
from propylon.graph.hostnames import ancestors, effective, intersection, normalized
from propylon.graph.model import (
    Attachment,
    Candidates,
    EffectiveHostname,
    Finding,
    Listener,
    ListenerKey,
    RouteParent,
)
from propylon.graph.references import namespace_allowed
from propylon.graph.sources import Sources
from propylon.incremental import Collection, Index, Look

HOST_FAMILY = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS"}
"""Listeners whose hostnames compete for the same requests: by Host, or by SNI."""
SHOWN = 8
"""So many listeners are named in a message at most."""


class HostKey(NamedTuple):
    """A hostname that a servable listener claims on a port."""

    gateway: api.ObjectKey
    port: int
    family: str
    hostname: str


class Tables(NamedTuple):
    """What attachment is decided by."""

    sources: Sources
    heads: Collection[api.ObjectKey, GatewayHead]
    default_gateways: Index[str, api.ObjectKey, GatewayHead]
    sets: Collection[api.ObjectKey, Candidates]
    listeners: Collection[ListenerKey, Listener]
    by_parent: Index[Parent, ListenerKey, Listener]
    by_host: Index[HostKey, ListenerKey, Listener]


class Candidate(NamedTuple):
    """A route as attachment sees it."""

    ref: api.ObjectRef
    hostnames: tuple[str, ...]
    parent_refs: tuple[api.ParentReference, ...]
    default_gateways: str | None


def parents_of(key: ListenerKey, _listener: Listener) -> tuple[Parent, ...]:
    """Return the object that holds a listener."""
    return (Parent(key.kind, key.namespace, key.name),)


def host_keys(key: ListenerKey, listener: Listener) -> tuple[HostKey, ...]:
    """Return the hostname that a listener keeps for itself, if it can be served."""
    family = HOST_FAMILY.get(listener.protocol)
    if family is None or not listener.servable:
        return ()
    return (HostKey(key.gateway, listener.port, family, normalized(listener.hostname)),)


def attach(look: Look, tables: Tables, route: Candidate) -> tuple[RouteParent, ...]:
    """Decide attachment to every parent of ours, in the order of parentRefs; default Gateways come last."""
    parents: list[RouteParent] = []
    seen: list[api.ParentReference] = []
    refs: Iterable[api.ParentReference] = route.parent_refs
    if route.default_gateways == "All":
        refs = _with_defaults(look, tables, route)
    for index, ref in enumerate(refs):
        if seen and ref in seen:
            continue
        seen.append(ref)
        parent = _attach(look, tables, route, index, ref)
        if parent is not None:
            parents.append(parent)
    return tuple(parents)


def _with_defaults(look: Look, tables: Tables, route: Candidate) -> Iterable[api.ParentReference]:
    yield from route.parent_refs
    named = {(ref.namespace or route.ref.namespace, ref.name) for ref in route.parent_refs if ref.kind == "Gateway"}
    for key in look.keys(tables.default_gateways, "All"):
        if key not in named:
            yield api.ParentReference(key.name, namespace=key.namespace)


def _attach(look: Look, tables: Tables, route: Candidate, index: int, ref: api.ParentReference) -> RouteParent | None:
    if ref.group != api.GATEWAY_GROUP or ref.kind not in {"Gateway", "ListenerSet"}:
        return None
    key = api.ObjectKey(ref.namespace or route.ref.namespace, ref.name)
    field = f"spec.parentRefs[{index}]"
    gateway: api.ObjectKey = key
    if ref.kind == "ListenerSet":
        candidates = look.get(tables.sets, key)
        if candidates is None:
            return None
        gateway = candidates.node.gateway
    head = look.get(tables.heads, gateway)
    if head is None:
        return None

    def rejected(reason: str, message: str, where: str = field) -> RouteParent:
        finding = Finding("Accepted", reason, message, where)
        return RouteParent(index, ref, gateway, head.controller_name, (), (finding,))

    if ref.kind == "ListenerSet" and candidates is not None and not candidates.node.attached:
        return rejected("NoMatchingParent", f"ListenerSet {key} is not allowed to attach to Gateway {gateway}")
    listeners = _selected(look, tables, Parent(ref.kind, *key), gateway, ref)
    if not listeners:
        return rejected("NoMatchingParent", _no_listener(look, tables, ref, key))
    refusals: list[str] = []
    allowed: list[Listener] = []
    for listener in listeners:
        refusal = _refusal(look, tables, route.ref, listener)
        if refusal is None:
            allowed.append(listener)
        else:
            refusals.append(f"listener {listener.key.section} {refusal}")
    if not allowed:
        return rejected("NotAllowedByListeners", _listed(refusals))
    attachments = tuple([a for listener in allowed if (a := _attachment(look, tables, route, listener)) is not None])
    if not attachments:
        hosts = [f"listener {a.key.section} takes {a.hostname or 'every host'}" for a in allowed]
        message = f"no hostname of the route ({', '.join(route.hostnames)}) is one of the listeners': {_listed(hosts)}"
        return rejected("NoMatchingListenerHostname", message, "spec.hostnames")
    return RouteParent(index, ref, gateway, head.controller_name, attachments, _lost_hostnames(route, attachments))


def _selected(
    look: Look, tables: Tables, parent: Parent, gateway: api.ObjectKey, ref: api.ParentReference
) -> tuple[Listener, ...]:
    if ref.section_name:
        found = look.get(tables.listeners, ListenerKey(gateway, *parent, ref.section_name))
        listeners: tuple[Listener, ...] = () if found is None else (found,)
    else:
        listeners = tuple(sorted((v for _, v in look.by(tables.by_parent, parent)), key=lambda v: v.index))
    return listeners if ref.port is None else tuple(v for v in listeners if v.port == ref.port)


def _no_listener(look: Look, tables: Tables, ref: api.ParentReference, key: api.ObjectKey) -> str:
    known = sorted((v for _, v in look.by(tables.by_parent, Parent(ref.kind, *key))), key=lambda v: v.index)
    wanted = f"listener {ref.section_name!r}" if ref.section_name else "listener"
    if ref.port is not None:
        wanted += f" on port {ref.port}"
    there = _listed([f"{v.key.section} (port {v.port})" for v in known]) or "none"
    return f"{ref.kind} {key} has no {wanted}; it has {there}"


def _refusal(look: Look, tables: Tables, route: api.ObjectRef, listener: Listener) -> str | None:
    for each in listener.supported_kinds:
        if each.kind == route.kind and each.group == route.group:
            break
    else:
        kinds = " and ".join(k.kind for k in listener.supported_kinds) or "no route"
        return f"({listener.protocol}) takes {kinds}, not {route.kind}"
    namespaces = listener.allowed_routes.namespaces
    own = listener.key.namespace
    if namespace_allowed(look, tables.sources, namespaces.from_, namespaces.selector, own, route.namespace):
        return None
    match namespaces.from_:
        case "Same":
            return f"takes routes from its own namespace {own} only, not from {route.namespace}"
        case "Selector":
            return f"takes routes from namespaces with certain labels, which {route.namespace} does not have"
    return "takes routes from no namespace"


def _attachment(look: Look, tables: Tables, route: Candidate, listener: Listener) -> Attachment | None:
    family = HOST_FAMILY.get(listener.protocol)
    if family is None:
        # TCP and UDP know no hostnames: the whole port is the route's.
        place = (EffectiveHostname("", ""),) if listener.servable else ()
        return Attachment(listener.key, listener.port, listener.protocol, (), place)
    hostnames = effective(route.hostnames, listener.hostname)
    if not hostnames:
        return None
    served: tuple[EffectiveHostname, ...] = ()
    if listener.servable:
        served = tuple([h for h in hostnames if not _taken(look, tables, listener, family, h.hostname)])
    return Attachment(listener.key, listener.port, listener.protocol, hostnames, served)


def _taken(look: Look, tables: Tables, listener: Listener, family: str, hostname: str) -> bool:
    """Tell whether a more specific listener of the port takes this host (listener isolation)."""
    own, gateway, port = normalized(listener.hostname), listener.key.gateway, listener.port
    nearer = takewhile(own.__ne__, ancestors(hostname))
    return look.any(tables.by_host, (HostKey(gateway, port, family, candidate) for candidate in nearer))


def _lost_hostnames(route: Candidate, attachments: tuple[Attachment, ...]) -> tuple[Finding, ...]:
    """Warn of hostnames that no listener takes though others of the route are fine: a typo, or `x.y` under `*.x.y`."""
    used = {h.hostname for a in attachments for h in a.hostnames}
    if not used:
        return ()
    findings = []
    for index, hostname in enumerate(route.hostnames):
        if hostname in used or any(intersection(normalized(hostname), other) is not None for other in used):
            continue
        message = f"hostname {hostname} is not one of any listener the route attached to, so nothing is served for it"
        findings.append(
            Finding("Warning", "NoMatchingListenerHostname", message, f"spec.hostnames[{index}]", status="True")
        )
    return tuple(findings)


def _listed(items: list[str]) -> str:
    shown = ", ".join(items[:SHOWN])
    return f"{shown} and {len(items) - SHOWN} more" if len(items) > SHOWN else shown
