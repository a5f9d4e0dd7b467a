"""For every rule of the CRDs a change to a valid document that breaks it: (our code, kind, path, value)."""

import copy
import re
from itertools import pairwise
from typing import Any

DELETE = object()
GROUP = "gateway.networking.k8s.io"


def _document(kind: str, spec: dict, version: str = "v1", group: str = GROUP, **more: Any) -> dict:
    return {
        "apiVersion": f"{group}/{version}",
        "kind": kind,
        "metadata": {"name": "a", "namespace": "n"},
        "spec": spec,
        **more,
    }


BACKEND = {"name": "s", "port": 80}
CA = {"group": "", "kind": "ConfigMap", "name": "ca"}
L4_RULES = [{"backendRefs": [BACKEND]}]
STATUS_ADDRESS = {"type": "IPAddress", "value": "192.0.2.1"}

VALID: dict[str, dict] = {
    "GatewayClass": {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "a"},
        "spec": {"controllerName": "example.com/controller"},
    },
    "Gateway": _document(
        "Gateway",
        {
            "gatewayClassName": "c",
            "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}, {"type": "Hostname", "value": "a.example.com"}],
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"},
                {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "s"}]}},
                {"name": "tls", "port": 8443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
                {"name": "tcp", "port": 9000, "protocol": "TCP"},
            ],
            "infrastructure": {"labels": {"example.com/a": "b"}, "annotations": {"a": "b"}},
            "tls": {
                "frontend": {
                    "default": {"validation": {"caCertificateRefs": [{**CA, "namespace": "n"}]}},
                    "perPort": [
                        {"port": 443, "tls": {"validation": {"caCertificateRefs": [CA]}}},
                        {"port": 8443, "tls": {}},
                    ],
                }
            },
        },
        status={"addresses": [STATUS_ADDRESS]},
    ),
    "ListenerSet": _document(
        "ListenerSet",
        {
            "parentRef": {"name": "g"},
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"},
                {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "s"}]}},
                {"name": "tls", "port": 8443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
            ],
        },
    ),
    "HTTPRoute": _document(
        "HTTPRoute",
        {
            "parentRefs": [{"name": "g", "sectionName": "http"}, {"name": "h"}],
            "hostnames": ["a.example.com"],
            "rules": [
                {
                    "name": "one",
                    "matches": [{"path": {"type": "PathPrefix", "value": "/a/b"}, "method": "GET"}],
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["X-A"]}}],
                    "backendRefs": [{**BACKEND, "filters": []}],
                    "timeouts": {"request": "1m", "backendRequest": "59s999ms"},
                },
                {"name": "two", "matches": [{}], "filters": []},
            ],
        },
    ),
    "GRPCRoute": _document(
        "GRPCRoute",
        {
            "parentRefs": [{"name": "g"}],
            "rules": [
                {
                    "name": "one",
                    "matches": [{"method": {"service": "a.B", "method": "C"}}],
                    "filters": [],
                    "backendRefs": [{**BACKEND, "filters": []}],
                },
                {"name": "two"},
            ],
        },
    ),
    "TLSRoute": _document("TLSRoute", {"parentRefs": [], "hostnames": ["a.example.com"], "rules": L4_RULES}),
    "TCPRoute": _document("TCPRoute", {"parentRefs": [], "rules": L4_RULES}),
    "UDPRoute": _document("UDPRoute", {"parentRefs": [], "rules": L4_RULES}),
    "TLSRoute v1alpha2": _document("TLSRoute", {"rules": [{"name": "one", **L4_RULES[0]}, *L4_RULES]}, "v1alpha2"),
    "TLSRoute v1alpha3": _document("TLSRoute", {"hostnames": ["a.example.com"], "rules": L4_RULES}, "v1alpha3"),
    "TCPRoute v1alpha2": _document("TCPRoute", {"rules": [{"name": "one", **L4_RULES[0]}, *L4_RULES]}, "v1alpha2"),
    "UDPRoute v1alpha2": _document("UDPRoute", {"rules": [{"name": "one", **L4_RULES[0]}, *L4_RULES]}, "v1alpha2"),
    "BackendTLSPolicy": _document(
        "BackendTLSPolicy",
        {
            "targetRefs": [
                {"group": "", "kind": "Service", "name": "s", "sectionName": "a"},
                {"group": "", "kind": "Service", "name": "s", "sectionName": "b"},
            ],
            "validation": {
                "hostname": "a.example.com",
                "caCertificateRefs": [CA],
                "subjectAltNames": [{"type": "URI", "uri": "spiffe://a/b"}, {"type": "Hostname", "hostname": "a.b"}],
            },
        },
    ),
    "XBackend": _document(
        "XBackend",
        {
            "type": "EndpointSelector",
            "port": {"number": 80},
            "endpointSelector": {"matchLabels": {"example.com/a": "b"}},
            "sessionPersistence": {"type": "Header", "header": {"name": "X-A"}},
        },
        "v1alpha1",
        "gateway.networking.x-k8s.io",
    ),
}

