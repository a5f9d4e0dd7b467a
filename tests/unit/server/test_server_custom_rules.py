"""CEL rules of CustomResourceDefinitions."""

import json
from pathlib import Path
from typing import Any

import pytest
from server_world import World, within

from propylon.server.custom_rules import NOT_CHECKED, check_rules, rule_causes
from propylon.server.expressions import ExpressionError, compiled, escaped


def schema_of(spec: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": spec}}


def refused(spec: dict[str, Any], new: Any, old: Any = None) -> list[tuple[str, str, str]]:
    before = None if old is None else {"spec": old}
    return rule_causes(schema_of(spec), {"spec": new}, before, [])


RANGE = {
    "type": "object",
    "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
    "x-kubernetes-validations": [
        {"rule": "self.low <= self.high", "message": "low is above high", "fieldPath": ".low"}
    ],
}


def test_a_rule_names_message_and_field() -> None:
    assert refused(RANGE, {"low": 1, "high": 1}) == []
    assert refused(RANGE, {"low": 2, "high": 1}) == [
        ("FieldValueInvalid", "Invalid value: low is above high", "spec.low")
    ]


def test_a_rule_that_cannot_be_evaluated_refuses() -> None:
    ((reason, message, field),) = refused(RANGE, {"low": 2})
    assert (reason, field) == ("FieldValueInvalid", "spec.low")
    assert 'could not be evaluated: NOT_FOUND: Key not found in map : "high"' in message


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("FieldValueForbidden", "Forbidden: no"),
        ("FieldValueRequired", "Required value: no"),
        ("FieldValueDuplicate", 'Duplicate value: "b"'),
        ("FieldValueInvalid", 'Invalid value: "b": no'),
    ],
)
def test_reasons(reason: str, text: str) -> None:
    spec = {"type": "string", "x-kubernetes-validations": [{"rule": "self == 'a'", "message": "no", "reason": reason}]}
    assert refused(spec, "b") == [(reason, text, "spec")]


def test_old_values_are_asked_only_where_there_were_any() -> None:
    spec = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "it stays"}]}
    assert refused(spec, "a") == []
    assert refused(spec, "a", "a") == []
    assert refused(spec, "b", "a") == [("FieldValueInvalid", 'Invalid value: "b": it stays', "spec")]


def test_an_optional_old_value_is_asked_always() -> None:
    rule = {"rule": "oldSelf.orValue('new') == 'new' || self == 'x'", "optionalOldSelf": True}
    spec = {"type": "string", "x-kubernetes-validations": [rule]}
    assert refused(spec, "a") == []
    assert refused(spec, "a", "old")[0][2] == "spec"
    assert refused(spec, "x", "old") == []


def test_entries_of_keyed_lists_are_compared_by_key() -> None:
    rules = [{"rule": "self.size >= oldSelf.size", "messageExpression": "'not below ' + string(oldSelf.size)"}]
    item = {
        "type": "object",
        "properties": {"name": {}, "size": {"type": "integer"}},
        "x-kubernetes-validations": rules,
    }
    spec = {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    old = [{"name": "a", "size": 5}, {"name": "b", "size": 1}]
    assert refused(spec, [{"name": "b", "size": 2}, {"name": "c", "size": 0}, {"name": "a", "size": 5}], old) == []
    found = refused(spec, [{"name": "b", "size": 2}, {"name": "a", "size": 3}], old)
    assert found == [("FieldValueInvalid", "Invalid value: not below 5", "spec[1]")]


def test_values_have_the_types_that_the_schema_says() -> None:
    spec = {
        "type": "object",
        "properties": {
            "ratio": {"type": "number"},
            "when": {"type": "string", "format": "date-time"},
            "wait": {"type": "string", "format": "duration"},
            "raw": {"type": "string", "format": "byte"},
            "a-b": {"type": "integer"},
            "namespace": {"type": "string"},
        },
        "x-kubernetes-validations": [
            {"rule": "self.ratio == 1.0"},
            {"rule": "self.when > timestamp('2026-01-01T00:00:00Z')"},
            {"rule": "self.wait == duration('90m')"},
            {"rule": "self.raw == b'abc'"},
            {"rule": "self.a__dash__b == 3"},
            {"rule": "self.__namespace__ == 'x'"},
        ],
    }
    value = {"ratio": 1, "when": "2026-02-01T00:00:00Z", "wait": "1h30m", "raw": "YWJj", "a-b": 3, "namespace": "x"}
    assert refused(spec, value) == []
    assert len(refused(spec, {**value, "ratio": 2, "when": "2025-02-01T00:00:00Z", "wait": "1s", "raw": "eHl6"})) == 4


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("self.isSorted() && self.sum() == 6 && self.min() == 1 && self.max() == 3", [1, 2, 3]),
        ("self.indexOf(2) == 1 && self.lastIndexOf(2) == 2 && self.indexOf(9) == -1", [1, 2, 2]),
        ("self.find('[0-9]+') == '12' && self.findAll('[0-9]+') == ['12', '3'] && self.find('z') == ''", "a12b3"),
        ("isIP(self) && !isCIDR(self)", "2001:db8::1"),
        ("isCIDR(self)", "10.0.0.0/8"),
        ("isURL(self)", "https://example.com/x"),
        ("self.lowerAscii().split(',').all(part, part.size() == 1)", "A,B"),
        ("self.?b.orValue(1) == 1 && has(self.a)", {"a": 0}),
    ],
)
def test_functions_of_kubernetes(rule: str, value: Any) -> None:
    result = compiled(rule).evaluate(value)
    assert result.value is True, result.error


