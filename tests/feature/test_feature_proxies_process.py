"""Real Envoys under ProcessProxies: restarted, adopted after a crash, hot restarted, drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.service.discovery.v3 import discovery_pb2

from propylon.proxies import log
from propylon.proxies.backoff import BackoffPolicy
from propylon.proxies.handle import find_processes
from propylon.proxies.process import ProcessProxies, embedded_envoy
from propylon.proxies.settings import (
    Adopted,
    BackingOff,
    Drained,
    EnvoyMissingError,
    Exited,
    Phase,
    ProxyError,
    ProxyEvent,
    ProxySettings,
    Started,
)

pytestmark = pytest.mark.feature

NODE = "default/web"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
SETTINGS = ProxySettings(concurrency=1, drain_seconds=2.0)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def listener(port: int, body: str = "hello", upstream: int | None = None, *, access_log: bool = False) -> bytes:
    manager = hcm_pb2.HttpConnectionManager(stat_prefix="test")
    if access_log:
        manager.access_log.add(name="stdout").typed_config.Pack(stream_pb2.StdoutAccessLog())
    host = manager.route_config.virtual_hosts.add(name="all", domains=["*"])
    route = host.routes.add()
    route.match.prefix = "/"
    if upstream is None:
        route.direct_response.status = 200
        route.direct_response.body.inline_string = body
    else:
        route.route.cluster = "slow"
    filter_ = manager.http_filters.add(name="router")
    filter_.typed_config.Pack(router_pb2.Router())
    message = listener_pb2.Listener(name="test")
    message.address.socket_address.address = "127.0.0.1"
    message.address.socket_address.port_value = port
    message.filter_chains.add().filters.add(name="hcm").typed_config.Pack(manager)
    return bytes(message.SerializeToString())


class ControlPlane:
    """As little of delta ADS as makes Envoy ready: one Listener, nothing else."""

    def __init__(self, resource: bytes) -> None:
        self.resource = resource
        self.streams = 0

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.streams += 1
        answered: set[str] = set()
        async for request in requests:
            if request.type_url in answered:
                continue
            answered.add(request.type_url)
            response = discovery_pb2.DeltaDiscoveryResponse(type_url=request.type_url, nonce=str(len(answered)))
            if request.type_url == LISTENER:
                one = response.resources.add(name="test", version="1")
                one.resource.type_url, one.resource.value = LISTENER, self.resource
            yield response

    async def serve(self, path: Path) -> grpc.aio.Server:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self.stream,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"DeltaAggregatedResources": handler}),)
        )
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return server


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.02)


async def get(port: int) -> str:
    """The body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        # Not to the end of the connection: Envoy leaves the closing to the client for a second.
        return (await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))).decode()
    finally:
        writer.close()


