"""The local store keeps Kubernetes' promises about objects."""

import asyncio
import threading

import pytest

from propylon.api.meta import ObjectRef
from propylon.store import (
    AlreadyExists,
    Conflict,
    EventType,
    Forbidden,
    Gone,
    GroupKind,
    Invalid,
    LocalStore,
    NotFound,
    Outcome,
    Propagation,
    ReadOnly,
)

GATEWAY = "gateway.networking.k8s.io"
CONFIG_MAPS = GroupKind("", "ConfigMap")


def ref(name, kind="ConfigMap", namespace="default", group=""):
    return ObjectRef(group, kind, namespace, name)


def config_map(name, namespace="default", data=None, **metadata):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "data": data or {"key": "value"},
    }


def gateway(name="web", port=80, **metadata):
    return {
        "apiVersion": f"{GATEWAY}/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {"gatewayClassName": "any", "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]},
    }


def namespace(name, **metadata):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **metadata}}


def owned_by(owner, block=None):
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    if block is not None:
        reference["blockOwnerDeletion"] = block
    return [reference]


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path) as opened:
        yield opened


GATEWAY_REF = ref("web", "Gateway", group=GATEWAY)


def test_a_created_object_gets_its_identity_and_defaults(store):
    created = store.create({**gateway(), "status": {"addresses": [{"value": "192.0.2.1"}]}})
    metadata = created["metadata"]
    assert metadata["uid"] and metadata["creationTimestamp"].endswith("Z")
    assert metadata["generation"] == 1
    assert metadata["resourceVersion"] == str(store.resource_version)
    assert created["spec"]["listeners"][0]["allowedRoutes"]["namespaces"]["from"] == "Same"
    assert "addresses" not in created["status"]
    assert created["status"]["conditions"][0]["reason"] == "Pending"
    assert store.get(GATEWAY_REF) == created


def test_creating_twice_is_refused(store):
    store.create(config_map("a"))
    with pytest.raises(AlreadyExists):
        store.create(config_map("a"))


def test_a_generated_name_is_completed(store):
    document = config_map("x")
    document["metadata"] = {"generateName": "part-", "namespace": "default"}
    first, second = store.create(document), store.create(document)
    assert first["metadata"]["name"].startswith("part-")
    assert first["metadata"]["name"] != second["metadata"]["name"]


def test_an_invalid_object_is_refused_with_its_findings(store):
    with pytest.raises(Invalid) as caught:
        store.create(gateway(port=0))
    assert any(finding.field == "spec.listeners[0].port" for finding in caught.value.findings)
    assert len(store.list([GroupKind(GATEWAY, "Gateway")])) == 0


def test_generation_counts_changes_of_the_spec_only(store):
    created = store.create(gateway())
    labelled = {**created, "metadata": {**created["metadata"], "labels": {"team": "a"}}}
    assert store.update(labelled)["metadata"]["generation"] == 1
    assert store.update(gateway(port=81))["metadata"]["generation"] == 2
    assert "generation" not in store.create(config_map("a"))["metadata"]


def test_writing_the_same_again_changes_nothing(store):
    store.create(gateway())
    version = store.resource_version
    assert store.update(gateway())["metadata"]["resourceVersion"] == str(version)
    assert store.resource_version == version


def test_an_update_leaves_status_alone_and_a_status_patch_the_rest(store):
    store.create(gateway())
    address = {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}
    patched = store.patch_status(GATEWAY_REF, lambda stored: {**address, "listeners": []})
    assert patched["metadata"]["generation"] == 1
    updated = store.update({**gateway(port=81), "status": {"addresses": []}})
    assert updated["status"]["addresses"] == address["addresses"]
    assert updated["spec"]["listeners"][0]["port"] == 81