def test_a_rule_that_would_take_long_is_given_up() -> None:
    result = compiled("self.all(a, self.all(b, self.all(c, a + b + c >= 0)))").evaluate(list(range(1000)))
    assert "budget" in result.error


def test_what_cannot_be_compiled() -> None:
    with pytest.raises(ExpressionError) as wrong:
        compiled("self.a ==")
    assert wrong.value.malformed
    with pytest.raises(ExpressionError) as unknown:
        compiled("quantity(self).isGreaterThan(quantity('1'))")
    assert not unknown.value.malformed
    rules = [{"rule": "self =="}, {"rule": "quantity(self) == self"}, {"rule": "self != ''"}]
    causes, warnings = check_rules(schema_of({"type": "string", "x-kubernetes-validations": rules}), "schema")
    assert [field for _, _, field in causes] == ["schema.properties[spec].x-kubernetes-validations[0].rule"]
    assert [warning.partition(" ")[0] for warning in warnings] == [
        "schema.properties[spec].x-kubernetes-validations[1].rule"
    ]


def test_rules_wait_for_the_schema() -> None:
    earlier = [("FieldValueRequired", "Required value", "spec.low")]
    assert rule_causes(schema_of(RANGE), {"spec": {}}, None, earlier) == [NOT_CHECKED]
    assert rule_causes({"type": "object"}, {"spec": {}}, None, earlier) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [("plain", "plain"), ("a.b/c-d", "a__dot__b__slash__c__dash__d"), ("a__b", "a__underscores__b"), ("in", "__in__")],
)
def test_names_are_escaped(name: str, shown: str) -> None:
    assert escaped(name) == shown


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition(*rules: dict[str, Any]) -> dict[str, Any]:
    spec = {"type": "object", "properties": {"size": {"type": "integer"}}, "x-kubernetes-validations": list(rules)}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema_of(spec)}}
    names = {"plural": "things", "kind": "Thing"}
    whole = {"group": "a.example.com", "scope": "Cluster", "names": names, "versions": [version]}
    metadata = {"name": "things.a.example.com"}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": metadata, "spec": whole}


def test_rules_hold_for_every_request(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        malformed = await world.json("POST", DEFINITIONS, definition({"rule": "self.size >"}), 422)
        assert "compilation failed" in malformed["message"]
        rules = [{"rule": "self.size > 0"}, {"rule": "self.size >= oldSelf.size", "message": "it never shrinks"}]
        answered = await world.send("POST", DEFINITIONS, definition(*rules, {"rule": "quantity(self.size) != self"}))
        assert answered.code == 201
        assert any(name == "warning" and "is not evaluated" in value for name, value in answered.headers)
        path = "/apis/a.example.com/v1/things"
        thing = {"apiVersion": "a.example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"size": 0}}
        assert "failed rule: self.size > 0" in (await world.json("POST", path, thing, 422))["message"]
        await world.json("POST", path, {**thing, "spec": {"size": 3}}, 201)
        smaller = json.dumps({"spec": {"size": 2}}).encode()
        merge = {"content_type": "application/merge-patch+json"}
        assert "it never shrinks" in (await world.json("PATCH", f"{path}/t", smaller, 422, **merge))["message"]
        await world.json("PATCH", f"{path}/t", json.dumps({"spec": {"size": 4}}).encode(), **merge)

    within(tmp_path, story)
