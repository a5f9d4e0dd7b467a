"""P7: many proxies of one Gateway, simulated by clients that speak delta ADS as Envoy does, each on its own connection.

`python -m bench.fleet SOCKET NODE COUNT` is the fleet as a process (commands on standard input, see `bench.host`).
"""

import asyncio
import contextlib
import functools
import json
import random
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb
from envoy.service.discovery.v3 import discovery_pb2

from bench import worlds
from bench.machine import resident_kib
from bench.record import Figure, Goal, figure, percentile
from bench.subject import Commanded, Subject

TYPE = "type.googleapis.com/envoy.config."
CDS = TYPE + "cluster.v3.Cluster"
LDS = TYPE + "listener.v3.Listener"
EDS = TYPE + "endpoint.v3.ClusterLoadAssignment"
RDS = TYPE + "route.v3.RouteConfiguration"
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
PORT = 18080
ROUTES = 50
CHANGES = 7
PATIENCE = 120.0


class Member:
    """One proxy: subscribes to what its listeners and clusters name, and acknowledges everything."""

    def __init__(self, fleet: "Fleet", number: int) -> None:
        self.fleet, self.number = fleet, number
        self.seen = b""
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until cancelled; a stream that breaks is opened again, after as little as the bootstrap tells Envoy."""
        while True:
            try:
                await self._stream()
            except grpc.aio.AioRpcError as error:
                print(f"{self.number}: {error.code()} {error.details()}", file=sys.stderr, flush=True)
            self.fleet.broken += 1
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def _stream(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(f"unix:{self.fleet.socket}", options=options) as channel:
            stream = channel.stream_stream(METHOD)()
            node = {"id": self.fleet.node, "cluster": "bench"}
            await stream.write(_request(type_url=CDS, resource_names_subscribe=["*"], node=node))
            await stream.write(_request(type_url=LDS, resource_names_subscribe=["*"]))
            asked: dict[str, set[str]] = {EDS: set(), RDS: set()}
            while (raw := await stream.read()) is not grpc.aio.EOF:
                now = time.monotonic()
                type_url, nonce, wanted = _digest(raw)
                if type_url == RDS:
                    self.fleet.arrived(self.number, raw, now)
                await stream.write(_request(type_url=type_url, response_nonce=nonce))
                for kind, names in wanted:
                    new = [name for name in names if name not in asked[kind]]
                    if new:
                        asked[kind].update(new)
                        await stream.write(_request(type_url=kind, resource_names_subscribe=new))


def _request(**fields: Any) -> bytes:
    return bytes(discovery_pb2.DeltaDiscoveryRequest(**fields).SerializeToString())


def _digest(raw: bytes) -> tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Type, nonce, and the names of other resources that what came needs."""
    response = discovery_pb2.DeltaDiscoveryResponse.FromString(raw)
    wanted: tuple[tuple[str, tuple[str, ...]], ...] = ()
    if response.type_url in {CDS, LDS}:
        names = tuple(name for found in response.resources for name in _needs(response.type_url, found.resource.value))
        wanted = ((EDS if response.type_url == CDS else RDS, names),)
    return response.type_url, response.nonce, wanted


@functools.lru_cache(maxsize=4096)
def _needs(type_url: str, body: bytes) -> tuple[str, ...]:
    """What a Cluster or a Listener refers to. The fleet's members get the same, so it is read once."""
    if type_url == CDS:
        cluster = cluster_pb2.Cluster.FromString(body)
        return (cluster.eds_cluster_config.service_name or cluster.name,) if cluster.type == cluster.EDS else ()
    names = []
    for chain in listener_pb2.Listener.FromString(body).filter_chains:
        for each in chain.filters:
            manager = hcm_pb.HttpConnectionManager()
            if each.typed_config.Unpack(manager) and manager.HasField("rds"):
                names.append(manager.rds.route_config_name)
    return tuple(names)


