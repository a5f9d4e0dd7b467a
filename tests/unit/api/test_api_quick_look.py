"""Validation's quick look at whole documents: it may be wrong to say no, never to say yes, and it says yes to what is
good."""

from typing import Any
from unittest.mock import patch

import pytest
from api_rule_cases import CASES, STANDARD_ONLY, VALID, changed
from hypothesis import given, settings
from hypothesis import strategies as st

from propylon import api
from propylon.api import validation

OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}
CONTROLLER = {**OWNER, "controller": True}
STORED = {
    "uid": "0c3e0f36-5a3f-4a0a-9df8-3f0a3a3cf0c1",
    "resourceVersion": "12",
    "generation": 3,
    "creationTimestamp": "2026-01-02T03:04:05Z",
    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    "labels": {"app.kubernetes.io/name": "shop", "tier": ""},
    "annotations": {"Example.com/Note": "größer"},
    "finalizers": ["example.com/hold"],
    "ownerReferences": [CONTROLLER, {**OWNER, "uid": "v"}],
}
METADATA: dict[str, list[Any]] = {
    "name": ["a", "A", "a.b", "9a", "", ".", "a" * 64, "a" * 254, "a\n", None, 1],
    "generateName": ["", "a-", "-", "x_", None, 1],
    "namespace": ["", "a", "A", "a.b", "x" * 64, None, 1],
    "labels": [{}, {"a": "b"}, {"a/b/c": "d"}, {"a": "b\n"}, {"a": 1}, {"": "a"}, {1: "a"}, {"a": None}, None, []],
    "annotations": [{}, {"A/B": "x"}, {"a": "é" * 140_000}, {"a": "é" * 70_000}, {"a": 1}, {"ü": "a"}, None, "x"],
    "finalizers": [[], ["a.b/c"], ["orphan", "foregroundDeletion"], ["x y"], "orphan", None, [None]],
    "ownerReferences": [
        [],
        [OWNER],
        [{**OWNER, "kind": "Event"}],
        [{**OWNER, "kind": "Event", "apiVersion": "events.k8s.io/v1"}],
        [CONTROLLER, {**CONTROLLER, "uid": "v"}],
        [CONTROLLER, CONTROLLER],
        [{**OWNER, "unheardOf": 1}],
        [{"kind": "Pod"}],
        [None],
        None,
    ],
    "managedFields": [[], None, "x"],
    "generation": [1, "1", 1.0, 2**63, True],
    "creationTimestamp": ["2026-01-02T03:04:05Z", "yesterday", "", None],
    "resourceVersion": ["1", 1],
    "unheardOf": [1],
}
DOCUMENTS = [*VALID.values(), *(changed(VALID[kind], path, value) for _, kind, path, value in (*CASES, *STANDARD_ONLY))]


def slowly(document: dict, channel: Any, **more: Any) -> tuple[api.Finding, ...]:
    """What validation says without a quick look."""
    with patch.object(validation, "_quick_look", return_value=None):
        return api.validate(document, channel=channel, **more)


@pytest.mark.parametrize("channel", ["experimental", "standard"])
def test_it_finds_what_a_walk_finds(channel: Any) -> None:
    found = [api.validate(document, channel=channel) for document in DOCUMENTS]
    assert found == [slowly(document, channel) for document in DOCUMENTS]
    assert found.count(()) > 10
    assert len(found) - found.count(()) > 100


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_it_finds_what_a_walk_finds_in_metadata(data: st.DataObject) -> None:
    document = data.draw(st.sampled_from(list(VALID.values())))
    fields = data.draw(st.lists(st.sampled_from(list(METADATA)), min_size=1, max_size=3, unique=True))
    given_ = {field: data.draw(st.sampled_from(METADATA[field]), label=field) for field in fields}
    document = {**document, "metadata": {**document["metadata"], **given_}}
    whole = api.apply_defaults(document)
    old = VALID[document["kind"]]
    for more in ({}, {"old": old}):
        assert api.validate(document, **more) == slowly(document, "experimental", **more)
        assert api.validate(whole, complete=True, **more) == slowly(whole, "experimental", complete=True, **more)


@pytest.mark.parametrize("field", METADATA)
def test_it_finds_what_a_walk_finds_in_each_field_of_metadata(field: str) -> None:
    for kind in ("HTTPRoute", "GatewayClass", "Secret", "Service"):
        known = VALID.get(kind) or {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}}
        for value in METADATA[field]:
            document = {**known, "metadata": {**known["metadata"], field: value}}
            assert api.validate(document) == slowly(document, "experimental"), value


@pytest.mark.parametrize("kind", VALID)
def test_what_is_good_takes_no_walk(kind: str) -> None:
    document = VALID[kind]
    document = {**document, "metadata": {**STORED, **document["metadata"]}}
    with patch.object(validation, "Walk", side_effect=AssertionError("a walk")):
        assert api.validate(document) == ()
        assert api.validate(api.apply_defaults(document), complete=True) == ()


def test_defaults_share_what_lacks_nothing() -> None:
    document = api.apply_defaults(VALID["HTTPRoute"])
    again = api.apply_defaults(document)
    assert again == document
    assert again is not document
    assert again["spec"] is document["spec"]
    lacking = changed(document, "spec.rules[0].matches", [{}])
    before = repr(lacking)
    filled = api.apply_defaults(lacking)
    assert filled["spec"]["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert filled["spec"]["parentRefs"] is lacking["spec"]["parentRefs"]
    assert repr(lacking) == before
