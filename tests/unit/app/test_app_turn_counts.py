"""What one change makes the loop do: turns, batches, publications. Counted, with a proxy that answers at once."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from propylon.app.bell import Bell
from propylon.app.configuration import UpOptions
from propylon.app.runtime import Runtime
from propylon.store import StoreUnavailable
from propylon.xds import CDS, EDS, LDS, RDS, Acknowledged, Event

GROUP = "gateway.networking.k8s.io/v1"
NODE = "shop/web"


def document(api_version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, **fields}


def endpoints(address: str) -> dict[str, Any]:
    made = document(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "cart",
        addressType="IPv4",
        ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
        endpoints=[{"addresses": [address]}],
    )
    made["metadata"]["labels"] = {"kubernetes.io/service-name": "cart"}
    return made


def route(path: str) -> dict[str, Any]:
    rule = {"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "cart", "port": 80}]}
    return document(GROUP, "HTTPRoute", "cart", spec={"parentRefs": [{"name": "web"}], "rules": [rule]})


WORLD = (
    document(GROUP, "GatewayClass", "ours", spec={"controllerName": "example.com/ours"}),
    document(
        GROUP,
        "Gateway",
        "web",
        spec={"gatewayClassName": "ours", "listeners": [{"name": "http", "protocol": "HTTP", "port": 18931}]},
    ),
    document("v1", "Service", "cart", spec={"ports": [{"name": "http", "port": 80}]}),
)


class Proxy:
    """Speaks delta ADS with the server's own handler, and acknowledges whatever comes as soon as it has come."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.got: Counter[str] = Counter()
        names = {EDS: ["*"], RDS: ["*"]}
        for type_url in (CDS, EDS, LDS, RDS):
            asked = discovery_pb2.DeltaDiscoveryRequest(
                node=base_pb2.Node(id=NODE), type_url=type_url, resource_names_subscribe=names.get(type_url, [])
            )
            self.answers.put_nowait(asked.SerializeToString())

    async def write(self, body: bytes) -> None:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(body)
        self.got[response.type_url] += 1
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        self.answers.put_nowait(answer.SerializeToString())

    async def requests(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.answers.get()


class Counted:
    """A Runtime without processes around it, whose work is counted."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runtime = Runtime(
            UpOptions(data_dir=directory, paths=(), api=False, address_pools=("127.0.0.0/24",)), lambda _line: None
        )
        self.counts: Counter[str] = Counter()
        self.proxy = Proxy()
        plane = self.runtime.plane
        self.watch(monkeypatch, self.runtime.workspace.controller.engine, "commit")
        self.watch(monkeypatch, self.runtime.workspace, "turn")
        self.watch(monkeypatch, plane, "publish")
        self.watch(monkeypatch, self.runtime, "_do_paperwork")
        self.watch(monkeypatch, plane, "_port_state")
        self.watch(monkeypatch, plane, "_note_rejections")

        async def no_process(_node: str) -> None:
            pass

        monkeypatch.setattr(plane, "_start_proxy", no_process)

    def watch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            self.counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    async def settle(self) -> None:
        """Turns, until nothing rings any more and all is settled."""
        bell = self.runtime._bell
        async with asyncio.timeout(30):
            while bell.is_set() or not self.runtime.settled:
                await bell.wait()
                self.counts["turns"] += 1
                await self.runtime._turn()

    async def change(self, made: dict[str, Any]) -> Counter[str]:
        """What a change does, by what was counted."""
        self.counts.clear()
        self.proxy.got.clear()
        (applied,) = self.runtime.workspace.store.apply_many([made], "test")
        assert applied.error is None
        self.runtime._bell.set()
        self.runtime._settled = False
        await self.settle()
        return self.counts

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """With a proxy that is connected and has everything."""
        objects = [*WORLD, endpoints("10.0.0.1"), route("/")]
        self.runtime.workspace.store.apply_many(objects, "test", create_namespace=True)
        self.runtime._bell.set()
        await self.runtime._turn()
        serving = asyncio.create_task(self.runtime.plane.xds._serve(self.proxy.requests(), self.proxy))
        try:
            await self.settle()
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await self.runtime.machine.stop()
            self.runtime.event_sources.stop()


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    made = Counted(tmp_path, monkeypatch)
    yield made
    made.runtime.workspace.store.close()


def test_an_endpoint_change_is_one_turn_with_one_batch(counted: Counted) -> None:
    async def scenario() -> None:
        async with counted.served():
            assert await counted.change(endpoints("10.0.0.2")) == {
                "turns": 1,
                "turn": 1,
                "commit": 1,
                "publish": 1,
                "_do_paperwork": 1,
            }
            assert counted.proxy.got == {EDS: 1}

    asyncio.run(scenario())


def test_a_route_change_is_one_turn_and_writes_its_status(counted: Counted) -> None:
    async def scenario() -> None:
        async with counted.served():
            found = await counted.change(route("/changed"))
            assert found == {"turns": 1, "turn": 1, "commit": 1, "publish": 1, "_do_paperwork": 1}
            assert counted.proxy.got == {RDS: 1}
            stored = next(raw for raw in counted.runtime.workspace.store.list().raw if b"/changed" in raw)
            assert b'"observedGeneration":2' in stored

    asyncio.run(scenario())


def test_a_changed_listener_is_programmed_when_it_is_acknowledged(counted: Counted) -> None:
    async def scenario() -> None:
        async with counted.served():
            listener = {"name": "other", "protocol": "HTTP", "port": 18932}
            gateway = {**WORLD[1], "spec": {**WORLD[1]["spec"], "listeners": [listener]}}
            found = await counted.change(gateway)
            assert found["_port_state"]
            programmed = counted.runtime.workspace.controller.programmed
            assert [(key.port, state.state) for key, state in programmed.items()] == [(18932, "Programmed")]

    asyncio.run(scenario())


def test_an_answer_that_nobody_waits_for_makes_no_turn(counted: Counted) -> None:
    async def scenario() -> None:
        async with counted.served():
            xds, answered = counted.runtime.plane.xds, asyncio.Event()
            tell = xds._on_event

            def told(event: Event) -> None:
                tell(event)
                if isinstance(event, Acknowledged) and event.all_settled:
                    answered.set()

            xds._on_event = told
            counted.proxy.got.clear()
            xds.update(NODE, {(EDS, "of nobody"): b""})
            await asyncio.wait_for(answered.wait(), 30)
            assert counted.proxy.got == {EDS: 1}
            assert not counted.runtime._bell.is_set()

    asyncio.run(scenario())


def test_a_bell_that_was_rung_is_told_from_one_whose_time_is_up() -> None:
    async def scenario() -> None:
        bell, loop = Bell(), asyncio.get_running_loop()
        assert not await bell.wait(0)
        assert not bell.is_set()
        loop.call_soon(bell.set)
        assert await bell.wait()
        assert await bell.wait(0), "it stays rung until it is cleared"
        bell.clear()
        waiting = asyncio.create_task(bell.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        bell.set()  # whoever waited is gone
        assert await bell.wait()

    asyncio.run(scenario())


def test_what_is_to_be_tried_again_is_not_forgotten_where_the_store_fails(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with counted.served():
            plane, workspace = counted.runtime.plane, counted.runtime.workspace
            turn, publish = workspace.turn, plane.publish
            tried: list[bool] = []

            def fails() -> Any:
                raise StoreUnavailable("the disk is full", "make room")

            def publishes(outcome: Any, *, retry: bool) -> None:
                tried.append(retry)
                publish(outcome, retry=retry)

            monkeypatch.setattr(plane, "publish", publishes)
            monkeypatch.setattr(workspace, "turn", fails)
            plane.retry_at = time.monotonic()
            await counted.runtime._turn()
            assert tried == []
            monkeypatch.setattr(workspace, "turn", turn)
            await counted.runtime._turn()
            await counted.runtime._turn()
            assert tried == [True], "tried again, and once"

    asyncio.run(scenario())


def test_the_loop_turns_between_turns_that_ring_for_the_next(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while thousands of statuses are written: proxies are heard meanwhile."""
    runtime = counted.runtime
    seen: list[int] = []

    async def turn() -> float:
        counted.counts["turns"] += 1
        runtime._bell.set()
        if counted.counts["turns"] == 10:
            runtime._stopping.set()
        return 0.0

    async def others() -> None:
        while not runtime._stopping.is_set():
            seen.append(counted.counts["turns"])
            await asyncio.sleep(0)

    async def scenario() -> None:
        monkeypatch.setattr(runtime, "_turn", turn)
        runtime._bell.set()
        watching = asyncio.create_task(asyncio.Event().wait())
        listening = asyncio.create_task(others())
        await runtime._serve(watching)  # type: ignore[arg-type]
        await listening
        watching.cancel()

    asyncio.run(scenario())
    assert len(set(seen)) >= 8, seen
