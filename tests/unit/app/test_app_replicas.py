"""Two replicas' ends over a real gRPC stream with real certificates: what one's proxies say, the other one knows."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
import pytest

from propylon import api
from propylon.app import replicas as replicas_module
from propylon.app.acknowledgements import Acknowledgements, NodeSaid
from propylon.app.cluster_authority import Identities
from propylon.app.replicas import (
    ENTRIES,
    METHOD,
    SERVICE,
    Beat,
    Hello,
    Large,
    LargeTables,
    Listener,
    Reporter,
    Said,
    Whole,
    decode,
    encode,
    messages_of,
)
from propylon.graph.model import RouteTableKey
from propylon.proxies.kubernetes.authority import REPLICA, Authority, identity, issue, make_authority, trust
from propylon.store.cluster import Leader
from propylon.xds import LDS, Acknowledged, Connected, Disconnected, Rejected, Server, version_of
from support.scripted_api import until

NODE = "shop/web"
BODY = b"listener"
VERSION = version_of(BODY)
PORT = (LDS, "tcp/80")
TABLE = RouteTableKey(api.ObjectKey("shop", "web"), 80, "")
NAME = "propylon-xds.ns.svc"


class Replica:
    """One replica without its proxies: what they would say is told to `says`."""

    def __init__(self, name: str, authority: Authority, grace: float = 60.0) -> None:
        self.name = name
        self.acknowledgements = Acknowledgements()
        self.large: set[RouteTableKey] = set()
        self.news: list[str] = []
        tables = LargeTables(lambda: self.large, self.large.update)
        self.identities = Identities(NAME)
        self.identities.renew((authority,))
        self.listener = Listener(self.acknowledgements, tables, self.news.extend, grace=grace)
        self.reporter = Reporter(self.acknowledgements.own, tables, self.identities)
        self.listener.identity = self.reporter.identity = name
        self.xds = Server(on_event=lambda _event: None)
        self.port = 0

    async def serve(self) -> None:
        credentials = self.identities.server_credentials()
        (self.port,) = await self.xds.start([f"127.0.0.1:{self.port}"], credentials, [self.listener.handler])

    def is_of(self, release: str) -> None:
        self.listener.release = self.reporter.release = release

    @property
    def address(self) -> Leader:
        return Leader(self.name, f"127.0.0.1:{self.port}")

    def has(self, body: bytes = BODY) -> None:
        self.acknowledgements.accept(Connected(NODE, 1, first=True))
        self.acknowledgements.accept(Acknowledged(NODE, 1, {PORT: version_of(body)}, True))

    @property
    def state(self) -> str:
        return self.acknowledgements.port_state(NODE, "tcp/80", BODY).state


@contextlib.asynccontextmanager
async def replicas(*names: str, grace: float = 60.0) -> AsyncIterator[list[Replica]]:
    """Replicas that serve and report; the first one leads, the others follow it."""
    authority = make_authority(dt.datetime.now(dt.UTC))
    found = [Replica(name, authority, grace) for name in names]
    for each in found:
        await each.serve()
    found[0].listener.lead(True)
    tasks = [asyncio.create_task(each.reporter.run()) for each in found]
    for each in found:
        each.reporter.follow(found[0].address)
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in found:
            await each.xds.stop(0)


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_the_leader_knows_what_a_followers_proxies_have_and_what_they_say_next() -> None:
    async def test() -> None:
        async with replicas("one", "two") as (leader, follower):
            assert leader.state == "Pending"
            follower.has()
            await until(lambda: leader.state == "Programmed")
            assert follower.reporter.heard_by == "one"
            assert NODE in leader.news
            follower.acknowledgements.accept(Rejected(NODE, 1, PORT, VERSION, "cannot bind", True))
            await until(lambda: leader.state == "Rejected")
            assert leader.acknowledgements.rejected(NODE) == {PORT: (VERSION, "cannot bind")}
            follower.has()
            await until(lambda: leader.state == "Programmed")
            follower.acknowledgements.forget(NODE)
            follower.acknowledgements.accept(Disconnected(NODE, 1, last=True))
            await until(lambda: leader.state == "Pending")
            assert leader.acknowledgements.nodes_with_rejections == ()

    run(test)


def test_what_was_there_before_is_told_in_many_messages() -> None:
    async def test() -> None:
        async with replicas("one", "two") as (leader, follower):
            await until(lambda: follower.reporter.heard_by == "one")
            follower.reporter.follow(None)
            await until(lambda: follower.reporter.heard_by == "")
            names = [(LDS, f"tcp/{number}") for number in range(3 * ENTRIES)]
            follower.acknowledgements.accept(Connected(NODE, 1, first=True))
            follower.acknowledgements.accept(Acknowledged(NODE, 1, dict.fromkeys(names, VERSION), True))
            follower.acknowledgements.accept(Connected("shop/other", 2, first=True))
            follower.reporter.follow(leader.address)
            await until(lambda: follower.reporter.heard_by == "one")
            known = leader.acknowledgements
            await until(lambda: known.connected("shop/other"))
            assert all(known.state(NODE, name, BODY).state == "Programmed" for name in names)

    run(test)


def test_a_replica_of_another_release_is_believed_although_its_versions_do_not_compare() -> None:
    async def test() -> None:
        async with replicas("one", "two", "three") as (leader, second, third):
            second.is_of("the next")
            second.has(b"made otherwise")
            third.has(b"outdated")
            await until(lambda: set(leader.acknowledgements.others) == {"two", "three"})
            await until(lambda: third.reporter.heard_by == "one" and second.reporter.heard_by == "one")
            assert leader.state == "Pending"
            third.has()
            await until(lambda: leader.state == "Programmed")

    run(test)


def test_all_follow_the_next_leader() -> None:
    async def test() -> None:
        async with replicas("one", "two", "three") as (first, second, third):
            third.has()
            await until(lambda: first.state == "Programmed")
            first.listener.lead(False)
            assert first.acknowledgements.others == {}
            second.listener.lead(True)
            for each in (first, second, third):
                each.reporter.follow(second.address)
            await until(
                lambda: second.state == "Programmed" and set(second.acknowledgements.others) == {"one", "three"}
            )
            assert second.reporter.heard_by == ""
            # Whoever does not lead sends those away who come all the same.
            first.listener.lead(True)
            third.reporter.follow(first.address)
            await until(lambda: third.reporter.heard_by == "one")

    run(test)


def test_a_replica_that_ended_is_forgotten_after_a_grace() -> None:
    async def test() -> None:
        async with replicas("one", "two", grace=0.05) as (leader, follower):
            follower.has()
            await until(lambda: leader.state == "Programmed")
            follower.reporter.follow(None)
            await until(lambda: not leader.acknowledgements.others)
            assert leader.state == "Pending"

    run(test)


def test_a_replica_that_comes_back_within_the_grace_was_never_gone() -> None:
    async def test() -> None:
        async with replicas("one", "two") as (leader, follower):
            follower.has()
            await until(lambda: leader.state == "Programmed")
            await leader.xds.stop(0)
            await until(lambda: not leader.acknowledgements.connected(NODE))
            assert leader.state == "Programmed", "for the moment that its proxies have to be heard of again"
            await leader.serve()
            await until(lambda: leader.acknowledgements.connected(NODE))
            assert leader.state == "Programmed"

    run(test)


def test_what_is_large_for_one_is_large_for_all() -> None:
    async def test() -> None:
        async with replicas("one", "two", "three") as (leader, second, third):
            second.large.add(TABLE)
            await until(lambda: TABLE in leader.large and TABLE in third.large)
            assert second.reporter.is_introduced

    run(test)


@pytest.mark.parametrize("uris", [[identity(api.ObjectKey("shop", "web"))], [f"{REPLICA}/other"]])
def test_only_replicas_are_listened_to(uris: list[str]) -> None:
    async def test() -> None:
        authority = make_authority(dt.datetime.now(dt.UTC))
        leader = Replica("one", authority)
        leader.listener.lead(True)
        await leader.serve()
        leaf = issue(authority, dt.datetime.now(dt.UTC), uris=uris)
        credentials = grpc.ssl_channel_credentials(
            trust([authority]).encode(), leaf.key_pem.encode(), leaf.certificate_pem.encode()
        )
        options = [("grpc.ssl_target_name_override", NAME)]
        try:
            async with grpc.aio.secure_channel(f"127.0.0.1:{leader.port}", credentials, options) as channel:
                stub: Any = channel.stream_stream
                call = stub(f"/{SERVICE}/{METHOD}")()
                with contextlib.suppress(grpc.aio.AioRpcError):  # it may have ended before anything was said
                    await call.write(encode(Hello(1, "two", "")))
                assert await call.code() == grpc.StatusCode.PERMISSION_DENIED
        finally:
            await leader.xds.stop(0)

    run(test)


def said_to(leader: Replica, *messages: bytes, silent: bool = False) -> grpc.StatusCode:
    """The end of a stream on which a replica says this."""

    async def test() -> grpc.StatusCode:
        await leader.serve()
        options = [("grpc.ssl_target_name_override", NAME)]
        credentials = leader.identities.channel_credentials()
        try:
            async with grpc.aio.secure_channel(f"127.0.0.1:{leader.port}", credentials, options) as channel:
                stub: Any = channel.stream_stream
                call = stub(f"/{SERVICE}/{METHOD}")()
                with contextlib.suppress(grpc.aio.AioRpcError):  # it may end before all was said
                    for message in messages:
                        await call.write(message)
                    if not silent:
                        await call.done_writing()
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while isinstance(await call.read(), bytes):
                        pass  # the status comes behind what is not read
                code: grpc.StatusCode = await call.code()
                return code
        finally:
            await leader.xds.stop(0)

    return asyncio.run(test())


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([encode(Hello(1, "two", "")), encode(Whole())], grpc.StatusCode.OK),
        ([encode(Hello(2, "two", ""))], grpc.StatusCode.INVALID_ARGUMENT),
        ([encode(Beat())], grpc.StatusCode.INVALID_ARGUMENT),
        ([encode(Hello(1, "two", "")), b"garbage"], grpc.StatusCode.INVALID_ARGUMENT),
        ([encode(Hello(1, "two", "")), b"\x91\xa3yes"], grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_who_does_not_speak_the_protocol_is_sent_away(messages: list[bytes], code: grpc.StatusCode) -> None:
    leader = Replica("one", make_authority(dt.datetime.now(dt.UTC)))
    leader.listener.lead(True)
    assert said_to(leader, *messages) == code


def test_who_falls_silent_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "SILENCE_SECONDS", 0.05)
    leader = Replica("one", make_authority(dt.datetime.now(dt.UTC)))
    leader.listener.lead(True)
    assert said_to(leader, encode(Hello(1, "two", "")), silent=True) == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_leader_that_does_not_answer_is_complained_of_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replicas_module, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(replicas_module, "RETRY_SECONDS", (0.01, 0.02))
    attempts: list[Any] = []

    async def silent(requests: AsyncIterator[bytes], _context: Any) -> None:
        attempts.append(await anext(requests))
        async for _ in requests:
            pass

    async def test() -> None:
        follower, leader = (Replica(name, authority) for name in ("two", "one"))
        handler = grpc.method_handlers_generic_handler(SERVICE, {METHOD: grpc.stream_stream_rpc_method_handler(silent)})
        (leader.port,) = await leader.xds.start(["127.0.0.1:0"], leader.identities.server_credentials(), [handler])
        task = asyncio.create_task(follower.reporter.run())
        try:
            follower.reporter.follow(leader.address)
            await until(lambda: len(attempts) >= 3)
            assert follower.reporter.heard_by == ""
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await leader.xds.stop(0)

    authority = make_authority(dt.datetime.now(dt.UTC))
    run(test)
    (complaint,) = [record.message for record in caplog.records if "cannot be told" in record.message]
    assert complaint.endswith(": no answer")


def test_who_does_not_lead_does_not_listen() -> None:
    replica = Replica("one", make_authority(dt.datetime.now(dt.UTC)))
    assert said_to(replica, encode(Hello(1, "two", ""))) == grpc.StatusCode.FAILED_PRECONDITION


def entries(said: Said) -> int:
    return sum(len(each.complete) + len(each.refused) for each in said.nodes)


@pytest.mark.parametrize("sizes", [[], [0], [3, 4], [ENTRIES], [5, 2 * ENTRIES + 1, 7], [1] * ENTRIES])
def test_messages_are_of_bounded_length_and_lose_nothing(sizes: list[int]) -> None:
    def nodes() -> Iterable[NodeSaid]:
        for number, size in enumerate(sizes):
            complete = tuple((LDS, f"tcp/{each}", VERSION) for each in range(size))
            refused = tuple((LDS, f"tcp/{each}", ("v", "m" * 10_000)) for each in range(size // 2))
            yield NodeSaid(f"ns/{number}", True, complete, refused)

    found = [decode(encode(each)) for each in messages_of(nodes())]
    assert all(isinstance(each, Said) and entries(each) <= ENTRIES for each in found)
    pieces = [piece for each in found if isinstance(each, Said) for piece in each.nodes]
    for said in nodes():
        of_node = [piece for piece in pieces if piece.node == said.node]
        assert sum((piece.complete for piece in of_node), ()) == said.complete
        names = [name for piece in of_node for _, name, _ in piece.refused]
        assert names == [name for _, name, _ in said.refused]


def test_large_tables_survive_their_way() -> None:
    adopted: list[RouteTableKey] = []
    tables = LargeTables(lambda: {TABLE}, adopted.extend)
    told: set[RouteTableKey] = set()
    (message,) = tables.news(told)
    assert list(tables.news(told)) == []
    found = decode(encode(message))
    assert isinstance(found, Large)
    tables.take(found, set())
    assert adopted == [TABLE]
