"""Writes that come together: one commit, each all or nothing by itself, none answered before it is durable."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from server_world import CONFIG_MAPS, ROUTES, World, config_map, route, within

from propylon.api.meta import ObjectRef
from propylon.server import objects, watches
from propylon.server.grouping import GroupCommit
from propylon.server.objects import Target
from propylon.server.watches import WatchOptions, WatchStream
from propylon.store import LocalStore, NotFound, StoreUnavailable
from propylon.store.database import Database


def document(name: str) -> dict[str, Any]:
    return {**config_map(name), "metadata": {"name": name, "namespace": "default"}}


def ref(name: str) -> ObjectRef:
    return ObjectRef("", "ConfigMap", "default", name)


def in_store(directory: Path, story: Callable[[LocalStore], Coroutine[Any, Any, None]]) -> None:
    with LocalStore(directory) as store:
        asyncio.run(asyncio.wait_for(story(store), 20))


def commits(store: LocalStore) -> list[int]:
    """The versions that were committed, as they are; one for each commit from now on."""
    found: list[int] = []
    store.subscribe(lambda: found.append(store.resource_version))
    return found


def test_writes_of_one_turn_are_one_commit(tmp_path: Path) -> None:
    async def story(store: LocalStore) -> None:
        group, seen = GroupCommit(store), commits(store)
        written = await asyncio.gather(
            *(group.run(lambda name=f"c{n}": store.create(document(name))) for n in range(20))
        )
        versions = [int(one["metadata"]["resourceVersion"]) for one in written]
        assert versions == sorted(set(versions))
        assert seen == [versions[-1]]

    in_store(tmp_path, story)


def test_a_refused_write_undoes_nothing_of_others(tmp_path: Path) -> None:
    async def story(store: LocalStore) -> None:
        group = GroupCommit(store)

        def half() -> None:
            with store.transaction():
                store.create(document("half"))
                raise KeyError("of its own")

        one, refused, two = await asyncio.gather(
            group.run(lambda: store.create(document("one"))),
            group.run(half),
            group.run(lambda: store.create(document("two"))),
            return_exceptions=True,
        )
        assert isinstance(refused, KeyError)
        assert {one["metadata"]["name"], two["metadata"]["name"]} == {"one", "two"}  # type: ignore[index]
        store.get(ref("one"))
        store.get(ref("two"))
        with pytest.raises(NotFound):
            store.get(ref("half"))

    in_store(tmp_path, story)


def test_when_the_commit_fails_nobody_is_told_of_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: LocalStore) -> None:
        group = GroupCommit(store)
        before = store.resource_version

        def full(_self: Database, _before: object) -> None:
            raise StoreUnavailable("the disk is full", "make room")

        with monkeypatch.context() as patched:
            patched.setattr(Database, "_finish", full)
            told = await asyncio.gather(
                *(group.run(lambda name=f"c{n}": store.create(document(name))) for n in range(3)),
                return_exceptions=True,
            )
        assert [type(one) for one in told] == [StoreUnavailable] * 3
        assert store.resource_version == before
        assert store.changes_since(before).events == ()
        again = await group.run(lambda: store.create(document("c0")))
        assert int(again["metadata"]["resourceVersion"]) == before + 1

    in_store(tmp_path, story)


def test_a_disk_that_fails_in_the_middle_ends_the_whole_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite may have undone everything by itself: what came before must not count as written, nor anything after."""

    async def story(store: LocalStore) -> None:
        group = GroupCommit(store)

        def fail() -> None:
            store._database._connection.execute("ROLLBACK")  # as SQLITE_FULL does
            raise StoreUnavailable("the disk is full", "make room")

        ran: list[str] = []
        told = await asyncio.gather(
            group.run(lambda: store.create(document("before"))),
            group.run(fail),
            group.run(lambda: ran.append("after")),
            return_exceptions=True,
        )
        assert [type(one) for one in told] == [StoreUnavailable] * 3
        assert ran == []
        with pytest.raises(NotFound):
            store.get(ref("before"))

    in_store(tmp_path, story)


def test_nothing_is_written_where_a_transaction_was_undone_underneath(tmp_path: Path) -> None:
    with LocalStore(tmp_path) as store:
        with pytest.raises(StoreUnavailable), store.transaction():
            store._database._connection.execute("ROLLBACK")
            store.create(document("stray"))
        with pytest.raises(NotFound):
            store.get(ref("stray"))


