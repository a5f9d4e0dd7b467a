"""The running process without a cluster: files and store in, Envoy processes and statuses out.

One event loop, one batch at a time. Whatever happens (a file, a write to the store, an answer of a proxy) only rings a
bell; a turn then drains all that is queued, computes once and publishes.
"""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from propylon import api
from propylon.app.bell import Bell
from propylon.app.configuration import UpOptions
from propylon.app.control import ControlServer
from propylon.app.controller import Outcome, merged
from propylon.app.data_plane import DataPlane
from propylon.app.echo_backends import EchoBackends
from propylon.app.event_sources import EventSources
from propylon.app.events import EventRecorder
from propylon.app.kubernetes_api import KubernetesApi
from propylon.app.machine import Machine
from propylon.app.memory import hold_collection, set_apart
from propylon.app.offline import as_document
from propylon.app.urls import render_urls
from propylon.app.workspace import Workspace, store_problem
from propylon.echo.answer import EchoIdentity
from propylon.echo.process import EchoProcess
from propylon.explain import Request, Settings, explain
from propylon.graph.model import BoundPort, PortKey
from propylon.proxies.settings import ProxyEvent
from propylon.status import CLUSTER_FEATURES, merge_status
from propylon.store import NotFound, StoreUnavailable
from propylon.store.local import utc_now
from propylon.store.status_queue import StatusQueue

RETRY_SECONDS = 1.0
"""How often a store that could not be read or written is tried again."""

STATUSES_PER_TURN = 50
"""So many are written in one transaction before the loop looks for news again: some 20 ms."""

BREATH_SECONDS = 0.02
"""How long the loop leaves the interpreter to those who write, at most, before it computes again."""

ANSWER_SECONDS, MANY_ANSWERS_SECONDS = 0.01, 3.0
"""How long statuses wait for proxies to answer: as a rule these need 1 or 2 ms. What took longer to compute takes them
longer to take in, and to write thousands of statuses meanwhile would hold them up: so they get as much time again, up
to the second of these."""

HEARING_SECONDS = 0.002
"""How long proxies are heard between two parts of a large world that is read."""

FEW_ROUTES = 200
"""Up to so many, URLs are printed again after every change of a listener."""

QUIET_TURNS = 3
"""Findings wait while up to so many turns follow each other at once: a missing certificate may be issued next."""


def breath(took: float) -> float:
    """How long to wait after a turn of `took` seconds during which others wrote: they go on writing, most likely, and
    the next turn then takes more at once. Half of the time at most is waited; a change that comes alone never waits."""
    return min(took, BREATH_SECONDS)


def patience(worked: float) -> float:
    """How many seconds statuses wait for proxies to answer, after what they are told of was computed in `worked`."""
    return min(max(worked, ANSWER_SECONDS), MANY_ANSWERS_SECONDS)


async def _in_steps(step: Callable[[], bool]) -> None:
    """Repeat a step as long as it has something to do, and hear proxies in between."""
    await asyncio.sleep(HEARING_SECONDS)
    heard = time.monotonic()
    while step():
        if time.monotonic() - heard > 10 * HEARING_SECONDS:
            await asyncio.sleep(HEARING_SECONDS)
            heard = time.monotonic()


