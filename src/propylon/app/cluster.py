"""The running process in a cluster: the Kubernetes API in, Envoy processes and statuses out.

One event loop, one batch at a time, as without a cluster. Reflectors, proxies and the lease only ring a bell; a turn
then drains all that is queued, computes once, publishes, and says which statuses are wanted. Nothing is published until
every watched kind was listed, so that a restart never shows a half-known world.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec

from propylon import api
from propylon.app.addresses import machine_has
from propylon.app.cluster_addresses import AddressBook, Network
from propylon.app.control import ControlServer
from propylon.app.controller import Controller, Outcome, describe
from propylon.app.data_plane import DataPlane
from propylon.app.problems import Problems
from propylon.app.report import Problem, build_report
from propylon.envoy import EnvoySettings
from propylon.graph import Settings
from propylon.graph.sources import FIELD_OF_KIND
from propylon.status import merge_status
from propylon.store.cluster import Change, Client, ClusterWatch, Credentials, LeaderElection, Recorder, StatusWriter
from propylon.store.cluster.events import Note

log = logging.getLogger("propylon.app")

LEASE_NAME = "propylon"
PATIENCE_SECONDS = 10.0
"""After so long it is said which kinds the first batch still waits for."""
WATCHED = tuple(info for info in api.KINDS if (info.group, info.kind) in FIELD_OF_KIND)
WRITTEN = tuple(
    info for info in WATCHED if info.group in {api.GATEWAY_GROUP, api.EXPERIMENTAL_GROUP} and info.status_subresource
)


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `propylon controller` can be told."""

    data_dir: Any
    controller_name: str
    address_pools: tuple[Network, ...] = ()
    leader_elect: bool = True
    lease_namespace: str | None = None
    """None: the namespace of the credentials."""
    concurrency: int = 0
    access_log: bool = True


