"""Whether a match takes a request, and the first condition that does not hold."""

from functools import lru_cache
from typing import Any

import re2

from propylon.explain.model import Predicate
from propylon.explain.request import Asked
from propylon.graph.model import Match, ValueMatch


class Subject:
    """A request taken apart once, to be compared with many matches."""

    __slots__ = ("asked", "headers", "method", "path", "query", "target")

    def __init__(self, asked: Asked, target: str, *, trusted_hops: int = 0) -> None:
        """`target` is the normalized path and query."""
        self.asked = asked
        self.method = asked.method
        self.target = target
        self.path, _, query = target.partition("?")
        self.query: dict[str, str] = {}
        for pair in query.split("&") if query else ():
            name, _, value = pair.partition("=")
            self.query.setdefault(name, value)  # of a repeated parameter the first counts
        # The proxy says itself how the client came, whatever the client says, unless that is a proxy that is believed.
        own = {"host": asked.values("host")}
        if not (trusted_hops and asked.values("x-forwarded-proto")):
            own["x-forwarded-proto"] = (asked.scheme,)
        self.headers: dict[str, tuple[str, ...]] = dict(own)
        for name, value in asked.headers:
            if name in own:
                continue
            self.headers[name] = (*self.headers.get(name, ()), value)


STAGES = ("path", "method", "header", "query")
"""The order in which conditions are looked at: the later one fails, the nearer the miss."""


def first_failure(match: Match, subject: Subject) -> Predicate | None:
    """The first condition of a match that a request does not meet; None if it takes it."""
    if not path_holds(match, subject.path):
        return Predicate("path", path_text(match), subject.path)
    if match.method is not None and match.method != subject.method:
        return Predicate("method", match.method, subject.method)
    for header in match.headers:
        lines = subject.headers.get(header.name, ())
        if not any(value_holds(header, line) for line in lines):
            return Predicate(f"header {header.name}", value_text(header), ", ".join(lines) if lines else None)
    for parameter in match.query:
        value = subject.query.get(parameter.name)
        if value is None or not value_holds(parameter, value):
            return Predicate(f"query {parameter.name}", value_text(parameter), value)
    return None


def failing_stage(match: Match, subject: Subject) -> int | None:
    """Where in `STAGES` a match fails; None if it takes the request. `first_failure` says the same in words."""
    if not path_holds(match, subject.path):
        return 0
    if match.method is not None and match.method != subject.method:
        return 1
    for header in match.headers:
        if not any(value_holds(header, line) for line in subject.headers.get(header.name, ())):
            return 2
    for parameter in match.query:
        value = subject.query.get(parameter.name)
        if value is None or not value_holds(parameter, value):
            return 3
    return None


def path_holds(match: Match, path: str) -> bool:
    """Whether the path (without its query) is one the match takes."""
    if match.path_type == "Exact":
        return path == match.path
    if match.path_type == "PathPrefix":
        prefix = match.path.rstrip("/")
        return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}
    return expression(match.path).fullmatch(path) is not None


def value_holds(match: ValueMatch, value: str) -> bool:
    """Whether a header line or parameter is one the match takes."""
    return value == match.value if match.type == "Exact" else expression(match.value).fullmatch(value) is not None


@lru_cache(maxsize=16_384)
def expression(pattern: str) -> Any:
    """A compiled RE2 expression. The Graph has refused those that do not compile."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def path_text(match: Match) -> str:
    """`Exact /a`, `PathPrefix /a`, `RegularExpression /a.*`."""
    return f"{match.path_type} {match.path}"


def value_text(match: ValueMatch) -> str:
    """The value wanted, or the expression."""
    return f'"{match.value}"' if match.type == "Exact" else f"RegularExpression {match.value}"


def match_text(match: Match) -> str:
    """A match in one line."""
    if match.grpc_service is not None:
        name = f"{match.grpc_service or '*'}/{match.grpc_method or '*'}"
        parts = [f"gRPC {name}"]
    else:
        parts = [path_text(match)]
    if match.method is not None:
        parts.append(match.method)
    parts += [f"{h.name}: {value_text(h)}" for h in match.headers]
    parts += [f"?{q.name}={value_text(q)}" for q in match.query]
    return ", ".join(parts)
