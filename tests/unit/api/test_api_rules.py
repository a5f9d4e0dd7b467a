"""Our rules against the official CEL rules, evaluated side by side on documents that keep and that break them."""

from typing import Any

import pytest
from api_cel import evaluate
from api_rule_cases import CASES, STANDARD_ONLY, VALID, Case, changed
from hypothesis import given, settings
from hypothesis import strategies as st

from propylon import api
from propylon.api.introspect import ItemsSpec, MapSpec, StructSpec, struct_spec
from propylon.api.validation import RULES
from propylon.api.validation.core import CORE_RULES
from propylon.api.validation.registry import rules_at

CHANNELS = ("experimental", "standard")
OWN_CODES = {rule.code for rule in RULES if rule not in CORE_RULES} | {"unknown_value"}
NOT_CEL = {
    "ip_address_must_parse",  # the CRDs say it with oneOf and formats
    # No rule of its own, but other rules fail on such numbers.
    "port_must_be_written_without_a_point",
    "service_port_must_be_written_without_a_point",
    "parent_ports_must_be_written_without_a_point",
    "fraction_must_be_written_without_a_point",
}


def official_rules(schema: dict) -> set[tuple[str, str]]:
    """(expression, message) of every rule in a schema."""
    found = {(rule["rule"], rule.get("message", "")) for rule in schema.get("x-kubernetes-validations", ())}
    below = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return found.union(*(official_rules(item) for item in below if isinstance(item, dict)))


def broken_rules(schema: dict, value: Any) -> set[tuple[str, str]]:
    """(expression, message) of every rule a value breaks."""
    found = {
        (rule["rule"], rule.get("message", ""))
        for rule in schema.get("x-kubernetes-validations", ())
        if "oldSelf" not in rule["rule"] and not evaluate(rule["rule"], value)
    }
    if isinstance(value, dict):
        for key, item in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(below, dict):
                found |= broken_rules(below, item)
    if isinstance(value, list):
        for item in value:
            found |= broken_rules(schema.get("items", {}), item)
    return found


class Oracle:
    """The official CRDs, asked about documents."""

    def __init__(self, crds: tuple) -> None:
        self.schemas = {(crd.channel, crd.group, crd.kind, crd.version): crd.schema for crd in crds}

    def knows(self, document: dict, channel: str) -> bool:
        return (channel, *self._key(document)) in self.schemas

    def broken(self, document: dict, channel: str) -> set[tuple[str, str]]:
        defaulted = api.apply_defaults(document, channel=channel)
        return broken_rules(self.schemas[channel, *self._key(document)], defaulted)

    @staticmethod
    def _key(document: dict) -> tuple[str, str, str]:
        group, _, version = document["apiVersion"].rpartition("/")
        return group, document["kind"], version


@pytest.fixture(scope="module")
def oracle(official_crds: tuple) -> Oracle:
    return Oracle(official_crds)


def codes(document: dict, channel: str) -> set[str]:
    """Our codes of what a document breaks; an unknown value counts where the CRDs have a rule beside the enum."""
    return {
        finding.code
        for finding in api.validate(document, channel=channel)
        if finding.code in OWN_CODES and (finding.code != "unknown_value" or ".matches[" in finding.field)
    }


def broken(case: Case) -> dict:
    _, kind, path, value = case
    return changed(VALID[kind], path, value)


def in_channels(cases: list[Case], oracle: Oracle) -> list[tuple[Case, str]]:
    return [
        (case, channel)
        for case in cases
        for channel in CHANNELS
        if oracle.knows(VALID[case[1]], channel) and (channel == "standard" or case not in STANDARD_ONLY)
    ]


@pytest.mark.parametrize("kind", VALID)
@pytest.mark.parametrize("channel", CHANNELS)
def test_valid_documents_keep_every_rule(oracle: Oracle, kind: str, channel: str) -> None:
    document = VALID[kind]
    served = channel == "experimental" or "alpha" not in document["apiVersion"]
    errors = [finding for finding in api.validate(document, channel=channel) if finding.severity == "error"]
    assert [finding.code for finding in errors] == ([] if served else ["version_not_served"])
    if oracle.knows(document, channel):
        assert oracle.broken(document, channel) == set()


@pytest.mark.parametrize("case", [*CASES, *STANDARD_ONLY], ids=lambda case: f"{case[1]}-{case[0]}")
def test_each_case_breaks_its_rule_and_no_other(oracle: Oracle, case: Case) -> None:
    document = broken(case)
    channel = "standard" if case in STANDARD_ONLY else "experimental"
    expected = set(case[0].split())
    assert codes(document, channel) == expected
    assert len({message for _, message in oracle.broken(document, channel)}) == len(expected)
    for channel in CHANNELS:
        if oracle.knows(document, channel):
            assert bool(codes(document, channel)) == bool(oracle.broken(document, channel)), channel


