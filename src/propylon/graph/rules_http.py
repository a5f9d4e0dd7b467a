"""Rules of HTTPRoutes."""

from functools import lru_cache
from typing import cast

from propylon import api
from propylon.graph.model import Finding, Match, MatchType, PathType, Retry, Rule, Timeouts, ValueMatch
from propylon.graph.rules import InvalidRule, Rules, build_actions, build_session, check_expression, seconds, summarize
from propylon.graph.rules import match_type as known_match_type
from propylon.graph.targets import Resolver

PATH_TYPES = frozenset({"Exact", "PathPrefix", "RegularExpression"})


def build_http_rules(resolver: Resolver, ref: api.ObjectRef, spec: api.HTTPRouteSpec) -> Rules:
    """Build the rules of an HTTPRoute; one that cannot be served as written is dropped, the others stay."""
    rules: list[Rule] = []
    dropped: dict[int, Finding] = {}
    findings: list[Finding] = []
    for index, rule in enumerate(spec.rules):
        try:
            built, found = _rule(resolver, ref, index, rule)
        except InvalidRule as invalid:
            dropped[index] = invalid.finding
            continue
        rules.append(built)
        findings.extend(found)
    return summarize(len(spec.rules), rules, dropped, findings)


def _rule(
    resolver: Resolver, ref: api.ObjectRef, index: int, rule: api.HTTPRouteRule
) -> tuple[Rule, tuple[Finding, ...]]:
    field = f"spec.rules[{index}]"
    actions = build_actions(resolver, rule, field)
    session = None
    if rule.session_persistence is not None:
        session = build_session(rule.session_persistence, ref, rule.name or str(index), f"{field}.sessionPersistence")
    built = Rule(  # by position, as keywords cost as much again
        index,
        rule.name,
        _matches(rule.matches, field),
        actions.filters,
        actions.backends,
        None if rule.timeouts is None else _timeouts(rule.timeouts, f"{field}.timeouts"),
        None if rule.retry is None else _retry(rule.retry, f"{field}.retry"),
        session,
        actions.fatal,
    )
    return built, actions.findings


@lru_cache(16_384)
def _matches(matches: tuple[api.HTTPRouteMatch, ...], field: str) -> tuple[Match, ...]:
    """Translate the matches of a rule, which many rules have alike. Raises InvalidRule."""
    written = matches or (api.HTTPRouteMatch(),)
    return tuple([build_match(match, f"{field}.matches[{i}]") for i, match in enumerate(written)])


def build_match(match: api.HTTPRouteMatch, field: str) -> Match:
    """Translate one match. Raises InvalidRule.

    A prefix is matched by whole segments, so that a trailing slash says nothing: `/match/` is `/match`. Of header or
    parameter matches with the same name only the first counts (HTTPHeaderMatch, HTTPQueryParamMatch).
    """
    path, path_type = match.path.value or "/", match.path.type
    if path_type not in PATH_TYPES:
        message = f"path match type {path_type!r} is not supported"
        raise InvalidRule(Finding("Accepted", "UnsupportedValue", message, f"{field}.path.type"))
    if path_type == "RegularExpression":
        check_expression(path, f"{field}.path.value")
    elif path_type == "PathPrefix":
        path = path.rstrip("/") or "/"
    if not match.headers and not match.query_params:
        return Match(path, cast(PathType, path_type), match.method)
    headers: dict[str, ValueMatch] = {}
    for index, header in enumerate(match.headers):
        found = value_match(header.name.lower(), header.value, header.type, f"{field}.headers[{index}]")
        headers.setdefault(found.name, found)
    query: dict[str, ValueMatch] = {}
    for index, parameter in enumerate(match.query_params):
        found = value_match(parameter.name, parameter.value, parameter.type, f"{field}.queryParams[{index}]")
        query.setdefault(found.name, found)
    return Match(path, cast(PathType, path_type), match.method, tuple(headers.values()), tuple(query.values()))


def value_match(name: str, value: str, match_type: str, field: str) -> ValueMatch:
    """Translate a header or query parameter match. Raises InvalidRule."""
    known = known_match_type(match_type, field)
    if known == "RegularExpression":
        check_expression(value, f"{field}.value")
    return ValueMatch(name, value, cast(MatchType, known))


def _timeouts(timeouts: api.HTTPRouteTimeouts, field: str) -> Timeouts:
    request, backend = timeouts.request, timeouts.backend_request
    return Timeouts(
        None if request is None else seconds(request, f"{field}.request"),
        None if backend is None else seconds(backend, f"{field}.backendRequest"),
    )


def _retry(retry: api.HTTPRouteRetry, field: str) -> Retry:
    backoff = None if retry.backoff is None else seconds(retry.backoff, f"{field}.backoff")
    return Retry(retry.attempts, retry.codes, backoff)
