"""Reading documents and bytes into structs."""

import base64
import copy

import msgspec
import pytest
from api_rule_cases import VALID

from propylon import api


def encoded(document: dict) -> bytes:
    return msgspec.json.encode(document)


@pytest.mark.parametrize("kind", VALID)
def test_bytes_and_documents_decode_alike(kind: str) -> None:
    document = VALID[kind]
    before = copy.deepcopy(document)
    obj = api.decode(document)
    assert document == before
    assert api.decode(encoded(document)) == obj
    assert api.decode(api.apply_defaults(document)) == obj
    info = api.by_kind(api.GATEWAY_GROUP, kind.split(maxsplit=1)[0]) or api.by_kind(api.EXPERIMENTAL_GROUP, kind)
    assert info is not None
    assert type(obj) is info.type
    assert (obj.api_version, obj.kind) == (info.api_version, info.kind)
    assert api.decode_as(info, encoded(document), document["apiVersion"].rpartition("/")[2]) == obj


@pytest.mark.parametrize(
    "document",
    [
        b'{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{},"kind":"Namespace"}',
        b'{"apiVersion":"x/v9","kind":"Service","metadata":{"name":"a"},"apiVersion":"v1","kind":"Namespace"}',
        b'{"metadata":{"name":"a"},"kind":"Namespace","apiVersion":"v1"}',
        b'{ "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"} }',
        b'{"apiVersion":"v1","kind":"\\u004eamespace","metadata":{"name":"a"}}',
    ],
)
def test_the_last_word_about_the_kind_counts_wherever_it_stands(document: bytes) -> None:
    assert api.decode(document) == api.Namespace(api.ObjectMeta("a"))


def test_a_route_reads_as_the_gateway_api_says() -> None:
    route = api.decode(
        {
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "HTTPRoute",
            "metadata": {"name": "a", "namespace": "n", "generation": 3, "labels": {"a": "b"}},
            "spec": {
                "parentRefs": [{"name": "g"}],
                "rules": [
                    {"backendRefs": [{"name": "s", "port": 80}]},
                    {"matches": [{"path": {"value": "/a"}, "queryParams": [{"name": "q", "value": "1"}]}]},
                ],
            },
        }
    )
    assert isinstance(route, api.HTTPRoute)
    assert route.api_version == "gateway.networking.k8s.io/v1"
    assert route.metadata.generation == 3
    assert route.spec.parent_refs == (api.ParentReference("g"),)
    assert route.spec.hostnames == ()
    first, second = route.spec.rules
    assert first.matches == (api.HTTPRouteMatch(path=api.HTTPPathMatch("PathPrefix", "/")),)
    assert first.backend_refs == (api.HTTPBackendRef("s", port=80, weight=1, group="", kind="Service"),)
    assert first.timeouts is None
    assert second.matches[0].path == api.HTTPPathMatch("PathPrefix", "/a")
    assert second.matches[0].query_params == (api.HTTPQueryParamMatch("q", "1", "Exact"),)
    assert route.status is None
    assert api.key_of(route) == ("n", "a")
    assert api.ref_of(route) == (api.GATEWAY_GROUP, "HTTPRoute", "n", "a")
    assert str(api.ref_of(route)) == "HTTPRoute n/a"


def test_explicitly_empty_matches_stay_empty() -> None:
    route = api.decode(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "a"},
            "spec": {"rules": [{"matches": []}]},
        }
    )
    assert route.spec.rules[0].matches == ()


def test_older_versions_come_out_as_the_newest() -> None:
    old = {
        "apiVersion": "gateway.networking.k8s.io/v1alpha2",
        "kind": "TLSRoute",
        "metadata": {"name": "a"},
        "spec": {"rules": [{"backendRefs": [{"name": "s", "port": 1}]}, {"backendRefs": [{"name": "t", "port": 2}]}]},
    }
    route = api.decode(encoded(old))
    assert isinstance(route, api.TLSRoute)
    assert route.api_version == "gateway.networking.k8s.io/v1"
    assert route.spec.hostnames == ()
    assert [rule.backend_refs[0].name for rule in route.spec.rules] == ["s", "t"]
    grant = api.decode(
        {
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {"name": "a"},
            "spec": {
                "from": [{"group": "", "kind": "A", "namespace": "n"}],
                "to": [{"group": "", "kind": "Secret"}],
            },
        }
    )
    assert grant.spec.from_ == (api.ReferenceGrantFrom("", "A", "n"),)
    assert grant.spec.to == (api.ReferenceGrantTo("", "Secret", None),)


