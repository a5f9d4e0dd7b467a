from collections.abc import Callable
from typing import Any

import pytest

from propylon.status import Status, merge, merge_status

NOW = "2026-05-05T00:00:00Z"
OLD = "2026-01-01T00:00:00Z"
OURS = "example.com/controller"
FOREIGN = "gateway.networking.k8s.io/stale-controller"


def condition(kind: str, status: str = "True", generation: int = 2, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": kind, "message": "", "observedGeneration": generation, **more}


def entry(controller: str, *conditions: dict[str, Any], name: str = "gw") -> dict[str, Any]:
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
    return {"parentRef": ref, "controllerName": controller, "conditions": list(conditions)}


def desired(*entries: dict[str, Any]) -> Status:
    return Status({"parents": list(entries)}, frozenset({OURS}))


def test_entries_of_other_controllers_stay_equal_in_every_field() -> None:
    foreign = entry(FOREIGN, condition("Accepted", generation=1, lastTransitionTime=OLD))
    live = {"status": {"parents": [foreign, entry(OURS, condition("Accepted", "False", 1, lastTransitionTime=OLD))]}}
    merged = merge_status(live, desired(entry(OURS, condition("Accepted"))), NOW)
    assert merged is not None
    assert merged["parents"][0] == foreign
    assert merged["parents"][1]["conditions"] == [condition("Accepted", lastTransitionTime=NOW)]


def test_time_moves_only_when_the_status_flips() -> None:
    live = {"status": {"parents": [entry(OURS, condition("Accepted", generation=1, lastTransitionTime=OLD))]}}
    merged = merge_status(live, desired(entry(OURS, condition("Accepted"))), NOW)
    assert merged is not None
    assert merged["parents"][0]["conditions"] == [condition("Accepted", lastTransitionTime=OLD)]


def test_nothing_is_written_when_nothing_changes() -> None:
    want = desired(entry(OURS, condition("Accepted")))
    first = merge_status({}, want, OLD)
    assert first is not None
    assert merge_status({"status": first}, want, NOW) is None
    assert merge_status({"status": {"parents": []}}, desired(), NOW) is None
    assert merge_status({}, desired(), NOW) is None
    assert merge_status({"status": first}, None, NOW) is None


def test_our_entry_goes_when_the_route_moves_and_a_foreign_one_does_not() -> None:
    live = {"status": {"parents": [entry(FOREIGN), entry(OURS, condition("Accepted"))]}}
    assert merge_status(live, desired(), NOW) == {"parents": [entry(FOREIGN)]}


def test_parents_that_differ_in_section_are_kept_apart() -> None:
    one, two = entry(OURS, condition("Accepted")), entry(OURS, condition("Accepted", "False"))
    one["parentRef"]["sectionName"], two["parentRef"]["sectionName"] = "a", "b"
    merged = merge_status({}, desired(one, two), NOW)
    assert merged is not None
    assert [p["parentRef"]["sectionName"] for p in merged["parents"]] == ["a", "b"]


def test_foreign_conditions_stay_and_ours_vanish_when_they_no_longer_hold() -> None:
    stale = condition("conformance.gateway.networking.k8s.io/StaleCondition", generation=1, lastTransitionTime=OLD)
    live_conditions = [
        stale,
        condition("InsecureFrontendValidationMode", lastTransitionTime=OLD),
        condition("Accepted", "Unknown", 0, lastTransitionTime="1970-01-01T00:00:00Z"),
    ]
    listener = {
        "name": "a",
        "attachedRoutes": 0,
        "conditions": [stale, condition("Conflicted", lastTransitionTime=OLD)],
    }
    live = {"status": {"conditions": live_conditions, "listeners": [listener, {"name": "gone", "conditions": []}]}}
    want = Status(
        {
            "conditions": [condition("Accepted")],
            "listeners": [{"name": "a", "attachedRoutes": 1, "conditions": [condition("Accepted")]}],
        }
    )
    assert merge_status(live, want, NOW) == {
        "conditions": [stale, condition("Accepted", lastTransitionTime=NOW)],
        "listeners": [
            {"name": "a", "attachedRoutes": 1, "conditions": [stale, condition("Accepted", lastTransitionTime=NOW)]}
        ],
    }


def test_a_condition_of_a_later_generation_is_left_alone() -> None:
    later = condition("Accepted", "False", 9, lastTransitionTime=OLD)
    live = {"status": {"conditions": [later]}}
    assert merge_status(live, Status({"conditions": [condition("Accepted")]}), NOW) is None


def test_fields_that_we_do_not_speak_of_stay() -> None:
    live = {"status": {"extra": 1, "conditions": []}}
    merged = merge_status(live, Status({"conditions": [condition("Accepted")]}), NOW)
    assert merged is not None
    assert merged["extra"] == 1


def test_the_quick_answer_is_that_of_the_whole_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the live status is changed: what is written, if anything, is the same without the quick look."""
    one, other = entry(OURS, condition("Accepted"), condition("ResolvedRefs")), entry(OURS, name="other")
    listener = {"name": "http", "attachedRoutes": 1, "conditions": [condition("Programmed")]}
    wants = (
        desired(one, other),
        desired(one),
        desired(),
        Status({"conditions": [condition("Accepted")], "listeners": [listener], "addresses": [{"value": "10.0.0.1"}]}),
    )
    changes: tuple[Callable[[Any], Any], ...] = (
        lambda status: status,
        lambda status: {**status, "more": 1},
        lambda status: {**status, "parents": status.get("parents", [])[::-1]},
        lambda status: {**status, "parents": [*status.get("parents", []), entry(FOREIGN)]},
        lambda status: _with(status, lambda found: {**found, "status": "False"}),
        lambda status: _with(status, lambda found: {**found, "observedGeneration": 9}),
        lambda status: _with(status, lambda found: {k: v for k, v in found.items() if k != "lastTransitionTime"}),
        lambda status: _with(status, lambda found: {**found, "more": 1}),
        lambda status: {**status, "listeners": [{**each, "attachedRoutes": 2} for each in status.get("listeners", [])]},
        lambda status: {**status, "conditions": []},
        lambda _: {},
    )
    quick = slow = 0
    for want in wants:
        written = merge_status({}, want, OLD) or {}
        for change in changes:
            live = {"status": change(written)}
            with monkeypatch.context() as patched:
                patched.setattr(merge, "_says", lambda _live, _desired: False)
                expected = merge_status(live, want, NOW)
            assert merge_status(live, want, NOW) == expected
            quick += merge._says(live["status"], want)
            slow += expected is None
    assert 4 <= quick <= slow


def _with(status: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    def changed(holder: dict[str, Any]) -> dict[str, Any]:
        return {**holder, "conditions": [change(each) for each in holder["conditions"]]}

    out = {**status, **({"conditions": []} if "conditions" in status else {})}
    for field in ("parents", "listeners"):
        if field in status:
            out[field] = [changed(each) for each in status[field]]
    return out if "conditions" not in status else {**out, **changed(status), "listeners": out.get("listeners", [])}
