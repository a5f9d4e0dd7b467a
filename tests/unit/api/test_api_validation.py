"""What validation says to people: where, what, and what to do."""

import copy
from typing import Any

import pytest
from api_rule_cases import DELETE, VALID, changed
from hypothesis import given, settings
from hypothesis import strategies as st

from propylon import api


def found(document: dict, channel: str = "experimental") -> list[tuple[str, str, str]]:
    return [(f.severity, f.code, f.field) for f in api.validate(document, channel=channel)]


def only(document: dict, channel: str = "experimental") -> api.Finding:
    findings = api.validate(document, channel=channel)
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]


def core(kind: str, api_version: str = "v1", **fields: Any) -> dict:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "namespace": "n"}, **fields}


@pytest.mark.parametrize(
    ("kind", "path", "value", "field", "message", "remedy"),
    [
        (
            "HTTPRoute",
            "spec.rules[0].matches",
            {"path": {"value": "/"}},
            "spec.rules[0].matches",
            "expected a list of HTTPRouteMatch, found a mapping",
            'Put "- " in front of each item.',
        ),
        (
            "HTTPRoute",
            "spec.rules[0].matches[0].path",
            "/a",
            "spec.rules[0].matches[0].path",
            "expected a mapping (HTTPPathMatch), found a string",
            "Write its fields below it, indented.",
        ),
        (
            "HTTPRoute",
            "spec.rules[0].backendRefs[0].port",
            "80",
            "spec.rules[0].backendRefs[0].port",
            "expected an integer, found a string",
            "Remove the quotes.",
        ),
        (
            "HTTPRoute",
            "spec.rules[0].name",
            True,
            "spec.rules[0].name",
            "expected a string, found a boolean",
            "Put quotes around it.",
        ),
        (
            "HTTPRoute",
            "spec.hostnames",
            "a.example.com",
            "spec.hostnames",
            "expected a list of values, found a string",
            'Write it as a list item: "- …".',
        ),
        (
            "HTTPRoute",
            "spec.hostnames",
            [None],
            "spec.hostnames[0]",
            "expected a string, found null",
            "Fill it in, or remove it.",
        ),
        (
            "Gateway",
            "spec.infrastructure.labels",
            ["a"],
            "spec.infrastructure.labels",
            "expected a mapping, found a list",
            "Write it as `key: value` lines below it, indented.",
        ),
        (
            "Gateway",
            "spec.listeners[0].port",
            80.5,
            "spec.listeners[0].port",
            "expected an integer, found a number",
            "Write an integer.",
        ),
    ],
)
def test_wrong_types(kind: str, path: str, value: Any, field: str, message: str, remedy: str) -> None:
    finding = only(changed(VALID[kind], path, value))
    assert (finding.code, finding.field, finding.message, finding.remedy) == ("wrong_type", field, message, remedy)
    assert finding.severity == "error"


@pytest.mark.parametrize(
    ("kind", "path", "value", "code", "field"),
    [
        ("Gateway", "spec.gatewayClassName", DELETE, "required_field_missing", "spec.gatewayClassName"),
        ("Gateway", "spec", DELETE, "required_field_missing", "spec"),
        ("Gateway", "spec.listeners", [], "too_few_items", "spec.listeners"),
        ("Gateway", "spec.listeners[0].port", 0, "too_small", "spec.listeners[0].port"),
        ("Gateway", "spec.listeners[0].port", 65536, "too_large", "spec.listeners[0].port"),
        ("Gateway", "spec.gatewayClassName", "", "too_short", "spec.gatewayClassName"),
        ("Gateway", "spec.gatewayClassName", "a" * 254, "too_long", "spec.gatewayClassName"),
        (
            "Gateway",
            "spec.infrastructure.labels",
            {f"a{n}": "" for n in range(9)},
            "too_many_entries",
            "spec.infrastructure.labels",
        ),
        ("XBackend", "spec.port", {}, "too_few_entries", "spec.port"),
        ("HTTPRoute", "spec.hostnames", ["a.example.com"] * 17, "too_many_items", "spec.hostnames"),
        ("HTTPRoute", "spec.rules[0].matches[0].method", "get", "unknown_value", "spec.rules[0].matches[0].method"),
        ("HTTPRoute", "spec.rules[0].retry", {"codes": [500, 500]}, "duplicate_item", "spec.rules[0].retry.codes[1]"),
        ("HTTPRoute", "spec.rules[0].timeouts.request", "90", "invalid_format", "spec.rules[0].timeouts.request"),
        (
            "HTTPRoute",
            "spec.rules[0].matches[0].headers",
            [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}],
            "duplicate_item",
            "spec.rules[0].matches[0].headers[1].name",
        ),
        (
            "HTTPRoute",
            "status",
            {
                "parents": [
                    {
                        "parentRef": {"name": "g"},
                        "controllerName": "a.b/c",
                        "conditions": [
                            {
                                "type": "Accepted",
                                "status": "True",
                                "reason": "Accepted",
                                "message": "",
                                "lastTransitionTime": "yesterday",
                            }
                        ],
                    }
                ]
            },
            "invalid_date_time",
            "status.parents[0].conditions[0].lastTransitionTime",
        ),
    ],
)
def test_constraints(kind: str, path: str, value: Any, code: str, field: str) -> None:
    assert found(changed(VALID[kind], path, value)) == [("error", code, field)]


