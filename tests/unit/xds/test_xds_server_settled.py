"""Whether a node is settled is found out without looking at every proxy of it."""

import asyncio
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from propylon.xds import EDS, Acknowledged, Event
from propylon.xds.machine import Stream
from propylon.xds.server import Server


def test_only_streams_that_something_happened_to_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        server = Server(on_event=lambda _event: None)
        server.update("node", {}, complete=True)
        connections = [server._connect("node") for _ in range(200)]
        assert server.settled("node")
        looked: list[Stream] = []
        found_out = Stream.settled.fget
        assert found_out is not None

        def settled(stream: Stream) -> bool:
            looked.append(stream)
            return found_out(stream)

        monkeypatch.setattr(Stream, "settled", property(settled))
        connections[7].touch()
        assert server.settled("node")
        assert looked == [connections[7].stream]
        for connection in connections:
            server._disconnect(connection)
        assert not server.settled("node")

    asyncio.run(scenario())


def test_an_answer_that_leaves_nothing_to_be_sent_wakes_no_writer() -> None:
    async def scenario() -> None:
        events: list[Event] = []
        server = Server(on_event=events.append)
        server.update("node", {(EDS, "a"): b"a"}, complete=True)
        connection = server._connect("node")
        stream = connection.stream

        def says(**fields: Any) -> bool:
            connection.wake.clear()
            message = discovery_pb2.DeltaDiscoveryRequest(type_url=EDS, **fields)
            server._receive(connection, message.SerializeToString())
            return connection.wake.is_set()

        assert says(resource_names_subscribe=["a", "b"])
        (first,) = stream.take()
        server.update("node", {(EDS, "b"): b"b"})
        assert says(response_nonce=first.nonce), "what came meanwhile is to be sent"
        (second,) = stream.take()
        assert not says(response_nonce=second.nonce)
        last = events[-1]
        assert isinstance(last, Acknowledged)
        assert last.all_settled
        assert last.versions
        assert says(resource_names_subscribe=["c"]), "what is not there is said"
        server._disconnect(connection)

    asyncio.run(scenario())


def test_one_timer_serves_many_answers() -> None:
    async def scenario() -> None:
        server = Server(on_event=lambda _event: None)
        connection = server._connect("node")
        now = asyncio.get_running_loop().time()
        connection.wake_by(now + 60)
        timer = connection._timer
        connection.wake_by(now + 61)
        assert connection._timer is timer
        connection.wake.clear()
        connection.wake_by(now)
        await asyncio.wait_for(connection.wake.wait(), 10)
        assert connection._timer is None
        connection.wake_by(now + 60)
        server._disconnect(connection)
        assert connection._timer is not None
        assert connection._timer.cancelled()

    asyncio.run(scenario())
