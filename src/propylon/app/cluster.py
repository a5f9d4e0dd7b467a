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
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from propylon import api
from propylon.app.addresses import machine_has
from propylon.app.cluster_addresses import AddressBook, Network
from propylon.app.cluster_objects import PARAMETERS, GatewayObjects
from propylon.app.cluster_patience import Patience
from propylon.app.cluster_surroundings import Surroundings
from propylon.app.control import ControlServer
from propylon.app.controller import Controller, Outcome, describe
from propylon.app.data_plane import DataPlane
from propylon.app.health import HealthServer
from propylon.app.memory import hold_collection, set_apart
from propylon.app.problems import Problems
from propylon.app.report import Problem, build_report
from propylon.envoy import EnvoySettings
from propylon.graph import GatewayAddresses, Settings
from propylon.graph.model import Finding
from propylon.graph.sources import FIELD_OF_KIND
from propylon.proxies.kubernetes import PARAMETERS_INFO, ParametersSpec
from propylon.proxies.kubernetes.addresses import cluster_ips
from propylon.proxies.kubernetes.announcement import KINDS as ANNOUNCED_KINDS
from propylon.proxies.kubernetes.announcement import Announced, plan_announcement
from propylon.proxies.kubernetes.apply import Plan
from propylon.proxies.kubernetes.documents import Document, object_name
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
    backend_statistics: bool = True
    """Envoy counts status codes and times of answers by backend too: pods answer for them at /stats/prometheus."""
    health_listen: str = ""
    """HOST:PORT for /healthz and /readyz; "": nowhere."""


