"""Rules about routes, their matches, filters and backends (the CEL rules of their CRDs)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from propylon.api.references import EXPERIMENTAL_GROUP, BackendObjectReference, BackendRef
from propylon.api.routes import (
    GRPCBackendRef,
    GRPCMethodMatch,
    GRPCRouteSpec,
    HTTPBackendRef,
    HTTPPathMatch,
    HTTPRouteSpec,
    HTTPRouteTimeouts,
    SessionPersistence,
    TCPRouteSpec,
    TLSRouteSpec,
    UDPRouteSpec,
)
from propylon.api.schema import PATH_PATTERN, SUBDOMAIN_PATTERN
from propylon.api.validation.rules import (
    Place,
    Rule,
    Violation,
    duplicates,
    is_alone,
    union_rules,
    written_with_a_point,
)
from propylon.api.validation.scalars import Pattern
from propylon.api.versions import TCPRouteSpecV1Alpha2, TLSRouteSpecV1Alpha2, UDPRouteSpecV1Alpha2

_SUBDOMAIN = Pattern(f"^{SUBDOMAIN_PATTERN}$")
_GRPC_SERVICE = Pattern(r"(?i)^\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$")
_GRPC_METHOD = Pattern("^[A-Za-z_][A-Za-z_0-9]*$")
_PATH = Pattern(PATH_PATTERN)
_PLAIN_PATH = re.compile(r"^/(?:[-A-Za-z0-9_]+/)*[-A-Za-z0-9_]*\Z")
_LITERAL_PATHS = ("Exact", "PathPrefix")
_MAX_MATCHES = 128


# --- parents ----------------------------------------------------------------------------------------------------------


def _parent(ref: Any) -> tuple[Any, ...]:
    return (ref.get("group"), ref.get("kind"), ref.get("name"), ref.get("namespace") or "")


def _sections_differ_in_kind(refs: Any, *fields: str) -> Iterable[Violation]:
    """References to one parent where some name a section and others do not."""
    for index, ref in enumerate(refs):
        same = [other for other in refs if _parent(other) == _parent(ref)]
        for field in fields:
            if not ref.get(field) and any(other.get(field) for other in same):
                yield Violation(f"[{index}]", ref)
                break


def _repeated_parents(refs: Any, *fields: str) -> Iterable[Violation]:
    keys = [(*_parent(ref), *(ref.get(field) or None for field in fields)) for ref in refs]
    for index in duplicates(keys):
        yield Violation(f"[{index}]", refs[index])


def parent_refs_need_section_names(refs: Any) -> Iterable[Violation]:
    """Several references to one parent must all name a section (standard channel)."""
    return _sections_differ_in_kind(refs, "sectionName")


def parent_refs_must_be_unique(refs: Any) -> Iterable[Violation]:
    """Each section of a parent is referred to once (standard channel)."""
    return _repeated_parents(refs, "sectionName")


def parent_refs_need_section_names_or_ports(refs: Any) -> Iterable[Violation]:
    """Several references to one parent must all name a section, all name a port, or both (experimental channel)."""
    return _sections_differ_in_kind(refs, "sectionName", "port")


def parent_refs_must_be_unique_by_section_and_port(refs: Any) -> Iterable[Violation]:
    """Each section and port of a parent is referred to once (experimental channel)."""
    return _repeated_parents(refs, "sectionName", "port")


def parent_ports_must_be_written_without_a_point(refs: Any) -> Iterable[Violation]:
    """Ports are compared, which fails for one like 80.0 (experimental channel)."""
    for index, ref in enumerate(refs):
        for violation in written_with_a_point(ref, "port"):
            yield Violation(f"[{index}]{violation.path}", violation.found)


def _have_no_ports(refs: Any) -> bool:
    for ref in refs:  # noqa: SIM110 - as below
        if "port" in ref:
            return False
    return True


# --- rules and matches ------------------------------------------------------------------------------------------------


def rule_names_must_be_unique(rules: Any) -> Iterable[Violation]:
    """Names tell the rules of a route apart."""
    for index in duplicates(rule.get("name") for rule in rules):
        yield Violation(f"[{index}].name", rules[index]["name"])


def _are_unnamed(rules: Any) -> bool:
    for rule in rules:  # noqa: SIM110 - every route asks, and a generator costs as much as the rest
        if "name" in rule:
            return False
    return True


def total_matches_must_not_exceed_128(rules: Any) -> Iterable[Violation]:
    """All rules of a route together have 128 matches at most."""
    total = 0
    for rule in rules:
        total += len(rule.get("matches", ()))
    if total > _MAX_MATCHES:
        yield Violation("", total)


def _is_plain_path(match: Any) -> bool:
    return _PLAIN_PATH.search(match.get("value", "/")) is not None


def _path_check(name: str, doc: str, bad: Callable[[str], bool]) -> Callable[[Any], Iterable[Violation]]:
    def check(match: Any) -> Iterable[Violation]:
        value = match.get("value", "/")
        if match.get("type", "PathPrefix") in _LITERAL_PATHS and bad(value):
            yield Violation(".value", value)

    check.__name__, check.__doc__ = name, doc
    return check


def grpc_method_match_needs_service_or_method(match: Any) -> Iterable[Violation]:
    """A match on neither would match everything."""
    if "type" in match and "service" not in match and "method" not in match:
        yield Violation("", match)


def grpc_service_must_be_a_name(match: Any) -> Iterable[Violation]:
    """An exact service is a protobuf name such as `package.Service`."""
    service = match.get("service")
    if match.get("type", "Exact") == "Exact" and service is not None and not _GRPC_SERVICE.search(service):
        yield Violation(".service", service)


def grpc_method_must_be_a_name(match: Any) -> Iterable[Violation]:
    """An exact method is a protobuf identifier."""
    method = match.get("method")
    if match.get("type", "Exact") == "Exact" and method is not None and not _GRPC_METHOD.search(method):
        yield Violation(".method", method)


def tls_hostnames_must_not_be_ip_addresses(hostnames: Any) -> Iterable[Violation]:
    """Clients send no server name when they connect to an IP address (RFC 6066, section 3)."""
    for index, hostname in enumerate(hostnames):
        try:
            ipaddress.ip_address(hostname)
        except ValueError:
            continue
        yield Violation(f"[{index}]", hostname)


def tls_hostnames_must_be_dns_names(hostnames: Any) -> Iterable[Violation]:
    """A server name is a DNS name in lower case."""
    for index, hostname in enumerate(hostnames):
        if "*" not in hostname and not _SUBDOMAIN.search(hostname):
            yield Violation(f"[{index}]", hostname)


def tls_wildcards_must_be_the_first_label(hostnames: Any) -> Iterable[Violation]:
    """A wildcard stands for whole labels at the front of a DNS name."""
    for index, hostname in enumerate(hostnames):
        if "*" in hostname and not (hostname.startswith("*.") and _SUBDOMAIN.search(hostname[2:])):
            yield Violation(f"[{index}]", hostname)


# --- backends ---------------------------------------------------------------------------------------------------------


def _is_service(ref: Any) -> bool:
    return bool(ref.get("group", "") == "" and ref.get("kind", "Service") == "Service")


def _is_service_port(ref: Any) -> bool:
    return type(ref.get("port")) is int and ref.get("group", "") == ""


def service_reference_needs_a_port(ref: Any) -> Iterable[Violation]:
    """A Service has several ports; which one is meant must be said."""
    if _is_service(ref) and "port" not in ref:
        yield Violation(".port", None)


def service_port_must_be_written_without_a_point(ref: Any) -> Iterable[Violation]:
    """Whether there is a port cannot be told of one like 80.0."""
    return written_with_a_point(ref, "port") if _is_service(ref) else ()


def xbackend_reference_has_no_port(ref: Any) -> Iterable[Violation]:
    """An XBackend has its port in itself."""
    if ref.get("group") == EXPERIMENTAL_GROUP and ref.get("kind") == "XBackend" and "port" in ref:
        yield Violation(".port", ref["port"])


# --- timeouts and sessions --------------------------------------------------------------------------------------------


_UNIT_MICROSECONDS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}


def microseconds(duration: str) -> int:
    """A GEP-2257 duration such as "1m30s" in microseconds. The duration must be well-formed."""
    return sum(int(n) * _UNIT_MICROSECONDS[unit] for n, unit in re.findall(r"([0-9]{1,5})(h|ms|m|s)", duration))


def backend_timeout_must_not_exceed_request_timeout(timeouts: Any) -> Iterable[Violation]:
    """An attempt that may outlast the request would be cut short anyway; a request timeout of 0 is no limit."""
    if "request" in timeouts and "backendRequest" in timeouts:
        request = microseconds(timeouts["request"])
        if request != 0 and microseconds(timeouts["backendRequest"]) > request:
            yield Violation(".backendRequest", timeouts["backendRequest"])


def permanent_cookie_needs_absolute_timeout(persistence: Any) -> Iterable[Violation]:
    """A cookie that outlives the browser needs an end."""
    permanent = persistence.get("cookie", {}).get("lifetimeType") == "Permanent"
    if permanent and "absoluteTimeout" not in persistence:
        yield Violation(".absoluteTimeout", None)


_PARENT_REFS = tuple(
    Place(struct, "parentRefs")
    for struct in (
        HTTPRouteSpec,
        GRPCRouteSpec,
        TLSRouteSpec,
        TCPRouteSpec,
        UDPRouteSpec,
        TLSRouteSpecV1Alpha2,
        TCPRouteSpecV1Alpha2,
        UDPRouteSpecV1Alpha2,
    )
)
_BACKENDS = (Place(BackendObjectReference), Place(BackendRef), Place(HTTPBackendRef), Place(GRPCBackendRef))
_TLS_HOSTNAMES = (Place(TLSRouteSpec, "hostnames"),)

_NO_POINT = ("a port must be written without a point", 'Write it like "80".')

_PARENT_RULES = (
    Rule(
        parent_ports_must_be_written_without_a_point,
        _PARENT_REFS,
        *_NO_POINT,
        "experimental",
        kept=_have_no_ports,
    ),
    Rule(
        parent_refs_need_section_names,
        _PARENT_REFS,
        "several parentRefs name this parent, but not all of them name a section of it",
        "Add sectionName to each of them.",
        "standard",
        kept=is_alone,
    ),
    Rule(
        parent_refs_must_be_unique,
        _PARENT_REFS,
        "another parentRef names the same parent and section",
        "Remove one of the two.",
        "standard",
        kept=is_alone,
    ),
    Rule(
        parent_refs_need_section_names_or_ports,
        _PARENT_REFS,
        "several parentRefs name this parent, but not all of them name a section or port of it",
        "Add sectionName or port to each of them.",
        "experimental",
        kept=is_alone,
    ),
    Rule(
        parent_refs_must_be_unique_by_section_and_port,
        _PARENT_REFS,
        "another parentRef names the same parent, section and port",
        "Remove one of the two.",
        "experimental",
        kept=is_alone,
    ),
)

_RULE_RULES = (
    Rule(
        rule_names_must_be_unique,
        (Place(HTTPRouteSpec, "rules"), Place(GRPCRouteSpec, "rules")),
        "another rule has this name",
        "Give each rule a name of its own, or none.",
        kept=_are_unnamed,
    ),
    Rule(
        rule_names_must_be_unique,
        tuple(Place(s, "rules") for s in (TLSRouteSpecV1Alpha2, TCPRouteSpecV1Alpha2, UDPRouteSpecV1Alpha2)),
        "another rule has this name",
        "Give each rule a name of its own, or none.",
        "experimental",
        kept=_are_unnamed,
    ),
    Rule(
        total_matches_must_not_exceed_128,
        (Place(HTTPRouteSpec, "rules"), Place(GRPCRouteSpec, "rules")),
        "the rules of a route may have 128 matches altogether",
        "Spread the rules over several routes.",
    ),
    *(
        Rule(_path_check(name, message, bad), (Place(HTTPPathMatch),), message, remedy, kept=_is_plain_path)
        for name, message, remedy, bad in (
            (
                "path_must_start_with_a_slash",
                'a path must start with "/"',
                'Put "/" in front.',
                lambda path: not path.startswith("/"),
            ),
            *(
                (f"path_must_not_contain_{name}", f'a path must not contain "{part}"', f'Remove "{part}".', part_in)
                for name, part, part_in in (
                    ("double_slash", "//", lambda path: "//" in path),
                    ("dot_segment", "/./", lambda path: "/./" in path),
                    ("double_dot_segment", "/../", lambda path: "/../" in path),
                    ("encoded_slash", "%2f", lambda path: "%2f" in path),
                    ("encoded_upper_case_slash", "%2F", lambda path: "%2F" in path),
                    ("fragment", "#", lambda path: "#" in path),
                )
            ),
            (
                "path_must_not_end_with_double_dot",
                'a path must not end with "/.."',
                'Remove "/..".',
                lambda path: path.endswith("/.."),
            ),
            (
                "path_must_not_end_with_dot",
                'a path must not end with "/."',
                'Remove "/.".',
                lambda path: path.endswith("/."),
            ),
            (
                "path_must_have_valid_characters",
                "a path of type Exact or PathPrefix has characters that no URL path has",
                "Percent-encode them, or set type to RegularExpression if this is one.",
                lambda path: not _PATH.search(path),
            ),
        )
    ),
    Rule(
        grpc_method_match_needs_service_or_method,
        (Place(GRPCMethodMatch),),
        "a method match names neither service nor method",
        "Add service, method or both, or remove the match.",
    ),
    Rule(
        grpc_service_must_be_a_name,
        (Place(GRPCMethodMatch),),
        "this is not the name of a gRPC service",
        'Write it like "package.Service", or set type to RegularExpression.',
    ),
    Rule(
        grpc_method_must_be_a_name,
        (Place(GRPCMethodMatch),),
        "this is not the name of a gRPC method",
        "Use letters, digits and underscores, or set type to RegularExpression.",
    ),
    Rule(
        tls_hostnames_must_not_be_ip_addresses,
        _TLS_HOSTNAMES,
        "a server name (SNI) is never an IP address",
        "Use a DNS name, or a TCPRoute.",
    ),
    Rule(
        tls_hostnames_must_be_dns_names,
        _TLS_HOSTNAMES,
        "this is not a DNS name",
        'Use lower-case letters, digits, "-" and ".", like "www.example.com".',
    ),
    Rule(
        tls_wildcards_must_be_the_first_label,
        _TLS_HOSTNAMES,
        "a wildcard must be the whole first label of a DNS name",
        'Write it like "*.example.com".',
    ),
    Rule(
        service_reference_needs_a_port,
        _BACKENDS,
        "a reference to a Service must name its port",
        "Add port with the Service's port number.",
        kept=_is_service_port,
    ),
    Rule(service_port_must_be_written_without_a_point, _BACKENDS, *_NO_POINT, kept=_is_service_port),
    Rule(
        xbackend_reference_has_no_port,
        _BACKENDS,
        "a reference to an XBackend has no port",
        "Remove port; it is in the XBackend.",
        "experimental",
        kept=_is_service_port,
    ),
    Rule(
        backend_timeout_must_not_exceed_request_timeout,
        (Place(HTTPRouteTimeouts),),
        "backendRequest is longer than request",
        "Raise request, or lower backendRequest.",
    ),
    Rule(
        permanent_cookie_needs_absolute_timeout,
        (Place(SessionPersistence),),
        "a permanent cookie needs an absolute timeout",
        "Add absoluteTimeout, or set cookie.lifetimeType to Session.",
        "experimental",
    ),
    *union_rules(SessionPersistence, "type", {"Cookie": "cookie", "Header": "header"}, "experimental"),
)

ROUTE_RULES: tuple[Rule, ...] = (*_PARENT_RULES, *_RULE_RULES)
