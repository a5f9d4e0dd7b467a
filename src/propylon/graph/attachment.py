"""Attachment: which listeners take a route, under which hostnames, and why others do not."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from propylon import api
from propylon.graph.classes import GatewayHead
from propylon.graph.gateways import Parent
from propylon.graph.hostnames import ancestors, effective, intersection, normalized, wider
from propylon.graph.model import (
    Attachment,
    Candidates,
    EffectiveHostname,
    Finding,
    Listener,
    ListenerKey,
    RouteParent,
    Value,
)
from propylon.graph.references import namespace_allowed
from propylon.graph.sources import Sources
from propylon.incremental import Collection, Index, Look

HOST_FAMILY = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS"}
"""Listeners whose hostnames compete for the same requests: by Host, or by SNI."""
KEPT = 16_384
"""So many keys of Gateways, listeners and hosts are kept, which thousands of routes have in common."""
SHOWN = 8
"""So many listeners are named in a message at most."""


class HostKey(NamedTuple):
    """A hostname that a servable listener claims on a port."""

    gateway: api.ObjectKey
    port: int
    family: str
    hostname: str


object_key = lru_cache(KEPT)(api.ObjectKey)
_listener_key = lru_cache(KEPT)(ListenerKey)


class Tables(NamedTuple):
    """What attachment is decided by."""

    sources: Sources
    heads: Collection[api.ObjectKey, GatewayHead]
    default_gateways: Index[str, api.ObjectKey, GatewayHead]
    sets: Collection[api.ObjectKey, Candidates]
    listeners: Collection[ListenerKey, Listener]
    by_parent: Index[Parent, ListenerKey, Listener]
    by_host: Index[HostKey, ListenerKey, Listener]


class Candidate(Value, frozen=True):
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
    key = object_key(ref.namespace or route.ref.namespace, ref.name)
    gateway: api.ObjectKey = key
    if ref.kind == "ListenerSet":
        candidates = look.get(tables.sets, key)
        if candidates is None:
            return None
        gateway = candidates.node.gateway
    head = look.get(tables.heads, gateway)
    if head is None:
        return None

    def rejected(reason: str, message: str, where: str = "") -> RouteParent:
        finding = Finding("Accepted", reason, message, where or f"spec.parentRefs[{index}]")
        return RouteParent(index, ref, gateway, head.controller_name, (), (finding,))

    if ref.kind == "ListenerSet" and candidates is not None and not candidates.node.attached:
        return rejected("NoMatchingParent", f"ListenerSet {key} is not allowed to attach to Gateway {gateway}")
    listeners = _selected(look, tables, key, gateway, ref)
    if not listeners:
        return rejected("NoMatchingParent", _no_listener(look, tables, ref, key))
    refusals: list[str] = []
    allowed: list[Listener] = []
    attachments: list[Attachment] = []
    for listener in listeners:
        refusal = _refusal(look, tables, route.ref, listener)
        if refusal is not None:
            refusals.append(f"listener {listener.key.section} {refusal}")
            continue
        allowed.append(listener)
        attachment = _attachment(look, tables, route, listener)
        if attachment is not None:
            attachments.append(attachment)
    if not allowed:
        return rejected("NotAllowedByListeners", _listed(refusals))
    if not attachments:
        hosts = [f"listener {a.key.section} takes {a.hostname or 'every host'}" for a in allowed]
        message = f"no hostname of the route ({', '.join(route.hostnames)}) is one of the listeners': {_listed(hosts)}"
        return rejected("NoMatchingListenerHostname", message, "spec.hostnames")
    lost = _lost_hostnames(route, attachments) if len(route.hostnames) > 1 else ()
    return RouteParent(index, ref, gateway, head.controller_name, tuple(attachments), lost)


def _selected(
    look: Look, tables: Tables, key: api.ObjectKey, gateway: api.ObjectKey, ref: api.ParentReference
) -> tuple[Listener, ...]:
    if ref.section_name:
        found = look.get(tables.listeners, _listener_key(gateway, ref.kind, *key, ref.section_name))
        listeners: tuple[Listener, ...] = () if found is None else (found,)
    else:
        of_parent = look.by(tables.by_parent, Parent(ref.kind, *key))
        listeners = tuple(sorted([v for _, v in of_parent], key=lambda v: v.index))
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
        own = normalized(listener.hostname)
        left = [h for h in hostnames if not _taken(look, tables, listener, family, own, h.hostname)]
        served = hostnames if len(left) == len(hostnames) else tuple(left)
    return Attachment(listener.key, listener.port, listener.protocol, hostnames, served)


def _taken(look: Look, tables: Tables, listener: Listener, family: str, own: str, hostname: str) -> bool:
    """Tell whether a listener of the port that is more specific than `own` takes this host (listener isolation)."""
    if hostname == own:
        return False
    gateway, port = listener.key.gateway, listener.port
    wildcards = _host_keys_below(own, gateway, port, family, wider(hostname))
    return look.any(tables.by_host, (HostKey(gateway, port, family, hostname), *wildcards))


@lru_cache(KEPT)
def _host_keys_below(own: str, gateway: api.ObjectKey, port: int, family: str, wildcard: str) -> tuple[HostKey, ...]:
    """Return the keys of a wildcard and of those that cover it, as far as they are more specific than `own`."""
    nearer = takewhile(own.__ne__, ancestors(wildcard))
    return tuple([HostKey(gateway, port, family, hostname) for hostname in nearer])


def _lost_hostnames(route: Candidate, attachments: list[Attachment]) -> tuple[Finding, ...]:
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
