"""The routes of a virtual host as bytes.

Of tens of thousands of routes most are alike but for their names: the route's own, and its cluster's. So what
`build_routes` makes of a rule is taken apart once, and put together again with the names of each: the same bytes.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from propylon import api
from propylon.envoy import names
from propylon.envoy.redirect import Place
from propylon.envoy.resource import serialize
from propylon.envoy.route import build_routes
from propylon.graph.model import (
    ApplicationProtocol,
    BackendKey,
    BackendRef,
    ClusterKey,
    Filter,
    Match,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Retry,
    Rewrite,
    Rule,
    Timeouts,
    VirtualHostEntry,
)
from propylon.wire_format import Tag

_ACTION, _NAME, _CLUSTER = Tag(2), Tag(14), Tag(1)
"""Fields of Route and, the last, of its RouteAction (envoy/config/route/v3/route_components.proto)."""
_NAMELESS = (RequestHeaders, ResponseHeaders, Redirect, Rewrite)
"""Filters whose configuration has no name of a route or backend in it."""
_SPOKEN: tuple[ApplicationProtocol, ...] = ("HTTP", "HTTP2", "GRPC")
_ANYONE = api.ObjectRef("", "", "", "")
_ANYWHERE = BackendKey("Service", "", "", 0)


class Form(NamedTuple):
    """A Route message without its names."""

    head: bytes
    """Fields before `route`."""
    action: bytes | None
    """`route` without its cluster, which stands at the beginning; None if the message does not forward."""
    protocol: ApplicationProtocol | None
    """Of its cluster."""
    tail: bytes
    """All fields but `match`, `route` and `name`; the name stands at the end."""


def route_bodies(entry: VirtualHostEntry, place: Place) -> list[bytes]:
    """The serialized messages of `build_routes`."""
    forms = _forms_of(entry, place)
    if forms is None:
        return [serialize(route) for route in build_routes(entry, place)]
    backends = entry.rule.backends
    cluster = backends[0].cluster if backends else None
    service = names.cluster_load_assignment(cluster.backend) if cluster is not None else ""
    name = names.route(entry.route, entry.rule.index).encode()
    return [_assembled(form, name, service) for form in forms]


def _forms_of(entry: VirtualHostEntry, place: Place) -> tuple[Form, ...] | None:
    """What the entry's messages are made of; None if they have more of their own than names."""
    rule = entry.rule
    backends = rule.backends
    if rule.session is not None or rule.finding is not None or len(backends) > 1:
        return None
    protocol: ApplicationProtocol | None = None
    if backends:
        (ref,) = backends
        if ref.cluster is None or ref.filters or ref.weight < 1:
            return None
        protocol = ref.cluster.protocol
    seen: Place | None = None
    for each in rule.filters:
        if not isinstance(each, _NAMELESS):
            return None
        if isinstance(each, Redirect):
            # The hostname is of no concern to a redirect that names another.
            seen = Place(place.scheme, place.port, place.port_offset, "") if each.redirect.hostname else place
    return _forms(entry.route.kind, entry.match, rule.filters, rule.timeouts, rule.retry, protocol, seen)


@lru_cache(maxsize=4096)
def _forms(
    kind: str,
    match: Match,
    filters: tuple[Filter, ...],
    timeouts: Timeouts | None,
    retry: Retry | None,
    protocol: ApplicationProtocol | None,
    place: Place | None,
) -> tuple[Form, ...] | None:
    backends = () if protocol is None else (BackendRef(1, ClusterKey(_ANYWHERE, protocol)),)
    rule = Rule(0, None, (match,), filters, backends, timeouts, retry)
    entry = VirtualHostEntry(_ANYONE._replace(kind=kind), "", rule, match)
    forms: list[Form] = []
    for route in build_routes(entry, place or Place("", 0, 0, "")):
        found = _form(route)
        if found is None:
            return None
        forms.append(found)
    return tuple(forms)


def _form(route: Any) -> Form | None:
    """Take a Route message apart; None if it cannot be put together again as it was."""
    protocol: ApplicationProtocol | None = None
    action: bytes | None = None
    if route.HasField("route"):
        protocol = next((p for p in _SPOKEN if names.cluster(ClusterKey(_ANYWHERE, p)) == route.route.cluster), None)
        if protocol is None:
            return None
        rest = type(route.route)()
        rest.CopyFrom(route.route)
        rest.ClearField("cluster")
        action = serialize(rest)
    head, tail = type(route)(), type(route)()
    head.match.CopyFrom(route.match)
    tail.CopyFrom(route)
    for field in ("match", "route", "name"):
        tail.ClearField(field)
    form = Form(serialize(head), action, protocol, serialize(tail))
    whole = _assembled(form, route.name.encode(), names.cluster_load_assignment(_ANYWHERE))
    return form if whole == serialize(route) else None


def _assembled(form: Form, name: bytes, service: str) -> bytes:
    """The message of a route of that name, to the backend whose ClusterLoadAssignment has the name `service`."""
    head, action, protocol, tail = form
    if action is None or protocol is None:
        return b"".join((head, tail, _NAME[len(name)], name))
    cluster = names.cluster_at(service, protocol).encode()
    before = _CLUSTER[len(cluster)]
    size = len(before) + len(cluster) + len(action)
    return b"".join((head, _ACTION[size], before, cluster, action, tail, _NAME[len(name)], name))
