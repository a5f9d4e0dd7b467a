"""The Graph as an engine: an explanation in the shape of an `Answer`. Pure."""

from collections.abc import Iterable

from propylon import api
from propylon.explain import Backend, Explanation, Request, explain
from propylon.explain.actions import changed_headers
from propylon.explain.request import parse
from propylon.explain.walk import GRPC_STATUS, Settings
from propylon.graph import Graph
from propylon.graph.model import Cors, Filter, ResponseHeaders, Rule
from propylon.testing.model import Answer, Pairs, Way


def backend_headers(request_headers: Iterable[tuple[str, str]]) -> Pairs:
    """Headers that the backends of tests answer with: gRPC as what it came as, else none.

    None, for where a backend is asked for authorization, Envoy takes its headers into the request.
    """
    content_type = dict(request_headers).get("content-type", "")
    return (("content-type", content_type),) if content_type.startswith("application/grpc") else ()


def graph_answer(graph: Graph, request: Request, settings: Settings) -> tuple[Answer, Explanation]:
    """What the Graph says of a request. Raises ExplainError if the question cannot be answered as it was put."""
    explanation = explain(graph, request, settings)
    grpc = parse(request).grpc
    rule = rule_of(graph, explanation)
    filters = rule.filters if rule is not None else ()
    winner = explanation.winner
    if explanation.backends:
        weighed = rule is not None
        ways = tuple(
            _way(each, grpc, (*filters, *_filters_of_backend(rule, position)) if weighed else ())
            for position, each in enumerate(explanation.backends)
        )
    else:
        headers = response_headers((), filters) if explanation.outcome == "redirected" else None
        ways = (
            Way(
                explanation.outcome,
                1.0,
                *_told(explanation.status, grpc),
                location=explanation.location,
                response_headers=headers,
                note=explanation.summary,
            ),
        )
    answer = Answer(
        "graph",
        ways,
        winner.object if winner is not None else "",
        winner.rule if winner is not None else None,
        winner.rule_name if winner is not None else None,
        cors=any(isinstance(each, Cors) for each in filters),
    )
    return answer, explanation


def rule_of(graph: Graph, explanation: Explanation) -> Rule | None:
    """The rule of the Graph that an explanation's winner names; None for the routes that have none (TLS, TCP, UDP)."""
    winner = explanation.winner
    if winner is None:
        return None
    kind, _, name = winner.object.partition(" ")
    if kind not in {"HTTPRoute", "GRPCRoute"}:
        return None
    route = graph.routes.get(api.ObjectRef(api.GATEWAY_GROUP, kind, *name.split("/", 1)))
    return next((rule for rule in route.rules if rule.index == winner.rule), None) if route is not None else None


def response_headers(headers: Pairs, filters: Iterable[Filter]) -> Pairs:
    """Headers of a response after the ResponseHeaderModifiers among `filters`."""
    for each in filters:
        if isinstance(each, ResponseHeaders):
            headers = changed_headers(headers, each.change)
    return headers


def _filters_of_backend(rule: Rule | None, position: int) -> tuple[Filter, ...]:
    live = [ref for ref in rule.backends if ref.weight > 0] if rule is not None else []
    return live[position].filters if position < len(live) else ()


def _told(status: int | None, grpc: bool) -> tuple[int | None, int | None]:
    """Status and gRPC status as a client sees them: to gRPC everything is 200 and a grpc-status."""
    if not grpc or status is None:
        return status, None
    return 200, GRPC_STATUS.get(status, 2)


def _way(backend: Backend, grpc: bool, filters: tuple[Filter, ...]) -> Way:
    if backend.outcome == "forwarded":
        of_bytes = not backend.path
        return Way(
            "forwarded",
            backend.share,
            None if of_bytes else 200,
            0 if grpc and not of_bytes else None,
            backend.name,
            path=backend.path or None,
            host=backend.host if not of_bytes else None,
            headers=backend.headers if not of_bytes else None,
            response_headers=None if of_bytes else response_headers(backend_headers(backend.headers), filters),
        )
    status, grpc_status = _told(backend.status, grpc)
    return Way(backend.outcome, backend.share, status, grpc_status, location=backend.location, note=backend.why)