def test_values_that_validation_refuses_still_decode() -> None:
    document = copy.deepcopy(VALID["HTTPRoute"])
    document["spec"]["rules"][0]["matches"][0]["path"] = {"type": "Glob", "value": "no slash"}
    document["spec"]["unheardOf"] = {"a": 1}
    assert api.decode(document).spec.rules[0].matches[0].path == api.HTTPPathMatch("Glob", "no slash")


def test_null_counts_as_absent() -> None:
    document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "a", "creationTimestamp": None, "labels": None},
        "addressType": "IPv4",
        "endpoints": None,
        "ports": [{"port": 80, "name": None}],
    }
    for form in (document, encoded(document)):
        slice_ = api.decode(form)
        assert slice_.endpoints == ()
        assert slice_.ports == (api.EndpointPort(port=80),)
        assert slice_.metadata.creation_timestamp == ""


def test_whole_numbers_may_have_a_fraction() -> None:
    document = copy.deepcopy(VALID["HTTPRoute"])
    backend = document["spec"]["rules"][0]["backendRefs"][0]
    backend["weight"] = 2.0
    assert api.validate(document) == ()
    backend["port"] = 80.0  # the API server's rules fail on it, but an object that is there can be read
    assert [finding.code for finding in api.validate(document)] == ["service_port_must_be_written_without_a_point"]
    for form in (document, encoded(document)):
        assert api.decode(form).spec.rules[0].backend_refs[0].weight == 2
        assert api.decode(form).spec.rules[0].backend_refs[0].port == 80


def test_bookkeeping_is_left_out() -> None:
    document = copy.deepcopy(VALID["HTTPRoute"])
    document["metadata"] |= {
        "managedFields": [{"manager": "kubectl"}],
        "annotations": {api.LAST_APPLIED_ANNOTATION: "{}", "a": "b"},
    }
    assert api.decode(document).metadata.annotations == {"a": "b"}
    assert api.view(document)["metadata"] == {"name": "a", "namespace": "n", "annotations": {"a": "b"}}
    assert api.LAST_APPLIED_ANNOTATION in document["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("spec", {"rules": [{"matches": {"path": {}}}]}, "spec.rules[0].matches"),
        ("spec", {"rules": [{}, {"backendRefs": [{"name": "s", "port": "80"}]}]}, "spec.rules[1].backendRefs[0].port"),
        ("metadata", {"name": 1}, "metadata.name"),
    ],
)
def test_wrong_types_are_named_with_their_field(path: str, value: dict, field: str) -> None:
    document = {**VALID["HTTPRoute"], path: value}
    for form in (document, encoded(document)):
        with pytest.raises(api.DecodeError) as caught:
            api.decode(form)
        assert caught.value.field == field


@pytest.mark.parametrize("document", [b"{", b"[]", b'{"kind": "Foo"}', {"apiVersion": "a/v1", "kind": "HTTPRoute"}])
def test_what_cannot_be_read_is_refused(document: bytes | dict) -> None:
    with pytest.raises(api.DecodeError):
        api.decode(document)


def test_a_secret_gives_its_bytes_and_hides_them() -> None:
    secret = api.decode(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "a"},
            "data": {"a": base64.b64encode(b"\x00one").decode(), "b": "b25l", "bad": "not base64!"},
            "stringData": {"b": "two"},
        }
    )
    assert secret.decoded("a") == b"\x00one"
    assert secret.decoded("b") == b"two"
    assert secret.decoded("bad") is None
    assert secret.decoded("missing") is None
    assert "b25l" not in repr(secret)
    assert "two" not in str(secret)


def test_selectors() -> None:
    def selects(selector: dict, labels: dict) -> bool:
        return msgspec.convert(selector, api.LabelSelector).matches(labels)

    assert selects({}, {"a": "b"})
    assert selects({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"})
    assert not selects({"matchLabels": {"a": "b"}}, {"a": "c"})
    for operator, values, here, elsewhere, absent in (
        ("In", ["b"], True, False, False),
        ("NotIn", ["b"], False, True, True),
        ("Exists", [], True, True, False),
        ("DoesNotExist", [], False, False, True),
        ("Like", ["b"], False, False, False),
    ):
        selector = {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}
        assert selects(selector, {"a": "b"}) is here
        assert selects(selector, {"a": "c"}) is elsewhere
        assert selects(selector, {}) is absent
