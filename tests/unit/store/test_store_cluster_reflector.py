"""Whatever connection and server do, every change arrives once, and nothing that did not change is told again."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from propylon import api
from propylon.store.cluster import ApiError, Change, Client, ClusterWatch, Discovery, Reflector, Unreachable
from propylon.store.cluster import discovery as discovery_module
from propylon.store.cluster.pauses import Pauses
from propylon.store.cluster.reflector import REFUSALS
from support.scripted_api import Request, serving, until

SERVICE = api.by_kind("", "Service")
ROUTE = api.by_kind(api.GATEWAY_GROUP, "HTTPRoute")
TLS_ROUTE = api.by_kind(api.GATEWAY_GROUP, "TLSRoute")
assert SERVICE is not None
assert ROUTE is not None
assert TLS_ROUTE is not None
SERVICES = "/api/v1/services"


def service(name: str, version: int, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"ports": [{"port": 80}], **spec}}


def listing(version: int, *items: dict[str, Any], position: str = "") -> dict[str, Any]:
    return {"kind": "List", "metadata": {"resourceVersion": str(version), "continue": position}, "items": list(items)}


def bookmark(version: int) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"resourceVersion": str(version)}}


def told(changes: list[Change]) -> list[tuple[str, str]]:
    """Name and what was told of it: its first port, `gone`, or `unreadable`."""
    return [
        (c.ref.name, "unreadable" if c.error else "gone" if c.object is None else str(c.object.spec.ports[0].port))
        for c in changes
    ]


async def follow(
    handler: Callable[[Request], Awaitable[None]],
    enough: Callable[[list[Change], Reflector], bool],
    info: Any = SERVICE,
    **options: Any,
) -> list[Change]:
    """Run one reflector against the handler until enough was told."""
    changes: list[Change] = []
    async with serving(handler) as client:
        reflector = Reflector(client, Discovery(client), info, changes.extend, pauses=Pauses(0.001, 0.01), **options)
        task = asyncio.create_task(reflector.run())
        try:
            await until(lambda: enough(changes, reflector) or task.done())
        finally:
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError), result
    return changes


class Script:
    """Lists and watches one after the other as told; a watch that is not scripted stays silent."""

    def __init__(self, lists: list[Any], watches: list[Callable[[Request], Awaitable[None]]]) -> None:
        self.lists = lists
        self.watches = watches
        self.asked: list[dict[str, str]] = []

    async def __call__(self, request: Request) -> None:
        assert request.path == SERVICES
        self.asked.append(request.parameters)
        if not request.watches:
            answer = self.lists.pop(0)
            if isinstance(answer, int):
                await request.refuse(answer, "Expired")
            else:
                await request.answer(answer)
        elif self.watches:
            await self.watches.pop(0)(request)
        else:
            await request.begin()
            await asyncio.Event().wait()

    @property
    def watched_from(self) -> list[str]:
        return [asked["resourceVersion"] for asked in self.asked if "watch" in asked]


def test_pages_are_put_together_and_the_watch_starts_where_the_list_ends() -> None:
    script = Script([listing(10, service("a", 3), position="next"), listing(10, service("b", 4))], [])
    changes = asyncio.run(follow(script, lambda _c, r: r.synced and bool(script.watched_from), field_selector="x!=y"))
    assert told(changes) == [("a", "80"), ("b", "80")]
    first, second, watch = script.asked
    assert first == {"limit": "500", "fieldSelector": "x!=y"}
    assert second["continue"] == "next"
    assert (watch["resourceVersion"], watch["allowWatchBookmarks"]) == ("10", "true")
    assert all(asked["fieldSelector"] == "x!=y" for asked in script.asked), "in every request"


def test_events_arrive_decoded_however_the_bytes_are_cut() -> None:
    async def watch(request: Request) -> None:
        lines = b"".join(
            json.dumps({"type": kind, "object": document}).encode() + b"\n"
            for kind, document in [
                ("ADDED", service("b", 11)),
                ("MODIFIED", service("a", 12, ports=[{"port": 81}])),
                ("DELETED", service("b", 13)),
            ]
        )
        await request.begin()
        for start in range(0, len(lines), 7):
            await request.send(lines[start : start + 7])

    script = Script([listing(10, service("a", 3))], [watch])
    changes = asyncio.run(follow(script, lambda c, _r: len(c) >= 4))
    assert told(changes) == [("a", "80"), ("b", "80"), ("a", "81"), ("b", "gone")]
    assert changes[-1].gone


def test_a_server_that_was_set_back_to_a_backup_is_listed_again() -> None:
    async def earlier(request: Request) -> None:
        await request.begin()
        await request.event("BOOKMARK", bookmark(7))
        await asyncio.Event().wait()

    script = Script([listing(10, service("a", 9)), listing(7, service("b", 3))], [earlier])
    changes = asyncio.run(follow(script, lambda _c, _r: len(script.watched_from) == 2))
    assert told(changes) == [("a", "80"), ("b", "80"), ("a", "gone")]
    assert script.watched_from == ["10", "7"]


def test_a_watch_that_is_refused_again_and_again_is_given_up_for_a_list() -> None:
    async def refuses(request: Request) -> None:
        await request.refuse(504, "Timeout")

    script = Script([listing(10, service("a", 9)), listing(7, service("a", 3))], [refuses] * REFUSALS)
    asyncio.run(follow(script, lambda _c, _r: len(script.watched_from) == REFUSALS + 1))
    assert script.watched_from == ["10"] * REFUSALS + ["7"]


def test_a_broken_watch_goes_on_after_the_last_event_or_bookmark() -> None:
    async def breaks(request: Request) -> None:
        await request.begin()
        await request.event("ADDED", service("b", 11))
        await request.event("BOOKMARK", bookmark(40))
        await request.send(b'{"type":"ADDED","object":{"metadata":{"na')
        request.cut()

    async def ends(request: Request) -> None:
        await request.begin()
        await request.event("ADDED", service("c", 41))
        await request.end()

    async def fails(request: Request) -> None:
        await request.refuse(503, "ServiceUnavailable")

    script = Script([listing(10)], [breaks, fails, ends])
    changes = asyncio.run(follow(script, lambda _c, _r: len(script.watched_from) >= 4))
    assert script.watched_from == ["10", "40", "40", "41"]
    assert told(changes) == [("b", "80"), ("c", "80")]
    assert len(script.asked) == 5, "one list only"


@pytest.mark.parametrize("in_stream", [True, False], ids=["as an event", "as a refusal"])
def test_an_expired_watch_lists_again_and_tells_the_differences(in_stream: bool) -> None:
    async def expires(request: Request) -> None:
        if in_stream:
            await request.begin()
            await request.event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
            await request.end()
        else:
            await request.refuse(410, "Expired")

    before = listing(10, service("same", 1), service("changed", 2), service("gone", 3))
    after = listing(50, service("same", 1), service("changed", 20, ports=[{"port": 99}]), service("new", 21))
    script = Script([before, after], [expires])
    changes = asyncio.run(follow(script, lambda _c, _r: len(script.watched_from) == 2))
    assert told(changes[3:]) == [("changed", "99"), ("new", "80"), ("gone", "gone")]
    assert script.watched_from == ["10", "50"]


def test_pages_that_expire_are_asked_for_in_one_piece() -> None:
    script = Script([listing(10, service("a", 3), position="next"), 410, listing(30, service("b", 20))], [])
    changes = asyncio.run(follow(script, lambda _c, r: r.synced))
    assert told(changes) == [("a", "80"), ("b", "80"), ("a", "gone")]
    assert "limit" not in script.asked[2]


def test_garbage_in_a_watch_is_survived_by_listing_again() -> None:
    async def garbage(request: Request) -> None:
        await request.begin()
        await request.send(b"<html>proxy error</html>\n")

    script = Script([listing(10, service("a", 1)), listing(11, service("a", 1), service("b", 11))], [garbage])
    changes = asyncio.run(follow(script, lambda c, _r: len(c) == 2))
    assert told(changes) == [("a", "80"), ("b", "80")]


def test_an_unreadable_object_is_told_as_such_and_stops_nobody() -> None:
    script = Script([listing(10, service("bad", 1, ports="none"), service("good", 2))], [])
    changes = asyncio.run(follow(script, lambda _c, r: r.synced))
    assert told(changes) == [("bad", "unreadable"), ("good", "80")]
    assert changes[0].error is not None
    assert changes[0].error.field == "spec.ports"
    assert not changes[0].gone


def served(*versions: str, plural: str = "tlsroutes") -> Callable[[str], dict[str, Any] | None]:
    """The discovery documents of a group that serves one resource in these versions."""

    def answer(path: str) -> dict[str, Any] | None:
        if path == f"/apis/{api.GATEWAY_GROUP}" and versions:
            return {"versions": [{"version": version} for version in versions]}
        if path.rpartition("/")[2] in versions:
            return {"resources": [{"name": plural, "verbs": ["get", "watch"]}, {"name": f"{plural}/status"}]}
        return None

    return answer


def test_the_newest_served_version_is_read_and_becomes_the_newest_struct() -> None:
    discover = served("v1alpha3", "v1alpha2")
    route = {
        "metadata": {"name": "r", "namespace": "shop", "resourceVersion": "3"},
        "spec": {"hostnames": ["a.example.com"], "rules": [{"backendRefs": [{"name": "s", "port": 1}]}]},
    }
    paths: list[str] = []

    async def handler(request: Request) -> None:
        paths.append(request.path)
        if (document := discover(request.path)) is not None:
            await request.answer(document)
        elif request.watches:
            await request.begin()
            await asyncio.Event().wait()
        else:
            await request.answer(listing(5, route))

    changes = asyncio.run(follow(handler, lambda _c, r: r.synced, TLS_ROUTE))
    assert isinstance(changes[0].object, api.TLSRoute)
    assert changes[0].object.api_version == f"{api.GATEWAY_GROUP}/v1"
    assert f"/apis/{api.GATEWAY_GROUP}/v1alpha3/tlsroutes" in paths


def test_a_version_that_only_clusters_serve_is_read() -> None:
    info = api.by_kind("certificates.k8s.io", "ClusterTrustBundle")
    assert info is not None
    bundle = {
        "metadata": {"name": "b", "resourceVersion": "3"},
        "spec": {"signerName": "", "trustBundle": "-----BEGIN CERTIFICATE-----"},
    }

    async def handler(request: Request) -> None:
        if request.path == f"/apis/{info.group}":
            await request.answer({"versions": [{"version": "v1"}, {"version": "v1beta1"}]})
        elif request.path.count("/") == 3:
            await request.answer({"resources": [{"name": info.plural, "verbs": ["get", "watch"]}]})
        elif request.watches:
            await request.begin()
            await asyncio.Event().wait()
        elif request.path == f"/apis/{info.group}/v1/{info.plural}":
            await request.answer(listing(5, bundle))
        else:
            await request.refuse(404, "NotFound")

    changes = asyncio.run(follow(handler, lambda _c, r: r.synced, info))
    assert isinstance(changes[0].object, api.ClusterTrustBundle)
    assert changes[0].object.spec.trust_bundle == "-----BEGIN CERTIFICATE-----"


def test_a_kind_comes_and_goes_with_its_crd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_module, "RECHECK_SECONDS", 0.0)
    monkeypatch.setattr("propylon.store.cluster.reflector.RECHECK_SECONDS", 0.005)
    installed = {"now": False}
    removed = asyncio.Event()

    async def handler(request: Request) -> None:
        document = served("v1", plural="httproutes")(request.path) if installed["now"] else None
        if document is not None:
            await request.answer(document)
        elif not installed["now"]:
            await request.refuse(404, "NotFound")
        elif request.watches:
            await request.begin()
            await removed.wait()
            request.cut()
        else:
            await request.answer(listing(5, {"metadata": {"name": "r", "namespace": "shop", "resourceVersion": "4"}}))

    async def scenario() -> list[tuple[str, bool]]:
        changes: list[Change] = []
        async with serving(handler) as client:
            reflector = Reflector(client, Discovery(client), ROUTE, changes.extend, pauses=Pauses(0.001, 0.01))
            task = asyncio.create_task(reflector.run())
            await until(lambda: reflector.synced)
            assert reflector.path is None
            assert changes == [], "absent is complete, too"
            installed["now"] = True
            await until(lambda: len(changes) == 1)
            installed["now"] = False
            removed.set()
            await until(lambda: len(changes) == 2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return [(c.ref.name, c.gone) for c in changes]

    assert asyncio.run(scenario()) == [("r", False), ("r", True)]


def test_what_may_not_be_read_keeps_the_first_batch_back_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    asked = 0

    async def handler(request: Request) -> None:
        nonlocal asked
        asked += 1
        if asked < 5:
            await request.refuse(403, "Forbidden")
        elif request.watches:
            await request.begin()
            await asyncio.Event().wait()
        else:
            await request.answer(listing(1))

    synced_when_refused: list[bool] = []

    def enough(_changes: list[Change], reflector: Reflector) -> bool:
        if asked < 5:
            synced_when_refused.append(reflector.synced)
        return reflector.synced

    asyncio.run(follow(handler, enough))
    assert not any(synced_when_refused)
    assert [r.message for r in caplog.records if "ClusterRole" in r.message] == [
        "Service: may not be read, see the ClusterRole: 403 Forbidden: scripted"
    ]


def test_all_kinds_are_one_queue_that_keeps_the_last_word() -> None:
    go_on = asyncio.Event()

    async def handler(request: Request) -> None:
        if request.path.startswith("/apis"):
            await request.refuse(404, "NotFound")
        elif request.watches:
            await request.begin()
            await go_on.wait()
            await request.event("MODIFIED", service("a", 11, ports=[{"port": 1}]))
            await request.event("MODIFIED", service("a", 12, ports=[{"port": 2}]))
            await asyncio.Event().wait()
        else:
            await request.answer(listing(10, service("a", 3)))

    async def scenario() -> None:
        rung = asyncio.Event()
        async with serving(handler) as client:
            watch = ClusterWatch(client, [SERVICE, ROUTE], rung.set)
            assert not watch.complete
            assert watch.missing == ("Service", "HTTPRoute")
            task = asyncio.create_task(watch.run())
            await until(lambda: watch.complete)
            assert rung.is_set()
            assert told(watch.drain()) == [("a", "80")]
            assert watch.drain() == []
            path = watch.path_of(api.ObjectRef("", "Service", "shop", "a"))
            assert path is not None
            assert path.object("shop", "a") == "/api/v1/namespaces/shop/services/a"
            assert watch.path_of(api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "shop", "a")) is None
            go_on.set()
            await until(lambda: bool(watch._queue) and watch._queue[-1].object.spec.ports[0].port == 2)
            assert told(watch.drain()) == [("a", "2")], "of two changes of one object the last"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_the_client_tells_refusals_from_silence() -> None:
    async def handler(request: Request) -> None:
        assert request.headers["authorization"] == "Bearer secret"
        await request.refuse(429, "TooManyRequests", **{"Retry-After": "7"})

    async def scenario() -> None:
        async with serving(handler) as client:
            with pytest.raises(ApiError) as refused:
                await client.request("GET", "/api")
            assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (
                429,
                "TooManyRequests",
                7.0,
            )
            nobody = Client(client.credentials._replace(server="http://127.0.0.1:1"))
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 does not answer"):
                await nobody.request("GET", "/api")
            await nobody.close()

    asyncio.run(scenario())