FILTER = "spec.rules[0].filters[0]"
BACKEND_FILTERS = "spec.rules[0].backendRefs[0].filters"
MEMBERS = {
    "RequestHeaderModifier": ("requestHeaderModifier", {"remove": ["X-B"]}),
    "ResponseHeaderModifier": ("responseHeaderModifier", {"remove": ["X-B"]}),
    "RequestMirror": ("requestMirror", {"backendRef": BACKEND}),
    "ExtensionRef": ("extensionRef", {"group": "example.com", "kind": "A", "name": "a"}),
    "RequestRedirect": ("requestRedirect", {"scheme": "https"}),
    "URLRewrite": ("urlRewrite", {"hostname": "b.example.com"}),
    "CORS": ("cors", {"allowOrigins": ["*"]}),
    "ExternalAuth": ("externalAuth", {"protocol": "HTTP", "http": {}, "backendRef": BACKEND}),
}
PREFIX = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}
EXACT = [{"path": {"type": "Exact", "value": "/a"}}]
AUTH = {"protocol": "HTTP", "http": {}, "backendRef": BACKEND}
LONG_PREFIX = ".".join(["a" * 50] * 5) + "/a"
Case = tuple[str, str, str, Any]


def _filter(kind: str, value: Any = None) -> dict:
    member, usual = MEMBERS[kind]
    return {"type": kind, member: usual if value is None else value}


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def _union_cases() -> list[Case]:
    cases: list[Case] = []
    for kind, only in (("HTTPRoute", MEMBERS), ("GRPCRoute", list(MEMBERS)[:4])):
        for name in only:
            member, usual = MEMBERS[name]
            other = "ResponseHeaderModifier" if name == "RequestHeaderModifier" else "RequestHeaderModifier"
            for place in ("spec.rules[1].filters", BACKEND_FILTERS):
                cases += [
                    (f"{_snake(member)}_must_be_set_for_its_type", kind, place, [{"type": name}]),
                    (
                        f"{_snake(member)}_must_be_absent_for_other_types",
                        kind,
                        place,
                        [{**_filter(other), member: usual}],
                    ),
                ]
    for kind in ("Gateway", "ListenerSet"):
        for name, other in (("ExternalAuth", "ExtensionRef"), ("ExtensionRef", "ExternalAuth")):
            member, usual = MEMBERS[name]
            where = "spec.listeners[0].filters"
            cases += [
                (f"{_snake(member)}_must_be_set_for_its_type", kind, where, {"requests": [{"type": name}]}),
                (
                    f"{_snake(member)}_must_be_absent_for_other_types",
                    kind,
                    where,
                    {"requests": [{**_filter(other), member: usual}]},
                ),
            ]
    return cases


