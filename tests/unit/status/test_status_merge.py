from typing import Any

from propylon.status import Status, merge_status

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
