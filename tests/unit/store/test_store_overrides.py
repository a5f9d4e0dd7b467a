"""What an apply says it overrode."""

from itertools import product
from pathlib import Path
from typing import Any

from propylon.store import LocalStore, Outcome
from propylon.store.overrides import override_notice, overrides_nothing


def route(host: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "a", "namespace": "default", **metadata},
        "spec": {"hostnames": [host], "parentRefs": [{"name": "web"}]},
    }


def test_only_what_somebody_else_changed_is_told(tmp_path: Path) -> None:
    with LocalStore(tmp_path) as store:
        assert store.apply(route("a.example.com"), "files").notices == ()
        assert store.apply(route("b.example.com"), "files").notices == ()
        held = next(document for document in store.list().documents if document["kind"] == "HTTPRoute")
        owned = [{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:hostnames": {}}}}]
        metadata = {**held["metadata"], "labels": {"own": "x"}, "managedFields": owned}
        store.update({**held, "metadata": metadata, "spec": {**held["spec"], "hostnames": ["z.example.com"]}})
        applied = store.apply(route("b.example.com", labels={"team": "a"}), "files")
        assert applied.outcome is Outcome.CHANGED
        assert applied.notices == ("overrides what others set: spec.hostnames (kubectl-edit)",)
        found = next(document for document in store.list().documents if document["kind"] == "HTTPRoute")
        assert found["metadata"]["labels"] == {"own": "x", "team": "a"}
        assert found["spec"]["hostnames"] == ["b.example.com"]
        assert store.apply(route("c.example.com", labels={"team": "a"}), "files").notices == ()


def test_entries_of_keyed_lists_are_told_apart() -> None:
    def keys(path: tuple[str, ...]) -> tuple[str, ...]:
        return ("name",) if path == ("spec", "listeners") else ()

    def gateway(**ports: int) -> dict[str, Any]:
        return {"metadata": {}, "spec": {"listeners": [{"name": name, "port": port} for name, port in ports.items()]}}

    before = gateway(a=1, b=2)
    live = {**gateway(a=1, b=9, c=3), "status": {"x": 1}}
    said = override_notice(before, gateway(a=5, b=2), live, keys)
    assert said == "overrides what others set: spec.listeners[name=b].port"
    assert override_notice(before, gateway(a=5), gateway(a=1, b=9), keys).endswith("spec.listeners[name=b].port")
    assert override_notice(before, gateway(a=5, b=2), gateway(a=1, b=2, c=3), keys) == ""


def test_what_was_there_before_the_first_apply_belongs_to_others() -> None:
    live = route("z.example.com", labels={"own": "x"}, managedFields=[])
    said = override_notice({}, route("a.example.com"), live, lambda _path: ())
    assert said == "overrides what others set: spec.hostnames"


def test_the_quick_answer_never_hides_what_is_overridden() -> None:
    hosts, labels = ("a.example.com", "b.example.com"), ({}, {"team": "a"}, {"team": "b"})
    states = [
        route(host, labels=label, **more) for host, label in product(hosts, labels) for more in ({}, {"uid": "1"})
    ]
    quick = 0
    for previous, wanted, live in product(states, repeat=3):
        if overrides_nothing(previous, live):
            quick += 1
            assert override_notice(previous, wanted, live, lambda _path: ()) == ""
    assert quick == len(states) * len(states) * 2  # whatever is wanted, where only bookkeeping differs
    assert not overrides_nothing(route("a.example.com"), route("a.example.com", annotations={"x": "y"}))
