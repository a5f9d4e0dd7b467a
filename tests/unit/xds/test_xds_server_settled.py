"""Whether a node is settled is found out without looking at every proxy of it."""

import asyncio

import pytest

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
