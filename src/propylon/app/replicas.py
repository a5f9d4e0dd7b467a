"""How replicas that all serve xDS tell the one that writes statuses what their proxies have.

A follower keeps one gRPC stream to the leader, at the leader's xDS port, with a certificate that only replicas have. It
tells how things stand with all its nodes, then whatever changes. What changed is looked up when it is sent, not kept as
it came: what piles up while the leader is slow is a set of names, never more than there are resources, and a stream
that begins again needs no history. Both ends tell each other which route tables are large (see `FormChanges`): the one
thing that translation does not know from the objects alone.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio
import msgspec

from propylon import api
from propylon.app.acknowledgements import Acknowledgements, NodeSaid, OwnSource, Source
from propylon.app.cluster_authority import Identities
from propylon.graph.model import RouteTableKey
from propylon.proxies.kubernetes.authority import admits_replica
from propylon.store.cluster import Leader
from propylon.xds import ResourceName
from propylon.xds.server import FAREWELL

log = logging.getLogger("propylon.app")

SERVICE = "propylon.replicas.v1.Replicas"
METHOD = "Report"
PROTOCOL = 1
"""Both ends speak the same, or the stream is refused: replicas of two releases do not, during an upgrade."""
BEAT_SECONDS = 2.0
"""A follower that has nothing to tell says so this often."""
SILENCE_SECONDS = 10.0
"""Who was not heard for so long is gone: the stream is ended."""
RETRY_SECONDS = (0.25, 5.0)
"""The first and the longest pause between two attempts to reach the leader."""
ENTRIES = 1000
"""So many resources, or route tables, are told of in one message at most."""
MESSAGE_BYTES = 4 * 1024 * 1024
REFUSAL_CHARACTERS = 2048
"""What is passed on of Envoy's message."""
MOST_RESOURCES = 1_000_000
"""Of one replica; a larger one is not listened to."""
MOST_REPLICAS = 64


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The first message of either end."""

    protocol: int
    replica: str
    """The identity by which it takes part in the election."""
    release: str
    """The same where the same objects make the same resources, and so the same versions."""


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """What is new of some nodes."""

    nodes: tuple[NodeSaid, ...]


class Whole(msgspec.Struct, frozen=True, array_like=True, tag="whole"):
    """All was said that there is; what follows is news."""


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    """Nothing is new."""


class Large(msgspec.Struct, frozen=True, array_like=True, tag="large"):
    """Route tables that are large here: (namespace and name of the Gateway, port, listener)."""

    tables: tuple[tuple[str, str, int, str], ...]


Message = Hello | Said | Whole | Beat | Large
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """As it travels: MessagePack."""
    return _ENCODER.encode(message)


def decode(body: bytes) -> Message:
    """Raises ValueError for what is no message, or too long."""
    if len(body) > MESSAGE_BYTES:
        raise ValueError(f"a message of {len(body)} bytes")
    try:
        found: Message = _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    return found


def messages_of(nodes: Iterable[NodeSaid]) -> Iterator[Said]:
    """Put what is said of nodes into messages of bounded length."""
    waiting: list[NodeSaid] = []
    room = ENTRIES
    for piece in (piece for said in nodes for piece in _pieces(said)):
        size = 1 + len(piece.complete) + len(piece.refused)
        if waiting and size > room:
            yield Said(tuple(waiting))
            waiting, room = [], ENTRIES
        waiting.append(piece)
        room -= size
    if waiting:
        yield Said(tuple(waiting))


def _pieces(said: NodeSaid) -> Iterator[NodeSaid]:
    for start in range(0, max(len(said.complete), len(said.refused), 1), ENTRIES // 2):
        refused = tuple(
            (type_url, name, (refusal[0], refusal[1][:REFUSAL_CHARACTERS]) if refusal is not None else None)
            for type_url, name, refusal in said.refused[start : start + ENTRIES // 2]
        )
        yield NodeSaid(said.node, said.connected, said.complete[start : start + ENTRIES // 2], refused)


class LargeTables:
    """The route tables that are large at this replica, and the way to hear of others'."""

    def __init__(self, known: Callable[[], set[RouteTableKey]], adopt: Callable[[list[RouteTableKey]], None]) -> None:
        self._known = known
        self._adopt = adopt

    def news(self, told: set[RouteTableKey]) -> Iterator[Large]:
        """Those that are not among `told`, which learns of them."""
        fresh = sorted(self._known() - told)
        told.update(fresh)
        for start in range(0, len(fresh), ENTRIES):
            yield Large(tuple((*table.gateway, table.port, table.listener) for table in fresh[start : start + ENTRIES]))

    def take(self, message: Large, told: set[RouteTableKey]) -> None:
        """Learn what is large elsewhere: who said so need not be told."""
        found = [RouteTableKey(api.ObjectKey(*each[:2]), *each[2:]) for each in message.tables]
        told.update(found)
        self._adopt(found)


