"""Routes: what one match of one rule becomes in a virtual host's list.

Mostly that is one Envoy route. It is several where Envoy's route cannot say it all: preflights of CORS, redirects whose
Host may have a port, backends that rewrite paths or mirror for themselves, and gRPC calls that come by an HTTPRoute.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
from envoy.config.route.v3 import route_components_pb2 as route_pb

from propylon.envoy import matcher, names
from propylon.envoy.header_mutation import apply_header_filters
from propylon.envoy.http_filters import cors, ext_authz, mirror, on_demand, stateful_session
from propylon.envoy.path import build_regex_rewrite
from propylon.envoy.redirect import Place, build_redirect_routes
from propylon.envoy.resource import seconds
from propylon.envoy.retry import build_retry_policy
from propylon.graph.grpc_calls import catches_calls, grpc_twins
from propylon.graph.model import (
    BackendRef,
    Cors,
    ExternalAuth,
    Filter,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
    Rule,
    Session,
    VirtualHostEntry,
)

Part = tuple[Any, Sequence[BackendRef], Sequence[Filter]]
"""A Route message to be completed, its backends, and all the filters that apply to it."""


def build_routes(entry: VirtualHostEntry, place: Place) -> list[Any]:
    """Route messages of one entry, in order."""
    name = names.route(entry.route, entry.rule.index)
    grpc = entry.route.kind == "GRPCRoute"
    out: list[Any] = []
    for each in entry.rule.filters:
        if isinstance(each, Cors):
            out.extend(cors.build_preflight_routes(name, entry.match, each.cors))
    base = route_pb.Route(name=name, match=matcher.build_route_match(entry.match))
    if not grpc and catches_calls(entry.match) and grpc_twins(entry.rule):
        calls = route_pb.Route()
        calls.CopyFrom(base)
        calls.match.headers.add(name="content-type").string_match.prefix = "application/grpc"
        out.extend(_build_actions(calls, _over_http2(entry), place, grpc=False))
    out.extend(_build_actions(base, entry, place, grpc=grpc))
    return out


def _over_http2(entry: VirtualHostEntry) -> VirtualHostEntry:
    """The same entry with HTTP/2 to backends that say nothing of their protocol: for gRPC calls."""
    twins = grpc_twins(entry.rule)

    def over_http2(ref: BackendRef) -> BackendRef:
        twin = ref.cluster._replace(protocol="GRPC") if ref.cluster is not None else None
        return msgspec.structs.replace(ref, cluster=twin) if twin in twins else ref

    backends = tuple(over_http2(ref) for ref in entry.rule.backends)
    return msgspec.structs.replace(entry, rule=msgspec.structs.replace(entry.rule, backends=backends))


def direct_response(route: Any, status: int) -> Any:
    """The same route, answering by itself."""
    route.direct_response.status = status
    return route


def unavailable_status(*, grpc: bool) -> int:
    """Answer where nothing can serve: 500 (HTTPRoute), or what Envoy tells gRPC clients as UNAVAILABLE (GRPCRoute)."""
    return 503 if grpc else 500


def _build_actions(base: Any, entry: VirtualHostEntry, place: Place, *, grpc: bool) -> list[Any]:
    rule = entry.rule
    failed = unavailable_status(grpc=grpc)
    if rule.finding is not None:
        return [direct_response(base, failed)]
    live = [ref for ref in rule.backends if ref.weight > 0]
    redirects = any(isinstance(f, Redirect) for f in rule.filters)
    parts: list[Part] = []
    if not redirects and len(live) > 1 and rule.session is not None and stateful_session.pins_backends(rule.session):
        parts.extend(_pinned(base, rule, live))
        live = [_pinning(ref, rule.session, place) for ref in live]
    if not redirects and _need_routes_of_their_own(live):
        parts.extend(_alone(route, rule, ref) for route, ref in zip(_split(base, live), live, strict=True))
    else:
        parts.append((base, live, rule.filters))
    out: list[Any] = []
    for route, refs, filters in parts:
        if not _configure_filters(route, filters):
            out.append(direct_response(route, failed))
            continue
        redirect = next((f.redirect for f in filters if isinstance(f, Redirect)), None)
        if redirect is not None:
            apply_header_filters(route, filters)
            out.extend(build_redirect_routes(route, redirect, entry.match, place))
        elif all(ref.cluster is None for ref in refs):
            apply_header_filters(route, filters)
            out.append(direct_response(route, failed))
        else:
            out.append(_forward(route, refs, filters, entry, place, grpc=grpc))
    return out


def _alone(route: Any, rule: Rule, ref: BackendRef) -> Part:
    """A route for one backend: its filters come after its rule's."""
    return route, [msgspec.structs.replace(ref, filters=())], rule.filters + ref.filters


