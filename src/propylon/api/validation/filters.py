"""Rules about filters of routes (the CEL rules of their CRDs)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from propylon.api.filters import (
    Fraction,
    GRPCRouteFilter,
    HTTPCORSFilter,
    HTTPExternalAuthFilter,
    HTTPPathModifier,
    HTTPRequestMirrorFilter,
    HTTPRouteFilter,
)
from propylon.api.routes import GRPCBackendRef, GRPCRouteRule, HTTPBackendRef, HTTPRouteRule
from propylon.api.validation.rules import Place, Rule, Violation, is_alone, union_rules, written_with_a_point


def redirect_excludes_backends(rule: Any) -> Iterable[Violation]:
    """A redirected request reaches no backend."""
    if rule.get("backendRefs"):
        for index, item in enumerate(rule.get("filters", ())):
            if "requestRedirect" in item:
                yield Violation(f".filters[{index}].requestRedirect", item["requestRedirect"])


def _replaces_prefix(item: Any, member: str) -> bool:
    path = item.get(member, {}).get("path", {})
    return path.get("type") == "ReplacePrefixMatch" and "replacePrefixMatch" in path


def _has_one_prefix_match(rule: Any) -> bool:
    matches = rule.get("matches", ())
    return len(matches) == 1 and matches[0].get("path", {}).get("type") == "PathPrefix"


def _keeps_paths(rule: Any) -> bool:
    """Whether no filter can replace a prefix."""
    for item in rule.get("filters", ()):
        if "path" in item.get("requestRedirect", ()) or "path" in item.get("urlRewrite", ()):
            return False
    for ref in rule.get("backendRefs", ()):  # noqa: SIM110 - every route asks, and a generator costs as much as the rest
        if "filters" in ref:
            return False
    return True


def _prefix_needed_by_rule(rule: Any, member: str) -> Iterable[Violation]:
    using = [index for index, item in enumerate(rule.get("filters", ())) if _replaces_prefix(item, member)]
    if len(using) == 1 and not _has_one_prefix_match(rule):
        yield Violation(f".filters[{using[0]}].{member}.path.replacePrefixMatch", rule.get("matches"))


def _prefix_needed_by_backend(rule: Any, member: str) -> Iterable[Violation]:
    using = [
        index
        for index, ref in enumerate(rule.get("backendRefs", ()))
        if sum(_replaces_prefix(item, member) for item in ref.get("filters", ())) == 1
    ]
    if len(using) == 1 and not _has_one_prefix_match(rule):
        yield Violation(f".backendRefs[{using[0]}].filters", rule.get("matches"))


def redirect_prefix_needs_one_prefix_match(rule: Any) -> Iterable[Violation]:
    """Which prefix to replace must be clear."""
    return _prefix_needed_by_rule(rule, "requestRedirect")


def rewrite_prefix_needs_one_prefix_match(rule: Any) -> Iterable[Violation]:
    """Which prefix to replace must be clear."""
    return _prefix_needed_by_rule(rule, "urlRewrite")


def backend_redirect_prefix_needs_one_prefix_match(rule: Any) -> Iterable[Violation]:
    """Which prefix to replace must be clear, also in a backend's filters."""
    return _prefix_needed_by_backend(rule, "requestRedirect")


def backend_rewrite_prefix_needs_one_prefix_match(rule: Any) -> Iterable[Violation]:
    """Which prefix to replace must be clear, also in a backend's filters."""
    return _prefix_needed_by_backend(rule, "urlRewrite")


def redirect_excludes_rewrite(filters: Any) -> Iterable[Violation]:
    """A redirected request is not forwarded, so there is nothing to rewrite."""
    types = [item.get("type") for item in filters]
    if "RequestRedirect" in types and "URLRewrite" in types:
        yield Violation(f"[{types.index('URLRewrite')}]", "URLRewrite")


def _once(filter_type: str, name: str) -> Callable[[Any], Iterable[Violation]]:
    def check(filters: Any) -> Iterable[Violation]:
        found = [index for index, item in enumerate(filters) if item.get("type") == filter_type]
        for index in found[1:]:
            yield Violation(f"[{index}]", filter_type)

    check.__name__ = name
    return check


def mirror_takes_percent_or_fraction(mirror: Any) -> Iterable[Violation]:
    """Two ways to say the same thing exclude each other."""
    if "percent" in mirror and "fraction" in mirror:
        yield Violation(".fraction", mirror["fraction"])


def fraction_must_not_exceed_one(fraction: Any) -> Iterable[Violation]:
    """No more than all requests can be mirrored."""
    if fraction.get("numerator", 0) > fraction.get("denominator", 100):
        yield Violation(".numerator", fraction["numerator"])