class ClusterRuntime:
    """Everything that `propylon controller` runs."""

    watched: tuple[api.KindInfo, ...] = WATCHED

    def __init__(self, options: ClusterOptions, credentials: Credentials, say: Callable[[str], None]) -> None:
        """`say` prints one line for people. Raises ProxyError."""
        self.options = options
        self.say = say
        self._bell = asyncio.Event()
        self._stopping = asyncio.Event()
        self.controller = Controller(self._settings(), EnvoySettings(access_log=options.access_log))
        self.data_plane = self._build_data_plane()
        self.client = Client(credentials)
        self.watch = ClusterWatch(self.client, self.watched, self._bell.set)
        self.writer = StatusWriter(self.client, self.watch.path_of, merge_status)
        self.recorder = Recorder(self.client)
        self.election = LeaderElection(
            self.client, options.lease_namespace or credentials.namespace, LEASE_NAME, self._lead
        )
        self.problems = Problems(lambda _ref, _field: ("", 0, 0))
        self.statuses: dict[api.ObjectRef, Any] = {}
        self.control = ControlServer(
            self.data_plane.proxies.run_directory / "control.sock", {"status": self._status, "config": self._config}
        )
        self._book = AddressBook(options.address_pools, machine_has)
        self._gateways: dict[api.ObjectKey, api.Gateway] = {}
        """Every Gateway with its status, ours or not."""
        self._classes: set[str] = set()
        """Names of GatewayClasses that are ours."""
        self._unplaced: set[api.ObjectKey] = set()
        self._undecodable: dict[api.ObjectRef, Problem] = {}
        self._published = False

    def _settings(self) -> Settings:
        name = self.options.controller_name
        return Settings(controllers=frozenset({name}), our_name=name)

    def _build_data_plane(self) -> DataPlane:
        return DataPlane(
            self.controller,
            self.options.data_dir,
            ring=self._bell.set,
            say=self.say,
            concurrency=self.options.concurrency,
        )

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until told to stop; the exit code. Raises ProxyError, OSError at the start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        await self.data_plane.start()
        await self.control.start()
        work = [self.watch.run(), self.writer.run(), self.recorder.run(), self._turns()]
        if self.options.leader_elect:
            work.append(self.election.run())
        else:
            self._lead(True)
        tasks = [loop.create_task(coroutine) for coroutine in work]
        stop = loop.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # none of them ends by itself: a defect, and worth its traceback
        finally:
            self.say("stopping: proxies are drained")
            for task in (stop, *tasks):
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)
            await self.control.stop()
            await self.data_plane.stop()
            await self.client.close()
        return 0

    def _lead(self, leading: bool) -> None:
        self.writer.enable(leading)
        self.recorder.enabled = leading

    async def _turns(self) -> None:
        began = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_wait(began)):
                    await self._bell.wait()
            self._turn()
            if self._published:
                continue
            if self.watch.complete:
                self._published = True
                await self.data_plane.retain()
            elif time.monotonic() - began >= PATIENCE_SECONDS:
                began = time.monotonic()
                self.say(f"still waiting for {', '.join(self.watch.missing)}: nothing is published before")

    def _seconds_to_wait(self, began: float) -> float | None:
        if not self._published:
            return max(0.0, began + PATIENCE_SECONDS - time.monotonic())
        retry_at = self.data_plane.retry_at
        return max(0.0, retry_at - time.monotonic()) if retry_at is not None else None

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Drain, compute, publish, say what statuses are wanted. Without a pause in between: all or nothing."""
        self._bell.clear()
        changes = self.watch.drain()
        for change in changes:
            self._take(change)
            if change.ref.group in _WRITTEN_GROUPS:
                self.writer.seen(change.ref, change.raw)
        if not self.watch.complete:
            return
        self._place_gateways()
        retry = self.data_plane.retry_is_due()
        outcome = self._commit()
        self.data_plane.publish(outcome, retry=retry)
        # A second batch, before any status is written: a Listener that was just changed is not programmed any more.
        self.data_plane.note_acknowledgements(outcome)
        after = self._commit()
        for ref, status in {**outcome.statuses, **after.statuses}.items():
            self._want(ref, status)
        self._tell()

    def _commit(self) -> Outcome:
        outcome = self.controller.commit()
        for name, key, error in outcome.failures:
            log.error("a computation failed: collection=%s key=%s", name, key, exc_info=error)
        for (origin, ref), findings in outcome.findings.items():
            self.problems.set_findings(origin, ref, findings)
            source = self.controller.sources.by_kind(ref.group, ref.kind)
            if source is None or (found := source.get(ref.key)) is None:
                continue
            for finding in findings:
                self.recorder.record(Note(ref, found.metadata.uid, "Warning", finding.reason, finding.message))
        return outcome

    def _want(self, ref: api.ObjectRef, status: Any) -> None:
        if status is None:
            self.statuses.pop(ref, None)
        else:
            self.statuses[ref] = status
        self.writer.want(ref, status)

    def _take(self, change: Change) -> None:
        ref = change.ref
        self._undecodable.pop(ref, None)
        if change.error is not None:
            error = change.error
            self._undecodable[ref] = Problem("error", "", 0, 0, describe(ref), error.field, str(error))
            return
        if ref.kind == "GatewayClass":
            self._take_class(ref.name, change.object)
        elif ref.kind == "Gateway":
            self._take_gateway(ref.key, change.object)
        source = self.controller.sources.by_kind(ref.group, ref.kind)
        if source is None:
            return
        if change.object is None:
            source.remove(ref.key)
        else:
            source.set(ref.key, without_echo(change.object))

    # -- addresses ---------------------------------------------------------------------------------------------------

    def _take_class(self, name: str, found: api.GatewayClass | None) -> None:
        ours = found is not None and found.spec.controller_name == self.options.controller_name
        if ours != (name in self._classes):
            self._classes ^= {name}
            self._unplaced |= {key for key, g in self._gateways.items() if g.spec.gateway_class_name == name}

    def _take_gateway(self, key: api.ObjectKey, gateway: api.Gateway | None) -> None:
        known = self._gateways.pop(key, None)
        if gateway is not None:
            self._gateways[key] = msgspec.structs.replace(gateway)
        if known is None or gateway is None or known.spec != gateway.spec:
            self._unplaced.add(key)

    def _place_gateways(self) -> None:
        """Give addresses to Gateways of ours that came or changed."""
        if not self._unplaced:
            return
        pending, self._unplaced = self._unplaced, set()
        living = {key: gateway for key in pending if (gateway := self._gateways.get(key)) is not None}
        ours = {key: g for key, g in living.items() if g.spec.gateway_class_name in self._classes}
        placed = self._book.place({key: ours.get(key) for key in pending})
        for key in pending:
            if key in placed:
                self.controller.sources.addresses.set(key, placed[key])
            else:
                self.controller.sources.addresses.remove(key)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self.problems.set_others("objects", self._undecodable.values())
        self.problems.set_others("proxies", self.data_plane.problems(lambda _ref, _field: ("", 0, 0)))
        for line in self.problems.news():
            self.say(line)

    async def _status(self, _arguments: Any) -> dict[str, Any]:
        graph = self.controller.graph
        report = build_report(
            (gateway for _, gateway in graph.gateways.items()),
            (route for _, route in graph.routes.items()),
            self.statuses,
            {(key.gateway, key.port): port.bound_port for key, port in graph.ports.items()},
            self.problems.all(),
        )
        settled = self._published and not self.data_plane.pending and self.writer.settled and not self._bell.is_set()
        return {"report": report, "settled": settled}

    async def _config(self, _arguments: Any) -> dict[str, Any]:
        options = self.options
        return {
            "data-dir": str(options.data_dir),
            "controller-name": options.controller_name,
            "api-server": self.client.credentials.server,
            "address-pools": " ".join(map(str, options.address_pools)),
            "leader-elect": options.leader_elect,
            "leading": self.election.leading or not options.leader_elect,
            "concurrency": options.concurrency or "automatic",
            "access-log": options.access_log,
            "xds-socket": str(self.data_plane.proxies.xds_socket),
        }


_WRITTEN_GROUPS = frozenset({api.GATEWAY_GROUP, api.EXPERIMENTAL_GROUP})


def without_echo(obj: Any) -> Any:
    """Take out of a freshly decoded object what our own status writes change: they must not start another round.

    The object is changed in place: nobody else has it yet.
    """
    msgspec.structs.force_setattr(obj.metadata, "resource_version", "")
    if (default := _default_status(type(obj))) is not msgspec.NODEFAULT:
        msgspec.structs.force_setattr(obj, "status", default)
    return obj


_STATUS_DEFAULTS: dict[type, Any] = {}


def _default_status(kind: type) -> Any:
    if kind not in _STATUS_DEFAULTS:
        found = (field.default for field in msgspec.structs.fields(kind) if field.name == "status")
        _STATUS_DEFAULTS[kind] = next(found, msgspec.NODEFAULT)
    return _STATUS_DEFAULTS[kind]