class Listener:
    """The leader's end: what other replicas report goes into the acknowledgements."""

    def __init__(
        self,
        acknowledgements: Acknowledgements,
        large: LargeTables,
        on_news: Callable[[Iterable[str]], None],
        *,
        grace: float,
    ) -> None:
        """`on_news` is told nodes; a replica whose stream ended is forgotten after `grace` seconds."""
        self.identity = ""
        """Of this replica; whoever looks for another one goes away."""
        self.release = ""
        """See `Hello`."""
        self._acknowledgements = acknowledgements
        self._large = large
        self._on_news = on_news
        self._grace = grace
        self._streams: dict[str, object] = {}
        """By replica: the stream that counts."""
        self._leading = False
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """To be added to the xDS server."""
        method = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    def lead(self, leading: bool) -> None:
        """Listen from now on, or to nobody any more: streams end with the next message."""
        self._leading = leading
        if not leading:
            self._streams.clear()
            for replica in list(self._acknowledgements.others):
                self._on_news(self._acknowledgements.replace(replica, None))

    async def ended(self) -> None:
        """Wait, for a moment at most, until the streams that the server has ended are done with."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=FAREWELL)

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        uris = [uri.decode(errors="replace") for uri in context.auth_context().get("peer_uri", ())]
        if not admits_replica(uris):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the client certificate is not a replica's")
        if not self._leading:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this replica does not lead")
        try:
            await self._listen(requests, context)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "nothing was heard for too long")

    async def _listen(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Until the stream ends. Raises ValueError for what does not belong there, TimeoutError."""
        hello = await _next(requests)
        if not isinstance(hello, Hello) or hello.protocol != PROTOCOL:
            raise ValueError(f"only protocol {PROTOCOL} is spoken here")
        replica, stream, known = hello.replica, object(), Source()
        known.compares = hello.release == self.release
        if replica not in self._streams and len(self._streams) >= MOST_REPLICAS:
            raise ValueError("too many replicas")
        told: set[RouteTableKey] = set()
        answers: list[Message] = [Hello(PROTOCOL, self.identity, self.release), *self._large.news(told), Beat()]
        for answer in answers:
            await _answer(context, answer)
        is_whole = False
        try:
            while (message := await _next(requests)) is not None:
                if is_whole and self._streams.get(replica) is not stream:
                    raise ValueError("this replica does not lead any more, or the other one opened another stream")
                for news in self._large.news(told):
                    await _answer(context, news)
                if isinstance(message, Large):
                    self._large.take(message, told)
                elif isinstance(message, Whole) and self._leading:
                    is_whole = True
                    self._streams[replica] = stream
                    self._on_news(self._acknowledgements.replace(replica, known))
                elif isinstance(message, Said):
                    for said in message.nodes:
                        if not is_whole:
                            known.take(said)
                        else:
                            self._acknowledgements.take(replica, said)
                    if is_whole:
                        self._on_news({said.node for said in message.nodes})
                    if known.size > MOST_RESOURCES:
                        raise ValueError("too many resources")
        finally:
            if self._streams.get(replica) is stream:
                self._ended(replica, stream)

    def _ended(self, replica: str, stream: object) -> None:
        self._acknowledgements.lost(replica)
        self._on_news(self._acknowledgements.others[replica].nodes)

        def forget() -> None:
            if self._streams.get(replica) is stream:
                del self._streams[replica]
                self._on_news(self._acknowledgements.replace(replica, None))

        asyncio.get_running_loop().call_later(self._grace, forget)


