"""Near misses, and what to change: what people look for first when a request does not do what they meant."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from propylon import api
from propylon.explain.model import Hint, Place, Predicate
from propylon.explain.predicates import Subject, expression, first_failure
from propylon.explain.request import Asked, host_of
from propylon.graph import Graph
from propylon.graph.hostnames import ancestors, covers, is_wildcard, normalized
from propylon.graph.model import (
    BackendRef,
    ExternalAuth,
    Finding,
    L4Route,
    Listener,
    Match,
    Mirror,
    Route,
    VirtualHost,
    VirtualHostEntry,
    VirtualHostKey,
)

MOST = 6
"""So many hints at most; more would bury the best."""

PlaceOf = Callable[[api.ObjectRef, str], Place | None]


class Clues(NamedTuple):
    """What is known when a request came to its end."""

    graph: Graph
    asked: Asked
    subject: Subject | None
    """None if it is no HTTP request, or none that a proxy takes."""
    gateway: api.ObjectKey | None
    host: VirtualHost | None
    l4: L4Route | None
    entry: VirtualHostEntry | None = None
    """The winner."""
    stages: tuple[int | None, ...] = ()
    """Where the entries of the virtual host failed."""


def hints_for(clues: Clues, place_of: PlaceOf) -> tuple[Hint, ...]:
    """The best hints, without repetition."""
    found: dict[str, Hint] = {}
    for hint in _all(clues, place_of):
        found.setdefault(hint.message, hint)
        if len(found) == MOST:
            break
    return tuple(found.values())


def _all(clues: Clues, place_of: PlaceOf) -> Iterator[Hint]:
    if clues.entry is not None:
        yield from _of_backends(clues.entry, place_of)
        return
    if clues.l4 is not None:
        for ref in clues.l4.backends:
            yield from _of_reference(clues.l4.route, ref, place_of)
        return
    if clues.host is not None and clues.subject is not None:
        yield from _near_misses(clues.host, clues.subject, clues.stages, place_of)
        yield from _wildcards_behind(clues, clues.host, place_of)
    yield from _listeners_not_served(clues, place_of)
    if clues.subject is not None:
        yield from _elsewhere(clues, clues.subject)
        yield from _hostnames(clues)
    yield from _routes_left_out(clues, place_of)
    yield from _dangling(clues, place_of)


# --- near misses ------------------------------------------------------------------------------------------------------


def _near_misses(
    host: VirtualHost, subject: Subject, stages: tuple[int | None, ...], place_of: PlaceOf
) -> Iterator[Hint]:
    """Those that came furthest first: a header that differs says more than a path that looks alike."""
    seen: set[str] = set()
    for position in sorted(range(len(stages)), key=[-(stage or 0) for stage in stages].__getitem__):
        entry = host.entries[position]
        if stages[position] == 0 and not _looks_alike(entry.match, subject.path):
            continue
        failure = first_failure(entry.match, subject)
        if failure is None:
            continue
        message = near_miss(entry.match, failure)
        if message and message not in seen:
            seen.add(message)
            index = entry.rule.matches.index(entry.match)
            field = f"spec.rules[{entry.rule.index}].matches[{index}]"
            where = f"{entry.route.kind} {entry.route.key} rule {entry.rule.index}"
            yield Hint(f"{where}: {message}", place=place_of(entry.route, field))
        if len(seen) == MOST:
            return


def _looks_alike(match: Match, path: str) -> bool:
    """A quick look, so that ten thousand paths cost little."""
    if match.path_type == "RegularExpression":
        return True
    return path.lower().startswith(match.path.rstrip("/").lower())


def near_miss(match: Match, failure: Predicate) -> str:
    """Why a match that looks as if it took the request does not; "" if it does not look so."""
    if failure.what == "path":
        return _near_path(match, failure.found or "")
    if failure.what == "method":
        return f"it takes {match.method} only, the request is {failure.found}"
    name = failure.what.partition(" ")[2]
    if failure.found is None:
        return f"the request has no {failure.what}; it has to be {failure.wanted}"
    if failure.wanted.lower() == f'"{failure.found.lower()}"':
        return f'{failure.what} is "{failure.found}" and has to be {failure.wanted}: values are case-sensitive'
    if failure.wanted.startswith("RegularExpression ") and _inside(failure.wanted.partition(" ")[2], failure.found):
        return f"the expression for {name} has to match the whole value {failure.found!r}, not a part of it: add .*"
    return f'{failure.what} is "{failure.found}" and has to be {failure.wanted}'


def _near_path(match: Match, path: str) -> str:
    wanted = match.path
    if match.path_type == "RegularExpression":
        if _inside(wanted, path):
            return f"expression {wanted} has to match the whole path {path}, not a part of it: add .*"
        return ""
    if path.rstrip("/") == wanted.rstrip("/"):
        return (
            f"path {path} is not {wanted}: a trailing slash makes another path for Exact; use PathPrefix to take both"
        )
    if match.path_type == "Exact":
        if path.lower() == wanted.lower():
            return f"path {path} is not {wanted}: paths are case-sensitive"
        if path.startswith(wanted.rstrip("/") + "/") and wanted != "/":
            return f"Exact {wanted} takes that path only, not {path} below it; PathPrefix takes both"
        return ""
    if path.startswith(wanted):
        return f"PathPrefix {wanted} takes whole path segments: {wanted}/... but not {path}"
    if path.lower() == wanted.lower() or path.lower().startswith(wanted.lower() + "/"):
        return f"path {path} does not begin with {wanted}: paths are case-sensitive"
    return ""


def _inside(pattern: str, text: str) -> bool:
    return expression(pattern).search(text) is not None


# --- other places -----------------------------------------------------------------------------------------------------


def _wildcards_behind(clues: Clues, host: VirtualHost, place_of: PlaceOf) -> Iterator[Hint]:
    """A host with routes of its own does not fall through to wildcard routes."""
    if clues.subject is None or not host.entries:
        return
    for name in list(ancestors(host_of(clues.asked.authority))):
        other = clues.graph.virtual_hosts.get(VirtualHostKey(host.key.table, name))
        if other is None or other.key == host.key:
            continue
        entry = _first(other, clues.subject)
        if entry is not None:
            message = (
                f"{entry.route.kind} {entry.route.key} rule {entry.rule.index} would take it under hostname {name}, "
                f"but a host with routes of its own ({host.key.hostname}) is not passed on to wider ones: add "
                f"{host.key.hostname} to its hostnames"
            )
            yield Hint(message, place=place_of(entry.route, "spec.hostnames"))
            return


def _first(host: VirtualHost, subject: Subject) -> VirtualHostEntry | None:
    return next((entry for entry in host.entries if first_failure(entry.match, subject) is None), None)


def _elsewhere(clues: Clues, subject: Subject) -> Iterator[Hint]:
    """The same request at another port or Gateway."""
    graph, asked = clues.graph, clues.asked
    names = set(ancestors(host_of(asked.authority)))
    hits = 0
    for key, port in graph.ports.items():
        tables = {listener.route_table for listener in port.listeners if listener.protocol in {"HTTP", "HTTPS"}}
        for table in sorted(tables):
            if clues.host is not None and table == clues.host.key.table:
                continue
            for name in ancestors(host_of(asked.authority)):
                other = graph.virtual_hosts.get(VirtualHostKey(table, name))
                if name not in names or other is None:
                    continue
                entry = _first(other, subject)
                if entry is not None:
                    scheme = "https" if table.listener else "http"
                    usual = port.bound_port == {"http": 80, "https": 443}[scheme]
                    where = f"{scheme}://{host_of(asked.authority)}{'' if usual else f':{port.bound_port}'}"
                    yield Hint(
                        f"wrong port or Gateway? {where}{subject.target} at Gateway {key.gateway} is taken by "
                        f"{entry.route.kind} {entry.route.key} rule {entry.rule.index}"
                    )
                    hits += 1
                break
            if hits == 3:
                return


def _hostnames(clues: Clues) -> Iterator[Hint]:
    """Hostnames that look as if they took the host."""
    host = host_of(clues.asked.authority)
    if clues.host is not None and clues.host.entries:
        return
    for key in clues.graph.virtual_hosts:
        name = key.hostname
        if clues.gateway is not None and key.table.gateway != clues.gateway:
            continue
        if is_wildcard(name) and name != "*" and name[2:] == host:
            yield Hint(f"{name} takes hosts below {host}, not {host} itself: add {host} to the hostnames")
            return
        if not is_wildcard(name) and host.endswith(f".{name}"):
            yield Hint(f"hostname {name} does not take {host}, which is below it: a wildcard would be *.{name}")
            return


# --- what was left out ------------------------------------------------------------------------------------------------


def _listeners_not_served(clues: Clues, place_of: PlaceOf) -> Iterator[Hint]:
    """Listeners that would have taken the request, were they served."""
    asked = clues.asked
    name = asked.sni if asked.scheme in {"https", "tls"} else host_of(asked.authority)
    for key, gateway in clues.graph.gateways.items():
        if clues.gateway not in {None, key}:
            continue
        for finding in gateway.findings:
            if finding.condition == "Accepted" and finding.status == "False":
                ref = api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *key)
                yield Hint(f"Gateway {key} is not served: {finding.message}", place=place_of(ref, finding.field))
        for listener in clues.graph.merged_listeners(key):
            if listener.servable or listener.port != asked.port:
                continue
            if listener.protocol in {"HTTP", "HTTPS", "TLS"} and not covers(normalized(listener.hostname), name or "*"):
                continue
            for finding in _reasons(listener):
                ref = api.ObjectRef(api.GATEWAY_GROUP, listener.key.kind, listener.key.namespace, listener.key.name)
                yield Hint(
                    f"listener {listener.key.section} of {ref.kind} {ref.key} is not served: {finding.message}",
                    manifest=grant_for(finding, ref),
                    place=place_of(ref, finding.field or f"spec.listeners[{listener.index}]"),
                )


def _reasons(listener: Listener) -> tuple[Finding, ...]:
    return tuple(f for f in listener.findings if f.status == "False" or f.condition == "Conflicted")


def _routes_left_out(clues: Clues, place_of: PlaceOf) -> Iterator[Hint]:
    """Routes for this host that are not attached, or rules that were dropped."""
    host = host_of(clues.asked.authority) if clues.asked.scheme in {"http", "https"} else clues.asked.sni
    for ref, route in clues.graph.routes.items():
        if not route.findings and not any(parent.findings for parent in route.parents):
            continue
        if route.hostnames and not any(covers(name, host or "*") for name in route.hostnames):
            continue
        if not _could_take(route, clues):
            continue
        for parent in route.parents:
            if clues.gateway not in {None, parent.gateway}:
                continue
            for finding in parent.findings:
                if finding.condition == "Accepted":
                    yield Hint(
                        f"{ref.kind} {ref.key} is not attached to Gateway {parent.gateway}: {finding.message}",
                        place=place_of(ref, finding.field),
                    )
        for finding in route.findings:
            if finding.condition == "PartiallyInvalid":
                yield Hint(f"{ref.kind} {ref.key}: {finding.message}", place=place_of(ref, finding.field))


def _could_take(route: Route, clues: Clues) -> bool:
    """Whether some rule would take the request (all of them, if a rule was dropped or it is no HTTP request)."""
    if clues.subject is None or route.findings or not route.rules:
        return True
    if route.ref.kind not in {"HTTPRoute", "GRPCRoute"}:
        return False
    return any(first_failure(match, clues.subject) is None for rule in route.rules for match in rule.matches)


def _dangling(clues: Clues, place_of: PlaceOf) -> Iterator[Hint]:
    for ref, findings in clues.graph.dangling.items():
        for finding in findings:
            yield Hint(f"{ref.kind} {ref.key}: {finding.message}", place=place_of(ref, finding.field))


# --- backends ---------------------------------------------------------------------------------------------------------


def _of_backends(entry: VirtualHostEntry, place_of: PlaceOf) -> Iterator[Hint]:
    rule = entry.rule
    if rule.finding is not None:
        yield Hint(rule.finding.message, place=place_of(entry.route, rule.finding.field))
    filters = (*rule.filters, *(f for ref in rule.backends for f in ref.filters))
    references = [*rule.backends, *(f.backend for f in filters if isinstance(f, Mirror | ExternalAuth))]
    for ref in references:
        yield from _of_reference(entry.route, ref, place_of)
    if rule.backends and all(ref.weight == 0 for ref in rule.backends):
        field = f"spec.rules[{rule.index}].backendRefs"
        yield Hint("give at least one backend a weight above 0", place=place_of(entry.route, field))


def _of_reference(route: api.ObjectRef, ref: BackendRef, place_of: PlaceOf) -> Iterator[Hint]:
    finding = ref.finding
    if finding is not None:
        grant = grant_for(finding, route)
        message = "a ReferenceGrant is missing for this backend" if grant else finding.message
        yield Hint(message, manifest=grant, place=place_of(route, finding.field))


def grant_for(finding: Finding, referrer: api.ObjectRef) -> str:
    """The ReferenceGrant that would permit a reference; "" if that is not what is missing."""
    if finding.reason != "RefNotPermitted":
        return ""
    kind, _, rest = finding.message.partition(" ")
    namespace, _, name = rest.partition(" ")[0].partition("/")
    if not (kind and namespace and name):
        return ""
    group = api.EXPERIMENTAL_GROUP if kind.startswith("X") else ""
    return (
        "apiVersion: gateway.networking.k8s.io/v1\n"
        "kind: ReferenceGrant\n"
        "metadata:\n"
        f"  name: {referrer.kind.lower()}s-of-{referrer.namespace}\n"
        f"  namespace: {namespace}\n"
        "spec:\n"
        "  from:\n"
        f"  - group: {referrer.group}\n"
        f"    kind: {referrer.kind}\n"
        f"    namespace: {referrer.namespace}\n"
        "  to:\n"
        f'  - group: "{group}"\n'
        f"    kind: {kind}\n"
        f"    name: {name}\n"
    )
