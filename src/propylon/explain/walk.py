"""The walk: Gateway, port, listener, virtual host, rule, and what follows."""

from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import Any

import msgspec

from propylon import api
from propylon.explain.actions import Happening, Scene, happening, passed_to
from propylon.explain.hints import Clues, hints_for
from propylon.explain.model import Candidate, Explanation, Gate, Outcome, Place, Predicate, Result
from propylon.explain.places import MISDIRECTED_LIMIT, Arrival, Chosen, End, arrive, choose_host, choose_listener
from propylon.explain.predicates import Subject, failing_stage, first_failure, match_text, path_holds, value_holds
from propylon.explain.request import Asked, Request, normalized_path, parse
from propylon.graph import Graph
from propylon.graph.model import Cors, ExternalAuth, L4Route, VirtualHost, VirtualHostEntry

Locate = Callable[[api.ObjectRef, str], tuple[str, int, int]]
"""File, line and column of a field of an object; ("", 0, 0) if it came from no file."""

GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""What a gRPC client is told for an HTTP status (gRPC's http-grpc-status-mapping); others are UNKNOWN (2)."""


def nowhere(_ref: api.ObjectRef, _field: str) -> tuple[str, int, int]:
    """Locate nothing."""
    return "", 0, 0


class Settings(msgspec.Struct, frozen=True):
    """What an explanation needs beside the Graph."""

    locate: Locate = nowhere
    endpoints_known: bool = True
    """False where only manifests are known: a Service without endpoints is then no reason for a 503."""
    misdirected_limit: int = MISDIRECTED_LIMIT
    trusted_hops: int = 0
    """Proxies in front of the Gateways whose word on how the client came is believed."""
    candidates: int = 20
    """So many candidates are told of at most: those that came nearest."""


class Tried(msgspec.Struct, frozen=True):
    """The outcome of trying the entries of a virtual host."""

    winner: int | None
    """Position of the entry that takes the request."""
    preflight: bool
    stages: tuple[int | None, ...]
    """Where each entry failed, in order; None for the winner. Those after it are not among them."""


def explain(graph: Graph, request: Request, settings: Settings | None = None) -> Explanation:
    """Say what happens to a request, and why. Raises ExplainError if the question cannot be answered as put."""
    walk = Walk(graph, parse(request), settings or Settings())
    arrival = arrive(graph, walk.asked)
    if isinstance(arrival, End):
        return walk.ended(arrival)
    chosen = choose_listener(graph, walk.asked, arrival.port)
    if isinstance(chosen, End):
        return walk.ended(chosen, arrival)
    if chosen.route is not None:
        return walk.passed_on(chosen.route, (*arrival.gates, *chosen.gates))
    return walk.http(arrival, chosen)


def describe(asked: Asked) -> str:
    """The request in one line."""
    if asked.scheme in {"tcp", "udp", "tls"}:
        name = f" with SNI {asked.sni}" if asked.scheme == "tls" and asked.sni else ""
        return f"{asked.scheme.upper()} to port {asked.port}{name}"
    extra = "".join(f", {name}: {value}" for name, value in asked.headers)
    sni = f", SNI {asked.sni or 'none'}" if asked.scheme == "https" and asked.sni != asked.host else ""
    return f"{asked.method} {asked.scheme}://{asked.authority}{asked.target} (port {asked.port}{sni}){extra}"


def try_entries(entries: Sequence[VirtualHostEntry], subject: Subject) -> Tried:
    """Try the entries of a virtual host in their order until one takes the request."""
    stages: list[int | None] = []
    preflight = subject.method == "OPTIONS" and {"origin", "access-control-request-method"} <= subject.headers.keys()
    path = subject.path
    for position, entry in enumerate(entries):
        match = entry.match
        # Quickly: ten thousand matches are mostly of other paths.
        if match.path_type != "RegularExpression" and not path.startswith(match.path) and match.path[-1:] != "/":
            stages.append(0)
            continue
        if preflight and _answers_preflight(entry, subject):
            stages.append(None)
            return Tried(position, True, tuple(stages))
        stage = failing_stage(match, subject)
        stages.append(stage)
        if stage is None:
            return Tried(position, False, tuple(stages))
    return Tried(None, False, tuple(stages))


def _answers_preflight(entry: VirtualHostEntry, subject: Subject) -> bool:
    """Whether a CORS preflight is this entry's: for the method it matches, whatever headers it asks for."""
    match = entry.match
    if not any(isinstance(each, Cors) for each in entry.rule.filters) or not path_holds(match, subject.path):
        return False
    asked_for = subject.headers["access-control-request-method"]
    if match.method not in {None, "OPTIONS", *asked_for}:
        return False
    return all(q.name in subject.query and value_holds(q, subject.query[q.name]) for q in match.query)


class Walk:
    """One request under one Graph."""

    def __init__(self, graph: Graph, asked: Asked, settings: Settings) -> None:
        self.graph, self.asked, self.settings = graph, asked, settings

    # -- endings -----------------------------------------------------------------------------------------------------

    def ended(self, end: End, arrival: Arrival | None = None) -> Explanation:
        """The request got to no rule."""
        gateway = arrival.port.key.gateway if arrival is not None else None
        gates = (*(arrival.gates if arrival is not None else ()), *end.gates)
        clues = Clues(self.graph, self.asked, self._subject(), gateway, None, None)
        return self._explanation(end.outcome, end.status, end.summary, gates, hints=hints_for(clues, self.place))

    def passed_on(self, route: L4Route, gates: tuple[Gate, ...]) -> Explanation:
        """Bytes and datagrams: no rule is tried, the backends' weights decide."""
        backends = passed_to(self.graph, route, endpoints_known=self.settings.endpoints_known)
        mode = (
            f", TLS is {'terminated' if route.tls_mode == 'Terminate' else 'passed through'}" if route.tls_mode else ""
        )
        name = f"{route.route.kind} {route.route.key}"
        winner = Candidate(1, name, 0, None, 0, "", "matched", None, self.place(route.route, "spec.rules[0]"))
        open_ = [backend for backend in backends if backend.outcome == "forwarded"]
        if open_:
            summary = f"forwarded to {' or '.join(b.name for b in open_)} by {name}{mode}"
        else:
            summary = f"closed: {name} has no usable backend"
        clues = Clues(self.graph, self.asked, self._subject(), route.key.gateway, None, route)
        return self._explanation(
            "forwarded" if open_ else "closed",
            None,
            summary,
            gates,
            winner=winner,
            candidates=(winner,),
            candidates_total=1,
            backends=backends,
            hints=hints_for(clues, self.place),
        )

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def http(self, arrival: Arrival, chosen: Chosen) -> Explanation:
        """Find the virtual host, try its entries, follow the winner."""
        subject = self._subject()
        if subject is None:
            end = End("answered", 400, f"400: {self.asked.target!r} is no path that a proxy takes", chosen.gates)
            return self.ended(end, arrival)
        if self.settings.trusted_hops and "" in self.asked.values("x-forwarded-proto"):
            summary = "404: X-Forwarded-Proto, which a trusted proxy is believed to have written, is empty"
            return self.ended(End("answered", 404, summary, chosen.gates), arrival)
        found = choose_host(self.graph, self.asked, arrival.port, chosen, self.settings.misdirected_limit)
        if isinstance(found, End):
            return self.ended(found, arrival)
        key, gates = found
        gates = (*arrival.gates, *gates)
        host = self.graph.virtual_hosts.get(key)
        if host is None or not host.entries:
            summary = f"404: no route is attached for host {key.hostname} here"
            return self._unmatched(arrival, gates, VirtualHost(key, ()), subject, summary, ())
        blocked = listener_authorization(host)
        if blocked:
            return self.ended(End("answered", 500, f"500: {blocked}", gates[len(arrival.gates) :]), arrival)
        tried = try_entries(host.entries, subject)
        if tried.winner is None:
            summary = f"404: host {key.hostname} has {len(host.entries)} matches, and none takes the request"
            return self._unmatched(arrival, gates, host, subject, summary, tried.stages)
        return self._matched(gates, host, subject, tried, tried.winner)

    def _matched(
        self, gates: tuple[Gate, ...], host: VirtualHost, subject: Subject, tried: Tried, winner: int
    ) -> Explanation:
        entry = host.entries[winner]
        scene = Scene(self.graph, self.asked, subject.target, host.key, entry, self.settings.endpoints_known)
        if tried.preflight:
            result = Happening("answered", 204, "204: a CORS preflight, which the proxy answers by itself")
        else:
            result = happening(scene)
        clues = Clues(self.graph, self.asked, subject, host.key.table.gateway, host, None, entry)
        return self._explanation(
            result.outcome,
            result.status,
            result.summary,
            gates,
            winner=self._candidate(host, winner, "matched", None),
            candidates=self._candidates(host, subject, tried),
            candidates_total=len(host.entries),
            steps=result.steps,
            backends=result.backends,
            location=result.location,
            hints=hints_for(clues, self.place),
        )

    def _unmatched(
        self,
        arrival: Arrival,
        gates: tuple[Gate, ...],
        host: VirtualHost,
        subject: Subject,
        summary: str,
        stages: tuple[int | None, ...],
    ) -> Explanation:
        clues = Clues(self.graph, self.asked, subject, arrival.port.key.gateway, host, None, None, stages)
        return self._explanation(
            "answered",
            404,
            summary,
            gates,
            candidates=self._candidates(host, subject, Tried(None, False, stages)),
            candidates_total=len(host.entries),
            hints=hints_for(clues, self.place),
        )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _subject(self) -> Subject | None:
        if self.asked.scheme not in {"http", "https"}:
            return None
        target = normalized_path(self.asked.target)
        return None if target is None else Subject(self.asked, target, trusted_hops=self.settings.trusted_hops)

    def _candidates(self, host: VirtualHost, subject: Subject, tried: Tried) -> tuple[Candidate, ...]:
        """The winner and the nearest misses, in their order; then what stands behind the winner, as room is left."""
        limit = max(1, self.settings.candidates)
        count = len(tried.stages)
        nearness = [9 if stage is None else stage for stage in tried.stages]
        near = nlargest(limit, range(count), key=nearness.__getitem__)  # of equals the first
        behind = range(count, min(len(host.entries), count + limit - len(near)))
        out = []
        for position in sorted(near):
            if tried.stages[position] is None:
                out.append(self._candidate(host, position, "matched", None))
            else:
                failure = first_failure(host.entries[position].match, subject)
                out.append(self._candidate(host, position, "failed", failure))
        out.extend(self._candidate(host, position, "not reached", None) for position in behind)
        return tuple(out)

    def _candidate(self, host: VirtualHost, position: int, result: Result, failure: Predicate | None) -> Candidate:
        entry = host.entries[position]
        index = entry.rule.matches.index(entry.match)
        return Candidate(
            position=position + 1,
            object=f"{entry.route.kind} {entry.route.key}",
            rule=entry.rule.index,
            rule_name=entry.rule.name,
            match=index,
            match_text=match_text(entry.match),
            result=result,
            failed=failure,
            place=self.place(entry.route, f"spec.rules[{entry.rule.index}].matches[{index}]"),
        )

    def place(self, ref: api.ObjectRef, field: str) -> Place | None:
        """Where a field of an object is written."""
        file, line, column = self.settings.locate(ref, field)
        return Place(file, line, column) if file else None

    def _explanation(
        self, outcome: Outcome, status: int | None, summary: str, gates: tuple[Gate, ...], **more: Any
    ) -> Explanation:
        grpc = self.asked.grpc and status is not None
        return Explanation(
            describe(self.asked),
            outcome,
            status,
            GRPC_STATUS.get(status or 0, 2) if grpc else None,
            summary,
            gates,
            **more,
        )


def listener_authorization(host: VirtualHost) -> str:
    """Why the listener's own authorization lets nothing through; "" if it can be asked, or there is none."""
    for each in host.filters:
        if isinstance(each, ExternalAuth) and each.backend.cluster is None:
            return "the listener's authorization service cannot be asked"
    return ""
