"""The delta ADS server: streams of proxies over grpc.aio, each driven by its machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import grpc
import grpc.aio
import msgspec
from google.protobuf.message import DecodeError

from propylon.xds.endpoints import endpoints_of
from propylon.xds.events import Acknowledged, Connected, Disconnected, Event, Rejected, ResourceName
from propylon.xds.machine import Stream
from propylon.xds.messages import Outcome, Response
from propylon.xds.wire import decode_request, encode_response
from propylon.xds.world import MANY, World

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"

INTRODUCTION = 1.0
"""Seconds a new stream has to name what its proxy runs, before anything is removed."""

LONG_LOOK = 0.001
"""Seconds. To look for what is to be sent takes time in proportion to what is left; after a look that took longer than
this, requests have as much time to come in before the next one.
"""

FAREWELL = 1.0
"""Seconds that whoever handles a stream has for its end when the server stops."""

SOCKET_PATH_BYTES = 107
"""The longest path a Unix socket can have on Linux (sun_path without its terminating zero)."""


Admission = Callable[[str, Mapping[str, Sequence[bytes]]], bool]
"""(node id, what TLS found out about the peer as gRPC's auth context has it: `peer_uri`...) -> whether it is that node.

Empty for a peer that did not have to prove anything.
"""


class Counters(msgspec.Struct):
    """What was exchanged about one type, since the server started. `size` counts resource bytes."""

    responses: int = 0
    resources: int = 0
    removals: int = 0
    size: int = 0
    acknowledged: int = 0
    rejected: int = 0


class ResourceState(msgspec.Struct, frozen=True):
    """One resource as one stream sees it. Versions are None where there is none; `rejection` is (version, message)."""

    desired: str | None
    sent: str | None
    acknowledged: str | None
    rejection: tuple[str, str] | None


class StreamState(msgspec.Struct, frozen=True):
    """One stream, for people: its resources and whether anything is left to be sent or answered."""

    stream: int
    settled: bool
    resources: Mapping[ResourceName, ResourceState]


class _Connection:
    """An open stream: the machine, and the wake-up call of its writer.

    `restless` has those streams of the node of which something may be left to be sent or answered.
    """

    def __init__(self, number: int, node: str, world: World, restless: dict[int, _Connection]) -> None:
        self.number = number
        self.node = node
        self.stream = Stream(world)
        self.wake = asyncio.Event()
        self.reported_settled = False
        self.ended = False
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self._restless = restless
        self._timer: asyncio.TimerHandle | None = None
        self.touch()

    def touch(self) -> None:
        """The stream's state may have changed: its writer looks."""
        self.stir()
        self.wake.set()

    def stir(self) -> None:
        """The stream's state may have changed."""
        self._restless[self.number] = self

    def wake_by(self, when: float) -> None:
        """Have the writer look at that time of the loop's clock, or before: one timer serves many responses, as these
        are answered long before it ends as a rule."""
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self.wake.set()

    def end(self) -> None:
        """The writer looks no more."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()


class Server:
    """Serves the desired state of every node to its proxies, and tells what became of it.

    All methods are to be called on the event loop that `start` ran on. `on_event` is called synchronously on that loop
    and must be quick. Desired state may be given before `start` and before a proxy connects.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[Event], None],
        patience: float = 5.0,
        admit: Admission | None = None,
        on_demand: Callable[[ResourceName], bool] = lambda _name: False,
        many: int = MANY,
        awaits: Callable[[str, bytes], str] = endpoints_of,
    ) -> None:
        """Routes wait for the clusters they might refer to for at most `patience` seconds.

        `admit` decides which peers may be which nodes; without it everybody who can connect may be any.
        `on_demand` tells which resources a proxy asks for itself when it needs them: where a node has more than `many`,
        they are sent to those who ask. `awaits` tells from a cluster's name and body which endpoints it waits for; not
        given, clusters are read.
        """
        self._on_event = on_event
        self._patience = patience
        self._admit = admit
        self._new_world = partial(World, on_demand, many, awaits)
        self._worlds: dict[str, World] = {}
        self._connections: dict[str, dict[int, _Connection]] = {}
        self._restless: dict[str, dict[int, _Connection]] = {}
        """By node: thousands of proxies of one Gateway must not all be looked at whenever one of them answers."""
        self._numbers = count(1)
        self._server: Any = None
        self._calls: set[asyncio.Task[Any]] = set()
        """Those that handle streams."""
        self.counters: dict[str, Counters] = {}
        """By type URL."""

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(
        self,
        addresses: Sequence[str],
        credentials: grpc.ServerCredentials | None = None,
        handlers: Sequence[grpc.GenericRpcHandler[Any, Any]] = (),
    ) -> tuple[int, ...]:
        """Listen on `unix:/path` (mode 0600) and `host:port` addresses; return their ports (0 or 1 for Unix sockets).

        `credentials` apply to `host:port` addresses; `handlers` serve what else is asked for there. Raises ValueError
        for a Unix socket path that is too long, RuntimeError if an address cannot be bound.
        """
        server = grpc.aio.server(
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}), *handlers))
        ports = [_listen(server, address, credentials) for address in addresses]
        await server.start()
        self._server = server
        return tuple(ports)

    async def stop(self, grace: float | None = None) -> None:
        """Close every stream after at most `grace` seconds; proxies keep what they have and reconnect."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace)
            if self._calls:  # they were cut short, and have to come to their end before the loop does
                await asyncio.wait(self._calls, timeout=FAREWELL)

    # -- desired state ------------------------------------------------------------------------------------------------

    def update(self, node: str, changes: Mapping[ResourceName, bytes | None], *, complete: bool = False) -> None:
        """Change the desired state of a node by a delta; None removes a resource.

        Before an update said `complete`, that the node's whole world is there, proxies that have nothing are sent
        clusters, endpoints and Secrets alone, and others nothing. It stays complete. Updates within one turn of the
        event loop travel together.
        """
        world = self._worlds.get(node)
        if world is None:
            world = self._worlds[node] = self._new_world()
        became_complete = complete and not world.complete
        touched = world.update(changes, complete=complete)
        if not touched and not became_complete:
            return
        for connection in list(self._connections.get(node, {}).values()):
            outcome = connection.stream.desire(touched)
            connection.touch()
            self._report(connection, outcome)
            connection.reported_settled = False

    def forget(self, node: str) -> None:
        """Drop the desired state of a node. A proxy that is still connected keeps what it has and is sent nothing
        more.
        """
        self._worlds.pop(node, None)
        for connection in self._connections.get(node, {}).values():
            connection.failure = (grpc.StatusCode.UNAVAILABLE, "this node is no longer served")
            connection.wake.set()

    def retry(self, node: str) -> None:
        """Try once more what the node's proxies refused; for refusals whose cause lay outside, such as a taken port."""
        world = self._worlds.get(node)
        if world is None:
            return
        names = list(world.rejected)
        world.rejected.clear()
        for connection in self._connections.get(node, {}).values():
            outcome = connection.stream.desire(names)
            connection.touch()
            self._report(connection, outcome)
            connection.reported_settled = False

    # -- debug view ---------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that have a desired state or a stream."""
        return tuple(sorted({*self._worlds, *self._connections}))

    @property
    def streams(self) -> Mapping[str, int]:
        """How many streams each node has, if any."""
        return {node: len(streams) for node, streams in self._connections.items()}

    def desired(self, node: str) -> Mapping[ResourceName, str]:
        """Return the versions a node's proxies should have."""
        world = self._worlds.get(node)
        if world is None:
            return {}
        return {(t, name): r.version for t, resources in world.desired.items() for name, r in resources.items()}

    def settled(self, node: str) -> bool:
        """Whether the node has a stream, and no stream of it has anything left to be sent or answered."""
        restless = self._restless.get(node, {})
        while restless:
            number, connection = next(iter(restless.items()))
            if not connection.stream.settled:
                return False
            del restless[number]  # and it stays settled until it is touched
        return bool(self._connections.get(node))

    def is_awaited(self, node: str) -> bool:
        """Whether a proxy of the node is there that something is left to be sent to, or to be answered by."""
        return node in self._connections and not self.settled(node)

    def state(self, node: str) -> tuple[StreamState, ...]:
        """Return what each stream of a node subscribed to, was sent, acknowledged and refused."""
        return tuple(_state_of(connection) for connection in self._connections.get(node, {}).values())

    # -- streams ------------------------------------------------------------------------------------------------------

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Handle one stream until it ends. Bodies are bytes, so that garbage ends this stream and nothing else."""
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        first = await anext(requests, None)
        if first is None:
            return
        try:
            node, _ = decode_request(first)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a DeltaDiscoveryRequest")
        if not node:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first request must name its node")
        if self._admit is not None and not self._admit(node, context.auth_context()):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the client certificate is not this node's")
        connection = self._connect(node)
        reader = asyncio.create_task(self._read(connection, first, requests))
        try:
            await self._write(connection, context)
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            self._disconnect(connection)
        if connection.failure is not None:
            await context.abort(*connection.failure)

    def _connect(self, node: str) -> _Connection:
        streams = self._connections.setdefault(node, {})
        connection = _Connection(
            next(self._numbers),
            node,
            self._worlds.setdefault(node, self._new_world()),
            self._restless.setdefault(node, {}),
        )
        streams[connection.number] = connection
        self._on_event(Connected(node, connection.number, first=len(streams) == 1))

        def allow_removals() -> None:
            connection.stream.allow_removals()
            if not connection.ended:
                connection.touch()

        asyncio.get_running_loop().call_later(INTRODUCTION, allow_removals)
        return connection

    def _disconnect(self, connection: _Connection) -> None:
        connection.stream.close()
        streams = self._connections[connection.node]
        del streams[connection.number]
        connection.end()
        self._restless[connection.node].pop(connection.number, None)
        if not streams:
            del self._connections[connection.node], self._restless[connection.node]
            world = self._worlds.get(connection.node)
            if world is connection.stream.world and world.epoch == 0:
                del self._worlds[connection.node]  # made by a proxy nobody spoke of: must not pile up
        self._on_event(Disconnected(connection.node, connection.number, last=not streams))

    async def _read(self, connection: _Connection, first: bytes, requests: AsyncIterator[bytes]) -> None:
        try:
            self._receive(connection, first)
            async for body in requests:
                self._receive(connection, body)
            connection.ended = True
        except DecodeError:
            connection.failure = (grpc.StatusCode.INVALID_ARGUMENT, "not a DeltaDiscoveryRequest")
        finally:
            connection.wake.set()

    def _receive(self, connection: _Connection, body: bytes) -> None:
        _, request = decode_request(body)
        outcome = connection.stream.receive(request)
        connection.stir()
        self._report(connection, outcome)
        if not (connection.reported_settled and connection.stream.has_nothing_to_send):
            connection.wake.set()

    async def _write(self, connection: _Connection, context: Any) -> None:
        loop = asyncio.get_running_loop()
        until: dict[str, float] = {}
        rests_until = 0.0
        while connection.failure is None and not connection.ended:
            if awaited := connection.stream.awaited:
                now = loop.time()
                until = {
                    nonce: until.get(nonce, now + self._patience / (20 if overdue else 1))
                    for nonce, overdue in awaited.items()
                }
                connection.wake_by(min(until.values()))
            else:
                until = {}
            await connection.wake.wait()
            if until:
                now = loop.time()
                if overdue := [nonce for nonce, end in until.items() if end <= now]:
                    connection.stream.overtake(overdue)
            if (rest := rests_until - loop.time()) > 0:
                await asyncio.sleep(rest)  # thousands of requests come one by one: not a look at everything for each
            connection.wake.clear()
            began = loop.time()
            responses = connection.stream.take()
            ended = loop.time()
            rests_until = 2 * ended - began if ended - began > LONG_LOOK else 0.0
            for response in responses:
                self._count(response)
                await context.write(encode_response(response))
            if responses:
                connection.reported_settled = False
            elif not connection.reported_settled and connection.stream.settled:
                connection.reported_settled = True
                self._on_event(Acknowledged(connection.node, connection.number, {}, self.settled(connection.node)))

    # -- telling ------------------------------------------------------------------------------------------------------

    def _report(self, connection: _Connection, outcome: Outcome) -> None:
        if not outcome:
            return
        all_settled = self.settled(connection.node)
        connection.reported_settled = all_settled
        for name, version, message in outcome.rejected:
            if name is not None:
                self._counters(name[0]).rejected += 1
            self._on_event(Rejected(connection.node, connection.number, name, version, message, all_settled))
        if outcome.acknowledged:
            known, counters = "", Counters()
            for type_url, _ in outcome.acknowledged:
                if type_url is not known:  # thousands are of one
                    known, counters = type_url, self._counters(type_url)
                counters.acknowledged += 1
            self._on_event(Acknowledged(connection.node, connection.number, outcome.acknowledged, all_settled))

    def _counters(self, type_url: str) -> Counters:
        return self.counters.setdefault(type_url, Counters())

    def _count(self, response: Response) -> None:
        counters = self._counters(response.type_url)
        counters.responses += 1
        counters.resources += len(response.resources)
        counters.removals += len(response.removed)
        counters.size += sum(len(resource.body) for resource in response.resources.values())


def _listen(server: Any, address: str, credentials: grpc.ServerCredentials | None) -> int:
    if not address.startswith("unix:"):
        if credentials is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, credentials))
    path = address.removeprefix("unix:")
    if len(path.encode()) > SOCKET_PATH_BYTES:
        raise ValueError(f"{path!r} is longer than the {SOCKET_PATH_BYTES} bytes a Unix socket path can have")
    before = os.umask(0o177)  # secrets travel here: nobody else may connect, not even for the moment until a chmod
    try:
        return int(server.add_insecure_port(address))
    finally:
        os.umask(before)


def _state_of(connection: _Connection) -> StreamState:
    resources: dict[ResourceName, ResourceState] = {}
    for type_url, subscription in connection.stream.subscriptions.items():
        desired = connection.stream.world.desired.get(type_url, {})
        names = {*subscription.names, *subscription.acked, *(name for name in desired if subscription.covers(name))}
        for name in sorted(names):
            wanted = desired.get(name)
            flying = subscription.flight.resources.get(name) if subscription.flight else None
            acked = subscription.acked.get(name)
            refused = subscription.rejected.get(name, {})
            resources[type_url, name] = ResourceState(
                desired=wanted.version if wanted else None,
                sent=flying.version if flying else acked,
                acknowledged=acked,
                rejection=list(refused.items())[-1] if refused else None,
            )
    return StreamState(connection.number, connection.stream.settled, resources)