class Fleet:
    """Commands."""

    def __init__(self, socket: str, node: str, count: int) -> None:
        self.socket, self.node, self.count = socket, node, count
        self.members: list[Member] = []
        self.broken = 0
        """Streams that ended though nobody wanted them to."""
        self._wanted = b""
        self._times: dict[int, float] = {}
        self._all = asyncio.Event()

    def arrived(self, number: int, raw: bytes, now: float) -> None:
        """A member got routes."""
        if self._wanted and self._wanted in raw and number not in self._times:
            self._times[number] = now
            if len(self._times) == self.count:
                self._all.set()

    async def expect(self, tag: str) -> dict[str, Any]:
        """From now on, note when each member sees routes with this text in them."""
        self._wanted, self._times = tag.encode(), {}
        self._all.clear()
        return {}

    async def times(self) -> dict[str, Any]:
        """Wait until every member has seen it; when each did (monotonic seconds)."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all.wait(), PATIENCE)
        if len(self._times) < self.count:
            return {"error": f"{len(self._times)} of {self.count} proxies saw the change within {PATIENCE:.0f} s"}
        return {"times": sorted(self._times.values()), "broken": self.broken}

    async def connect(self) -> dict[str, Any]:
        """Close what is connected, then connect everyone at once."""
        await self.close()
        self.members = [Member(self, number) for number in range(self.count)]
        for member in self.members:
            member.task = asyncio.create_task(member.run())
        return {"began": time.monotonic()}

    async def close(self) -> None:
        """Break every connection."""
        tasks = [member.task for member in self.members if member.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.members = []


class FleetProcess(Commanded):
    """The fleet, seen from the bench."""

    def __init__(self, socket: str, node: str, count: int) -> None:
        super().__init__()
        self._arguments = [socket, node, str(count)]

    def command(self) -> list[str]:
        return ["bench.fleet", *self._arguments]


def many_proxies(sizes: Sequence[int]) -> Iterable[Figure]:
    """P7: one change until every one of N proxies has it; and all of them connecting at once, again and again."""
    gateway = f"{worlds.NAMESPACE}/gw"
    for size in sizes:
        with Subject(worlds.many_routes(ROUTES, port=PORT)) as subject:
            subject.ready(gateway)
            alone = resident_kib(subject.pid) / 1024
            with FleetProcess(subject.call("xds")["socket"], gateway, size) as fleet:
                with subject.profiled("P7 reconnect storm", size):
                    storms = [_storm(fleet, "first.example.org") for _ in range(3)]
                subject.idle()
                memory = resident_kib(subject.pid) / 1024 - alone
                before = subject.call("usage")["cpu"]
                slowest, all_of_them = [], []
                with subject.profiled("P7 one change", size):
                    for number in range(CHANGES):
                        times = _change(subject, fleet, f"t{number}.example.org")
                        slowest.append(times[-1])
                        all_of_them.append(percentile(times, 0.99))
                        subject.idle()
                cpu = (subject.call("usage")["cpu"] - before) / CHANGES * 1000
            yield figure("P7", size, "one change: effective at 99 % of the proxies", all_of_them, "s", goal=Goal(1))
            yield figure("P7", size, "one change: effective at the last proxy", slowest, "s")
            yield figure("P7", size, "one change: CPU of propylon", [cpu], "ms")
            yield figure("P7", size, "reconnect storm: all proxies have everything", storms, "s", goal=Goal(30))
            yield figure("P7", size, "memory of propylon for the connections", [memory], "MiB")


def _storm(fleet: FleetProcess, tag: str) -> float:
    fleet.call("expect", tag)
    began: float = fleet.call("connect")["began"]
    times: list[float] = fleet.call("times")["times"]
    return times[-1] - began


def _change(subject: Subject, fleet: FleetProcess, tag: str) -> list[float]:
    fleet.call("expect", tag)
    began = time.monotonic()
    name = f"r{ROUTES - 1}"
    subject.apply(worlds.route(name, worlds.hostname_of(ROUTES - 1), name, tag=tag.partition(".")[0]))
    return [at - began for at in fleet.call("times")["times"]]


async def serve(fleet: Fleet) -> None:
    """Execute the commands on standard input until it ends."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def read() -> None:
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            work = asyncio.run_coroutine_threadsafe(getattr(fleet, command)(*arguments), loop)
            print(json.dumps(work.result()), flush=True)
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=read, daemon=True).start()
    await done.wait()
    await fleet.close()


if __name__ == "__main__":
    asyncio.run(serve(Fleet(str(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]))))