@pytest.fixture(scope="module")
def translation(oracle: Oracle) -> dict[tuple[str, str], set[str]]:
    """Which of our codes goes with which official rule, learned from the cases that break one rule alone."""
    table: dict[tuple[str, str], set[str]] = {}
    for case, channel in in_channels([*CASES, *STANDARD_ONLY], oracle):
        document = broken(case)
        official, ours = oracle.broken(document, channel), codes(document, channel)
        for rule in official:
            table[rule] = table.get(rule, ours) & ours
    return table


def test_every_official_rule_is_broken_by_a_case(
    official_crds: tuple, translation: dict[tuple[str, str], set[str]]
) -> None:
    every = set().union(*(official_rules(crd.schema) for crd in official_crds))
    transition = {rule for rule in every if "oldSelf" in rule[0]}
    assert {message for _, message in transition} == {"field is immutable"}
    assert set(translation) == every - transition
    assert len(every) > 100
    # One official rule is one of ours, told by the cases that break it alone.
    ambiguous = {rule: ours for rule, ours in translation.items() if len(ours) != 1}
    assert [sorted(ours) for ours in ambiguous.values()] == [
        ["path_must_have_valid_characters", "path_must_not_contain_fragment"]
    ]
    assert set().union(*translation.values()) == OWN_CODES - NOT_CEL


def places(spec: Any, schema: dict, channel: str, path: str = "", rules: tuple = ()) -> Any:
    """(path, official rules, our codes) at every place of a schema."""
    codes_here = {rule.code for rule in rules}
    match spec:
        case StructSpec():
            codes_here |= {rule.code for rule in rules_at(spec.struct, None, channel)}
            for name, field in spec.fields.items():
                below = schema["properties"].get(name)
                if below is not None and path + name != "metadata":
                    yield from places(
                        field.type, below, channel, f"{path}{name}.", rules_at(spec.struct, name, channel)
                    )
        case ItemsSpec():
            yield from places(spec.items, schema["items"], channel, path)
        case MapSpec():
            yield from places(spec.values, schema["additionalProperties"], channel, path)
    official = {(rule["rule"], rule.get("message", "")) for rule in schema.get("x-kubernetes-validations", ())}
    yield path, official, codes_here


def test_rules_apply_at_every_place_the_crds_have_them(
    official_crds: tuple, translation: dict[tuple[str, str], set[str]]
) -> None:
    compared = 0
    for crd in official_crds:
        info = api.by_kind(crd.group, crd.kind)
        assert info is not None
        spec = struct_spec(info.schema(crd.version), crd.channel)
        for path, official, ours in places(spec, crd.schema, crd.channel):
            checked = {rule for rule in official if "oldSelf" not in rule[0]}
            translated = set().union(*(translation[rule] for rule in checked)) - {"unknown_value"}
            assert ours - NOT_CEL == translated, f"{crd}: {path}"
            compared += bool(checked)
    assert compared > 200


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_combined_changes_break_the_same_rules(
    oracle: Oracle, translation: dict[tuple[str, str], set[str]], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(sorted(VALID)))
    channel = data.draw(st.sampled_from(CHANNELS))
    cases = [case for case in (*CASES, *STANDARD_ONLY) if case[1] == kind]
    document = VALID[kind]
    for case in data.draw(st.lists(st.sampled_from(cases), max_size=4)) if cases else ():
        try:
            document = changed(document, case[2], case[3])
        except (KeyError, IndexError):  # an earlier change took the place away
            continue
    if not oracle.knows(document, channel):
        return
    official = oracle.broken(document, channel)
    assert set().union(*(translation[rule] for rule in official)) == codes(document, channel)


def test_the_controller_of_a_class_must_not_change() -> None:
    old = VALID["GatewayClass"]
    new = changed(old, "spec.controllerName", "example.com/other")
    assert [(f.code, f.field) for f in api.validate(new, old=old)] == [("field_must_not_change", "spec.controllerName")]
    assert api.validate(old, old=old) == ()
    assert api.validate(new) == ()


@pytest.mark.parametrize(
    ("address", "valid"),
    [
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("192.0.2.256", False),
        ("a.example.com", False),
        ("192.0.2.1/32", False),
    ],
)
def test_ip_addresses_must_parse(official_crds: tuple, address: str, valid: bool) -> None:
    document = changed(VALID["Gateway"], "spec.addresses[0].value", address)
    assert codes(document, "experimental") == (set() if valid else {"ip_address_must_parse"})
    gateways = [crd.schema for crd in official_crds if crd.kind == "Gateway"]
    for schema in gateways:
        assert "oneOf" in schema["properties"]["spec"]["properties"]["addresses"]["items"]
        assert "oneOf" in schema["properties"]["status"]["properties"]["addresses"]["items"]