def test_a_stale_writer_is_told(store):
    first = store.create(config_map("a"))
    store.update(config_map("a", data={"key": "other"}))
    with pytest.raises(Conflict):
        store.update(first)
    with pytest.raises(Conflict):
        store.patch_status(ref("a"), lambda stored: {}, first["metadata"]["resourceVersion"])
    with pytest.raises(Conflict):
        store.delete(ref("a"), uid="another")
    assert store.get(ref("a"))["data"] == {"key": "other"}


def test_resource_versions_only_grow_also_across_restarts(tmp_path):
    with LocalStore(tmp_path) as store:
        store.create(config_map("a"))
        store.delete(ref("a"))
        before = store.resource_version
    with LocalStore(tmp_path) as store:
        assert store.resource_version == before
        assert int(store.create(config_map("a"))["metadata"]["resourceVersion"]) == before + 1


def test_finalizers_hold_an_object(store):
    store.create(gateway(finalizers=["example.com/hold"]))
    marked = store.delete(GATEWAY_REF)
    assert marked["metadata"]["deletionTimestamp"]
    assert store.get(GATEWAY_REF)["metadata"]["generation"] == 2
    with_more = {**marked, "metadata": {**marked["metadata"], "finalizers": ["example.com/hold", "example.com/late"]}}
    assert store.update(with_more)["metadata"]["finalizers"] == ["example.com/hold"]
    released = store.get(GATEWAY_REF)
    released["metadata"]["finalizers"] = []
    store.update(released)
    with pytest.raises(NotFound):
        store.get(GATEWAY_REF)


def test_what_was_applied_goes_with_the_object_that_an_apply_releases(store):
    store.apply(config_map("a", data={"key": "value"}, finalizers=["example.com/hold"]), "test")
    store.delete(ref("a"))
    assert store.apply(config_map("a", data={"key": "value"}), "test").outcome is Outcome.CHANGED
    with pytest.raises(NotFound):
        store.get(ref("a"))
    assert store.applied_by("test") == {}
    store.create(config_map("a", data={"key": "of another"}))
    store.apply(config_map("a", data={"other": "1"}), "test")
    assert store.get(ref("a"))["data"] == {"key": "of another", "other": "1"}


def test_dependents_go_with_their_last_owner(store):
    one, two = store.create(config_map("one")), store.create(config_map("two"))
    store.create(config_map("child", ownerReferences=owned_by(one) + owned_by(two)))
    store.create(config_map("grandchild", ownerReferences=owned_by(store.get(ref("child")))))
    store.delete(ref("one"))
    assert [owner["name"] for owner in store.get(ref("child"))["metadata"]["ownerReferences"]] == ["two"]
    store.delete(ref("two"))
    assert len(store.list([CONFIG_MAPS])) == 0


def test_a_chain_of_owners_may_be_long(store):
    owner = store.create(config_map("0"))
    with store.transaction():
        for number in range(1, 1100):
            owner = store.create(config_map(str(number), ownerReferences=owned_by(owner)))
    store.delete(ref("0"))
    assert len(store.list([CONFIG_MAPS])) == 0


def test_orphans_stay(store):
    owner = store.create(config_map("owner"))
    store.create(config_map("child", ownerReferences=owned_by(owner)))
    store.delete(ref("owner"), propagation=Propagation.ORPHAN)
    assert "ownerReferences" not in store.get(ref("child"))["metadata"]


def test_foreground_deletion_waits_for_blocking_dependents(store):
    owner = store.create(config_map("owner"))
    child = config_map("child", ownerReferences=owned_by(owner, block=True), finalizers=["example.com/hold"])
    store.create(child)
    store.delete(ref("owner"), propagation=Propagation.FOREGROUND)
    assert store.get(ref("owner"))["metadata"]["finalizers"] == ["foregroundDeletion"]
    held = store.get(ref("child"))
    assert held["metadata"]["deletionTimestamp"]
    held["metadata"]["finalizers"] = []
    store.update(held)
    assert len(store.list([CONFIG_MAPS])) == 0


def test_an_object_whose_owner_is_gone_does_not_stay(store):
    owner = store.create(config_map("owner"))
    store.delete(ref("owner"))
    store.create(config_map("late", ownerReferences=owned_by(owner)))
    with pytest.raises(NotFound):
        store.get(ref("late"))


