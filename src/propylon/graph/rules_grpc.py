"""Rules of GRPCRoutes, stated as the HTTP paths and headers that calls consist of."""

import re2

from propylon import api
from propylon.graph.model import Finding, Match, Rule, ValueMatch
from propylon.graph.rules import InvalidRule, Rules, build_actions, build_session, check_expression, summarize
from propylon.graph.rules import match_type as known_match_type
from propylon.graph.rules_http import value_match
from propylon.graph.targets import Resolver


def build_grpc_rules(resolver: Resolver, ref: api.ObjectRef, spec: api.GRPCRouteSpec) -> Rules:
    """Build the rules of a GRPCRoute; one that cannot be served as written is dropped, the others stay."""
    rules: list[Rule] = []
    dropped: dict[int, Finding] = {}
    findings: list[Finding] = []
    for index, rule in enumerate(spec.rules):
        field = f"spec.rules[{index}]"
        try:
            matches = rule.matches or (api.GRPCRouteMatch(),)
            actions = build_actions(resolver, rule, field)
            session = rule.session_persistence
            built = Rule(
                index=index,
                name=rule.name,
                matches=tuple(build_match(match, f"{field}.matches[{i}]") for i, match in enumerate(matches)),
                filters=actions.filters,
                backends=actions.backends,
                session=None
                if session is None
                else build_session(session, ref, rule.name or str(index), f"{field}.sessionPersistence"),
                finding=actions.fatal,
            )
        except InvalidRule as invalid:
            dropped[index] = invalid.finding
            continue
        rules.append(built)
        findings.extend(actions.findings)
    return summarize(len(spec.rules), rules, dropped, findings)


def build_match(match: api.GRPCRouteMatch, field: str) -> Match:
    """Translate one match: `/service/method` exactly, `/service` as a prefix, or an expression. Raises InvalidRule."""
    headers: dict[str, ValueMatch] = {}
    for index, header in enumerate(match.headers):
        found = value_match(header.name.lower(), header.value, header.type, f"{field}.headers[{index}]")
        headers.setdefault(found.name, found)
    values = tuple(headers.values())
    method = match.method
    if method is None or not (method.service or method.method):
        return Match(headers=values, grpc_service="", grpc_method="")
    service, name = method.service or "", method.method or ""
    kind = known_match_type(method.type, f"{field}.method")
    if kind == "Exact" and service:
        path, path_type = (f"/{service}/{name}", "Exact") if name else (f"/{service}", "PathPrefix")
        return Match(path, "Exact" if path_type == "Exact" else "PathPrefix", None, values, (), service, name)
    for part, expression in (("service", service), ("method", name)):
        if kind == "RegularExpression" and expression:
            check_expression(expression, f"{field}.method.{part}")
    if kind == "Exact":
        expression = f"/[^/]+/{re2.escape(name)}"
    else:
        expression = f"/{f'(?:{service})' if service else '[^/]+'}/{f'(?:{name})' if name else '[^/]+'}"
    return Match(expression, "RegularExpression", None, values, (), service, name)
