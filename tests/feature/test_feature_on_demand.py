"""HTTP/2 twins that real Envoys ask for when the first gRPC call comes: nothing is lost by their not being there."""

import asyncio
import contextlib

import grpc.aio
import pytest
from test_feature_proxies_process import SETTINGS, data, free_port, until  # noqa: F401 - a fixture among them

from propylon.envoy import EnvoySettings, names
from propylon.proxies.handle import find_processes
from propylon.proxies.process import ProcessProxies
from propylon.proxies.settings import ProxySettings
from propylon.xds import CDS, Rejected, Server
from support.envoy_world import GATEWAY, World, backend_key, cluster_key, entry, listener, ref

pytestmark = pytest.mark.feature

NODE = "/".join(GATEWAY)
SECONDS = 20
BIG = bytes(1 << 20)


class Echo(grpc.GenericRpcHandler):
    """Answers each message with itself, and counts the calls."""

    def __init__(self):
        self.calls = 0

    def service(self, _details):
        async def echo(messages, _context):
            self.calls += 1
            async for message in messages:
                yield message

        return grpc.stream_stream_rpc_method_handler(echo)


class Site:
    """A Gateway of many hosts with a backend each, its xDS server, which can be away, and its Envoy."""

    def __init__(self, proxies, backend, handler, settings):
        self.proxies, self.backend, self.handler = proxies, backend, handler
        self.world = World(settings or EnvoySettings(access_log=False))
        self.port = free_port()
        self.listener = listener("http", "HTTP", self.port)
        self.world.port(self.listener)
        self.server = None
        self.sent = {}
        self.rejected = []

    def add(self, *numbers):
        """Hosts `0.test` and so on, each with a backend, as the Graph has them: HTTP/1.1 and a twin for calls."""
        for number in numbers:
            name = f"s{number}"
            self.world.backend(name, self.backend, protocol="GRPC")
            self.world.backend(name, self.backend)
            self.world.host(self.listener, f"{number}.test", entry(backends=(ref(name),)))

    async def serve(self, many=0):
        """Serve with a server that knows nothing."""
        self.server = Server(on_event=self._note, on_demand=names.is_on_demand, many=many)
        self.sent = {}
        self.push()
        await self.server.start([f"unix:{self.proxies.xds_socket}"])

    def push(self):
        """Have the Envoy get what changed."""
        wanted = {key: resource.body for key, resource in self.world.resources().items()}
        gone = {key: None for key in self.sent if key not in wanted}
        self.server.update(NODE, {**wanted, **gone}, complete=True)
        self.sent = wanted

    async def settled(self):
        await until(lambda: self.server.settled(NODE))
        assert not self.rejected

    def _note(self, event):
        if isinstance(event, Rejected):
            self.rejected.append(event)

    @property
    def found(self):
        """The numbers of the backends whose twins the Envoy has."""
        (stream,) = self.server.state(NODE)
        has = [name for (kind, name), state in stream.resources.items() if kind == CDS and state.acknowledged]
        return {int(name.split("/")[2][1:]) for name in has if name.endswith("/GRPC")}

    async def call(self, host, message=b"hi", times=1):
        """Whether the messages of a call come back, each sent when the one before it came; or what it failed with."""
        host = f"{host}.test" if isinstance(host, int) else host
        options = [
            ("grpc.default_authority", host),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", -1),
        ]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            call = channel.stream_stream("/echo.Echo/Say")(timeout=SECONDS)
            try:
                for _ in range(times):
                    await call.write(message)
                    if await call.read() != message:
                        return "another answer" if await call.code() == grpc.StatusCode.OK else await call.code()
                await call.done_writing()
                return await call.read() is grpc.aio.EOF and await call.code() == grpc.StatusCode.OK
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return await call.code()


