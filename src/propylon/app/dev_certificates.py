"""`--dev-certs`: the Secrets that listeners name and nobody made, issued by a local authority."""

import ipaddress
from collections.abc import Callable, Iterable

import msgspec

from propylon import api
from propylon.graph import Graph, Sources
from propylon.graph.model import Listener, ListenerKey, Route
from propylon.incremental import Collection, Engine, Look

ANNOTATION = "propylon.dev/dev-certificate"
"""On a Secret that we issued: its names, comma-separated. A Secret without it is somebody else's: left alone."""

MOST_ROUTE_NAMES = 100
"""So many hostnames of routes at most stand in one certificate beside the listeners' own."""


class Wanted(msgspec.Struct, frozen=True):
    """A Secret to issue: DNS names and IP addresses for its certificate."""

    secret: api.ObjectKey
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...] = ()

    @property
    def annotation(self) -> str:
        """What ANNOTATION says of it."""
        return ",".join((*self.dns_names, *self.ip_addresses))


class Names(msgspec.Struct, frozen=True):
    """What one listener wants: names in each of these Secrets."""

    secrets: tuple[api.ObjectKey, ...]
    names: tuple[str, ...]


def build_wanted(engine: Engine, sources: Sources, graph: Graph) -> Collection[api.ObjectKey, Wanted]:
    """One certificate per Secret that terminating listeners name, whether or not the Secret exists."""
    routes = graph.routes.index("development certificates: routes by listener", _listeners_of)

    def of_listener(key: ListenerKey, listener: Listener, look: Look) -> Names | None:
        written = api.ObjectKey(key.namespace, key.name)
        holder: api.Gateway | api.ListenerSet | None
        if key.kind == "Gateway":
            holder = look.get(sources.gateways, written)
        else:
            holder = look.get(sources.listener_sets, written)
        gateway = look.get(graph.gateways, key.gateway)
        if holder is None or gateway is None:
            return None
        secrets = secrets_of(holder.spec.listeners[listener.index], key.namespace)
        if not secrets:
            return None
        attached: tuple[str, ...] = ()
        if needs_route_names(listener.hostname):
            attached = hostnames_at(key, (route for _, route in look.by(routes, key)))
        return Names(secrets, names_for(listener.hostname, attached, (a.value for a in gateway.addresses)))

    def of_secret(secret: api.ObjectKey, keys: tuple[ListenerKey, ...], look: Look) -> Wanted:
        found = (look.get(named, key) for key in keys)
        return certificate_for(secret, (name for each in found if each is not None for name in each.names))

    named = engine.derive("development certificates: names", graph.listeners, of_listener)
    by_secret = named.index("development certificates: by Secret", lambda _, names: names.secrets)
    return engine.derive("development certificates", by_secret, of_secret)


def _listeners_of(_: api.ObjectRef, route: Route) -> set[ListenerKey]:
    return {attachment.listener for parent in route.parents for attachment in parent.attachments}


def secrets_of(listener: api.Listener | api.ListenerEntry, namespace: str) -> tuple[api.ObjectKey, ...]:
    """The Secrets that a listener of this namespace terminates TLS with."""
    if listener.tls is None or (listener.tls.mode or "Terminate") != "Terminate":
        return ()
    refs = (r for r in listener.tls.certificate_refs if (r.group or "", r.kind or "Secret") == ("", "Secret"))
    return tuple(api.ObjectKey(ref.namespace or namespace, ref.name) for ref in refs)


def needs_route_names(hostname: str) -> bool:
    """Whether a listener's hostname is not enough for clients.

    There is none, or it is a wildcard directly below a top-level domain (`*.localhost`), which TLS libraries refuse.
    """
    return hostname.count(".") < 2 if hostname.startswith("*.") else not hostname


def hostnames_at(listener: ListenerKey, routes: Iterable[Route]) -> tuple[str, ...]:
    """The hostnames under which routes are attached to a listener, sorted; wildcards below a single label left out."""
    found = {
        effective.hostname
        for route in routes
        for parent in route.parents
        for attachment in parent.attachments
        if attachment.listener == listener
        for effective in attachment.hostnames
    }
    return tuple(sorted(name for name in found if name != "*" and not needs_route_names(name)))


def names_for(hostname: str, attached: Iterable[str], addresses: Iterable[str]) -> tuple[str, ...]:
    """The names of a listener's certificate: its hostname, those of its routes, without a hostname its addresses."""
    own = (hostname,) if hostname else ("localhost", *addresses)
    return tuple(dict.fromkeys((*own, *list(attached)[:MOST_ROUTE_NAMES])))


def certificate_for(secret: api.ObjectKey, names: Iterable[str]) -> Wanted:
    """Sort names into DNS names and IP addresses, each once."""
    unique = tuple(dict.fromkeys(names))
    addresses = tuple(n for n in unique if _is_address(n))
    return Wanted(secret, tuple(n for n in unique if n not in addresses), addresses)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def plan_dev_certificates(
    wanted: Iterable[Wanted], existing: Callable[[api.ObjectKey], api.Secret | None]
) -> tuple[Wanted, ...]:
    """Those that are missing, and those of ours whose names changed."""
    return tuple(w for w in wanted if _is_due(w, existing(w.secret)))


def _is_due(wanted: Wanted, secret: api.Secret | None) -> bool:
    if secret is None:
        return True
    issued_for = secret.metadata.annotations.get(ANNOTATION)
    return issued_for is not None and issued_for != wanted.annotation