def test_everything_is_found_at_once() -> None:
    document = changed(VALID["HTTPRoute"], "spec.rules[0].matches", {"path": 1})
    document = changed(document, "spec.hostnames[0]", "UPPER.example.com")
    document = changed(document, "spec.rules[1].backendRefs", [{"name": "s"}])
    document["metadata"]["name"] = "Not_A_Name"
    assert sorted(field for _, _, field in found(document)) == [
        "metadata.name",
        "spec.hostnames[0]",
        "spec.rules[0].matches",
        "spec.rules[1].backendRefs[0].port",
    ]


def test_unknown_fields_are_warnings_with_the_nearest_name() -> None:
    finding = only(changed(VALID["HTTPRoute"], "spec.rules[0].backendRef", []))
    assert (finding.severity, finding.code, finding.field) == ("warning", "unknown_field", "spec.rules[0].backendRef")
    assert finding.remedy == 'Did you mean "backendRefs"?'
    finding = only(changed(VALID["HTTPRoute"], "spec.rules[0].zzz", []))
    assert finding.remedy.startswith("Known here: name, matches, ")
    finding = only({**VALID["HTTPRoute"], "metadata": {"name": "a", "lables": {}}})
    assert (finding.field, finding.remedy) == ("metadata.lables", 'Did you mean "labels"?')


def test_fields_in_the_wrong_place() -> None:
    finding = only({**VALID["HTTPRoute"], "hostnames": ["a.example.com"]})
    assert (finding.severity, finding.code, finding.field) == ("warning", "misplaced_field", "hostnames")
    assert finding.remedy == "Move it to spec.hostnames."
    finding = only({**VALID["HTTPRoute"], "namespace": "n"})
    assert finding.remedy == "Move it to metadata.namespace."


def test_fields_of_the_experimental_channel() -> None:
    document = changed(VALID["HTTPRoute"], "spec.useDefaultGateways", "All")
    assert found(document) == []
    assert found(document, "standard") == [
        ("warning", "field_of_experimental_channel", "spec.useDefaultGateways"),
    ]


def test_versions_that_are_not_served() -> None:
    for api_version, channel, remedy in (
        ("gateway.networking.k8s.io/v2", "experimental", "Use gateway.networking.k8s.io/v1."),
        ("gateway.networking.k8s.io/v1alpha2", "standard", "Use gateway.networking.k8s.io/v1."),
    ):
        finding = only({**VALID["TCPRoute"], "apiVersion": api_version}, channel)
        assert (finding.code, finding.field, finding.remedy) == ("version_not_served", "apiVersion", remedy)
    assert only(VALID["XBackend"], "standard").remedy == "It exists in the experimental channel only."


@pytest.mark.parametrize("blank", ["${HOST}", "<--HOST-->", "<HOST>", "{{ .Values.host }}", "*.your.domain.tld:443"])
def test_blanks_that_were_not_filled_in(blank: str) -> None:
    finding = only(changed(VALID["HTTPRoute"], "spec.hostnames[0]", blank))
    assert (finding.code, finding.field) == ("placeholder_not_filled_in", "spec.hostnames[0]")
    assert finding.remedy.startswith("Replace ")
    assert blank in finding.found