@contextlib.asynccontextmanager
async def backend():
    """A gRPC server: what it counts, and its port."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = Echo()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield handler, port
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def site(directory, *numbers, settings=None, proxy=SETTINGS, many=0):
    async with backend() as (handler, port):
        proxies = ProcessProxies(directory, on_event=lambda _event: None)
        await proxies.start()
        each = Site(proxies, port, handler, settings)
        each.add(*numbers)
        await each.serve(many)
        try:
            await proxies.ensure(NODE, proxy)
            await until(lambda: proxies.ready(NODE))
            await each.settled()
            yield each
        finally:
            await proxies.stop(drain=False)
            await each.server.stop(0)


def test_first_calls_find_their_backends(data):  # noqa: F811
    async def scenario():
        async with site(data, *range(70)) as each:
            assert each.found == set()
            for number in range(20):
                assert await each.call(number) is True
            assert await asyncio.gather(*(each.call(n) for n in range(20, 40))) == [True] * 20
            assert await asyncio.gather(*(each.call(40) for _ in range(10))) == [True] * 10
            assert [await each.call(n, BIG) for n in (41, 42)] == [True] * 2
            assert [await each.call(n, BIG, times=3) for n in (43, 44)] == [True] * 2
            await each.settled()
            assert each.found == set(range(45)), "and nothing else was sent"
            assert each.handler.calls == 54, "none was tried twice"

    asyncio.run(scenario())


def test_few_are_there_before_they_are_called(data):  # noqa: F811
    async def scenario():
        async with site(data, *range(3), many=3) as each:
            assert each.found == {0, 1, 2}
            assert await each.call(0) is True
            each.add(3)
            each.push()
            await each.settled()
            assert each.found == {0, 1, 2}
            assert await each.call(3) is True
            await each.server.stop(0)
            assert [await each.call(n) for n in range(4)] == [True] * 4

    asyncio.run(scenario())


def test_backends_change_go_and_come_back(data):  # noqa: F811
    async def scenario():
        async with site(data, *range(4)) as each, backend() as (moved, port):
            assert [await each.call(n) for n in (0, 1)] == [True] * 2
            calls = each.handler.calls
            stream = asyncio.create_task(each.call(0, times=1000))
            await until(lambda: each.handler.calls > calls)
            each.world.backend("s0", port, protocol="GRPC")
            each.push()
            await each.settled()
            assert await each.call(0) is True
            assert moved.calls == 1
            for protocol in ("HTTP", "GRPC"):
                each.world.graph.clusters.remove((GATEWAY, cluster_key("s1", protocol)))
            each.world.graph.endpoints.remove(backend_key("s1"))
            each.world.host(each.listener, "1.test", entry(backends=(ref("s2"),)))
            each.push()
            await each.settled()
            assert each.found == {0}
            assert await each.call(1) is True
            await each.settled()
            assert each.found == {0, 2}
            each.add(1)
            each.push()
            await each.settled()
            assert await each.call(1) is True
            assert await stream is True
            assert each.found == {0, 1, 2}

    asyncio.run(scenario())


def test_a_control_plane_that_is_away_is_waited_for(data):  # noqa: F811
    async def scenario():
        async with site(data, *range(30)) as each:
            assert [await each.call(n) for n in range(5)] == [True] * 5
            await each.server.stop(0)
            assert [await each.call(n) for n in range(5)] == [True] * 5, "what was found goes on"
            waiting = [asyncio.create_task(each.call(n, BIG if n % 2 else b"hi")) for n in range(5, 15)]
            before = each.handler.calls
            _, pending = await asyncio.wait(waiting, timeout=0.5)
            assert len(pending) == 10
            assert each.handler.calls == before
            each.add(30)
            await each.serve()
            assert await asyncio.gather(*waiting) == [True] * 10
            await each.settled()
            assert each.found == set(range(15))
            assert [await each.call(n) for n in (0, 5, *range(15, 20), 30)] == [True] * 8

    asyncio.run(scenario())


def test_weights_and_hosts_of_all_forms(data):  # noqa: F811
    for scopes_from in (10**9, 2):

        async def scenario(settings):
            async with site(data, *range(20), settings=settings) as each:
                shares = tuple(ref(f"s{n}") for n in range(6))
                each.world.host(each.listener, "split.test", entry(backends=shares))
                each.world.host(each.listener, "*.wild.test", entry(backends=(ref("s10"), ref("s11"))))
                each.world.host(each.listener, "*", entry(backends=(ref("s12"), ref("s13"))))
                each.push()
                await each.settled()
                assert await asyncio.gather(*(each.call("split.test") for _ in range(40))) == [True] * 40
                assert [await each.call("a.wild.test", BIG) for _ in range(20)] == [True] * 20
                assert [await each.call(f"{n}.other") for n in range(20)] == [True] * 20
                assert [await each.call(f"{n}.TEST:80") for n in range(14, 18)] == [True] * 4
                await each.settled()
                assert each.found == {*range(6), *range(10, 18)}

        asyncio.run(scenario(EnvoySettings(access_log=False, scopes_from=scopes_from)))


def test_a_hot_restart_loses_no_call(data):  # noqa: F811
    async def scenario():
        proxy = ProxySettings(concurrency=1, drain_seconds=1.0)
        async with site(data, *range(60), proxy=proxy) as each:
            results, done = [], asyncio.Event()

            async def load(first):
                number = first
                while not done.is_set():
                    results.append(await each.call(number % 60, times=2))
                    number += 7

            clients = [asyncio.create_task(load(n)) for n in range(4)]
            await until(lambda: len(results) > 40)
            await each.proxies.ensure(NODE, ProxySettings(concurrency=1, drain_seconds=1.0, max_connections=1000))
            await until(lambda: [found.epoch for found in find_processes(data.resolve())] == [1])
            await until(lambda: each.proxies.ready(NODE))
            seen = len(results)
            await until(lambda: len(results) > seen + 120)
            done.set()
            await asyncio.gather(*clients)
            assert set(results) == {True}
            await each.settled()
            assert each.found == set(range(60))

    asyncio.run(scenario())
