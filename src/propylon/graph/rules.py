"""What the rules of all route kinds have in common: backends, findings, sessions, regular expressions, durations."""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import re2

from propylon import api
from propylon.graph.filters import NONE, build_filters
from propylon.graph.model import REFERRING, BackendRef, Filter, Finding, Rule, Session, Value
from propylon.graph.targets import Resolver

_DURATION = re.compile(r"(\d{1,5})(ms|h|m|s)")
_WHOLE_DURATION = re.compile(r"(?:\d{1,5}(?:ms|h|m|s)){1,4}")
MAX_PROGRAM_SIZE = 65_536
"""RE2 instructions that the proxies' bootstrap allows (re2.max_program_size.error_level)."""
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class InvalidRule(Exception):  # noqa: N818 - it is data on its way to a finding
    """A rule that cannot be served as written."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class Rules(Value, frozen=True):
    """The usable rules of a route, and what was found out about all of them."""

    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]


def seconds(duration: str, field: str) -> float:
    """Parse a duration (GEP-2257, e.g. `1h30m`, `500ms`) to seconds. Raises InvalidRule."""
    if not _WHOLE_DURATION.fullmatch(duration):
        message = f"{duration!r} is not a duration such as 500ms, 10s or 1h30m"
        raise InvalidRule(Finding("Accepted", "UnsupportedValue", message, field))
    return round(sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration)), 3)


@lru_cache(maxsize=16_384)
def expression_problem(pattern: str) -> str | None:
    """Say why Envoy would refuse a regular expression (RE2 syntax, size of the compiled program), if it would."""
    options = re2.Options()
    options.log_errors = False
    try:
        size = re2.compile(pattern, options).programsize
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        return f"is not valid in RE2 syntax: {reason}"
    return None if size <= MAX_PROGRAM_SIZE else f"is too large: {size} instructions, {MAX_PROGRAM_SIZE} are the most"


def check_expression(pattern: str, field: str) -> None:
    """Refuse a regular expression that Envoy would refuse. Raises InvalidRule."""
    problem = expression_problem(pattern)
    if problem is not None:
        message = f"regular expression {pattern!r} {problem}"
        raise InvalidRule(Finding("Accepted", "UnsupportedValue", message, field))


def match_type(kind: str, field: str) -> str:
    """Return a match type that is known. Raises InvalidRule."""
    if kind not in {"Exact", "RegularExpression"}:
        message = f"match type {kind!r} is not supported, only Exact and RegularExpression"
        raise InvalidRule(Finding("Accepted", "UnsupportedValue", message, f"{field}.type"))
    return kind


class Actions(Value, frozen=True):
    """What a rule does once it matched."""

    filters: tuple[Filter, ...]
    backends: tuple[BackendRef, ...]
    fatal: Finding | None
    findings: tuple[Finding, ...]


def build_actions(resolver: Resolver, rule: api.HTTPRouteRule | api.GRPCRouteRule, field: str) -> Actions:
    """Resolve the filters and backends of a rule. Raises InvalidRule."""
    built = build_filters(resolver, rule.filters, f"{field}.filters") if rule.filters else NONE
    if built.invalid is not None:
        raise InvalidRule(built.invalid)
    if not rule.backend_refs:
        return Actions(built.filters, (), built.fatal, built.findings)
    findings = list(built.findings)
    backends = []
    refs: Sequence[api.HTTPBackendRef | api.GRPCBackendRef] = rule.backend_refs
    for index, ref in enumerate(refs):
        where = f"{field}.backendRefs[{index}]"
        per_backend = build_filters(resolver, ref.filters, f"{where}.filters") if ref.filters else NONE
        if per_backend.invalid is not None:
            raise InvalidRule(per_backend.invalid)
        backend = resolver.backend(ref, where, ref.weight, per_backend.filters)
        findings.extend(per_backend.findings)
        if backend.finding is not None:
            findings.append(backend.finding)
        elif per_backend.fatal is not None:
            backend = BackendRef(ref.weight, None, per_backend.filters, per_backend.fatal, backend.target)
        backends.append(backend)
    return Actions(built.filters, tuple(backends), built.fatal, tuple(findings))


def build_session(session: api.SessionPersistence, route: api.ObjectRef, rule: str, field: str) -> Session:
    """Translate session persistence; a name that is left out is made of the route and rule. Raises InvalidRule."""
    generated = "session-" + blake2b(f"{route} {rule}".encode(), digest_size=6).hexdigest()
    timeout = session.absolute_timeout
    absolute = None if timeout is None else seconds(timeout, f"{field}.absoluteTimeout")
    if session.type == "Header":
        name = session.header.name if session.header is not None else f"x-{generated}"
        return Session("Header", name, absolute_timeout=absolute)
    if session.type != "Cookie":
        message = f"session type {session.type!r} is not supported, only Cookie and Header"
        raise InvalidRule(Finding("Accepted", "UnsupportedValue", message, f"{field}.type"))
    cookie = session.cookie or api.CookieConfig()
    permanent = cookie.lifetime_type == "Permanent"
    return Session("Cookie", cookie.name or generated, cookie.path or "/", absolute, permanent)


def references(filters: tuple[Filter, ...], backends: tuple[BackendRef, ...]) -> tuple[BackendRef, ...]:
    """Return every backend a rule refers to: its own, those of filters, those of filters of its backends."""
    found = backends
    if filters:
        found += _referred(filters)
    for backend in backends:
        if backend.filters:
            found += _referred(backend.filters)
    return found


def _referred(filters: tuple[Filter, ...]) -> tuple[BackendRef, ...]:
    return tuple([item.backend for item in filters if isinstance(item, REFERRING)])


def summarize(total: int, rules: list[Rule], dropped: dict[int, Finding], findings: list[Finding]) -> Rules:
    """Tell what it means for the route that rules were dropped: part of it, or all of it, is invalid."""
    if dropped and len(dropped) == total:
        findings = [*dropped.values(), *findings]
    elif dropped:
        what = "; ".join(f"Rule {index} ({finding.field}: {finding.message})" for index, finding in dropped.items())
        first = next(iter(dropped.values()))
        findings = [Finding("PartiallyInvalid", first.reason, f"Dropped {what}", first.field, "True"), *findings]
    return Rules(tuple(rules), tuple(dict.fromkeys(findings)) if findings else ())
