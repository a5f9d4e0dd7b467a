"""Filters of routes, backends and listeners: which are supported, and where those lead that refer to something."""

from functools import lru_cache
from typing import NamedTuple

from msgspec.structs import replace

from propylon import api
from propylon.graph.model import (
    Cors,
    ExternalAuth,
    Filter,
    Finding,
    Mirror,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
)
from propylon.graph.targets import Resolver

REFERRING = frozenset({"RequestMirror", "ExternalAuth"})
ONCE = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"})


Written = tuple[api.HTTPRouteFilter | api.GRPCRouteFilter, ...]
"""As a rule or one of its backends has them."""


class Filters(NamedTuple):
    """The usable filters of a rule or backend; what is missing among them; why they cannot be used together."""

    filters: tuple[Filter, ...]
    findings: tuple[Finding, ...]
    """References of filters that lead nowhere."""
    fatal: Finding | None = None
    """A filter that must not be skipped and cannot be applied: requests get an error instead."""
    invalid: Finding | None = None
    """The rule cannot be meant: it is dropped."""


NONE = Filters((), ())


def build_filters(resolver: Resolver, filters: Written, field: str) -> Filters:
    """Translate the filters of a rule or of one of its backends, in the order they are written."""
    if not filters:
        return NONE
    return _build_alone(filters, field) or _build(resolver, filters, field)


@lru_cache(16_384)
def _build_alone(filters: Written, field: str) -> Filters | None:
    """Translate filters that refer to nothing, as many rules have alike; None if one of them does."""
    return None if any(item.type in REFERRING for item in filters) else _build(None, filters, field)


def _build(resolver: Resolver | None, filters: Written, field: str) -> Filters:
    result: list[Filter] = []
    findings: list[Finding] = []
    fatal: Finding | None = None
    invalid = incompatible(filters, field)
    for index, item in enumerate(filters):
        where = f"{field}[{index}]"
        if item.type == "ExtensionRef":
            ref = item.extension_ref
            what = "an extension" if ref is None else f"{ref.kind}.{ref.group} {ref.name}"
            message = f"filter extensions are not supported ({what}): requests get 500"
            finding = Finding("ResolvedRefs", "InvalidKind", message, f"{where}.extensionRef")
            findings.append(finding)
            fatal = fatal or finding
            continue
        translated = _translate(item) if resolver is None else _resolve(resolver, item, where) or _translate(item)
        if translated is None:
            message = f"filter type {item.type!r} is not supported, or lacks its settings"
            invalid = invalid or Finding("Accepted", "UnsupportedValue", message, f"{where}.type")
            continue
        result.append(translated)
        if isinstance(translated, Mirror | ExternalAuth) and translated.backend.finding is not None:
            findings.append(translated.backend.finding)
            if isinstance(translated, ExternalAuth):
                # Nobody is let past an authorizer that cannot be asked.
                fatal = fatal or translated.backend.finding
    return Filters(tuple(result), tuple(findings), fatal, invalid)


def incompatible(filters: Written, field: str) -> Finding | None:
    """Find filters that exclude one another, or that may be given only once."""
    types = [item.type for item in filters]
    if "URLRewrite" in types and "RequestRedirect" in types:
        message = "URLRewrite and RequestRedirect exclude each other"
        return Finding("Accepted", "IncompatibleFilters", message, field)
    twice = next((t for t in types if t in ONCE and types.count(t) > 1), None)
    if twice is not None:
        return Finding("Accepted", "IncompatibleFilters", f"{twice} is given more than once", field)
    return None


def _resolve(resolver: Resolver, item: api.HTTPRouteFilter | api.GRPCRouteFilter, field: str) -> Filter | None:
    """Translate a filter that refers to something; None for others."""
    if item.type == "RequestMirror" and item.request_mirror is not None:
        return build_mirror(resolver, item.request_mirror, f"{field}.requestMirror")
    if item.type == "ExternalAuth" and isinstance(item, api.HTTPRouteFilter) and item.external_auth is not None:
        return build_external_auth(resolver, item.external_auth, f"{field}.externalAuth")
    return None


def _translate(item: api.HTTPRouteFilter | api.GRPCRouteFilter) -> Filter | None:
    """Translate a filter that refers to nothing; None for others."""
    match item.type:
        case "RequestHeaderModifier" if item.request_header_modifier is not None:
            return RequestHeaders(item.request_header_modifier)
        case "ResponseHeaderModifier" if item.response_header_modifier is not None:
            return ResponseHeaders(item.response_header_modifier)
    if isinstance(item, api.GRPCRouteFilter):
        return None
    match item.type:
        case "RequestRedirect" if item.request_redirect is not None:
            return Redirect(item.request_redirect)
        case "URLRewrite" if item.url_rewrite is not None:
            return Rewrite(item.url_rewrite)
        case "CORS" if item.cors is not None:
            return Cors(item.cors)
    return None


def build_mirror(resolver: Resolver, mirror: api.HTTPRequestMirrorFilter, field: str) -> Mirror:
    """Resolve a mirror's backend and its share of the requests."""
    backend = resolver.backend(mirror.backend_ref, f"{field}.backendRef")
    if mirror.fraction is not None:
        return Mirror(backend, mirror.fraction.numerator, mirror.fraction.denominator)
    return Mirror(backend, 100 if mirror.percent is None else mirror.percent, 100)


def build_external_auth(resolver: Resolver, auth: api.HTTPExternalAuthFilter, field: str) -> ExternalAuth:
    """Resolve an authorizer, which speaks gRPC or HTTP whatever the route speaks."""
    speaks = "GRPCRoute" if auth.protocol == "GRPC" else "HTTPRoute"
    return ExternalAuth(auth, replace(resolver, speaks=speaks).backend(auth.backend_ref, f"{field}.backendRef"))
