"""What happens to a request that a rule took: filters, backends, limits, or the answer the proxy gives by itself."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from propylon import api
from propylon.explain.model import Backend, Outcome, Step
from propylon.explain.request import Asked, host_of, without_trailing_dot
from propylon.graph import Graph
from propylon.graph.hostnames import is_wildcard
from propylon.graph.model import (
    BackendRef,
    ClusterKey,
    Cors,
    ExternalAuth,
    Filter,
    L4Route,
    Match,
    Mirror,
    PortKey,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
    Rule,
    VirtualHostEntry,
    VirtualHostKey,
)

DEFAULT_PORTS = {"http": 80, "https": 443}
Headers = tuple[tuple[str, str], ...]


class Journey(NamedTuple):
    """A request under way: what the backend will see."""

    target: str
    authority: str
    headers: Headers


class Happening(NamedTuple):
    """What a rule does with a request."""

    outcome: Outcome
    status: int | None
    summary: str
    steps: tuple[Step, ...] = ()
    backends: tuple[Backend, ...] = ()
    location: str = ""


class Scene(NamedTuple):
    """Everything around a matched entry that decides what follows."""

    graph: Graph
    asked: Asked
    target: str
    """Normalized."""
    host: VirtualHostKey
    entry: VirtualHostEntry
    endpoints_known: bool

    @property
    def failed(self) -> int:
        """Answer where nothing can serve: 500, and for GRPCRoutes 503, which gRPC clients read as UNAVAILABLE."""
        return 503 if self.entry.route.kind == "GRPCRoute" else 500


def happening(scene: Scene) -> Happening:
    """Follow a matched request to its end."""
    rule = scene.entry.rule
    if rule.finding is not None:
        return _answered(scene.failed, f"the rule cannot be served as written: {rule.finding.message}")
    journey = Journey(scene.target, without_trailing_dot(scene.asked.authority), scene.asked.headers)
    journey, steps = apply_filters(rule.filters, journey, scene.entry.match)
    steps = (*steps, *rule_steps(rule))
    refused = _cannot_be_asked(rule.filters)
    if refused:
        return _answered(scene.failed, refused, steps)
    silent = _does_not_answer(scene, rule.filters)
    if silent:
        return _answered(503, silent, steps)
    redirect = _redirect_of(rule.filters)
    if redirect is not None:
        return _redirected(scene, redirect, steps)
    live = [ref for ref in rule.backends if ref.weight > 0]
    if not live:
        what = "the weights of its backends are all 0" if rule.backends else "the rule has no backends"
        return _answered(scene.failed, what, steps)
    total = sum(ref.weight for ref in live)
    backends = tuple(_backend(scene, ref, total, journey) for ref in live)
    return _summed_up(backends, steps)


def _answered(status: int, why: str, steps: tuple[Step, ...] = ()) -> Happening:
    return Happening("answered", status, f"{status}: {why}", steps)


def _summed_up(backends: tuple[Backend, ...], steps: tuple[Step, ...]) -> Happening:
    outcomes = {(b.outcome, b.status) for b in backends}
    if len(outcomes) == 1:
        outcome, status = outcomes.pop()
        if outcome == "redirected":
            return Happening(outcome, status, f"{status} to {backends[0].location}", steps, backends, "")
        if status is not None:
            return Happening(outcome, status, f"{status}: {backends[0].why}", steps, backends)
    parts = []
    for backend in backends:
        share = "" if len(backends) == 1 else f" ({100 * backend.share:.3g} %)"
        if backend.outcome == "redirected":
            parts.append(f"{backend.status} to {backend.location}{share}")
        elif backend.status is not None:
            parts.append(f"{backend.status}{share}: {backend.why}")
        else:
            parts.append(f"forwarded to {backend.name}{share}")
    return Happening("forwarded", None, "; ".join(parts), steps, backends)


def _redirect_of(filters: Sequence[Filter]) -> api.HTTPRequestRedirectFilter | None:
    return next((f.redirect for f in filters if isinstance(f, Redirect)), None)


def _cannot_be_asked(filters: Sequence[Filter]) -> str:
    for each in filters:
        if isinstance(each, ExternalAuth) and each.backend.cluster is None:
            why = each.backend.finding.message if each.backend.finding is not None else "it leads nowhere"
            return f"the authorization service cannot be asked: {why}"
    return ""


def _does_not_answer(scene: Scene, filters: Sequence[Filter]) -> str:
    """Why nobody can say that a request may pass, though the authorization service is there."""
    for each in filters:
        if isinstance(each, ExternalAuth) and each.backend.cluster is not None:
            gateway = scene.host.table.gateway
            known = scene.endpoints_known
            found = followed(scene.graph, gateway, each.backend.cluster, endpoints_known=known)
            if found.status is not None:
                return f"the authorization service cannot be asked: {found.why}"
    return ""


# --- backends ---------------------------------------------------------------------------------------------------------


def backend_name(ref: BackendRef) -> str:
    """`Service shop/cart:80`; "" where nothing is named that exists or may be referred to."""
    key = ref.target
    return f"{key.kind.partition('/')[0]} {key.namespace}/{key.name}:{key.port}" if key is not None else ""


def _backend(scene: Scene, ref: BackendRef, total: int, journey: Journey) -> Backend:
    share = ref.weight / total
    bare = Backend(backend_name(ref), ref.weight, share, "answered", scene.failed)
    refused = _cannot_be_asked(ref.filters)
    if refused:
        return msgspec.structs.replace(bare, why=refused)
    silent = _does_not_answer(scene, ref.filters)
    if silent:
        return msgspec.structs.replace(bare, status=503, why=silent)
    redirect = _redirect_of(ref.filters)
    journey, steps = apply_filters(ref.filters, journey, scene.entry.match)
    if redirect is not None:
        outcome = _redirected(scene, redirect, ())
        return msgspec.structs.replace(
            bare, outcome="redirected", status=outcome.status, location=outcome.location, steps=steps
        )
    if ref.cluster is None:
        why = ref.finding.message if ref.finding is not None else "the backend cannot be used"
        return msgspec.structs.replace(bare, why=why, steps=steps)
    found = followed(scene.graph, scene.host.table.gateway, ref.cluster, endpoints_known=scene.endpoints_known)
    return msgspec.structs.replace(
        bare,
        outcome="answered" if found.status else "forwarded",
        status=found.status,
        why=found.why,
        path=journey.target,
        host=journey.authority,
        headers=journey.headers,
        protocol=found.protocol,
        tls=found.tls,
        endpoints=found.endpoints,
        steps=steps,
    )


def passed_to(graph: Graph, route: L4Route, *, endpoints_known: bool) -> tuple[Backend, ...]:
    """Where bytes or datagrams of an L4 route may go, by its weights."""
    live = [ref for ref in route.backends if ref.weight > 0]
    total = sum(ref.weight for ref in live)
    backends = []
    for ref in live:
        bare = Backend(backend_name(ref), ref.weight, ref.weight / total, "closed", None)
        if ref.cluster is None:
            why = ref.finding.message if ref.finding is not None else "the backend cannot be used"
            backends.append(msgspec.structs.replace(bare, why=why))
            continue
        found = followed(graph, route.key.gateway, ref.cluster, endpoints_known=endpoints_known)
        backends.append(
            msgspec.structs.replace(
                bare,
                outcome="closed" if found.status else "forwarded",
                protocol=found.protocol,
                tls=found.tls,
                endpoints=found.endpoints,
                why=found.why,
            )
        )
    return tuple(backends)


def followed(graph: Graph, gateway: api.ObjectKey, key: ClusterKey, *, endpoints_known: bool) -> Backend:
    """Where a cluster leads: its endpoints, protocol and TLS; status 503 if it is known to have no endpoints."""
    cluster = graph.clusters.get((gateway, key))
    endpoints = graph.endpoints.get(key.backend) or ()
    tls = cluster.backend.tls if cluster is not None and key.protocol != "PASSTHROUGH" else None
    nobody = endpoints_known and not endpoints
    return Backend(
        name="",
        weight=1,
        share=1.0,
        outcome="answered" if nobody else "forwarded",
        status=503 if nobody else None,
        protocol=key.protocol,
        tls=tls.server_name if tls is not None else "",
        endpoints=tuple(f"{'[' + e.address + ']' if ':' in e.address else e.address}:{e.port}" for e in endpoints),
        why=f"Service {key.backend.namespace}/{key.backend.name} has no endpoints" if nobody else "",
    )


# --- filters ----------------------------------------------------------------------------------------------------------


def apply_filters(filters: Sequence[Filter], journey: Journey, match: Match) -> tuple[Journey, tuple[Step, ...]]:
    """Apply the filters that change a request, and say what each does."""
    steps: list[Step] = []
    for each in filters:
        match each:
            case RequestHeaders():
                before = journey.headers
                journey = journey._replace(headers=changed_headers(before, each.change))
                steps.append(
                    Step("RequestHeaderModifier", change_text(each.change), _lines(before), _lines(journey.headers))
                )
            case ResponseHeaders():
                steps.append(Step("ResponseHeaderModifier", change_text(each.change)))
            case Rewrite():
                journey, rewritten = _rewritten(each.rewrite, journey, match)
                steps += rewritten
            case Mirror():
                steps.append(_mirror_step(each))
            case Cors():
                origins = ", ".join(each.cors.allow_origins) or "no origin"
                steps.append(Step("CORS", f"answers tell browsers that {origins} may read them"))
            case ExternalAuth():
                name = backend_name(each.backend) or "a service that cannot be used"
                steps.append(Step("ExternalAuth", f"{name} is asked first ({each.auth.protocol}), and may refuse"))
            case Redirect():
                pass
    return journey, tuple(steps)


def _mirror_step(mirror: Mirror) -> Step:
    share = 100 * mirror.numerator / mirror.denominator
    if mirror.backend.cluster is None:
        why = mirror.backend.finding.message if mirror.backend.finding is not None else "it leads nowhere"
        return Step("RequestMirror", f"ignored: {why}")
    return Step("RequestMirror", f"{share:g} % are copied to {backend_name(mirror.backend)}, whose answers are ignored")


def _rewritten(rewrite: api.HTTPURLRewriteFilter, journey: Journey, match: Match) -> tuple[Journey, list[Step]]:
    steps = []
    if rewrite.hostname:
        steps.append(Step("URLRewrite", "Host", journey.authority, rewrite.hostname))
        journey = journey._replace(authority=rewrite.hostname)
    if rewrite.path is not None:
        target = modified_path(rewrite.path, match, journey.target)
        steps.append(Step("URLRewrite", "path", journey.target, target))
        journey = journey._replace(target=target)
    return journey, steps


def modified_path(modifier: api.HTTPPathModifier, match: Match, target: str) -> str:
    """A path with its query after HTTPPathModifier; a prefix is replaced by whole segments, the query stays."""
    path, question, query = target.partition("?")
    if modifier.type == "ReplaceFullPath":
        return (modifier.replace_full_path or "/") + question + query
    prefix = match.path.rstrip("/") if match.path_type == "PathPrefix" else ""
    replacement = (modifier.replace_prefix_match or "/").rstrip("/")
    rest = path[len(prefix) :]
    if not replacement:
        rest = "/" + rest.removeprefix("/")
    return replacement + rest + question + query


def changed_headers(headers: Headers, change: api.HTTPHeaderFilter) -> Headers:
    """Headers after HTTPHeaderFilter: taken away, then overwritten, then appended."""
    removed = {name.lower() for name in change.remove if name.lower() != "host"}
    out = [(name, value) for name, value in headers if name not in removed]
    for header in change.set:
        name = header.name.lower()
        if name != "host":
            out = [pair for pair in out if pair[0] != name]
            out.append((name, header.value))
    out += [(header.name.lower(), header.value) for header in change.add if header.name.lower() != "host"]
    return tuple(out)


def change_text(change: api.HTTPHeaderFilter) -> str:
    """`set x-a: 1; add x-b: 2; remove x-c`."""
    parts = [f"set {h.name}: {h.value}" for h in change.set]
    parts += [f"add {h.name}: {h.value}" for h in change.add]
    parts += [f"remove {name}" for name in change.remove]
    return "; ".join(parts)


def _lines(headers: Headers) -> str:
    return "; ".join(f"{name}: {value}" for name, value in headers)


def rule_steps(rule: Rule) -> tuple[Step, ...]:
    """Limits, retries and sessions of a rule."""
    steps = []
    if rule.timeouts is not None:
        for name, value in (("request", rule.timeouts.request), ("backendRequest", rule.timeouts.backend_request)):
            if value is not None:
                steps.append(Step("timeouts", f"{name}: {value:g} s" if value else f"{name}: none"))
    if rule.retry is not None and rule.retry.attempts:
        codes = f" on {', '.join(map(str, rule.retry.codes))}" if rule.retry.codes else ""
        steps.append(Step("retry", f"up to {rule.retry.attempts} more tries{codes}, and if no connection is made"))
    if rule.session is not None:
        where = f"{rule.session.type.lower()} {rule.session.name}"
        steps.append(Step("sessionPersistence", f"clients that send {where} meet the endpoint they met before"))
    return tuple(steps)


# --- redirects --------------------------------------------------------------------------------------------------------


def _redirected(scene: Scene, redirect: api.HTTPRequestRedirectFilter, steps: tuple[Step, ...]) -> Happening:
    location = redirect_location(scene, redirect)
    status = redirect.status_code or 302
    return Happening("redirected", status, f"{status} to {location}", steps, (), location)


def redirect_location(scene: Scene, redirect: api.HTTPRequestRedirectFilter) -> str:
    """The Location header (HTTPRequestRedirectFilter).

    Port: the filter's; else the default of the filter's scheme; else the listener's. The default port of the final
    scheme is not written.
    """
    table = scene.host.table
    port = scene.graph.ports.get(PortKey(table.gateway, table.port, "TCP"))
    offset = port.bound_port - port.key.port if port is not None else 0
    scheme = redirect.scheme or ("https" if table.listener else "http")
    number = redirect.port or (DEFAULT_PORTS.get(redirect.scheme or "", table.port))
    if not redirect.hostname:
        number += offset
    host = redirect.hostname
    wide = not host and is_wildcard(scene.host.hostname)
    if not host:
        host = _host_as_sent(scene) if wide else scene.host.hostname
    written = f":{number}"
    if number == DEFAULT_PORTS.get(scheme) and (not wide or not _has_port(scene)):
        # Of a Host with a port Envoy only replaces the port, even by one that need not be written.
        written = ""
    target = scene.target
    if redirect.path is not None:
        target = modified_path(redirect.path, scene.entry.match, target)
    return f"{scheme}://{host}{written}{target}"


def _has_port(scene: Scene) -> bool:
    authority = without_trailing_dot(scene.asked.authority)
    return len(host_of(authority)) < len(authority)


def _host_as_sent(scene: Scene) -> str:
    """Host without its port, in the letters the client used."""
    authority = without_trailing_dot(scene.asked.authority)
    return authority[: len(host_of(authority))]