class ClusterRuntime:
    """Everything that `propylon controller` runs."""

    watched: tuple[api.KindInfo, ...] = (*WATCHED, PARAMETERS_INFO)
    made: tuple[str, ...] = ANNOUNCED_KINDS
    """Kinds of the objects that are made for Gateways."""

    def __init__(self, options: ClusterOptions, credentials: Credentials, say: Callable[[str], None]) -> None:
        """`say` prints one line for people. Raises ProxyError, and ValueError for an address that is none."""
        self.options = options
        self.say = say
        self._bell = asyncio.Event()
        self._stopping = asyncio.Event()
        envoy = EnvoySettings(access_log=options.access_log, backend_statistics=options.backend_statistics)
        self.controller = Controller(self._settings(), envoy)
        self.data_plane = self._build_data_plane()
        self.client = Client(credentials)
        self.watch = ClusterWatch(self.client, self.watched, self._bell.set)
        self.surroundings = Surroundings(self.client, self.watch, self._surroundings_changed)
        self.writer = StatusWriter(self.client, self.watch.path_of, merge_status)
        self.recorder = Recorder(self.client)
        self.objects = GatewayObjects(self.client, options.controller_name, self.made, self._unplace)
        self.applier = self.objects.applier
        self.election = LeaderElection(
            self.client, options.lease_namespace or credentials.namespace, LEASE_NAME, self._lead
        )
        self.patience: Patience[tuple[str, api.ObjectRef]] = Patience(time.monotonic)
        self.problems = Problems(lambda _ref, _field: ("", 0, 0))
        self.statuses: dict[api.ObjectRef, Any] = {}
        self.control = ControlServer(
            self.data_plane.proxies.run_directory / "control.sock", {"status": self._status, "config": self._config}
        )
        self.health = HealthServer(options.health_listen, self._unready) if options.health_listen else None
        self._book = AddressBook(options.address_pools, machine_has)
        self._gateways: dict[api.ObjectKey, api.Gateway] = {}
        """Every Gateway with its status, ours or not."""
        self._classes: set[str] = set()
        """Names of GatewayClasses that are ours."""
        self._unplaced: set[api.ObjectKey] = set()
        """Gateways whose addresses are to be looked at."""
        self._unplanned: set[api.ObjectKey] = set()
        """Gateways whose objects and proxies are to be looked at."""
        self._leading = False
        self._undecodable: dict[api.ObjectRef, Problem] = {}
        self._published = False

    def _settings(self) -> Settings:
        name = self.options.controller_name
        return Settings(controllers=frozenset({name}), our_name=name, parameter_kinds=frozenset({PARAMETERS}))

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
        hold_collection()
        if self.health is not None:
            await self.health.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        await self.data_plane.start()
        await self.control.start()
        work = [
            self.watch.run(),
            self.surroundings.run(),
            self.writer.run(),
            self.recorder.run(),
            self.applier.run(),
            self._turns(),
        ]
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
            if self.health is not None:
                await self.health.stop()
            await self.data_plane.stop()
            await self.client.close()
        return 0

    def _lead(self, leading: bool) -> None:
        self._leading = leading
        if not leading:
            self.applier.enable(False)  # enabled by the turn that told all that is wanted
        self._enable_statuses(leading)
        self._bell.set()

    def _enable_statuses(self, enabled: bool) -> None:
        self.writer.enable(enabled)
        self.recorder.enabled = enabled

    def _surroundings_changed(self) -> None:
        self._unplanned |= self._gateways.keys()
        self.writer.look_again()
        self._bell.set()

    @property
    def settled(self) -> bool:
        """Whether every change that was seen has been worked off, acknowledged and written."""
        return self._published and not self.data_plane.pending and self.writer.settled and not self._bell.is_set()

    def _unready(self) -> str:
        """Why this replica could not serve proxies now, "" if it could."""
        if self._stopping.is_set():
            return "stopping"
        if not self._published:
            return f"waiting for {self._waiting_for()}"
        return ""

    def _waiting_for(self) -> str:
        return ", ".join(self.watch.missing or ("the API server",))

    @property
    def _complete(self) -> bool:
        """Whether all is known that has to be, before anything is published."""
        return self.watch.complete and self.surroundings.known

    async def _turns(self) -> None:
        began = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_wait(began)):
                    await self._bell.wait()
            outcome = self._publish()
            if outcome is not None:
                await asyncio.sleep(0)  # what is to be sent goes out before anything else is done
                self._do_paperwork(outcome)
            if self._published:
                continue
            if self._complete:
                self._published = True
                set_apart()
                await self.data_plane.retain()
            elif time.monotonic() - began >= PATIENCE_SECONDS:
                began = time.monotonic()
                set_apart()  # this may last, and every failure leaves cycles behind
                self.say(f"still waiting for {self._waiting_for()}: nothing is published before")

    def _seconds_to_wait(self, began: float) -> float | None:
        if not self._published:
            return max(0.0, began + PATIENCE_SECONDS - time.monotonic())
        times = [at for at in (self.data_plane.retry_at, self.patience.next_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """All of one turn, without a pause."""
        if (outcome := self._publish()) is not None:
            self._do_paperwork(outcome)

    def _publish(self) -> Outcome | None:
        """Drain, compute, publish. None as long as too little is known to publish anything."""
        self._bell.clear()
        changes = self.watch.drain()
        for change in changes:
            self._take(change)
            if change.ref.group in _WRITTEN_GROUPS:
                self.writer.seen(change.ref, change.raw)
        if not self._complete:
            return None
        self.controller.lack(self.surroundings.lacking())
        self.controller.install(self.surroundings.crds)
        self._place_gateways()
        retry = self.data_plane.retry_is_due()
        outcome = self._commit()
        self._configure_proxies()
        self.data_plane.publish(outcome, retry=retry)
        return outcome

    def _do_paperwork(self, outcome: Outcome) -> None:
        """Say what became of what was published: which statuses and objects are wanted, and what people are told."""
        # A second batch, before any status is written: a Listener that was just changed is not programmed any more.
        self.data_plane.note_acknowledgements(outcome)
        after = self._commit()
        for ref, status in {**outcome.statuses, **after.statuses}.items():
            self._want(ref, status)
        self._plan()
        self._tell()

    def _commit(self) -> Outcome:
        outcome = self.controller.commit()
        self._unplanned |= outcome.gateways
        for name, key, error in outcome.failures:
            log.error("a computation failed: collection=%s key=%s", name, key, exc_info=error)
        for about, findings in outcome.findings.items():
            self._find(*about, self.patience.tell(about, findings))
        for about, findings in self.patience.due().items():
            self._find(*about, findings)
        return outcome

    def _find(self, origin: str, ref: api.ObjectRef, findings: tuple[Finding, ...]) -> None:
        """Tell people what was found out about an object."""
        self.problems.set_findings(origin, ref, findings)
        source = self.controller.sources.by_kind(ref.group, ref.kind)
        if source is not None and (found := source.get(ref.key)) is not None:
            for finding in findings:
                self.recorder.record(Note(ref, found.metadata.uid, "Warning", finding.reason, finding.message))

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
            if (ref.group, ref.kind) == PARAMETERS:
                self._take_parameters(change)
            self._undecodable[ref] = Problem("error", "", 0, 0, describe(ref), error.field, str(error))
            return
        if (ref.group, ref.kind) == PARAMETERS:
            self._take_parameters(change)
        elif ref.kind in {"Service", "EndpointSlice"}:
            self.objects.take(change)
        elif ref.kind == "GatewayClass":
            self._unplanned |= self._of_class(ref.name)
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
            self._unplaced |= self._of_class(name)

    def _of_class(self, name: str) -> set[api.ObjectKey]:
        return {key for key, gateway in self._gateways.items() if gateway.spec.gateway_class_name == name}

    def _take_parameters(self, change: Change) -> None:
        self._unplanned |= self._gateways.keys()
        known = self.objects.take_parameters(change)
        if known is None:
            self.controller.sources.parameters.remove(change.ref)
        else:
            self.controller.sources.parameters.set(change.ref, known)

    def _take_gateway(self, key: api.ObjectKey, gateway: api.Gateway | None) -> None:
        known = self._gateways.pop(key, None)
        if gateway is not None:
            self._gateways[key] = msgspec.structs.replace(gateway)
        if known is None or gateway is None or known.spec != gateway.spec:
            self._unplaced.add(key)

    def _unplace(self, gateways: Iterable[api.ObjectKey]) -> None:
        self._unplaced |= set(gateways)
        self._bell.set()

    def _place_gateways(self) -> None:
        """Give addresses to Gateways of ours that came or changed."""
        if not self._unplaced:
            return
        pending, self._unplaced = self._unplaced, set()
        self._unplanned |= pending
        living = {key: gateway for key in pending if (gateway := self._gateways.get(key)) is not None}
        ours = {key: g for key, g in living.items() if g.spec.gateway_class_name in self._classes}
        placed = self._book.place({key: ours.get(key) for key in pending})
        for key in pending:
            if key in placed:
                self.controller.sources.addresses.set(key, self._with_cluster_ips(ours[key], placed[key]))
            else:
                self.controller.sources.addresses.remove(key)

    def _with_cluster_ips(self, gateway: api.Gateway, addresses: GatewayAddresses) -> GatewayAddresses:
        service = self.objects.service_of(gateway, object_name(gateway, self.options.controller_name))
        if service is None or not addresses.bind:
            return addresses
        return msgspec.structs.replace(addresses, reserve=cluster_ips(service))

    def _requested_cluster_ip(self, gateway: api.Gateway) -> str:
        """The first cluster IP that a Gateway asks for by value; one that is none is left unanswered."""
        wishes = (a.value for a in gateway.spec.addresses if a.wants_cluster_ip and a.value)
        return next((value for value in wishes if self.surroundings.is_cluster_ip(value)), "")

    # -- what is made for Gateways -----------------------------------------------------------------------------------

    def _configure_proxies(self) -> None:
        """Have the processes run with what the parameters say."""
        for key in self._unplanned:
            if (gateway := self._gateways.get(key)) is not None:
                parameters = self._parameters_of(gateway)
                self.data_plane.configure(key, concurrency=parameters.concurrency, log_level=parameters.log_level)

    def _may_plan(self) -> bool:
        return self._leading

    def _plan(self) -> None:
        """Say what Gateways that changed want; only who leads writes."""
        due, self._unplanned = self._unplanned, set()
        if not self._may_plan():
            return  # whoever comes to lead looks at all of them
        if not self.applier.enabled:
            due |= self._gateways.keys()
        for key in due:
            self.applier.want(key, self._plan_of(key))
        self.applier.enable(True)

    def _plan_of(self, key: api.ObjectKey) -> Plan | None:
        gateway = self._gateways.get(key)
        if gateway is None or gateway.metadata.deletion_timestamp is not None:
            return None
        if gateway.spec.gateway_class_name not in self._classes:
            # A class that is gone may come back; one of somebody else takes its Gateways along.
            return None if self._class_of(gateway) is not None else Plan(gateway.metadata.uid, None)
        found = self.controller.graph.gateways.get(key)
        ports = (
            tuple((port.port, port.transport) for port in found.ports) if found is not None and found.accepted else ()
        )
        if not ports:
            return Plan(gateway.metadata.uid, None)  # refused for now: what is there stays, nothing new is made of it
        return Plan(gateway.metadata.uid, self._documents(key, gateway, ports))

    def _documents(
        self, key: api.ObjectKey, gateway: api.Gateway, ports: tuple[tuple[int, str], ...]
    ) -> tuple[Document, ...]:
        """What is to be there for a Gateway that serves these ports."""
        addresses = self.controller.sources.addresses.get(key)
        bind = addresses.bind if addresses is not None else ()
        announced = Announced(gateway, ports, bind, self._requested_cluster_ip(gateway))
        return plan_announcement(announced, self.options.controller_name)

    def _class_of(self, gateway: api.Gateway) -> api.GatewayClass | None:
        return self.controller.sources.gateway_classes.get(api.ObjectKey("", gateway.spec.gateway_class_name))

    def _parameters_of(self, gateway: api.Gateway) -> ParametersSpec:
        return self.objects.parameters_of(gateway, self._class_of(gateway))

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self.problems.set_others("objects", self._undecodable.values())
        self.problems.set_others("objects of Gateways", self.objects.problems())
        self.problems.set_others("proxies", self.data_plane.problems(lambda _ref, _field: ("", 0, 0)))
        for line in self.problems.news():
            self.say(line)

    async def _status(self, _arguments: Any) -> dict[str, Any]:
        report = build_report(self.controller.graph, self.statuses, self.problems.all())
        return {"report": report, "settled": self.settled}

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
            "backend-statistics": options.backend_statistics,
            "health-listen": options.health_listen or "nowhere",
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