class Reporter:
    """A follower's end: tells the leader what the proxies of this replica say."""

    def __init__(self, source: OwnSource, large: LargeTables, identities: Identities) -> None:
        self.identity = ""
        """Of this replica."""
        self.release = ""
        """See `Hello`."""
        self._source = source
        self._large = large
        self._identities = identities
        self.leader: Leader | None = None
        """Who is reported to, or would be."""
        self._changed = asyncio.Event()
        self._touched: dict[str, set[ResourceName]] | None = None
        """What is to be told, by node; None while nobody listens."""
        self._wake = asyncio.Event()
        self.heard_by = ""
        """The replica that knows what is known here; "" for none."""
        self.is_introduced = False
        """Whether a leader has told what route tables are large."""
        self.on_introduction: Callable[[], None] = lambda: None
        """Called when that becomes so."""
        self._complained = False
        source.on_change = self._note

    def follow(self, leader: Leader | None) -> None:
        """Report to this replica from now on; to nobody while this one leads, or none does."""
        if leader is not None and (leader.identity == self.identity or not leader.address):
            leader = None
        if leader != self.leader:
            self.leader = leader
            self._complained = False
            self._changed.set()

    async def run(self) -> None:
        """Report until cancelled."""
        pause = RETRY_SECONDS[0]
        while True:
            self._changed.clear()
            if self.leader is None or not self._identities.ready:
                await self._wait(RETRY_SECONDS[0] if self.leader is not None else RETRY_SECONDS[1])
                continue
            if await self._report_until_it_changes(self.leader):
                pause = RETRY_SECONDS[0]
            if not self._changed.is_set():
                await self._wait(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, RETRY_SECONDS[1])

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _report_until_it_changes(self, leader: Leader) -> bool:
        """Whether the leader was reached."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._report(leader)), loop.create_task(self._changed.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            reached, self.heard_by, self._touched = bool(self.heard_by), "", None
        error = results[0]
        if isinstance(error, Exception):
            if not isinstance(error, grpc.aio.AioRpcError | TimeoutError | asyncio.InvalidStateError | ValueError):
                log.error("reporting to the leader failed", exc_info=error)
            elif not self._complained:
                self._complained = True
                log.warning("the leader %s cannot be told what proxies have: %s", leader.address, _reason(error))
        return reached

    async def _report(self, leader: Leader) -> None:
        """One stream. Raises AioRpcError, TimeoutError, InvalidStateError; ValueError for an answer that is none."""
        options = [
            ("grpc.ssl_target_name_override", self._identities.server_name),
            ("grpc.keepalive_time_ms", int(SILENCE_SECONDS * 1000)),
            ("grpc.keepalive_timeout_ms", int(SILENCE_SECONDS * 1000)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        credentials = self._identities.channel_credentials()
        async with grpc.aio.secure_channel(leader.address, credentials, options) as channel:
            method: Any = channel.stream_stream
            call = method(f"/{SERVICE}/{METHOD}")()
            await _write(call, Hello(PROTOCOL, self.identity, self.release))
            answer = await _read(call)
            if not isinstance(answer, Hello) or answer.protocol != PROTOCOL:
                raise ValueError("it speaks another protocol")
            if answer.replica != leader.identity:
                raise ValueError("another replica answers there")
            told: set[RouteTableKey] = set()
            while isinstance(message := await _read(call), Large):
                self._large.take(message, told)
            self._introduce()
            reader = asyncio.get_running_loop().create_task(self._hear(call, told))
            try:
                await self._tell(call, told, reader)
            finally:
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, ValueError):
                    await reader

    async def _tell(self, call: Any, told: set[RouteTableKey], reader: "asyncio.Task[None]") -> None:
        self._touched = {}
        for news in self._large.news(told):
            await _write(call, news)
        for message in messages_of([self._source.said(node) for node in sorted(self._source.nodes)]):
            await _write(call, message)
        await _write(call, Whole())
        self.heard_by = self.leader.identity if self.leader is not None else ""
        log.info("the leader %s is told what proxies have", self.leader.address if self.leader is not None else "")
        self._complained = False
        while not reader.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            touched, self._touched = self._touched, {}
            tables = list(self._large.news(told))
            said = list(messages_of(self._source.said(node, names) for node, names in touched.items()))
            messages: list[Message] = [*tables, *said]
            for each in messages or [Beat()]:
                await _write(call, each)
        await reader  # what ended it

    async def _hear(self, call: Any, told: set[RouteTableKey]) -> None:
        try:
            while (message := await _read(call, patient=True)) is not None:
                if isinstance(message, Large):
                    self._large.take(message, told)
        finally:
            self._wake.set()

    def _introduce(self) -> None:
        if not self.is_introduced:
            self.is_introduced = True
            self.on_introduction()

    def _note(self, node: str, names: Iterable[ResourceName]) -> None:
        if self._touched is not None:
            self._touched.setdefault(node, set()).update(names)
            self._wake.set()


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    if isinstance(error, asyncio.InvalidStateError):  # written to after its end
        return "it ended the stream"
    return str(error) or "no answer"


async def _next(requests: AsyncIterator[bytes]) -> Message | None:
    async with asyncio.timeout(SILENCE_SECONDS):
        body = await anext(requests, None)
    return decode(body) if body is not None else None


async def _answer(context: Any, message: Message) -> None:
    async with asyncio.timeout(SILENCE_SECONDS):
        await context.write(encode(message))


async def _write(call: Any, message: Message) -> None:
    async with asyncio.timeout(SILENCE_SECONDS):
        await call.write(encode(message))


async def _read(call: Any, *, patient: bool = False) -> Message | None:
    async with asyncio.timeout(None if patient else SILENCE_SECONDS):
        body = await call.read()
    return decode(body) if isinstance(body, bytes) else None  # else it is gRPC's EOF
