"""Statuses: nobody's entries are lost, nothing is written twice, and one object that is refused holds up no other."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from propylon import api
from propylon.store.cluster import ResourcePath, StatusWriter
from propylon.store.cluster import status as status_module
from propylon.store.cluster.pauses import Pauses
from support.scripted_api import Request, serving, until

ROUTES = ResourcePath(f"/apis/{api.GATEWAY_GROUP}/v1", "v1", "httproutes")


def ref(name: str) -> api.ObjectRef:
    return api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "shop", name)


def merge(document: Mapping[str, Any], desired: Any, _now: str) -> Mapping[str, Any] | None:
    """Ours is one field; everything else in the status is somebody else's."""
    status = {**document["status"], "ours": desired}
    return None if status == document["status"] else status


class Objects:
    """What the API server has. A status patch is refused unless it names the current version."""

    def __init__(self, **statuses: dict[str, Any]) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.patches: list[str] = []
        self.reads: list[str] = []
        self.refusals: dict[str, list[tuple[int, str]]] = {}
        self.under_way = 0
        self.most_under_way = 0
        self.defaults: dict[str, Any] = {}
        for name, status in statuses.items():
            self.put(name, status)

    def put(self, name: str, status: dict[str, Any], generation: int = 1, uid: str = "u") -> bytes:
        version = str(int(self.objects[name]["metadata"]["resourceVersion"]) + 1) if name in self.objects else "1"
        metadata = {"name": name, "namespace": "shop", "uid": uid, "generation": generation, "resourceVersion": version}
        self.objects[name] = {"metadata": metadata, "spec": {}, "status": status}
        return self.raw(name)

    def raw(self, name: str) -> bytes:
        return json.dumps(self.objects[name]).encode()

    async def __call__(self, request: Request) -> None:
        name = request.path.removesuffix("/status").rpartition("/")[2]
        if request.method == "GET":
            self.reads.append(name)
            await request.answer(self.objects[name])
            return
        assert request.method == "PATCH"
        assert request.path == f"{ROUTES.object('shop', name)}/status"
        assert request.headers["content-type"] == "application/json-patch+json"
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        self.patches.append(name)
        if self.refusals.get(name):
            await request.refuse(*self.refusals[name].pop(0))
            return
        values = {operation["path"]: operation["value"] for operation in json.loads(request.body)}
        current = self.objects[name]["metadata"]
        if values["/metadata/resourceVersion"] != current["resourceVersion"]:
            await request.refuse(409, "Conflict")
            return
        self.put(name, {**values["/status"], **self.defaults}, current["generation"], current["uid"])
        await request.answer(self.objects[name])


async def write(objects: Objects, steps: Any) -> StatusWriter:
    """Run a writer while `steps(writer)` goes on; the writer as it was in the end."""
    async with serving(objects) as client:
        writer = StatusWriter(client, lambda _ref: ROUTES, merge)
        task = asyncio.create_task(writer.run())
        try:
            await steps(writer)
        finally:
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError), result
    return writer


def test_a_gateway_does_not_wait_for_thousands_of_routes() -> None:
    names = [f"r{number}" for number in range(3 * status_module.WORKERS)]
    objects = Objects(**{name: {} for name in (*names, "gw")})
    gateway = api.ObjectRef(api.GATEWAY_GROUP, "Gateway", "shop", "gw")

    async def steps(writer: StatusWriter) -> None:
        for each in (*map(ref, names), gateway):
            writer.seen(each, objects.raw(each.name))
            writer.want(each, "x")
        writer.enable(True)
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert len(objects.patches) == len(names) + 1
    assert objects.patches.index("gw") < status_module.WORKERS


def test_a_status_is_written_once_and_others_stay() -> None:
    objects = Objects(a={"foreign": 1}, same={"ours": "x"})

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        for name in ("a", "same"):
            writer.seen(ref(name), objects.raw(name))
            writer.want(ref(name), "x")
        await until(lambda: writer.settled)
        writer.seen(ref("a"), objects.raw("a"))
        writer.want(ref("a"), "x")
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"foreign": 1, "ours": "x"}
    assert objects.patches == ["a"], "neither what is as desired already, nor the echo of our own write"


