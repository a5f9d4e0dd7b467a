"""A request walked through the Graph: which rule answers, why every other one does not, and what happens then. Pure.

Contract: `explain(graph, request)` says what real Envoy does with a request under this Graph. Order and hostnames are
the Graph's own (`graph.virtual_hosts`, `graph.hostnames`); nothing of them is decided again here. Imports `api` and
`graph`.
"""

from propylon.explain.model import Backend, Candidate, Explanation, Gate, Hint, Predicate, Step
from propylon.explain.request import ExplainError, Request
from propylon.explain.walk import Settings, explain

__all__ = [
    "Backend",
    "Candidate",
    "ExplainError",
    "Explanation",
    "Gate",
    "Hint",
    "Predicate",
    "Request",
    "Settings",
    "Step",
    "explain",
]