def test_namespaces_carry_their_name_and_must_exist(store):
    created = store.create(namespace("shop", labels={"team": "a"}))
    assert created["metadata"]["labels"] == {"team": "a", "kubernetes.io/metadata.name": "shop"}
    assert created["status"]["phase"] == "Active"
    with pytest.raises(NotFound, match="Namespace nowhere"):
        store.create(config_map("a", "nowhere"))


def test_a_deleted_namespace_takes_its_content_along_when_that_can_go(store):
    store.create(namespace("shop"))
    store.create(config_map("a", "shop"))
    store.create(config_map("held", "shop", finalizers=["example.com/hold"]))
    store.delete(ref("shop", "Namespace", ""))
    assert [found.name for found in store.list(namespace="shop").refs] == ["held"]
    assert store.get(ref("shop", "Namespace", ""))["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden):
        store.create(config_map("late", "shop"))
    held = store.get(ref("held", namespace="shop"))
    held["metadata"]["finalizers"] = []
    store.update(held)
    with pytest.raises(NotFound):
        store.get(ref("shop", "Namespace", ""))


def test_lists_select_by_kind_and_namespace(store):
    store.create(namespace("shop"))
    for name, place in (("b", "default"), ("a", "default"), ("c", "shop")):
        store.create(config_map(name, place))
    listing = store.list([CONFIG_MAPS], namespace="default")
    assert [found.name for found in listing.refs] == ["a", "b"]
    assert listing.resource_version == store.resource_version
    assert [document["metadata"]["name"] for document in store.list([CONFIG_MAPS]).documents] == ["a", "b", "c"]


def test_apply_takes_away_only_what_the_manager_put_there(store):
    wanted = config_map("a", data={"mine": "1", "also": "2"}, labels={"mine": "x"})
    assert store.apply(wanted, "files").outcome is Outcome.CREATED
    other = store.get(ref("a"))
    other["metadata"]["annotations"] = {"other": "y"}
    other["data"]["theirs"] = "3"
    store.update(other)
    assert store.apply(config_map("a", data={"mine": "1"}), "files").outcome is Outcome.CHANGED
    merged = store.get(ref("a"))
    assert merged["data"] == {"mine": "1", "theirs": "3"}
    assert merged["metadata"]["annotations"] == {"other": "y"}
    assert "labels" not in merged["metadata"]


def test_applying_the_same_again_changes_nothing(store):
    store.apply(gateway(), "files")
    store.patch_status(GATEWAY_REF, lambda stored: {**stored.get("status", {}), "addresses": [{"value": "192.0.2.1"}]})
    version = store.resource_version
    assert store.apply(gateway(), "files").outcome is Outcome.UNCHANGED
    assert store.resource_version == version


def test_apply_keeps_the_listeners_of_others(store):
    store.apply(gateway(), "files")
    other = store.get(GATEWAY_REF)
    other["spec"]["listeners"].append({"name": "theirs", "port": 8080, "protocol": "HTTP"})
    store.update(other)
    store.apply(gateway(port=81), "files")
    listeners = store.get(GATEWAY_REF)["spec"]["listeners"]
    assert [(listener["name"], listener["port"]) for listener in listeners] == [("http", 81), ("theirs", 8080)]


def test_apply_creates_namespaces_when_asked_and_says_so(store):
    with pytest.raises(NotFound):
        store.apply(config_map("a", "shop"), "files")
    applied = store.apply(config_map("a", "shop"), "files", create_namespace=True)
    assert "shop" in applied.notices[0]
    assert store.get(ref("shop", "Namespace", ""))["status"] == {"phase": "Active"}


def test_one_refused_document_stops_no_other(store):
    bad = gateway("bad", port=0)
    documents = [config_map("a", "shop"), bad, namespace("shop")]
    results = store.apply_many(documents, "files", sources=["f:1", "f:2", "f:3"])
    assert [result.outcome for result in results] == [Outcome.CREATED, Outcome.REFUSED, Outcome.CREATED]
    assert isinstance(results[1].error, Invalid)
    applied = store.applied_by("files")
    assert {found.name: document.source for found, document in applied.items()} == {"a": "f:1", "shop": "f:3"}


def test_a_failed_transaction_leaves_nothing(store):
    before = store.resource_version
    woken = []
    store.subscribe(lambda: woken.append(1))
    with pytest.raises(AlreadyExists), store.transaction():
        store.create(config_map("a"))
        store.create(config_map("a"))
    assert store.resource_version == before and not woken
    with pytest.raises(NotFound):
        store.get(ref("a"))
    assert int(store.create(config_map("b"))["metadata"]["resourceVersion"]) == before + 1


def test_changes_since_tell_everything_in_order(store):
    start = store.resource_version
    store.create(config_map("a"))
    store.update(config_map("a", data={"key": "2"}))
    store.create(gateway())
    store.delete(ref("a"))
    changes = store.changes_since(start, [CONFIG_MAPS])
    assert [event.type for event in changes.events] == [EventType.ADDED, EventType.MODIFIED, EventType.DELETED]
    assert [event.resource_version for event in changes.events] == [start + 1, start + 2, start + 4]
    assert changes.events[1].document["data"] == {"key": "2"}
    assert changes.resource_version == store.resource_version
    assert store.changes_since(changes.resource_version).events == ()


def test_changes_that_are_not_retained_are_gone(tmp_path):
    with LocalStore(tmp_path, retained_changes=10) as store:
        for number in range(30):
            store.create(config_map(str(number)))
        with pytest.raises(Gone):
            store.changes_since(1)
        with pytest.raises(Gone):
            store.changes_since(store.resource_version + 1)
        assert len(store.changes_since(store.resource_version - 10).events) == 10


def test_a_watch_starts_with_what_is_there_and_follows(store):
    store.create(config_map("a"))

    async def follow():
        watch = store.open_watch([CONFIG_MAPS])
        first = await watch.next_batch()
        assert [(event.type, event.ref.name) for event in first] == [(EventType.ADDED, "a"), (EventType.BOOKMARK, "")]
        writer = threading.Thread(target=lambda: store.delete(ref("a")))
        writer.start()
        batch = await asyncio.wait_for(watch.next_batch(), 5)
        writer.join()
        watch.close()
        return batch

    assert [event.type for event in asyncio.run(follow())] == [EventType.DELETED]


def test_a_watch_goes_on_from_a_version(store):
    version = store.resource_version
    for name in "abc":
        store.create(config_map(name))

    async def first_three():
        names = []
        async for event in store.watch([CONFIG_MAPS], since=version):
            names.append(event.ref.name)
            if len(names) == 3:
                break
        return names

    assert asyncio.run(first_three()) == ["a", "b", "c"]


def test_readers_see_what_the_writer_commits_and_cannot_write(tmp_path):
    with LocalStore(tmp_path) as writer, LocalStore(tmp_path, read_only=True) as reader:
        writer.create(config_map("a"))
        assert reader.get(ref("a"))["data"] == {"key": "value"}
        with pytest.raises(ReadOnly):
            reader.create(config_map("b"))

        async def follow():
            watch = reader.open_watch([CONFIG_MAPS], reader.resource_version)
            waiting = asyncio.ensure_future(watch.next_batch())
            await asyncio.sleep(0)
            writer.create(config_map("c"))
            return await asyncio.wait_for(waiting, 5)

        assert [event.ref.name for event in asyncio.run(follow())] == ["c"]


def test_unknown_kinds_are_kept_whole(store):
    document = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"any": [1, {"deep": None}]},
        "extra": True,
    }
    store.create(document)
    stored = store.get(ref("a", "Thing", group="example.com"))
    assert stored["spec"] == document["spec"] and stored["extra"] is True