def test_a_conflict_is_read_and_merged_again() -> None:
    objects = Objects(a={})

    async def steps(writer: StatusWriter) -> None:
        writer.seen(ref("a"), objects.raw("a"))
        objects.put("a", {"foreign": "written meanwhile"})
        writer.want(ref("a"), "x")
        writer.enable(True)
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"foreign": "written meanwhile", "ours": "x"}
    assert (objects.patches, objects.reads) == (["a", "a"], ["a"])


def test_after_a_change_of_the_spec_what_was_computed_for_the_old_one_is_not_written() -> None:
    objects = Objects(a={})

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        writer.seen(ref("a"), objects.raw("a"))
        changed = objects.put("a", {}, generation=2)
        writer.want(ref("a"), "for generation 1")
        await until(lambda: bool(objects.reads) and writer.settled)
        assert objects.objects["a"]["status"] == {}
        writer.seen(ref("a"), changed)
        writer.want(ref("a"), "for generation 2")
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"ours": "for generation 2"}


def test_the_latest_word_counts_and_somebody_elses_word_is_repaired() -> None:
    objects = Objects(a={})

    async def steps(writer: StatusWriter) -> None:
        writer.seen(ref("a"), objects.raw("a"))
        for desired in ("first", "second", "third"):
            writer.want(ref("a"), desired)
        writer.enable(True)
        await until(lambda: writer.settled)
        assert objects.patches == ["a"]
        assert objects.objects["a"]["status"] == {"ours": "third"}
        writer.seen(ref("a"), objects.put("a", {"ours": "spoilt"}))
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"ours": "third"}


def test_defaults_of_the_server_are_no_reason_to_write_again() -> None:
    objects = Objects(a={})
    objects.defaults = {"ours": {"value": "x", "filled": "in"}}

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        writer.seen(ref("a"), objects.raw("a"))
        writer.want(ref("a"), {"value": "x"})
        await until(lambda: writer.settled)
        writer.seen(ref("a"), objects.raw("a"))
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.patches == ["a"]


def test_who_does_not_lead_writes_nothing_and_who_begins_to_writes_everything() -> None:
    objects = Objects(a={}, b={})

    async def steps(writer: StatusWriter) -> None:
        for name in ("a", "b"):
            writer.seen(ref(name), objects.raw(name))
            writer.want(ref(name), "x")
        await asyncio.sleep(0)
        assert objects.patches == []
        writer.enable(True)
        await until(lambda: writer.settled)
        assert sorted(objects.patches) == ["a", "b"]
        writer.enable(False)
        writer.want(ref("a"), "y")
        await asyncio.sleep(0)
        assert writer.settled

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"ours": "x"}


def test_a_refusal_is_tried_again_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "Pauses", lambda: Pauses(0.001, 0.01))
    monkeypatch.setattr(status_module, "FORBIDDEN_SECONDS", 0.005)
    objects = Objects(a={}, b={}, c={})
    objects.refusals = {"a": [(500, "InternalError"), (503, "Unavailable")], "b": [(403, "Forbidden")]}

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        for name in ("a", "b", "c"):
            writer.seen(ref(name), objects.raw(name))
            writer.want(ref(name), "x")
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert {name: o["status"] for name, o in objects.objects.items()} == {n: {"ours": "x"} for n in "abc"}
    assert objects.patches.count("a") == 3
    assert objects.patches.count("b") == 2


