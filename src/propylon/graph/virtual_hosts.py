"""Virtual hosts and L4 places: what is left for one hostname or port once attachment and precedence are settled."""

from propylon import api
from propylon.graph.attachment import HostKey
from propylon.graph.hostnames import ancestors, specificity
from propylon.graph.model import (
    Attachment,
    BackendRef,
    ClusterKey,
    Filter,
    L4Key,
    L4Route,
    Listener,
    ListenerKey,
    Route,
    RouteTableKey,
    VirtualHost,
    VirtualHostKey,
)
from propylon.graph.precedence import ordered
from propylon.incremental import Collection, Engine, Index, Look


def table_of(attachment: Attachment) -> RouteTableKey:
    """Return where the virtual hosts of an HTTP or HTTPS attachment live."""
    return RouteTableKey.of(attachment.listener, attachment.port, attachment.protocol)


def virtual_host_keys(_ref: api.ObjectRef, route: Route) -> list[VirtualHostKey]:
    """Return the virtual hosts that a route takes part in, some twice maybe."""
    found: list[VirtualHostKey] = []
    for parent in route.parents:
        if not parent.accepted:
            continue
        for attachment in parent.attachments:
            if attachment.protocol in {"HTTP", "HTTPS"}:
                table = table_of(attachment)
                found += [VirtualHostKey(table, hostname.hostname) for hostname in attachment.effective]
    return found


def original_in(route: Route, key: VirtualHostKey) -> str:
    """Return the hostname by which the route reaches a virtual host; the most specific if there are several."""
    found: list[str] = []
    for parent in route.parents:
        if not parent.accepted:
            continue
        for attachment in parent.attachments:
            if attachment.protocol in {"HTTP", "HTTPS"} and table_of(attachment) == key.table:
                found += [hostname.original for hostname in attachment.effective if hostname.hostname == key.hostname]
    return found[0] if len(found) == 1 else min(found, key=specificity)


def build_virtual_hosts(
    engine: Engine,
    routes: Collection[api.ObjectRef, Route],
    listeners: Collection[ListenerKey, Listener],
    by_host: Index[HostKey, ListenerKey, Listener],
) -> Collection[VirtualHostKey, VirtualHost]:
    """Put the routes of each hostname into their order."""
    by_virtual_host = routes.index("routes by virtual host", virtual_host_keys)
    filtered = listeners.index(
        "listeners with filters by port", lambda key, v: ((key.gateway, v.port),) * bool(v.filters)
    )

    def build(key: VirtualHostKey, _members: tuple[api.ObjectRef, ...], look: Look) -> VirtualHost:
        members = [(route, original_in(route, key)) for _, route in look.by(by_virtual_host, key)]
        return VirtualHost(key, ordered(members), _listener_filters(look, key, listeners, by_host, filtered))

    return engine.derive("virtual hosts", by_virtual_host, build)


def _listener_filters(
    look: Look,
    key: VirtualHostKey,
    listeners: Collection[ListenerKey, Listener],
    by_host: Index[HostKey, ListenerKey, Listener],
    filtered: Index[tuple[api.ObjectKey, int], ListenerKey, Listener],
) -> tuple[Filter, ...]:
    table = key.table
    if not look.count(filtered, (table.gateway, table.port)):
        return ()  # as nearly everywhere
    if table.listener:
        own = look.get(listeners, ListenerKey(table.gateway, *table.listener.split("/", 3)))
        return own.filters if own is not None else ()
    for hostname in ancestors(key.hostname):
        found = look.by(by_host, HostKey(table.gateway, table.port, "HTTP", hostname))
        if found:
            return found[0][1].filters
    return ()


def l4_keys(_ref: api.ObjectRef, route: Route) -> set[L4Key]:
    """Return the places that a TLSRoute, TCPRoute or UDPRoute claims."""
    return {key for key, _ in l4_places(route)}


def l4_places(route: Route) -> list[tuple[L4Key, tuple[str, ListenerKey]]]:
    """Return each place with the hostname the route wrote for it and the listener it goes through."""
    return [
        (
            L4Key(
                attachment.listener.gateway,
                attachment.port,
                "UDP" if attachment.protocol == "UDP" else "TCP",
                hostname.hostname,
            ),
            (hostname.original, attachment.listener),
        )
        for parent in route.parents
        if parent.accepted
        for attachment in parent.attachments
        if attachment.protocol not in {"HTTP", "HTTPS"}
        for hostname in attachment.effective
    ]


def passed_through(backend: BackendRef) -> BackendRef:
    """Have a backend take the client's own TLS session: a BackendTLSPolicy neither applies nor stands in the way."""
    policy_unmet = backend.finding is not None and backend.finding.condition == "Warning"
    if backend.target is None or (backend.cluster is None and not policy_unmet):
        return backend
    return BackendRef(backend.weight, ClusterKey(backend.target, "PASSTHROUGH"), backend.filters, None, backend.target)


def build_l4_routes(
    engine: Engine, routes: Collection[api.ObjectRef, Route], listeners: Collection[ListenerKey, Listener]
) -> Collection[L4Key, L4Route]:
    """Let one route win each place: by hostname as written, then by age, then by namespace/name."""
    by_place = routes.index("routes by L4 place", l4_keys)

    def build(key: L4Key, _members: tuple[api.ObjectRef, ...], look: Look) -> L4Route | None:
        claims = [
            (specificity(original), route.created, route.ref.namespace, route.ref.name, route.ref.kind, listener, route)
            for _, route in look.by(by_place, key)
            for place, (original, listener) in l4_places(route)
            if place == key
        ]
        *_, listener_key, route = min(claims, key=lambda claim: claim[:6])
        listener = look.get(listeners, listener_key)
        if listener is None:
            return None
        backends = route.rules[0].backends if route.rules else ()
        mode = listener.tls.mode if listener.tls is not None else None
        if mode == "Passthrough":
            backends = tuple(passed_through(backend) for backend in backends)
        return L4Route(key, route.ref, listener_key, mode, backends)

    return engine.derive("L4 routes", by_place, build)