class KeptConnection:
    """One keep-alive connection that must survive."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def ask(self) -> bytes:
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello"):
            block = self.socket.recv(4096)
            if not block:
                raise ConnectionError("closed")
            answer += block
        return answer


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose Envoys are gone afterwards, whatever happened."""
    yield tmp_path
    for found in find_processes(tmp_path.resolve()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def running(data: Path, port: int, events: list[ProxyEvent], **options: Any) -> AsyncIterator[ProcessProxies]:
    proxies = ProcessProxies(data, on_event=events.append, **options)
    await proxies.start()
    server = await ControlPlane(listener(port)).serve(proxies.xds_socket)
    try:
        yield proxies
    finally:
        await proxies.stop(drain=False)
        await server.stop(None)


def test_bootstrap_is_valid_and_a_proxy_starts_serves_and_stops(data: Path) -> None:
    async def scenario() -> None:
        port, events = free_port(), list[ProxyEvent]()
        async with running(data, port, events) as proxies:
            await proxies.ensure(NODE, SETTINGS)
            await until(lambda: proxies.ready(NODE))
            assert await get(port) == "hello"
            state = proxies.states()[NODE]
            assert state.phase is Phase.RUNNING
            assert state.pid is not None
            assert "configs" in await proxies.config_dump(NODE)
            bootstrap = next(proxies.log_path(NODE).parent.glob("bootstrap-*.json"))
            validated = await asyncio.to_thread(
                subprocess.run,
                [embedded_envoy(), "--mode", "validate", "-c", bootstrap],
                capture_output=True,
                text=True,
            )
            assert validated.returncode == 0, validated.stderr
            assert "deprecated" not in validated.stderr.lower()
            await proxies.remove(NODE)
            assert find_processes(data.resolve()) == []
            assert not proxies.log_path(NODE).parent.exists()
            assert proxies.states() == {}
        kinds = [type(event) for event in events]
        assert kinds == [Started, Drained, Exited]

    asyncio.run(scenario())


def test_two_proxies_coexist(data: Path) -> None:
    async def scenario() -> None:
        async with running(data, free_port(), []) as proxies:
            # Both get the same listener: Envoy's reuse_port lets them share it.
            for node in ("default/one", "default/two"):
                await proxies.ensure(node, SETTINGS)
            for node in ("default/one", "default/two"):
                await until(lambda node=node: proxies.ready(node))
            pids = {state.pid for state in proxies.states().values()}
            assert len(pids) == 2
            assert None not in pids

    asyncio.run(scenario())


def test_a_killed_envoy_is_restarted(data: Path) -> None:
    async def scenario() -> None:
        port, events = free_port(), list[ProxyEvent]()
        async with running(data, port, events) as proxies:
            await proxies.ensure(NODE, SETTINGS)
            await until(lambda: proxies.ready(NODE))
            first = proxies.states()[NODE].pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await until(lambda: proxies.states()[NODE].pid not in (first, None))
            await until(lambda: proxies.ready(NODE))
            assert await get(port) == "hello"
            assert proxies.states()[NODE].restarts == 1
        exited = next(event for event in events if isinstance(event, Exited))
        assert (exited.pid, exited.expected) == (first, False)
        assert any(isinstance(event, BackingOff) for event in events)

    asyncio.run(scenario())


def test_an_envoy_that_dies_at_once_is_not_started_in_a_busy_loop(data: Path, tmp_path: Path) -> None:
    fake = tmp_path / "envoy-fake"
    fake.write_text("#!/bin/sh\necho cannot start\nexit 3\n")
    fake.chmod(0o755)

    async def scenario() -> None:
        events = list[ProxyEvent]()
        policy = BackoffPolicy(first=0.05, longest=60.0)
        proxies = ProcessProxies(data, on_event=events.append, envoy=fake, backoff=policy)
        await proxies.start()
        try:
            await proxies.ensure(NODE, SETTINGS)
            await until(lambda: sum(isinstance(event, BackingOff) for event in events) >= 4)
            assert "cannot start" in next(event.reason for event in events if isinstance(event, BackingOff))
            waits = [event.seconds for event in events if isinstance(event, BackingOff)][:4]
            assert waits == [0.05, 0.1, 0.2, 0.4]
            assert proxies.states()[NODE].phase in (Phase.BACKING_OFF, Phase.RUNNING)
            lines = [line async for line in proxies.read_log(NODE)]
            assert set(lines) == {"cannot start"}
            # Other settings end the wait: they may be the cure.
            fake.write_text("#!/bin/sh\nexec sleep 60\n")
            await proxies.ensure(NODE, ProxySettings(concurrency=2))
            await until(lambda: proxies.states()[NODE].phase is Phase.RUNNING)
        finally:
            await proxies.stop(drain=False)

    asyncio.run(scenario())


SUPERVISOR = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from propylon.proxies.process import ProcessProxies
    from propylon.proxies.settings import ProxySettings
    from test_feature_proxies_process import NODE, SETTINGS, ControlPlane, listener, until

    async def main():
        proxies = ProcessProxies(Path(sys.argv[1]))
        await proxies.start()
        server = await ControlPlane(listener(int(sys.argv[2]))).serve(proxies.xds_socket)
        await proxies.ensure(NODE, SETTINGS)
        await until(lambda: proxies.ready(NODE))
        print(proxies.states()[NODE].pid, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
""")


def test_a_proxy_outlives_a_kill_of_its_supervisor_and_is_adopted(data: Path) -> None:
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(data), str(port)], env=environment, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        kept = KeptConnection(port)
        kept.ask()
        supervisor.kill()

    async def scenario() -> None:
        kept.ask()
        events = list[ProxyEvent]()
        proxies = ProcessProxies(data, on_event=events.append)
        assert await proxies.start() == [NODE]
        control_plane = ControlPlane(listener(port))
        server = await control_plane.serve(proxies.xds_socket)
        try:
            assert events == [Adopted(NODE, pid, 0)]
            await proxies.ensure(NODE, SETTINGS)
            # It comes back to the control plane by itself.
            await until(lambda: control_plane.streams == 1, seconds=5)
            await asyncio.to_thread(kept.ask)
            state = proxies.states()[NODE]
            assert (state.pid, state.adopted, state.phase) == (pid, True, Phase.RUNNING)
            # Nobody's child, and yet its end is noticed and mended.
            os.kill(pid, signal.SIGKILL)
            await until(lambda: proxies.states()[NODE].pid not in (pid, None))
            await until(lambda: proxies.ready(NODE))
            assert not proxies.states()[NODE].adopted
            assert Exited(NODE, pid, expected=False) in events
        finally:
            await proxies.stop(drain=False)
            await server.stop(None)

    asyncio.run(scenario())
    assert find_processes(data.resolve()) == []


def test_a_proxy_of_a_gateway_that_is_gone_is_removed_after_adoption(data: Path) -> None:
    async def scenario() -> None:
        first = ProcessProxies(data)
        await first.start()
        await first.ensure(NODE, SETTINGS)
        await until(lambda: find_processes(data.resolve()))
        await first.detach()
        second = ProcessProxies(data)
        assert await second.start() == [NODE]
        await second.retain(set())
        assert find_processes(data.resolve()) == []
        assert second.states() == {}
        await second.stop()

    asyncio.run(scenario())


def test_the_log_holds_the_access_log_and_survives_rotation(data: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        proxies = ProcessProxies(data)
        await proxies.start()
        server = await ControlPlane(listener(port, access_log=True)).serve(proxies.xds_socket)
        try:
            await proxies.ensure(NODE, SETTINGS)
            await until(lambda: proxies.ready(NODE))

            async def told(count: int) -> bool:
                # Envoy writes its access log every ten seconds, or when told to.
                await proxies.admin(NODE, "POST", "/reopen_logs")
                return (
                    len([line async for line in proxies.read_log(NODE, tail=10) if '"GET / HTTP/1.1" 200' in line])
                    == count
                )

            await get(port)
            await until(lambda: told(1))
            assert log.rotate(proxies.log_path(NODE), largest=0)
            await get(port)
            await until(lambda: told(2))
            assert proxies.log_path(NODE).read_bytes().count(b"GET /") == 1
        finally:
            await proxies.stop(drain=False)
            await server.stop(None)

    asyncio.run(scenario())


def test_stop_lets_a_request_in_flight_finish(data: Path) -> None:
    port = free_port()

    async def scenario() -> None:
        started, release = asyncio.Event(), asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            started.set()
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
            await writer.drain()
            writer.close()

        backend = await asyncio.start_server(slow, "127.0.0.1", 0)
        backend_port = backend.sockets[0].getsockname()[1]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": backend_port}}
        cluster = {
            "name": "slow",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": "slow",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
        events = list[ProxyEvent]()
        proxies = ProcessProxies(data, on_event=events.append)
        await proxies.start()
        server = await ControlPlane(listener(port, upstream=backend_port)).serve(proxies.xds_socket)
        await proxies.ensure(
            NODE, ProxySettings(concurrency=1, drain_seconds=6.0, static_resources={"clusters": [cluster]})
        )
        await until(lambda: proxies.ready(NODE))
        idle = await asyncio.open_connection("127.0.0.1", port)  # must not hold up the end
        answer = asyncio.create_task(get(port))
        await started.wait()
        stopping = asyncio.create_task(proxies.stop(drain=True))
        await until(lambda: _refused(port) or stopping.done(), seconds=30)
        assert not stopping.done()
        release.set()
        assert await answer == "late"
        await stopping
        assert [event.connections for event in events if isinstance(event, Drained)] == [0]
        idle[1].close()
        await server.stop(None)
        backend.close()

    asyncio.run(scenario())


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_one_data_directory_serves_one_program(data: Path) -> None:
    async def scenario() -> None:
        first, second = ProcessProxies(data), ProcessProxies(data)
        await first.start()
        with pytest.raises(ProxyError, match="Another propylon"):
            await second.start()
        await first.stop()
        await second.start()
        await second.stop()

    asyncio.run(scenario())


def test_a_missing_envoy_is_named(data: Path) -> None:
    async def scenario() -> None:
        proxies = ProcessProxies(data, envoy=data / "nowhere")
        await proxies.start()
        with pytest.raises(EnvoyMissingError, match="nowhere"):
            await proxies.ensure(NODE, SETTINGS)
        assert proxies.states() == {}
        await proxies.stop()
        with pytest.raises(ProxyError, match="not started"):
            await proxies.ensure(NODE, SETTINGS)

    asyncio.run(scenario())