class Runtime:
    """Everything that `propylon up` runs."""

    def __init__(self, options: UpOptions, say: Callable[[str], None], kubernetes: KubernetesApi | None = None) -> None:
        """`say` prints one line for people; `kubernetes` is the API that serves already, whose store is then used.

        Raises StoreError, ProxyError.
        """
        self.options = options
        self.say = say
        self.kubernetes = kubernetes
        store = kubernetes.store if kubernetes is not None else None
        self.workspace = Workspace(options, options.data_dir, say, store)
        self._bell = Bell()
        self.plane = DataPlane(
            self.workspace.controller,
            options.data_dir,
            ring=self._bell.set,
            say=say,
            concurrency=options.concurrency or 0,
        )
        run = self.plane.proxies.run_directory
        self.echo: EchoProcess | None = None
        if options.echo:
            self.echo = EchoProcess(run / "echo.sock", options.data_dir / "echo.log", on_moved=self._echo_moved)
            self.echo_backends = EchoBackends(self.workspace.controller, self.echo, self._bell.set)
        self.control = ControlServer(
            run / "control.sock", {"status": self._status, "config": self._config, "explain": self._explain}
        )
        self.machine = Machine(self.workspace.store, options.data_dir, self.workspace.controller, self.plane.proxies)
        self.recorder = EventRecorder(self.workspace.store, self.machine.facts.name)
        self.event_sources = EventSources(self.recorder)
        self.plane.watch_proxies = self._proxy_event
        if kubernetes is not None:
            kubernetes.show_logs(self.machine.log)
            # What a Gateway wants on its infrastructure is seen on the Pods that show its proxy.
            self.workspace.controller.lack(CLUSTER_FEATURES - {"GatewayInfrastructure"})
        self._stopping = asyncio.Event()
        self._others_wrote = False
        self._unwritten = StatusQueue()
        self._writing_statuses = False
        self._store_retry_at: float | None = None
        self._settled = False
        self._computed = asyncio.Event()
        """Set once there is a whole world that one can be told of."""
        self._silent = 0
        self._retry = False
        """Whether what could not be done is to be tried again with the next publication."""
        self._noticed: frozenset[str] = frozenset()
        self._unannounced = False
        self._announced: dict[PortKey, BoundPort] = {}
        """The ports whose URLs were printed last."""

    def _proxy_event(self, event: ProxyEvent) -> None:
        self.event_sources.proxy_event(event, self.machine.pod_of(event.node))
        self.machine.proxy_event(event)

    def _echo_moved(self, identity: EchoIdentity, host: str, port: int) -> None:
        self.echo_backends.moved(identity, host, port)

    @property
    def settled(self) -> bool:
        """Whether every change has been worked off, acknowledged and written."""
        return self._settled

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until told to stop; the exit code."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self._stopping.set()
            self._bell.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

        own = threading.get_ident()

        def ring() -> None:
            loop.call_soon_threadsafe(self._bell.set)

        def written() -> None:
            if threading.get_ident() != own:
                self._others_wrote = True
                if not self._bell.is_set():  # who is woken by it clears it first, and looks at the store then
                    ring()
            elif not self._writing_statuses:
                self._bell.set()

        hold_collection()
        unsubscribe = self.workspace.store.subscribe(written)
        self.workspace.ring = ring
        await self._start()
        watching = asyncio.create_task(self.workspace.files.run(self._stopping), name="watch files")
        try:
            await self._serve(watching)
        finally:
            self.say("stopping: proxies are drained")
            await asyncio.gather(watching, return_exceptions=True)
            unsubscribe()
            if self.kubernetes is not None:
                await asyncio.to_thread(self.kubernetes.stop)
            await self.machine.stop()
            self.event_sources.stop()
            await self.recorder.stop()
            await self.control.stop()
            await self.plane.stop()
            if self.echo is not None:
                await self.echo.stop()
            self.workspace.store.close()
        return 0

    async def _start(self) -> None:
        await self.plane.start()
        self.machine.start()
        self.recorder.start()
        if self.echo is not None:
            await self.echo.start()
        await self.control.start()
        self.workspace.files.sync()
        began = time.monotonic()
        await self._advance()
        await self._turn(time.monotonic() - began)
        self._computed.set()
        set_apart()
        await self.plane.retain()

    async def _advance(self) -> None:
        """Have proxies work on what is known of a large world while the rest of it is computed: statuses at the end."""
        is_large = False
        with contextlib.suppress(StoreUnavailable):  # the turn says so
            for known in self.workspace.advance():
                is_large = True
                self.plane.publish_ahead(known)
                await asyncio.sleep(HEARING_SECONDS)
            if is_large:
                controller = self.workspace.controller
                await _in_steps(controller.step_to_resources)
                self.plane.publish(controller.resources(), retry=False)
                await _in_steps(controller.step)

    async def _serve(self, watching: asyncio.Task[None]) -> None:
        watching.add_done_callback(lambda _: self._bell.set())
        while not self._stopping.is_set():
            due = [at for at in (self._store_retry_at, self.plane.retry_at) if at is not None]
            await self._bell.wait(min(due) if due else None)
            if self._stopping.is_set():
                return
            if watching.done():
                watching.result()
            self._others_wrote = False
            took = await self._turn()
            if self._others_wrote:
                await asyncio.sleep(breath(took))
            elif self._bell.is_set():
                await asyncio.sleep(0)  # it rang during the turn, as while statuses are written: nobody else had one

    # -- one turn ----------------------------------------------------------------------------------------------------

    async def _turn(self, worked: float = 0) -> float:
        """Drain, compute, publish; then the paperwork. Never raises for what an object, a proxy or the disk may be
        like. `worked` is for how long, in seconds, what this publishes was computed before. Returns the seconds since
        it last waited for others.

        Proxies come first: on a small machine they would share the processor with everything that is done meanwhile.
        What changes while they answer is published at once, and told together with what was before it.
        """
        self._settled = False
        published: list[Outcome] = []
        failed = False
        began = until = time.monotonic()
        try:
            while True:
                self._bell.clear()
                if self._is_publication_due():
                    published.append(await self._publish())
                    if len(published) == 1:
                        now = time.monotonic()
                        until = now + patience(worked + now - began)
                if not await self._answers(published, began, until):
                    break
                began = time.monotonic()
        except StoreUnavailable as error:
            self._store_failed(error)
            failed = True
        if published or not failed:
            self._do_paperwork(published)
        return time.monotonic() - began

    def _is_publication_due(self) -> bool:
        """Whether anything is new, or is to be tried again: most answers of proxies bring nothing that is."""
        now = time.monotonic()
        store_retry = self._store_retry_at is not None and now >= self._store_retry_at
        if store_retry:
            self._store_retry_at = None
        self._retry = self.plane.retry_is_due() or self._retry
        return store_retry or self._retry or self.workspace.has_news

    async def _publish(self) -> Outcome:
        """Bring in what is new, compute, and have it sent. Raises StoreUnavailable."""
        outcome = self.workspace.turn()
        self._unannounced = self._unannounced or bool(outcome.gateways)
        retry, self._retry = self._retry, False
        self.plane.publish(outcome, retry=retry)
        if outcome.gateways:
            self.machine.touch("/".join(key) for key in outcome.gateways)
        if self.echo is not None and outcome.unserved_changed:
            await self.echo_backends.follow()
        return outcome

    async def _answers(self, published: list[Outcome], began: float, until: float) -> bool:
        """Wait until `until` for proxies that were sent something to say what became of it.

        Returns whether something happened meanwhile, so that there may be more to publish.
        """
        nodes = {"/".join(node) for outcome in published for node in outcome.resources}
        if self._stopping.is_set() or not any(map(self.plane.xds.is_awaited, nodes)):
            return False
        self.plane.awaits_answers = True
        try:
            if self._others_wrote:
                self._others_wrote = False
                await asyncio.sleep(breath(time.monotonic() - began))
            if time.monotonic() >= until:
                # Also where something happens all the time: statuses have waited long enough. What is to be sent goes
                # out before anything else is done.
                await asyncio.sleep(0)
                return False
            return await self._bell.wait(until)
        finally:
            self.plane.awaits_answers = False

    def _do_paperwork(self, published: list[Outcome]) -> None:
        """Say what became of what was published: to objects as their status, and to people."""
        self.plane.note_acknowledgements(merged(published))
        # A second batch, before any status is written: a Listener that was just changed is not programmed any more.
        outcomes = list(published)
        if self.workspace.controller.engine.has_work:
            after = self.workspace.compute()
            self.plane.publish(after, retry=False)
            outcomes.append(after)
        for outcome in outcomes:
            self._unwritten.add(outcome.statuses)
            self.event_sources.take(outcome, self.workspace.file_reports)
        self._write_statuses()
        if self.workspace.store_problems:
            self._retry_store()
        self._tell()

    # -- statuses ----------------------------------------------------------------------------------------------------

    def _write_statuses(self) -> None:
        """Write some of what changed in one transaction; the rest, and what cannot be written now, in later turns.

        So changes and proxies never wait for thousands of statuses.
        """
        refs = self._unwritten.head(STATUSES_PER_TURN)
        try:
            if refs:
                now = utc_now()
                self._writing_statuses = True
                with self.workspace.store.transaction():
                    written = [self._write_status(ref, now) for ref in refs]
                if not self.workspace.note_written([version for version in written if version]):
                    self._bell.set()
        except StoreUnavailable as error:
            self._store_failed(error)
        else:
            self._unwritten.done(refs)
            self.workspace.problems.set_others("store", self.workspace.store_problems)
            if self._unwritten:
                self._bell.set()
        finally:
            self._writing_statuses = False

    def _write_status(self, ref: api.ObjectRef, now: str) -> int:
        """Write one status; the resourceVersion that this made, 0 if there was nothing to write."""
        changed = False

        def merged(document: dict[str, Any]) -> dict[str, Any] | None:
            nonlocal changed
            status = merge_status(document, self.workspace.statuses.get(ref), now)
            changed = status is not None
            return status if changed else document.get("status")

        try:
            written = self.workspace.store.patch_status(ref, merged)
        except NotFound:
            return 0
        return int(written["metadata"]["resourceVersion"]) if changed else 0

    def _store_failed(self, error: StoreUnavailable) -> None:
        self.workspace.problems.set_others("store", [store_problem(self.options.data_dir, error)])
        self._retry_store()
        self._tell()

    def _retry_store(self) -> None:
        if self._store_retry_at is None:
            self._store_retry_at = time.monotonic() + RETRY_SECONDS

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Print what became wrong or right, and once all is programmed, where it answers."""
        graph = self.workspace.controller.graph
        self.workspace.problems.set_others("proxies", self.plane.problems(self.workspace.manifests.locate))
        if self._bell.is_set() and self._silent < QUIET_TURNS:
            self._silent += 1  # the next turn may mend what this one found
        else:
            self._silent = 0
            self._tell_news()
        self._settled = not (self.plane.pending or self._bell.is_set() or self._unwritten)
        if self._settled and self._unannounced:
            self._unannounced = False
            # Many routes are looked through where ports are new or moved, not whenever a listener changes.
            ports = dict(graph.bound_ports.items())
            if ports != self._announced or len(graph.routes) <= FEW_ROUTES:
                self._announced = ports
                for line in render_urls(graph):
                    self.say(line)

    def _tell_news(self) -> None:
        for notice in self.workspace.notices:
            if notice not in self._noticed:
                self.say(notice)
        self._noticed = frozenset(self.workspace.notices)
        for line in self.workspace.problems.news():
            self.say(line)

    async def _status(self, _arguments: Any) -> dict[str, Any]:
        await self._computed.wait()
        return {"report": self.workspace.report(), "settled": self._settled}

    async def _explain(self, arguments: Any) -> dict[str, Any]:
        await self._computed.wait()
        request = Request(
            arguments["url"],
            arguments.get("method", ""),
            tuple((name, value) for name, value in arguments.get("headers", ())),
            arguments.get("gateway", ""),
            arguments.get("sni"),
            arguments.get("grpc", ""),
        )
        settings = Settings(
            locate=self.workspace.manifests.locate,
            trusted_hops=self.options.trusted_hops,
            candidates=arguments.get("candidates", 20),
        )
        return as_document(explain(self.workspace.controller.graph, request, settings))

    async def _config(self, _arguments: Any) -> dict[str, Any]:
        options = self.options
        return {
            "data-dir": str(options.data_dir),
            "paths": " ".join(options.paths),
            "enable-gateway-api": True,
            "gateway-api-version": "v1.7.0",
            "gateway-api-channel": "experimental",
            "controller-names": " ".join(options.controllers) if options.controllers else "every",
            "echo": options.echo,
            "dev-certs": options.dev_certs,
            "port-offset": options.port_offset,
            "backends": " ".join(
                f"{b.namespace}/{b.service}:{b.port}={b.host}:{b.host_port}" for b in options.backends
            ),
            "concurrency": options.concurrency or "automatic",
            "access-log": options.access_log,
            "backend-statistics": options.backend_statistics,
            "api": self.kubernetes.address if self.kubernetes is not None else False,
            "xds-socket": str(self.plane.proxies.xds_socket),
        }
