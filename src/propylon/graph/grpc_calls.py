"""gRPC calls that come by an HTTPRoute to a Service that names no appProtocol.

HTTP/1.1 is spoken to such a Service, and gRPC cannot be. But one port often serves both, as Argo CD's does for its page
and its command line. So a rule that takes every path has an HTTP/2 twin of its backends, for calls only. It is a
cluster of its own, not that of a GRPCRoute to the same backend: a proxy may ask for it when the first call comes.
"""

from propylon.graph.model import ClusterKey, Match, Redirect, Rule


def takes_grpc(rule: Rule) -> bool:
    """Whether gRPC calls may come to a rule of an HTTPRoute: it takes paths of any form."""
    matches = rule.matches
    return catches_calls(matches[0]) if len(matches) == 1 else any(map(catches_calls, matches))


def catches_calls(match: Match) -> bool:
    """Whether a match takes `/package.Service/Method`, whatever the service: a prefix of `/`, and POST."""
    return match.path_type == "PathPrefix" and match.path == "/" and match.method in {None, "POST"}


def grpc_twins(rule: Rule) -> set[ClusterKey]:
    """HTTP/2 twins of a rule's HTTP/1.1 clusters: gRPC needs it, and one port often serves both (Argo CD's does)."""
    if rule.finding is not None or (rule.filters and any(isinstance(f, Redirect) for f in rule.filters)):
        return set()
    found = {ref.cluster for ref in rule.backends if ref.cluster is not None and ref.weight > 0}
    return {ClusterKey(key.backend, "GRPC") for key in found if key.protocol == "HTTP"}