def fraction_must_be_written_without_a_point(fraction: Any) -> Iterable[Violation]:
    """The two numbers are compared, which fails for one like 50.0."""
    return written_with_a_point(fraction, "numerator", "denominator")


def _wildcard_stands_alone(name: str) -> Callable[[Any], Iterable[Violation]]:
    def check(values: Any) -> Iterable[Violation]:
        if "*" in values and len(values) > 1:
            yield Violation("", values)

    check.__name__ = name
    return check


_HTTP_FILTERS = (Place(HTTPRouteRule, "filters"), Place(HTTPBackendRef, "filters"))
_GRPC_FILTERS = (Place(GRPCRouteRule, "filters"), Place(GRPCBackendRef, "filters"))
_ONE_PREFIX = "Give the rule exactly one match, with a path of type PathPrefix."

FILTER_RULES: tuple[Rule, ...] = (
    Rule(
        redirect_excludes_backends,
        (Place(HTTPRouteRule),),
        "a rule that redirects has backends too",
        "Remove backendRefs, or the RequestRedirect filter.",
    ),
    *(
        Rule(check, (Place(HTTPRouteRule),), "which prefix to replace is not clear", _ONE_PREFIX, kept=_keeps_paths)
        for check in (
            redirect_prefix_needs_one_prefix_match,
            rewrite_prefix_needs_one_prefix_match,
            backend_redirect_prefix_needs_one_prefix_match,
            backend_rewrite_prefix_needs_one_prefix_match,
        )
    ),
    Rule(
        redirect_excludes_rewrite,
        _HTTP_FILTERS,
        "RequestRedirect and URLRewrite exclude each other",
        "Remove one of the two.",
        kept=is_alone,
    ),
    *(
        Rule(
            _once(filter_type, name),
            places,
            f"there is another {filter_type} filter",
            "Merge the two into one.",
            kept=is_alone,
        )
        for filter_type, name, places in (
            ("RequestHeaderModifier", "request_header_modifier_must_not_repeat", _HTTP_FILTERS + _GRPC_FILTERS),
            ("ResponseHeaderModifier", "response_header_modifier_must_not_repeat", _HTTP_FILTERS + _GRPC_FILTERS),
            ("CORS", "cors_must_not_repeat", _HTTP_FILTERS),
            ("RequestRedirect", "request_redirect_must_not_repeat", _HTTP_FILTERS),
            ("URLRewrite", "url_rewrite_must_not_repeat", _HTTP_FILTERS),
        )
    ),
    Rule(
        mirror_takes_percent_or_fraction,
        (Place(HTTPRequestMirrorFilter),),
        "percent and fraction exclude each other",
        "Remove one of the two.",
    ),
    Rule(
        fraction_must_not_exceed_one,
        (Place(Fraction),),
        "the numerator is larger than the denominator",
        "Lower the numerator, or raise the denominator (100 if not given).",
    ),
    Rule(
        fraction_must_be_written_without_a_point,
        (Place(Fraction),),
        "a number must be written without a point",
        'Write it like "50".',
    ),
    *(
        Rule(
            _wildcard_stands_alone(name),
            (Place(HTTPCORSFilter, field),),
            '"*" stands beside other values',
            'Keep "*" alone, or remove it.',
        )
        for field, name in (
            ("allowOrigins", "cors_wildcard_origin_must_stand_alone"),
            ("allowMethods", "cors_wildcard_method_must_stand_alone"),
            ("allowHeaders", "cors_wildcard_header_must_stand_alone"),
        )
    ),
    *union_rules(
        HTTPPathModifier,
        "type",
        {"ReplaceFullPath": "replaceFullPath", "ReplacePrefixMatch": "replacePrefixMatch"},
    ),
    *union_rules(
        HTTPRouteFilter,
        "type",
        {
            "RequestHeaderModifier": "requestHeaderModifier",
            "ResponseHeaderModifier": "responseHeaderModifier",
            "RequestMirror": "requestMirror",
            "RequestRedirect": "requestRedirect",
            "URLRewrite": "urlRewrite",
            "CORS": "cors",
            "ExtensionRef": "extensionRef",
        },
    ),
    *union_rules(HTTPRouteFilter, "type", {"ExternalAuth": "externalAuth"}, "experimental"),
    *union_rules(
        GRPCRouteFilter,
        "type",
        {
            "RequestHeaderModifier": "requestHeaderModifier",
            "ResponseHeaderModifier": "responseHeaderModifier",
            "RequestMirror": "requestMirror",
            "ExtensionRef": "extensionRef",
        },
    ),
    *union_rules(HTTPExternalAuthFilter, "protocol", {"GRPC": "grpc", "HTTP": "http"}, "experimental"),
)