def test_requests_of_one_turn_are_one_commit(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        seen = commits(world.store)
        made = (world.json("POST", CONFIG_MAPS, config_map(f"c{n}"), 201) for n in range(10))
        refused = world.json("POST", CONFIG_MAPS, config_map("c3"), 409)
        await asyncio.gather(*made, refused)
        assert len(seen) == 1
        assert len((await world.json("GET", CONFIG_MAPS))["items"]) == 10

    within(tmp_path, story)


def test_a_change_is_encoded_once_however_many_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        made: list[bytes] = []
        line = watches._line

        def counted(kind: str, raw: bytes) -> bytes:
            made.append(raw)
            return line(kind, raw)

        monkeypatch.setattr(watches, "_line", counted)
        streams = [(await world.send("GET", ROUTES, watch="true")).stream for _ in range(50)]
        pieces = [aiter(stream) for stream in streams if stream is not None]
        waiting = [asyncio.ensure_future(anext(piece)) for piece in pieces]
        await asyncio.sleep(0)
        await world.json("POST", ROUTES, route("a", "a.example.com"), 201)
        lines = await asyncio.gather(*waiting)
        assert len(set(lines)) == 1
        assert len({id(one) for one in lines}) == 1, "the same bytes, not equal ones"
        assert len(made) == 1

    within(tmp_path, story)


def test_stored_bytes_are_shown_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        for name in ("a", "b"):
            body = route(name, f"{name}.example.com")
            # Written the other way round than it is stored.
            await world.json("POST", ROUTES, dict(reversed(body.items())), 201)
        monkeypatch.setattr(objects, "present", lambda *_: pytest.fail("a stored object was decoded"))
        raw = (await world.send("GET", ROUTES)).body
        listed = msgspec.json.decode(raw)
        assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "b"]
        for stored in world.store.list([]).raw:
            assert (stored in raw) is (b'"kind":"HTTPRoute"' in stored)

    within(tmp_path, story)


def test_another_version_is_shown_in_its_own_words(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.json("POST", ROUTES, route("a", "a.example.com"), 201)
        listed = await world.json("GET", ROUTES.replace("/v1/", "/v1beta1/"))
        assert {item["apiVersion"] for item in listed["items"]} == {"gateway.networking.k8s.io/v1beta1"}

    within(tmp_path, story)


def test_a_status_is_one_change_and_keeps_what_files_know_nothing_of(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        made = await world.json("POST", ROUTES, route("a", "a.example.com"), 201)
        before = world.store.resource_version
        made["status"] = {"parents": []}
        written = await world.json("PUT", f"{ROUTES}/a/status", made)
        assert len(world.store.changes_since(before).events) == 1
        owners = [(entry["manager"], entry.get("subresource")) for entry in written["metadata"]["managedFields"]]
        assert owners == [("tests", None), ("tests", "status")]
        body = route("a", "b.example.com")
        world.store.apply({**body, "metadata": {"name": "a", "namespace": "default"}}, "files")
        kept = await world.json("GET", f"{ROUTES}/a")
        assert [entry["manager"] for entry in kept["metadata"]["managedFields"]] == ["tests", "tests"]

    within(tmp_path, story)


class Slow:
    """A sink whose client reads nothing until told to."""

    def __init__(self) -> None:
        self.full = False
        self.pieces: list[bytes] = []
        self.ended = False

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def end(self) -> None:
        self.ended = True


def watch_of(world: World) -> WatchStream:
    resource = world.application.registry.by_plural("", "v1", "configmaps")
    assert resource is not None
    target = Target(resource, "v1", "default")
    query = watches.Query(resource_version=str(world.store.resource_version))
    return WatchStream(world.hub, target, query, WatchOptions())


def test_a_slow_watcher_gets_everything_once_it_reads(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        stream, sink = watch_of(world), Slow()
        stream.attach(sink)
        sink.full = True
        for number in range(5):
            await world.json("POST", CONFIG_MAPS, config_map(f"c{number}"), 201)
        await asyncio.sleep(0)
        assert sink.pieces == []
        sink.full = False
        stream.resume()
        names = [msgspec.json.decode(piece)["object"]["metadata"]["name"] for piece in sink.pieces]
        assert names == [f"c{number}" for number in range(5)]
        stream.close()

    within(tmp_path, story)


def test_a_watcher_that_reads_nothing_is_told_to_list_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        monkeypatch.setattr(watches, "QUEUE_LIMIT", 3)
        stream, sink = watch_of(world), Slow()
        stream.attach(sink)
        sink.full = True
        for number in range(5):
            await world.json("POST", CONFIG_MAPS, config_map(f"c{number}"), 201)
        await asyncio.sleep(0)
        sink.full = False
        stream.resume()
        (last,) = sink.pieces
        assert (msgspec.json.decode(last)["type"], sink.ended) == ("ERROR", True)
        assert msgspec.json.decode(last)["object"]["code"] == 410

    within(tmp_path, story)