def test_an_object_that_is_gone_is_left_alone() -> None:
    objects = Objects(a={}, b={})
    objects.refusals = {"a": [(404, "NotFound")] * 50}

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        writer.seen(ref("b"), objects.raw("b"))
        writer.want(ref("b"), "x")
        writer.seen(ref("b"), b"")
        writer.want(ref("b"), None)
        writer.seen(ref("a"), objects.raw("a"))
        writer.want(ref("a"), "x")
        await until(lambda: bool(objects.patches) and writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.patches == ["a"]


def test_many_are_written_at_once_but_not_all() -> None:
    names = [f"r{n}" for n in range(50)]
    objects = Objects(**{name: {} for name in names})

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        for name in names:
            writer.seen(ref(name), objects.raw(name))
            writer.want(ref(name), "x")
        await until(lambda: writer.settled)

    writer = asyncio.run(write(objects, steps))
    assert writer.written == len(names)
    assert 1 < objects.most_under_way <= status_module.WORKERS


def test_connections_are_used_again_beside_any_number_of_watches() -> None:
    """A handshake for every status would cost more than the status."""
    peers: set[object] = set()

    async def handler(request: Request) -> None:
        if request.watches:
            await request.begin()
            await asyncio.Event().wait()
        peers.add(request.peer)
        await request.answer({})

    async def scenario() -> None:
        async with serving(handler) as client, contextlib.AsyncExitStack() as watches:
            for _ in range(30):
                await watches.enter_async_context(client.lines("/x", {"watch": "1"}, silence=60))
            for _ in range(20):
                await client.request("GET", "/y")

    asyncio.run(scenario())
    assert len(peers) == 1


def test_what_happens_during_a_write_is_not_forgotten() -> None:
    objects = Objects(a={})

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        writer.seen(ref("a"), objects.raw("a"))
        changed = objects.put("a", {}, generation=2)
        writer.want(ref("a"), "for generation 1")
        await until(lambda: bool(objects.patches))
        # The answer, a conflict, is on its way; then the object is read again.
        writer.seen(ref("a"), changed)
        writer.want(ref("a"), "for generation 2")
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"ours": "for generation 2"}


def test_a_status_the_server_does_not_take_is_written_as_soon_as_it_is_another_one() -> None:
    objects = Objects(a={})
    objects.refusals = {"a": [(422, "Invalid")]}

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        writer.seen(ref("a"), objects.raw("a"))
        writer.want(ref("a"), "invalid")
        await until(lambda: bool(objects.patches) and not writer._writing)
        assert not writer.settled
        writer.want(ref("a"), "valid")
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"ours": "valid"}


def test_thousands_that_are_as_they_should_be_cost_no_request() -> None:
    names = [f"r{n}" for n in range(3 * status_module.LOOK_AT_ONCE)]
    objects = Objects(**{name: {"ours": "x"} for name in names[:-1]}, last={})

    async def steps(writer: StatusWriter) -> None:
        for name in objects.objects:
            writer.seen(ref(name), objects.raw(name))
            writer.want(ref(name), "x")
        writer.enable(True)
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert (objects.patches, objects.reads) == (["last"], [])


def test_what_the_server_dropped_is_written_again_when_it_may_keep_it() -> None:
    objects = Objects(a={})
    objects.defaults = {"ours": None}  # as a CRD does that does not know the field

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        writer.seen(ref("a"), objects.raw("a"))
        writer.want(ref("a"), "x")
        await until(lambda: writer.settled)
        assert objects.objects["a"]["status"] == {"ours": None}
        writer.seen(ref("a"), objects.raw("a"))
        await until(lambda: writer.settled)
        assert objects.patches == ["a"]
        objects.defaults = {}
        writer.look_again()
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert objects.objects["a"]["status"] == {"ours": "x"}
    assert objects.patches == ["a", "a"]


def test_what_may_not_be_written_is_said_once_for_its_kind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_module, "FORBIDDEN_SECONDS", 0.001)
    names = [f"r{number}" for number in range(20)]
    objects = Objects(**{name: {} for name in names})
    objects.refusals = {name: [(403, "Forbidden")] * 3 for name in names}

    async def steps(writer: StatusWriter) -> None:
        writer.enable(True)
        for name in names:
            writer.seen(ref(name), objects.raw(name))
            writer.want(ref(name), "x")
        await until(lambda: writer.settled)

    asyncio.run(write(objects, steps))
    assert len(objects.patches) == 80
    assert [record.levelname for record in caplog.records if "cannot be written" in record.message] == ["ERROR"]