def _pinned(base: Any, rule: Rule, live: Sequence[BackendRef]) -> list[Part]:
    """Routes for the sessions that a backend was given before, which no weight takes from it."""
    parts = []
    for ref in live:
        if ref.cluster is not None and rule.session is not None:
            route = route_pb.Route()
            route.CopyFrom(base)
            route.match.headers.append(stateful_session.build_pin_match(rule.session, ref.cluster))
            parts.append(_alone(route, rule, ref))
    return parts


def _pinning(ref: BackendRef, session: Session, place: Place) -> BackendRef:
    if ref.cluster is None:
        return ref
    pin = stateful_session.pinning_filter(session, ref.cluster, secure=place.scheme == "https")
    return msgspec.structs.replace(ref, filters=(*ref.filters, pin))


def _need_routes_of_their_own(live: Sequence[BackendRef]) -> bool:
    """Whether some backend has filters of its own that a weighted cluster cannot have: it changes headers only."""
    return any(not isinstance(f, RequestHeaders | ResponseHeaders) for ref in live for f in ref.filters)


def _split(base: Any, live: Sequence[BackendRef]) -> list[Any]:
    """One copy of a route per backend, each matching its share.

    Envoy compares the one random number of a request with every runtime_fraction that it meets, so the shares are
    cumulative: who got past the first 30 % and meets 100 % is in the remaining 70 %.
    """
    total = sum(ref.weight for ref in live)
    routes = []
    for passed in accumulate(ref.weight for ref in live):
        route = route_pb.Route()
        route.CopyFrom(base)
        if passed < total:
            route.match.runtime_fraction.default_value.CopyFrom(mirror.fraction(passed, total))
        routes.append(route)
    return routes


def _configure_filters(route: Any, filters: Sequence[Filter]) -> bool:
    """Write the filters that Envoy has filters for; False if nothing may pass (authorization cannot be asked)."""
    for each in filters:
        if isinstance(each, Cors):
            cors.configure_route(route, each.cors)
        elif isinstance(each, ExternalAuth):
            if not ext_authz.usable(each):
                return False
            ext_authz.enable(route, [ext_authz.route_filter(each)])
    return True


def _forward(
    route: Any,
    refs: Sequence[BackendRef],
    filters: Sequence[Filter],
    entry: VirtualHostEntry,
    place: Place,
    *,
    grpc: bool,
) -> Any:
    """Make a route forward to its backends, of which at least one leads somewhere."""
    rule = entry.rule
    action = route.route
    action.timeout.CopyFrom(seconds(_request_timeout(rule)))
    action.request_mirror_policies.extend(mirror.build_mirror_policies(filters))
    for each in filters:
        if isinstance(each, Rewrite):
            _rewrite(action, each, entry)
    retry = build_retry_policy(rule, grpc=grpc)
    if retry is not None:
        action.retry_policy.CopyFrom(retry)
    if any(ref.cluster is not None and ref.cluster.protocol == "GRPC" for ref in refs):
        on_demand.configure_route(route)
    if rule.session is not None:
        stateful_session.configure_route(route, rule.session, secure=place.scheme == "https")
    _choose_clusters(route, refs, filters, grpc=grpc)
    return route


def _choose_clusters(route: Any, refs: Sequence[BackendRef], filters: Sequence[Filter], *, grpc: bool) -> None:
    """Write the backends, and all changes of headers: the rule's come first, a backend's have the last word.

    Envoy applies those of a weighted cluster before those of its route, so where a backend has its own, all are written
    to the weighted clusters.
    """
    action = route.route
    if len(refs) == 1 and refs[0].cluster is not None:
        action.cluster = names.cluster(refs[0].cluster)
        apply_header_filters(route, (*filters, *refs[0].filters))
        return
    of_their_own = any(ref.filters for ref in refs)
    if not of_their_own:
        apply_header_filters(route, filters)
    for ref in refs:
        weighted = action.weighted_clusters.clusters.add(
            name=names.cluster(ref.cluster) if ref.cluster is not None else names.UNRESOLVED
        )
        weighted.weight.value = ref.weight
        if of_their_own:
            apply_header_filters(weighted, (*filters, *ref.filters))
    if any(ref.cluster is None for ref in refs) and not grpc:
        action.cluster_not_found_response_code = route_pb.RouteAction.INTERNAL_SERVER_ERROR


def _request_timeout(rule: Rule) -> float:
    """Seconds for the whole request; 0 for none, which is the default here (and not Envoy's 15 s)."""
    return (rule.timeouts.request if rule.timeouts else None) or 0.0


def _rewrite(action: Any, filter_: Rewrite, entry: VirtualHostEntry) -> None:
    rewrite = filter_.rewrite
    if rewrite.hostname:
        action.host_rewrite_literal = rewrite.hostname
    if rewrite.path is not None:
        regex = build_regex_rewrite(rewrite.path, entry.match)
        if regex is not None:
            action.regex_rewrite.CopyFrom(regex)
        else:
            action.ClearField("regex_rewrite")
