"""Objects that are shown and not stored: lists, watches and versions among those that are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from propylon.api.meta import ObjectRef
from propylon.server.errors import ApiError
from propylon.server.machine import NODE, POD, MachineStore
from propylon.store import EventType, Gone, GroupKind, NotFound, StoreUnavailable


def pod_ref(name: str, namespace: str = "default") -> ObjectRef:
    return ObjectRef("", "Pod", namespace, name)


def pod(name: str, namespace: str = "default", **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MachineStore]:
    with MachineStore(tmp_path) as store:
        yield store


def names(store: MachineStore, *kinds: Any, namespace: str | None = None) -> list[str]:
    return [ref.name for ref in store.list(kinds, namespace).refs]


def test_shown_among_stored(store: MachineStore) -> None:
    store.create(pod("b"))
    store.show({pod_ref("a"): pod("a"), pod_ref("c"): pod("c"), pod_ref("x", "other"): pod("x", "other")})
    assert names(store, POD, namespace="default") == ["a", "b", "c"]
    assert names(store, POD) == ["a", "b", "c", "x"]
    assert names(store, NODE) == []
    assert store.get(pod_ref("a"))["metadata"]["uid"] == "uid-a"
    with pytest.raises(NotFound):
        store.get(pod_ref("z"))


@pytest.mark.parametrize("namespace", [None, "default"])
def test_pages_are_the_list_in_parts(store: MachineStore, namespace: str | None) -> None:
    """Of a kind that is shown too, and of one that is only stored."""
    for name in "bdf":
        store.create(pod(name))
        store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})
    store.show({pod_ref(name): pod(name) for name in "ace"} | {pod_ref("x", "other"): pod("x", "other")})
    for kind in (POD, GroupKind("", "ConfigMap")):
        whole = store.list([kind], namespace)
        for limit in range(1, len(whole) + 2):
            seen: list[ObjectRef] = []
            raw: list[bytes] = []
            left = len(whole)
            while left:
                after = (seen[-1].namespace, seen[-1].name) if seen else ("", "")
                page, left = store.page(kind, namespace, after, limit)
                assert 0 < len(page) <= limit
                seen += page.refs
                raw += page.raw
                assert left == len(whole) - len(seen)
            assert (tuple(seen), tuple(raw)) == (whole.refs, whole.raw)
            assert page.resource_version == whole.resource_version


def test_versions_rise_with_those_of_stored_objects(store: MachineStore) -> None:
    began = store.resource_version
    store.show({pod_ref("a"): pod("a", phase="Pending")})
    store.create(pod("b"))
    store.show({pod_ref("a"): pod("a", phase="Running")})
    store.show({pod_ref("a"): pod("a", phase="Running")})  # nothing new
    store.show({pod_ref("a"): None})
    changes = store.changes_since(began, [POD])
    told = [(event.type.value, event.ref.name, event.resource_version - began) for event in changes.events]
    assert told == [("ADDED", "a", 1), ("ADDED", "b", 2), ("MODIFIED", "a", 3), ("DELETED", "a", 4)]
    assert changes.resource_version == began + 4 == store.resource_version
    assert changes.events[2].document["metadata"]["resourceVersion"] == str(began + 3)
    middle = store.changes_since(began + 2, [POD])
    assert [event.type for event in middle.events] == [EventType.MODIFIED, EventType.DELETED]
    assert store.changes_since(began, [NODE]).events == ()


def test_watches_from_before_the_start_list_again(tmp_path: Path) -> None:
    with MachineStore(tmp_path) as store:
        version = store.resource_version
        store.show({pod_ref("a"): pod("a")})
    with MachineStore(tmp_path) as store:
        assert names(store, POD) == []
        with pytest.raises(Gone):
            store.changes_since(version, [POD])
        assert store.changes_since(version).events == ()  # of every kind: nothing of this is stored
        store.show({pod_ref("a"): pod("a")})
        assert len(store.changes_since(store.resource_version - 1, [POD]).events) == 1


def test_history_is_bounded(tmp_path: Path) -> None:
    with MachineStore(tmp_path, history=2) as store:
        began = store.resource_version
        for phase in ("One", "Two", "Three"):
            store.show({pod_ref("a"): pod("a", phase=phase)})
        with pytest.raises(Gone):
            store.changes_since(began, [POD])
        assert len(store.changes_since(began + 1, [POD]).events) == 2


def test_nobody_writes_them(store: MachineStore) -> None:
    store.show({pod_ref("a"): pod("a")})
    attempts = [
        lambda: store.create(pod("a")),
        lambda: store.update(pod("a", phase="Failed")),
        lambda: store.delete(pod_ref("a")),
        lambda: store.patch_status(pod_ref("a"), lambda _stored: {"phase": "Failed"}),
    ]
    for attempt in attempts:
        with pytest.raises(ApiError, match="read-only: it shows a running proxy") as refused:
            attempt()
        assert refused.value.code == 403
    assert store.get(pod_ref("a"))["status"] == {}


def test_a_full_disk_shows_nothing(store: MachineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.show({pod_ref("a"): pod("a")})
    version = store.resource_version

    def fail(count: int, publish: Any) -> None:
        publish(list(range(version + 1, version + 1 + count)))
        raise StoreUnavailable("full", "make room")

    with monkeypatch.context() as patched:
        patched.setattr(store, "advance", fail)
        with pytest.raises(StoreUnavailable):
            store.show({pod_ref("a"): None, pod_ref("b"): pod("b")})
    assert names(store, POD) == ["a"]
    assert store.changes_since(version, [POD]).events == ()


def test_wakes_whoever_watches(store: MachineStore) -> None:
    woken: list[int] = []
    store.subscribe(lambda: woken.append(store.resource_version))
    store.show({pod_ref("a"): pod("a")})
    assert woken == [store.resource_version]