CASES: list[Case] = [
    ("listener_names_must_be_unique", "Gateway", "spec.listeners[3].name", "http"),
    ("listener_names_must_be_unique", "ListenerSet", "spec.listeners[1].name", "http"),
    (
        "listener_port_protocol_hostname_must_be_unique",
        "Gateway",
        "spec.listeners[3]",
        {"name": "x", "port": 8443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
    ),
    (
        "listener_port_protocol_hostname_must_be_unique",
        "ListenerSet",
        "spec.listeners[1]",
        {"name": "x", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"},
    ),
    ("tls_must_be_absent_for_plain_protocols", "Gateway", "spec.listeners[0].tls", {"mode": "Passthrough"}),
    ("tls_must_be_absent_for_plain_protocols", "ListenerSet", "spec.listeners[0].tls", {"mode": "Passthrough"}),
    ("https_must_terminate_tls", "Gateway", "spec.listeners[1].tls.mode", "Passthrough"),
    ("https_must_terminate_tls", "ListenerSet", "spec.listeners[1].tls.mode", "Passthrough"),
    ("tls_protocol_needs_tls_mode", "Gateway", "spec.listeners[2].tls", DELETE),
    ("tls_protocol_needs_tls_mode", "ListenerSet", "spec.listeners[2].tls", DELETE),
    ("hostname_must_be_absent_for_tcp_and_udp", "Gateway", "spec.listeners[3].hostname", "a.example.com"),
    ("hostname_must_be_absent_for_tcp_and_udp", "ListenerSet", "spec.listeners[0].protocol", "UDP"),
    ("terminating_tls_needs_certificates", "Gateway", "spec.listeners[1].tls", {}),
    ("terminating_tls_needs_certificates", "Gateway", "spec.listeners[1].tls.certificateRefs", []),
    ("listener_filters_need_http", "Gateway", "spec.listeners[3].filters", {}),
    ("frontend_tls_ports_must_be_unique", "Gateway", "spec.tls.frontend.perPort[1].port", 443),
    (
        "cluster_trust_bundle_has_no_namespace",
        "Gateway",
        "spec.tls.frontend.default.validation.caCertificateRefs",
        [{"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": "a", "namespace": "n"}],
    ),
    (
        "cluster_trust_bundle_has_no_namespace",
        "Gateway",
        "spec.tls.frontend.perPort[0].tls.validation.caCertificateRefs",
        [{"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": "a", "namespace": "n"}],
    ),
    ("ip_addresses_must_be_unique", "Gateway", "spec.addresses", [{"value": "192.0.2.1"}, {"value": "192.0.2.1"}]),
    (
        "hostname_addresses_must_be_unique",
        "Gateway",
        "spec.addresses",
        [{"type": "Hostname", "value": "a"}, {"type": "Hostname", "value": "a"}],
    ),
    ("hostname_address_must_be_a_hostname", "Gateway", "spec.addresses[1].value", "A.example.com"),
    ("hostname_address_must_be_a_hostname", "Gateway", "status.addresses[0]", {"type": "Hostname", "value": "a_b"}),
    ("routability_must_be_cluster_or_prefixed", "Gateway", "spec.addresses[0].routability", "Private"),
    ("routability_must_be_cluster_or_prefixed", "Gateway", "spec.addresses[0].routability", "k8s.io/a"),
    ("routability_must_be_cluster_or_prefixed", "Gateway", "spec.addresses[0].routability", "a.k8s.io/a"),
    ("routability_must_be_cluster_or_prefixed", "Gateway", "spec.addresses[0].routability", "example.com/"),
    ("routability_must_be_cluster_or_prefixed", "Gateway", "status.addresses[0].routability", "Example.com/a"),
    ("keys_must_be_qualified_names", "Gateway", "spec.infrastructure.labels", {"a b": "c"}),
    ("keys_must_be_qualified_names", "Gateway", "spec.infrastructure.annotations", {"A/b": "c"}),
    ("key_prefixes_must_be_short", "Gateway", "spec.infrastructure.labels", {LONG_PREFIX: "c"}),
    ("key_prefixes_must_be_short", "Gateway", "spec.infrastructure.annotations", {LONG_PREFIX: "c"}),
    ("parent_refs_must_be_unique_by_section_and_port", "HTTPRoute", "spec.parentRefs", [{"name": "g"}, {"name": "g"}]),
    (
        "parent_refs_must_be_unique_by_section_and_port",
        "HTTPRoute",
        "spec.parentRefs",
        [{"name": "g", "sectionName": "a", "port": 80}, {"name": "g", "sectionName": "a", "port": 80}],
    ),
    (
        "parent_refs_need_section_names_or_ports",
        "HTTPRoute",
        "spec.parentRefs",
        [{"name": "g"}, {"name": "g", "sectionName": "a"}],
    ),
    (
        "parent_refs_need_section_names_or_ports",
        "GRPCRoute",
        "spec.parentRefs",
        [{"name": "g", "port": 80}, {"name": "g"}],
    ),
    (
        "parent_refs_need_section_names_or_ports",
        "TLSRoute",
        "spec.parentRefs",
        [{"name": "g", "port": 80}, {"name": "g", "sectionName": "a"}],
    ),
    (
        "parent_refs_must_be_unique_by_section_and_port",
        "TCPRoute",
        "spec.parentRefs",
        [{"name": "g", "namespace": "m"}, {"name": "g", "namespace": "m", "kind": "Gateway"}],
    ),
    (
        "parent_refs_must_be_unique_by_section_and_port",
        "UDPRoute v1alpha2",
        "spec.parentRefs",
        [{"name": "g"}, {"name": "g"}],
    ),
    ("rule_names_must_be_unique", "HTTPRoute", "spec.rules[1].name", "one"),
    ("rule_names_must_be_unique", "GRPCRoute", "spec.rules[1].name", "one"),
    ("rule_names_must_be_unique", "TLSRoute v1alpha2", "spec.rules[1].name", "one"),
    ("rule_names_must_be_unique", "TCPRoute v1alpha2", "spec.rules[1].name", "one"),
    ("rule_names_must_be_unique", "UDPRoute v1alpha2", "spec.rules[1].name", "one"),
    (
        "total_matches_must_not_exceed_128",
        "HTTPRoute",
        "spec.rules",
        [{"matches": [{}] * 64}, {"matches": [{}] * 64}, {}],
    ),
    (
        "total_matches_must_not_exceed_128",
        "GRPCRoute",
        "spec.rules",
        [{"matches": [{}] * 64}, {"matches": [{}] * 64}, {"matches": [{}]}],
    ),
    ("path_must_start_with_a_slash", "HTTPRoute", "spec.rules[0].matches[0].path.value", "a"),
    ("path_must_not_contain_double_slash", "HTTPRoute", "spec.rules[0].matches[0].path.value", "/a//b"),
    ("path_must_not_contain_dot_segment", "HTTPRoute", "spec.rules[0].matches[0].path.value", "/a/./b"),
    ("path_must_not_contain_double_dot_segment", "HTTPRoute", "spec.rules[0].matches[0].path.value", "/a/../b"),
    ("path_must_not_contain_encoded_slash", "HTTPRoute", "spec.rules[0].matches[0].path.value", "/a%2fb"),
    (
        "path_must_not_contain_encoded_upper_case_slash",
        "HTTPRoute",
        "spec.rules[0].matches[0].path",
        {"type": "Exact", "value": "/a%2Fb"},
    ),
    (
        "path_must_not_contain_fragment path_must_have_valid_characters",
        "HTTPRoute",
        "spec.rules[0].matches[0].path.value",
        "/a#b",
    ),
    ("path_must_not_end_with_double_dot", "HTTPRoute", "spec.rules[0].matches[0].path.value", "/a/.."),
    ("path_must_not_end_with_dot", "HTTPRoute", "spec.rules[0].matches[0].path.value", "/a/."),
    ("path_must_have_valid_characters", "HTTPRoute", "spec.rules[0].matches[0].path.value", "/a b"),
    ("unknown_value", "HTTPRoute", "spec.rules[0].matches[0].path.type", "Prefix"),
    ("grpc_method_match_needs_service_or_method", "GRPCRoute", "spec.rules[0].matches[0].method", {}),
    ("grpc_service_must_be_a_name", "GRPCRoute", "spec.rules[0].matches[0].method.service", "a/b"),
    ("grpc_method_must_be_a_name", "GRPCRoute", "spec.rules[0].matches[0].method.method", "a.b"),
    ("tls_hostnames_must_not_be_ip_addresses", "TLSRoute", "spec.hostnames[0]", "192.0.2.1"),
    ("tls_hostnames_must_be_dns_names", "TLSRoute", "spec.hostnames[0]", "A.example.com"),
    ("tls_wildcards_must_be_the_first_label", "TLSRoute", "spec.hostnames[0]", "a.*.example.com"),
    ("tls_wildcards_must_be_the_first_label", "TLSRoute v1alpha3", "spec.hostnames[0]", "*example.com"),
    *[
        ("service_reference_needs_a_port", kind, "spec.rules[0].backendRefs[0].port", DELETE)
        for kind in ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "TCPRoute v1alpha2")
    ],
    ("service_reference_needs_a_port", "HTTPRoute", FILTER, _filter("RequestMirror", {"backendRef": {"name": "s"}})),
    (
        "service_reference_needs_a_port",
        "HTTPRoute",
        FILTER,
        _filter("ExternalAuth", {**AUTH, "backendRef": {"name": "s"}}),
    ),
    (
        "xbackend_reference_has_no_port",
        "HTTPRoute",
        "spec.rules[0].backendRefs[0]",
        {"group": "gateway.networking.x-k8s.io", "kind": "XBackend", **BACKEND},
    ),
    ("backend_timeout_must_not_exceed_request_timeout", "HTTPRoute", "spec.rules[0].timeouts.request", "59s"),
    (
        "backend_timeout_must_not_exceed_request_timeout",
        "HTTPRoute",
        "spec.rules[0].timeouts",
        {"request": "1h1m", "backendRequest": "1h1m1ms"},
    ),
    ("redirect_excludes_backends", "HTTPRoute", FILTER, _filter("RequestRedirect")),
    (
        "redirect_prefix_needs_one_prefix_match",
        "HTTPRoute",
        "spec.rules[1]",
        {"filters": [_filter("RequestRedirect", {"path": PREFIX})], "matches": EXACT},
    ),
    (
        "redirect_prefix_needs_one_prefix_match",
        "HTTPRoute",
        "spec.rules[1]",
        {"filters": [_filter("RequestRedirect", {"path": PREFIX})], "matches": [{}, {}]},
    ),
    (
        "rewrite_prefix_needs_one_prefix_match",
        "HTTPRoute",
        "spec.rules[1]",
        {"filters": [_filter("URLRewrite", {"path": PREFIX})], "matches": EXACT},
    ),
    (
        "backend_redirect_prefix_needs_one_prefix_match",
        "HTTPRoute",
        "spec.rules[1]",
        {"backendRefs": [{**BACKEND, "filters": [_filter("RequestRedirect", {"path": PREFIX})]}], "matches": EXACT},
    ),
    (
        "backend_rewrite_prefix_needs_one_prefix_match",
        "HTTPRoute",
        "spec.rules[1]",
        {"backendRefs": [{**BACKEND, "filters": [_filter("URLRewrite", {"path": PREFIX})]}], "matches": EXACT},
    ),
    (
        "redirect_excludes_rewrite",
        "HTTPRoute",
        "spec.rules[1].filters",
        [_filter("RequestRedirect"), _filter("URLRewrite")],
    ),
    ("redirect_excludes_rewrite", "HTTPRoute", BACKEND_FILTERS, [_filter("RequestRedirect"), _filter("URLRewrite")]),
    *[
        (f"{_snake(MEMBERS[name][0])}_must_not_repeat", kind, place, [_filter(name), _filter(name)])
        for kind, names in (
            ("HTTPRoute", ("RequestHeaderModifier", "ResponseHeaderModifier", "CORS", "RequestRedirect", "URLRewrite")),
            ("GRPCRoute", ("RequestHeaderModifier", "ResponseHeaderModifier")),
        )
        for name in names
        for place in ("spec.rules[1].filters", BACKEND_FILTERS)
    ],
    (
        "mirror_takes_percent_or_fraction",
        "HTTPRoute",
        FILTER,
        _filter("RequestMirror", {"backendRef": BACKEND, "percent": 1, "fraction": {"numerator": 1}}),
    ),
    (
        "mirror_takes_percent_or_fraction",
        "GRPCRoute",
        "spec.rules[1].filters",
        [_filter("RequestMirror", {"backendRef": BACKEND, "percent": 1, "fraction": {"numerator": 1}})],
    ),
    (
        "fraction_must_not_exceed_one",
        "HTTPRoute",
        FILTER,
        _filter("RequestMirror", {"backendRef": BACKEND, "fraction": {"numerator": 101}}),
    ),
    (
        "cors_wildcard_origin_must_stand_alone",
        "HTTPRoute",
        FILTER,
        _filter("CORS", {"allowOrigins": ["*", "http://a"]}),
    ),
    ("cors_wildcard_method_must_stand_alone", "HTTPRoute", FILTER, _filter("CORS", {"allowMethods": ["*", "GET"]})),
    ("cors_wildcard_header_must_stand_alone", "HTTPRoute", FILTER, _filter("CORS", {"allowHeaders": ["*", "X-A"]})),
    *[
        (code, "HTTPRoute", "spec.rules[1].filters", [_filter(kind, {"path": path})])
        for kind in ("RequestRedirect", "URLRewrite")
        for code, path in (
            ("replace_full_path_must_be_set_for_its_type", {"type": "ReplaceFullPath"}),
            ("replace_full_path_must_be_absent_for_other_types", {**PREFIX, "replaceFullPath": "/a"}),
            ("replace_prefix_match_must_be_set_for_its_type", {"type": "ReplacePrefixMatch"}),
            (
                "replace_prefix_match_must_be_absent_for_other_types",
                {"type": "ReplaceFullPath", "replaceFullPath": "/a", "replacePrefixMatch": "/"},
            ),
        )
    ],
    *[
        (code, "HTTPRoute", FILTER, _filter("ExternalAuth", {"backendRef": BACKEND, **auth}))
        for code, auth in (
            ("http_must_be_set_for_its_protocol", {"protocol": "HTTP"}),
            ("http_must_be_absent_for_other_protocols", {"protocol": "GRPC", "grpc": {}, "http": {}}),
            ("grpc_must_be_set_for_its_protocol", {"protocol": "GRPC"}),
            ("grpc_must_be_absent_for_other_protocols", {"protocol": "HTTP", "grpc": {}, "http": {}}),
        )
    ],
    *[
        (code, kind, path, persistence)
        for kind, path in (
            ("HTTPRoute", "spec.rules[0].sessionPersistence"),
            ("GRPCRoute", "spec.rules[0].sessionPersistence"),
            ("XBackend", "spec.sessionPersistence"),
        )
        for code, persistence in (
            ("permanent_cookie_needs_absolute_timeout", {"cookie": {"lifetimeType": "Permanent"}}),
            ("cookie_must_be_set_for_its_type", {}),
            ("cookie_must_be_absent_for_other_types", {"type": "Header", "header": {"name": "a"}, "cookie": {}}),
            ("header_must_be_set_for_its_type", {"type": "Header"}),
            ("header_must_be_absent_for_other_types", {"cookie": {}, "header": {"name": "a"}}),
        )
    ],
    ("target_refs_need_section_names", "BackendTLSPolicy", "spec.targetRefs[0].sectionName", DELETE),
    ("target_refs_must_be_unique", "BackendTLSPolicy", "spec.targetRefs[0].sectionName", "b"),
    ("exactly_one_ca_certificate_source", "BackendTLSPolicy", "spec.validation.wellKnownCACertificates", "System"),
    ("exactly_one_ca_certificate_source", "BackendTLSPolicy", "spec.validation.caCertificateRefs", DELETE),
    (
        "subject_alt_name_hostname_must_be_set_for_its_type",
        "BackendTLSPolicy",
        "spec.validation.subjectAltNames[1].hostname",
        DELETE,
    ),
    (
        "subject_alt_name_hostname_must_be_absent_for_other_types",
        "BackendTLSPolicy",
        "spec.validation.subjectAltNames[0].hostname",
        "a.b",
    ),
    (
        "subject_alt_name_uri_must_be_set_for_its_type",
        "BackendTLSPolicy",
        "spec.validation.subjectAltNames[0].uri",
        DELETE,
    ),
    (
        "subject_alt_name_uri_must_be_absent_for_other_types",
        "BackendTLSPolicy",
        "spec.validation.subjectAltNames[1].uri",
        "a://b",
    ),
    ("external_hostname_if_and_only_if_its_type", "XBackend", "spec.externalHostname", {"hostname": "a.example.com"}),
    ("endpoint_selector_if_and_only_if_its_type", "XBackend", "spec.endpointSelector", DELETE),
    (
        "h2c_excludes_tls",
        "XBackend",
        "spec",
        {
            **VALID["XBackend"]["spec"],
            "protocol": "H2C",
            "tls": {"mode": "ServerOnly", "validation": {"hostname": "a.b", "wellKnownCACertificates": "System"}},
        },
    ),
    ("http2_needs_tls", "XBackend", "spec.protocol", "HTTP2"),
    ("wss_needs_tls", "XBackend", "spec.protocol", "WSS"),
    (
        "session_persistence_needs_endpoints",
        "XBackend",
        "spec",
        {
            "type": "ExternalHostname",
            "port": {"number": 1},
            "externalHostname": {"hostname": "a.b"},
            "sessionPersistence": {"cookie": {}},
        },
    ),
    ("match_label_keys_must_be_qualified_names", "XBackend", "spec.endpointSelector.matchLabels", {"a b": "c"}),
    (
        "external_hostname_must_be_outside_of_the_cluster",
        "XBackend",
        "spec",
        {"type": "ExternalHostname", "port": {"number": 1}, "externalHostname": {"hostname": "a.cluster.local"}},
    ),
    (
        "client_certificate_if_and_only_if_client_and_server",
        "XBackend",
        "spec.tls",
        {"mode": "ClientAndServer", "validation": {"hostname": "a.b", "wellKnownCACertificates": "System"}},
    ),
    (
        "client_certificate_if_and_only_if_client_and_server",
        "XBackend",
        "spec.tls",
        {"mode": "None", "clientCertificateRef": {"name": "a"}},
    ),
    ("validation_if_and_only_if_tls", "XBackend", "spec.tls", {"mode": "ServerOnly"}),
    (
        "validation_if_and_only_if_tls",
        "XBackend",
        "spec.tls",
        {"mode": "None", "validation": {"hostname": "a.b", "wellKnownCACertificates": "System"}},
    ),
    *_union_cases(),
]

IN_STANDARD = {
    "parent_refs_must_be_unique_by_section_and_port": "parent_refs_must_be_unique",
    "parent_refs_need_section_names_or_ports": "parent_refs_need_section_names",
}
"""What the standard channel calls a rule of the experimental one, where it has a weaker form of it."""

STANDARD_ONLY: list[Case] = [
    (
        "ca_certificates_must_come_from_one_place",
        "BackendTLSPolicy",
        "spec.validation.wellKnownCACertificates",
        "System",
    ),
    ("ca_certificates_must_be_given", "BackendTLSPolicy", "spec.validation.caCertificateRefs", []),
]


def changed(document: dict, path: str, value: Any) -> dict:
    """A copy of a document with one place set, or taken away; places that are not there yet are made."""
    result = copy.deepcopy(document)
    target: Any = result
    steps = [int(index) if index else name for name, index in re.findall(r"([A-Za-z]+)|\[(\d+)\]", path)]
    for step, following in pairwise(steps):
        if isinstance(target, dict) and step not in target:
            target[step] = [] if isinstance(following, int) else {}
        target = target[step]
    last = steps[-1]
    if value is DELETE:
        del target[last]
    elif isinstance(target, list) and last == len(target):
        target.append(copy.deepcopy(value))
    else:
        target[last] = copy.deepcopy(value)
    return result
