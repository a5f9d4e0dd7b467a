"""Merging and patching, as pure functions."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propylon.store.kindinfo import is_namespaced, list_keys
from propylon.store.merge import merge
from propylon.store.patches import PatchError, json_patch, merge_patch, strategic_merge_patch

values = st.recursive(
    st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("wxyz"), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from("stuv"), values, max_size=4)


def no_keys(path):
    return ()


def holds(wanted, live):
    """Whether everything wanted is there."""
    if isinstance(wanted, dict) and wanted:
        return isinstance(live, dict) and all(
            name in live and holds(value, live[name]) for name, value in wanted.items()
        )
    return wanted in ({}, live)


@settings(max_examples=60, deadline=None)
@given(objects, objects, objects)
def test_everything_wanted_is_there_and_nothing_of_others_is_lost(previous, wanted, live):
    inputs = copy.deepcopy((previous, wanted, live))
    merged = merge(previous, wanted, live, no_keys)
    assert (previous, wanted, live) == inputs
    assert holds(wanted, merged)
    for name, value in live.items():
        if name not in previous and name not in wanted:
            assert merged[name] == value
    assert merge(wanted, wanted, merged, no_keys) == merged


@settings(max_examples=40, deadline=None)
@given(objects, objects)
def test_a_manager_alone_gets_exactly_what_it_wants(previous, wanted):
    assert merge(previous, wanted, previous, no_keys) == wanted


def test_keyed_entries_are_merged_one_by_one():
    keys = {("list",): ("name",)}
    merged = merge(
        {"list": [{"name": "a", "x": 1}, {"name": "b"}]},
        {"list": [{"name": "a", "y": 2}]},
        {"list": [{"name": "theirs"}, {"name": "b"}, {"name": "a", "x": 1, "z": 3}]},
        lambda path: keys.get(path, ()),
    )
    assert merged == {"list": [{"name": "a", "z": 3, "y": 2}, {"name": "theirs"}]}


def test_a_key_left_to_its_default_is_the_same_key():
    merged = merge(
        {},
        {"ports": [{"port": 80, "targetPort": 8080}]},
        {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]},
        lambda path: ("port", "protocol") if path == ("ports",) else (),
    )
    assert merged == {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]}


def test_list_keys_come_from_the_kinds():
    gateway = list_keys("gateway.networking.k8s.io", "Gateway")
    assert gateway(("spec", "listeners")) == ("name",)
    assert list_keys("gateway.networking.k8s.io", "HTTPRoute")(("spec", "rules", "matches")) == ()
    assert list_keys("example.com", "Thing")(("metadata", "ownerReferences")) == ("uid",)


def test_scopes_of_kinds_that_are_only_kept():
    assert not is_namespaced("cilium.io", "CiliumLoadBalancerIPPool")
    assert not is_namespaced("gateway.networking.k8s.io", "GatewayClass")
    assert is_namespaced("example.com", "Thing")


@pytest.mark.parametrize(
    ("document", "operations", "expected"),
    [
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1]}),
        ({"a": {"b": 1}}, [{"op": "remove", "path": "/a/b"}], {"a": {}}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        ({"a/b~": 1}, [{"op": "test", "path": "/a~1b~0", "value": 1}], {"a/b~": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": 5}], 5),
    ],
)
def test_json_patch_operations(document, operations, expected):
    before = copy.deepcopy(document)
    assert json_patch(document, operations) == expected
    assert document == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/missing"},
        {"op": "replace", "path": "/missing", "value": 1},
        {"op": "add", "path": "/list/5", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "no-slash", "value": 1},
        {"op": "add", "path": "/x"},
        {"op": "test", "path": "/list/0", "value": 2},
        {"op": "merge", "path": "/x", "value": 1},
        "add",
    ],
)
def test_a_failing_operation_fails_the_whole_patch(operation):
    document = {"list": [1]}
    with pytest.raises(PatchError) as caught:
        json_patch(document, [{"op": "add", "path": "/list/-", "value": 9}, operation])
    assert caught.value.operation == 1
    assert document == {"list": [1]}


def test_merge_patch_removes_by_null_and_replaces_lists():
    assert merge_patch({"a": {"b": 1, "c": 2}, "l": [1, 2]}, {"a": {"b": None, "d": 3}, "l": [9]}) == {
        "a": {"c": 2, "d": 3},
        "l": [9],
    }


def deployment(*containers):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {"template": {"spec": {"containers": list(containers)}}},
    }


def test_strategic_merge_goes_by_name_in_built_in_kinds():
    document = deployment(
        {"name": "a", "image": "x:1", "env": [{"name": "K", "value": "1"}]}, {"name": "b"}, {"name": "c"}
    )
    patch = deployment(
        {"name": "a", "env": [{"name": "L", "value": "2"}]}, {"name": "b", "$patch": "delete"}, {"name": "d"}
    )
    containers = strategic_merge_patch(document, patch)["spec"]["template"]["spec"]["containers"]
    assert containers == [
        {"name": "a", "image": "x:1", "env": [{"name": "L", "value": "2"}, {"name": "K", "value": "1"}]},
        {"name": "d"},
        {"name": "c"},
    ]


def test_strategic_merge_keeps_the_order_that_is_asked_for():
    def names(patch):
        document = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": n} for n in "abc"]}}
        return "".join(c["name"] for c in strategic_merge_patch(document, {"spec": patch})["spec"]["containers"])

    assert names({"containers": [{"name": "d"}]}) == "dabc"
    assert names({"containers": [{"name": "b", "image": "x"}, {"name": "d"}]}) == "abdc"
    order = [{"name": name} for name in "cadb"]
    assert names({"$setElementOrder/containers": order, "containers": [{"name": "d"}]}) == "cadb"
    assert names({"$setElementOrder/containers": order[:2], "containers": []}) == "bca"


def test_strategic_merge_replaces_lists_of_custom_resources():
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": {"hostnames": ["a"], "x": 1}}
    assert strategic_merge_patch(route, {"spec": {"hostnames": ["b"]}})["spec"] == {"hostnames": ["b"], "x": 1}
    assert strategic_merge_patch(route, {"$patch": "delete"}) is None
    assert strategic_merge_patch(route, {"spec": {"$patch": "replace", "y": 2}})["spec"] == {"y": 2}