def test_blanks_elsewhere() -> None:
    finding = only(changed(VALID["Gateway"], "spec.listeners[0].port", "${PORT}"))
    assert (finding.severity, finding.code) == ("error", "placeholder_not_filled_in")
    finding = only(changed(VALID["Gateway"], "spec.gatewayClassName", "<CLASS>"))
    assert (finding.severity, finding.code) == ("warning", "placeholder_not_filled_in")
    regular = [{"name": "a", "type": "RegularExpression", "value": "<b>${c}"}]
    assert found(changed(VALID["HTTPRoute"], "spec.rules[0].matches[0].headers", regular)) == []


def test_suggestions_for_near_misses() -> None:
    finding = only(changed(VALID["HTTPRoute"], "spec.rules[0].matches[0].path.type", "Prefix"))
    assert finding.remedy == 'Did you mean "PathPrefix"?'
    for hostname, remedy in (
        ("WWW.example.com", 'Write it in lower case: "www.example.com".'),
        ("https://example.com", "Leave out the scheme: only the name itself belongs here."),
        ("example.com:443", "Leave out the port: it has a field of its own."),
        (" example.com", "Remove the spaces around it."),
    ):
        assert only(changed(VALID["HTTPRoute"], "spec.hostnames[0]", hostname)).remedy == remedy


@pytest.mark.parametrize(
    ("metadata", "code", "field"),
    [
        (None, "missing_name", "metadata.name"),
        ({}, "missing_name", "metadata.name"),
        ([], "wrong_type", "metadata"),
        ({"name": 5}, "wrong_type", "metadata.name"),
        ({"name": "a_b"}, "invalid_name", "metadata.name"),
        ({"name": "a" * 254}, "invalid_name", "metadata.name"),
        ({"name": "a", "namespace": "A"}, "invalid_namespace", "metadata.namespace"),
        ({"name": "a", "namespace": "a.b"}, "invalid_namespace", "metadata.namespace"),
        ({"name": "a", "labels": ["a"]}, "wrong_type", "metadata.labels"),
        ({"name": "a", "labels": {"a": True}}, "wrong_type", 'metadata.labels["a"]'),
        ({"name": "a", "labels": {"a": "-"}}, "invalid_label_value", 'metadata.labels["a"]'),
        ({"name": "a", "labels": {"a/b/c": ""}}, "invalid_label_key", 'metadata.labels["a/b/c"]'),
        ({"name": "a", "annotations": {"a b": ""}}, "invalid_annotation_key", 'metadata.annotations["a b"]'),
        ({"name": "a", "annotations": {"a": 1}}, "wrong_type", 'metadata.annotations["a"]'),
        ({"name": "a", "annotations": {"a": "x" * 262_144}}, "annotations_too_long", "metadata.annotations"),
    ],
)
def test_metadata(metadata: Any, code: str, field: str) -> None:
    assert found({**VALID["HTTPRoute"], "metadata": metadata}) == [("error", code, field)]


def test_metadata_of_particular_kinds() -> None:
    assert found({**VALID["HTTPRoute"], "metadata": {"generateName": "a-"}}) == []
    for document, code in (
        ({**VALID["GatewayClass"], "metadata": {"name": "a", "namespace": "n"}}, "namespace_of_cluster_kind"),
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a.b"}}, "invalid_name"),
        (core("Service", spec={"ports": [{"port": 1}]}) | {"metadata": {"name": "1a"}}, "invalid_name"),
        (core("ConfigMap") | {"metadata": {"name": "a.b"}}, None),
    ):
        assert [code for _, code, _ in found(document)] == ([code] if code else [])


def test_kinds_nobody_interprets_need_a_name_only() -> None:
    document = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "A:b"}, "anything": [None]}
    assert found(document) == []
    assert found({**document, "metadata": {}}) == [("error", "missing_name", "metadata.name")]
    assert found({"metadata": {"name": "a"}}) == [
        ("error", "required_field_missing", "apiVersion"),
        ("error", "required_field_missing", "kind"),
    ]


