"""What a Graph answers to a request, in a form that can be compared: what client and backend see, and nothing else.

The walk is that of `explain`; names of rules, their order and their wording leave no trace in an answer.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from propylon import api
from propylon.explain.actions import Scene, backend_name, happening, passed_to, rule_steps
from propylon.explain.model import Backend
from propylon.explain.places import MISDIRECTED_LIMIT, Chosen, End, choose_host, choose_listener
from propylon.explain.predicates import Subject, match_text
from propylon.explain.request import Asked, Request, normalized_path, parse
from propylon.explain.walk import listener_authorization, try_entries
from propylon.graph import Graph
from propylon.graph.model import (
    BackendRef,
    ClusterKey,
    Cors,
    ExternalAuth,
    Filter,
    L4Route,
    Mirror,
    PortKey,
    ResponseHeaders,
    Rule,
    SecretKey,
    VirtualHost,
    VirtualHostEntry,
    VirtualHostKey,
)

ANSWER, BACKENDS = "answer", "backends"


class Winner(NamedTuple):
    """The rule that answered."""

    route: api.ObjectRef
    rule: int
    match: str

    @classmethod
    def of(cls, entry: VirtualHostEntry) -> "Winner":
        """As an answer names it."""
        return cls(entry.route, entry.rule.index, match_text(entry.match))


class Answer(NamedTuple):
    """What a client and a backend see of one request."""

    aspects: dict[str, str]
    """By name what is compared; what is absent is not written."""
    summary: str
    """In a sentence, for people."""
    winner: Winner | None = None


class Question(NamedTuple):
    """A request, read once for both sides."""

    request: Request
    asked: Asked
    subject: Subject | None
    """None if its path is refused, or for bytes."""

    @classmethod
    def of(cls, request: Request) -> "Question":
        """Read a request. Raises ExplainError."""
        asked = parse(request)
        target = normalized_path(asked.target) if asked.scheme in {"http", "https"} else None
        return cls(request, asked, Subject(asked, target) if target is not None else None)


class PathIndex:
    """The entries of a virtual host by path, so that not all of ten thousand are tried."""

    def __init__(self, host: VirtualHost) -> None:
        self.host = host
        self._exact: dict[str, list[int]] = {}
        self._prefix: dict[str, list[int]] = {}
        self._expressions: list[int] = []
        for position, entry in enumerate(host.entries):
            match = entry.match
            if match.path_type == "Exact":
                self._exact.setdefault(match.path, []).append(position)
            elif match.path_type == "PathPrefix":
                self._prefix.setdefault(match.path.rstrip("/"), []).append(position)
            else:
                self._expressions.append(position)

    def near(self, path: str) -> list[int]:
        """Positions of all entries whose path may take this one, in order."""
        ends = [i for i, character in enumerate(path) if character == "/"]
        prefixes = (self._prefix.get(path[:end], ()) for end in {*ends, len(path)})
        return sorted({*self._exact.get(path, ()), *self._expressions, *chain(*prefixes)})


class Side:
    """One of the two Graphs that are compared."""

    def __init__(self, graph: Graph, *, endpoints_known: bool, issued: frozenset[SecretKey] = frozenset()) -> None:
        """`endpoints_known`: whether a Service without endpoints is known to have none.

        `issued`: certificates that are made anew whenever they are needed, and differ for no reason.
        """
        self.graph = graph
        self.issued = issued
        self.endpoints_known = endpoints_known
        self._indexes: dict[VirtualHostKey, PathIndex] = {}

    def ask(self, key: PortKey, question: Question) -> Answer:
        """What happens to a request that arrives at a port."""
        port = self.graph.ports.get(key)
        if port is None:
            return Answer({ANSWER: "refused"}, f"nothing listens on {key.transport} port {key.port}")
        chosen = choose_listener(self.graph, question.asked, port)
        if isinstance(chosen, End):
            return _ended(chosen)
        if chosen.route is not None:
            return self._passed_on(chosen.route)
        if question.subject is None:
            return Answer({ANSWER: "400"}, "400: no path that a proxy takes")
        found = choose_host(self.graph, question.asked, port, chosen, MISDIRECTED_LIMIT)
        if isinstance(found, End):
            return _ended(found)
        return self._http(found[0], question.asked, question.subject)

    def place(self, key: PortKey, asked: Asked) -> tuple[Chosen | End | None, VirtualHostKey | End | None]:
        """The filter chain and the virtual host of a request; None where there is no such thing."""
        port = self.graph.ports.get(key)
        if port is None:
            return None, None
        chosen = choose_listener(self.graph, asked, port)
        if isinstance(chosen, End) or chosen.table is None:
            return chosen, None
        found = choose_host(self.graph, asked, port, chosen, MISDIRECTED_LIMIT)
        return chosen, found if isinstance(found, End) else found[0]

    def _http(self, key: VirtualHostKey, asked: Asked, subject: Subject) -> Answer:
        host = self.graph.virtual_hosts.get(key)
        if host is None or not host.entries:
            return Answer({ANSWER: "404"}, f"404: no route is attached for host {key.hostname}")
        blocked = listener_authorization(host)
        if blocked:
            return Answer({ANSWER: "500"}, f"500: {blocked}")
        index = self._indexes.get(key)
        if index is None or index.host is not host:
            index = self._indexes[key] = PathIndex(host)
        entries = [host.entries[position] for position in index.near(subject.path)]
        tried = try_entries(entries, subject)
        if tried.winner is None:
            return Answer({ANSWER: "404"}, f"404: no match of host {key.hostname} takes it")
        entry = entries[tried.winner]
        winner = Winner.of(entry)
        if tried.preflight:
            aspects = {ANSWER: "204 (a preflight)", **_effects((*host.filters, *entry.rule.filters))}
            return Answer(aspects, "204: a CORS preflight, which the proxy answers by itself", winner)
        result = happening(Scene(self.graph, asked, subject.target, key, entry, self.endpoints_known))
        rule = entry.rule
        if not result.backends:
            answer = f"{result.status} to {result.location}" if result.location else str(result.status)
            effects = _effects((*host.filters, *rule.filters)) if result.location else {}
            return Answer({ANSWER: answer, **effects}, result.summary, winner)
        if result.outcome == "answered":
            return Answer({ANSWER: str(result.status)}, result.summary, winner)
        live = [ref for ref in rule.backends if ref.weight > 0]
        common = (*host.filters, *rule.filters)
        ways = [
            self._way(key.table.gateway, ref, backend, common)
            for ref, backend in zip(live, result.backends, strict=True)
        ]
        return Answer({ANSWER: "forwarded", **_summed_up(ways), **_limits(rule)}, result.summary, winner)

    def _passed_on(self, route: L4Route) -> Answer:
        backends = passed_to(self.graph, route, endpoints_known=self.endpoints_known)
        live = [ref for ref in route.backends if ref.weight > 0]
        winner = Winner(route.route, 0, "")
        if not any(backend.outcome == "forwarded" for backend in backends):
            return Answer({ANSWER: "closed"}, f"closed: {route.route} has no usable backend", winner)
        gateway = route.key.gateway
        ways = [self._way(gateway, ref, backend, ()) for ref, backend in zip(live, backends, strict=True)]
        aspects = {ANSWER: "forwarded", **_summed_up(ways)}
        if route.tls_mode is not None:
            aspects["TLS"] = "terminated" if route.tls_mode == "Terminate" else "passed through"
        return Answer(aspects, f"forwarded to {aspects[BACKENDS]}", winner)

    def _way(self, gateway: api.ObjectKey, ref: BackendRef, backend: Backend, common: Sequence[Filter]) -> "_Way":
        if backend.outcome == "redirected":
            what = f"{backend.status} to {backend.location}"
        elif backend.outcome == "closed":
            what = "closed"
        else:
            what = str(backend.status) if backend.status is not None else backend.name
        if backend.outcome != "forwarded":
            return _Way(what, backend.share, {})
        seen = {
            "path at the backend": backend.path,
            "host at the backend": backend.host,
            "headers at the backend": "; ".join(sorted(f"{name}: {value}" for name, value in backend.headers)),
            "protocol to the backend": backend.protocol,
            **self.connection(gateway, ref.cluster),
            **_effects((*common, *ref.filters)),
        }
        return _Way(what, backend.share, {name: value for name, value in seen.items() if value})

    def is_empty(self, key: ClusterKey | None) -> bool:
        """Whether a backend is known to have no endpoints."""
        return key is not None and self.endpoints_known and not self.graph.endpoints.get(key.backend)

    def connection(self, gateway: api.ObjectKey, key: ClusterKey | None) -> dict[str, str]:
        """How a proxy speaks to a cluster, as far as its key does not say it."""
        cluster = self.graph.clusters.get((gateway, key)) if key is not None else None
        if cluster is None or key is None:
            return {}
        found = {}
        tls = cluster.backend.tls
        if tls is not None and key.protocol != "PASSTHROUGH":
            client = tls.client_certificate or cluster.client_certificate
            names = [f"{name.type} {name.value}" for name in tls.subject_alt_names]
            said = [f"server name {tls.server_name}" if tls.server_name else "", *names]
            authority = self.graph.secrets.get((gateway, tls.validation)) if tls.validation is not None else None
            said.append(fingerprint("authority", authority.chain) if authority is not None else "system's authorities")
            said.append("" if tls.verify else "not verified")
            said.append(f"as {client.namespace}/{client.name}" if client is not None else "")
            said.append(_text(tls.options) if tls.options else "")
            found["TLS to the backend"] = ", ".join(each for each in said if each)
        if cluster.backend.dns_name:
            found["name of the backend"] = cluster.backend.dns_name
        return found


class _Way(NamedTuple):
    what: str
    share: float
    seen: dict[str, str]


def _ended(end: End) -> Answer:
    return Answer({ANSWER: str(end.status) if end.status is not None else end.outcome}, end.summary)


def _summed_up(ways: Sequence[_Way]) -> dict[str, str]:
    """Ways that go to one place are one; what all ways have in common is said once."""
    shares: dict[str, float] = {}
    for way in ways:
        shares[way.what] = shares.get(way.what, 0) + way.share
    order = sorted(shares)
    aspects = {BACKENDS: ", ".join(f"{what} {100 * shares[what]:.4g} %" for what in order)}
    if len(order) == 1:
        aspects[BACKENDS] = order[0]
    for name in dict.fromkeys(chain(*(way.seen for way in ways))):
        by_what: dict[str, set[str]] = {}
        for way in ways:
            if way.seen:  # a way that leads nowhere sees nothing
                by_what.setdefault(way.what, set()).add(way.seen.get(name, "none"))
        values = set().union(*by_what.values())
        if len(values) == 1:
            aspects[name] = values.pop()
        else:
            aspects[name] = "; ".join(f"{what}: {' or '.join(sorted(by_what[what]))}" for what in sorted(by_what))
    return aspects


def _effects(filters: Iterable[Filter]) -> dict[str, str]:
    """What filters do that the request on its way does not show."""
    found: dict[str, list[str]] = {}
    for each in filters:
        match each:
            case ResponseHeaders():
                found.setdefault("response headers", []).append(_header_change(each.change))
            case Cors():
                found.setdefault("CORS", []).append(_text(each.cors))
            case Mirror():
                share = 100 * each.numerator / each.denominator
                if each.backend.cluster is not None and share:
                    found.setdefault("copies", []).append(f"{share:g} % to {backend_name(each.backend)}")
            case ExternalAuth():
                asked = msgspec.to_builtins(each.auth)
                asked = {name: value for name, value in asked.items() if not name.startswith("backend") and value}
                found.setdefault("authorization", []).append(f"{backend_name(each.backend)} {_text(asked)}")
            case _:
                pass
    return {name: "; ".join(sorted(parts) if name == "copies" else parts) for name, parts in found.items()}


def _header_change(change: api.HTTPHeaderFilter) -> str:
    parts = [f"set {header.name.lower()}: {header.value}" for header in change.set]
    parts += [f"add {header.name.lower()}: {header.value}" for header in change.add]
    parts += [f"remove {name.lower()}" for name in change.remove]
    return "; ".join(sorted(parts))


def _limits(rule: Rule) -> dict[str, str]:
    """Timeouts, retries and sessions, in the words of `explain` and with what these leave out."""
    found: dict[str, list[str]] = {}
    for step in rule_steps(rule):
        found.setdefault(step.what, []).append(step.detail)
    if rule.retry is not None and rule.retry.attempts and rule.retry.backoff is not None:
        found["retry"].append(f"after {rule.retry.backoff:g} s")
    if rule.session is not None:
        lasting = f"for {rule.session.absolute_timeout:g} s" if rule.session.absolute_timeout else ""
        kept = "outlives the browser" if rule.session.permanent else ""
        where = f"path {rule.session.path}" if rule.session.type == "Cookie" else ""
        found["sessionPersistence"] += [each for each in (lasting, kept, where) if each]
    return {name: ", ".join(parts) for name, parts in found.items()}


def _text(value: Any) -> str:
    """A struct in one line, without what is not set."""
    plain = msgspec.to_builtins(value)
    return ", ".join(f"{name} {_plain(each)}" for name, each in sorted(plain.items()) if each not in (None, "", [], ()))


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def fingerprint(what: str, chain_: bytes) -> str:
    """A few digits that tell certificates apart."""
    return f"{what} {hashlib.sha256(chain_).hexdigest()[:12]}"
