"""The order in which routes are tried: one total order, computed here and nowhere else.

Gateway API v1.7.0 (HTTPRouteSpec.hostnames, HTTPRouteRule.matches, GRPCRouteRule.matches): the hostname as the route
writes it (not its intersection with the listener), path, method, number of headers, number of query parameters, then
age, namespace/name, and the order of rules and matches. Where regular expressions stand is left open: after exact
paths and before prefixes, the longest expression first, as other Envoy-based implementations have it.
"""

from functools import lru_cache
from operator import itemgetter

from propylon.graph.hostnames import specificity
from propylon.graph.model import Match, Route, VirtualHostEntry

PathRank = tuple[int, int, int]


def path_rank(match: Match) -> PathRank:
    """Rank a path: exact, then expressions, then prefixes; each the longest first.

    Partial gRPC matches rank among the expressions by the length of the service, then of the method: a service alone
    goes before a method alone, though one is a prefix and the other an expression on the wire.
    """
    if match.path_type == "Exact":
        return (0, -len(match.path), 0)
    if match.grpc_service is not None and (match.grpc_service or match.grpc_method):
        return (1, -len(match.grpc_service), -len(match.grpc_method or ""))
    if match.path_type == "RegularExpression":
        return (1, -len(match.path), 0)
    return (2, -len(match.path), 0)


@lru_cache(16_384)
def match_rank(match: Match) -> tuple[PathRank, bool, int, int]:
    """Rank a match by all that makes it specific."""
    return (path_rank(match), match.method is None, -len(match.headers), -len(match.query))


def ordered(routes: list[tuple[Route, str]]) -> tuple[VirtualHostEntry, ...]:
    """Put every match of every rule in its place; `routes` gives each with the hostname it wrote for this host."""
    ranked: list[tuple[tuple[object, ...], VirtualHostEntry]] = []
    for route, original in routes:
        ref = route.ref
        age, rank = (route.created, ref.namespace, ref.name, ref.kind), specificity(original)
        for rule in route.rules:
            for position, match in enumerate(rule.matches):
                key = (rank, match_rank(match), age, rule.index, position)
                ranked.append((key, VirtualHostEntry(ref, original, rule, match)))
    if len(ranked) > 1:
        ranked.sort(key=itemgetter(0))
    return tuple([entry for _, entry in ranked])