SERVICE = core("Service", spec={"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "web"}]})
ADDRESS = "endpoints[0].addresses[0]"
TLS_SECRET = core("Secret", type="kubernetes.io/tls", data={"tls.crt": "YQ==", "tls.key": "YQ=="})
SLICE = core(
    "EndpointSlice",
    "discovery.k8s.io/v1",
    addressType="IPv4",
    endpoints=[{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}],
    ports=[{"name": "a", "port": 80}],
)


@pytest.mark.parametrize(
    ("document", "path", "value", "code", "field"),
    [
        (SERVICE, "spec.ports[1].name", "a", "service_port_names_must_be_unique", "spec.ports[1].name"),
        (SERVICE, "spec.ports[1].name", DELETE, "service_ports_need_names", "spec.ports[1].name"),
        (SERVICE, "spec.ports[1].port", 80, "service_ports_must_be_unique", "spec.ports[1].port"),
        (SERVICE, "spec.ports[1].name", "A", "service_port_name_must_be_a_label", "spec.ports[1].name"),
        (SERVICE, "spec.ports[1].targetPort", 0, None, ""),
        (SERVICE, "spec.ports[1].targetPort", 70000, "target_port_must_be_in_range", "spec.ports[1].targetPort"),
        (SERVICE, "spec.ports[1].port", 0, "too_small", "spec.ports[1].port"),
        (SERVICE, "spec.ports[1].protocol", "tcp", "unknown_value", "spec.ports[1].protocol"),
        (SERVICE, "spec.type", "Loadbalancer", "unknown_value", "spec.type"),
        (SERVICE, "spec.ports", [], "service_needs_ports", "spec.ports"),
        (SERVICE, "spec", {"clusterIP": "None"}, None, ""),
        (SERVICE, "spec", {"type": "ExternalName", "externalName": "a.example.com"}, None, ""),
        (SERVICE, "spec", {"type": "ExternalName"}, "external_name_must_be_a_dns_name", "spec.externalName"),
        (SERVICE, "spec.trafficDistribution", "PreferClose", None, ""),
        (TLS_SECRET, 'data', {"tls.crt": "YQ=="}, "tls_secret_needs_certificate_and_key", 'data["tls.key"]'),
        (TLS_SECRET, "data", {"tls.crt": "YQ==", "tls.key": "?"}, "data_must_be_base64", 'data["tls.key"]'),
        (TLS_SECRET, "stringData", {"a b": ""}, "data_keys_must_be_file_names", 'stringData["a b"]'),
        (TLS_SECRET, "stringData", {"a": "${SECRET}"}, None, ""),
        (SLICE, ADDRESS, "a.b", "endpoint_addresses_must_fit_address_type", ADDRESS),
        (SLICE, "addressType", "IPv6", "endpoint_addresses_must_fit_address_type", ADDRESS),
        (SLICE, "endpoints[0].addresses", [], "too_few_items", "endpoints[0].addresses"),
        (SLICE, "ports[1]", {"name": "a", "port": 81}, "endpoint_port_names_must_be_unique", "ports[1].name"),
    ],
)  # fmt: skip
def test_kubernetes_own_kinds(document: dict, path: str, value: Any, code: str | None, field: str) -> None:
    assert found(document) == []
    assert found(changed(document, path, value)) == ([("error", code, field)] if code else [])


def test_secret_values_never_show() -> None:
    for data in ({"tls.crt": "top secret!", "tls.key": "top secret!"}, {"tls.crt": ["top secret!"], "tls.key": "YQ=="}):
        findings = api.validate({**TLS_SECRET, "data": data})
        assert findings
        assert all("top secret" not in repr(finding) for finding in findings)


def test_validation_changes_nothing() -> None:
    document = changed(VALID["HTTPRoute"], "spec.rules[0].matches", {"path": 1})
    before = copy.deepcopy(document)
    api.validate(document)
    assert document == before


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), below, max_size=3),
    max_leaves=5,
)


def _plain(key: Any) -> bool:
    return isinstance(key, str) and key.isascii() and key.isalpha() and key not in ("apiVersion", "kind")


def paths(value: Any, path: str = "") -> list[str]:
    items: Any = []
    if isinstance(value, dict):
        items = [(f"{path}.{key}", item) for key, item in value.items() if _plain(key)]
    if isinstance(value, list):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return [*(name.removeprefix(".") for name, _ in items), *(p for name, item in items for p in paths(item, name))]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_that_can_be_written_breaks_us(data: st.DataObject) -> None:
    document = data.draw(st.sampled_from([*VALID.values(), SERVICE, TLS_SECRET, SLICE]))
    for _ in range(data.draw(st.integers(1, 3))):
        document = changed(document, data.draw(st.sampled_from(paths(document))), data.draw(ANYTHING))
    findings = api.validate(document)
    assert findings == api.validate(api.apply_defaults(document))
    try:
        api.decode(document)
    except api.DecodeError:
        assert any(finding.severity == "error" for finding in findings)
