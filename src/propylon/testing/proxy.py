"""Envoys of tests: one for each Gateway that is asked, on ports of their own, gone with whoever started them."""

import asyncio
import contextlib
import ipaddress
import socket
import subprocess
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from propylon.envoy import names
from propylon.envoy.endpoint import socket_address
from propylon.envoy.resource import (
    CLUSTER,
    FILTER_CHAIN,
    LISTENER,
    ROUTE_CONFIGURATION,
    SCOPED_ROUTE_CONFIGURATION,
    pack,
    serialize,
)
from propylon.proxies import admin
from propylon.proxies.bootstrap import build_bootstrap
from propylon.proxies.process import embedded_envoy
from propylon.proxies.settings import AdminUnreachableError, EnvoyMissingError, ProxySettings
from propylon.testing.model import EngineError
from propylon.xds import Event, Rejected, Server

ROUTE_HEADER = "x-propylon-test-route"
STARTUP = 60.0
"""Seconds in which an Envoy has to serve; a busy machine is slow."""
_GUARD = 'exec 3<&0; "$@" 3<&- & envoy=$!; { read _ <&3; kill -9 $envoy; } & guard=$!; wait $envoy; kill $guard'
"""A shell that ends Envoy when its standard input is closed: by us, or by the system because we are gone."""

Resources = Mapping[tuple[str, str], bytes]


def free_port(address: str, kind: int) -> int:
    """A port of a loopback address that nobody else uses."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def adapted(
    resources: Resources, address: str, backends: Collection[str]
) -> tuple[dict[tuple[str, str], bytes], dict[str, tuple[str, int]]]:
    """Resources as a test's Envoy gets them, and where each Listener is bound. `backends` are names of clusters.

    Listeners are on free ports of `address` and ask clients for no certificate; answers name the route that was taken;
    connections to backends are plain, for the backends of tests have no certificates. All else is as it is.
    """
    out: dict[tuple[str, str], bytes] = {}
    bound: dict[str, tuple[str, int]] = {}
    for (kind, name), body in resources.items():
        message: Any
        if kind == LISTENER:
            message = listener_pb2.Listener.FromString(body)
            udp = message.HasField("udp_listener_config")
            port = free_port(address, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            bound[name] = (address, port)
            message.address.CopyFrom(socket_address(address, port, udp=udp))
            del message.additional_addresses[:]
            for chain in message.filter_chains:
                _ask_for_no_certificate(chain)
        elif kind == ROUTE_CONFIGURATION:
            message = route_pb2.RouteConfiguration.FromString(body)
            _tell_route(message)
        elif kind == SCOPED_ROUTE_CONFIGURATION:
            message = scoped_route_pb2.ScopedRouteConfiguration.FromString(body)
            _tell_route(message.route_configuration)
        elif kind == FILTER_CHAIN:
            message = listener_components_pb2.FilterChain.FromString(body)
            _ask_for_no_certificate(message)
        elif kind == CLUSTER and name in backends:
            message = cluster_pb2.Cluster.FromString(body)
            message.ClearField("transport_socket")
        else:
            out[kind, name] = body
            continue
        out[kind, name] = serialize(message)
    return out, bound


def _ask_for_no_certificate(chain: Any) -> None:
    context = tls_pb2.DownstreamTlsContext()
    packed = chain.transport_socket.typed_config
    if packed.Is(context.DESCRIPTOR):
        packed.Unpack(context)
        context.ClearField("require_client_certificate")
        packed.CopyFrom(pack(context))


def _tell_route(configuration: Any) -> None:
    configuration.response_headers_to_add.append(
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=ROUTE_HEADER, value="%ROUTE_NAME%"),
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    )


class Proxies:
    """Envoys and their control plane, in a directory of their own. All methods belong to one event loop."""

    def __init__(self, directory: Path, block: ipaddress.IPv4Network) -> None:
        self._directory = directory
        self._block = block
        self._server = Server(on_event=self._note, on_demand=names.is_on_demand, awaits=names.awaited_endpoints)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._rejected: dict[str, list[Rejected]] = {}

    async def start(self) -> None:
        """Serve xDS. Raises EngineError."""
        try:
            await self._server.start([f"unix:{self._directory}/xds"])
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"the control plane of the test's Envoys cannot be started: {error}") from error

    def _note(self, event: Event) -> None:
        if isinstance(event, Rejected):
            self._rejected.setdefault(event.node, []).append(event)

    async def run(self, node: str, resources: Resources, backends: Collection[str]) -> dict[str, tuple[str, int]]:
        """Start the Envoy of a Gateway; where each of its Listeners is bound, once all serve. Raises EngineError."""
        number = len(self._processes)
        address = str(self._block[1 + number % 254])
        given, bound = adapted(resources, address, backends)
        self._server.update(node, dict(given), complete=True)
        try:
            envoy = embedded_envoy()
        except EnvoyMissingError as error:
            raise EngineError(str(error)) from error
        admin_socket, bootstrap = self._directory / f"a{number}", self._directory / f"b{number}.json"
        settings = ProxySettings()
        bootstrap.write_bytes(
            build_bootstrap(node, xds_socket=self._directory / "xds", admin_socket=admin_socket, settings=settings)
        )
        log = self._directory / f"log{number}"
        command = [str(envoy), "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart"]
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                ["/bin/sh", "-c", _GUARD, "sh", *command, "--log-level", settings.log_level],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._processes[node] = process
        await self._serves(node, list(bound), admin_socket, log)
        return bound

    async def _serves(self, node: str, listeners: list[str], admin_socket: Path, log: Path) -> None:
        deadline = time.monotonic() + STARTUP
        while True:
            if refused := self._rejected.get(node):
                what = ", ".join(f"{each.name[1] if each.name else '?'}: {each.message}" for each in refused[:3])
                raise EngineError(f"Envoy refuses the configuration of Gateway {node}: {what}")
            if self._processes[node].poll() is not None:
                raise EngineError(f"Envoy of Gateway {node} ended: {_last_line(log)}")
            if self._server.settled(node) and await self._active(admin_socket, listeners):
                return
            if time.monotonic() > deadline:
                raise EngineError(f"Envoy of Gateway {node} does not serve within {STARTUP:g} s: {_last_line(log)}")
            await asyncio.sleep(0.02)

    @staticmethod
    async def _active(admin_socket: Path, listeners: list[str]) -> bool:
        try:
            status, body = await admin.request(admin_socket, "GET", "/listeners?format=text")
        except AdminUnreachableError:
            return False
        text = body.decode("utf-8", "replace")
        return status == 200 and all(f"{name}::" in text for name in listeners)

    async def stop(self) -> None:
        """End every Envoy, and the control plane."""
        for process in self._processes.values():
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in self._processes.values():
            await asyncio.to_thread(process.wait)
        await self._server.stop(0)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
