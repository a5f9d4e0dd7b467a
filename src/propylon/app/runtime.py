"""The running process without a cluster: files and store in, Envoy processes and statuses out.

One event loop, one batch at a time. Whatever happens (a file, a write to the store, an answer of a proxy) only rings a
bell; a turn then drains all that is queued, computes once and publishes.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from propylon import api
from propylon.app.acknowledgements import Acknowledgements, merge_findings, rejection_findings
from propylon.app.configuration import UpOptions
from propylon.app.control import ControlServer
from propylon.app.controller import Node, Outcome
from propylon.app.ports import PortGuard
from propylon.app.report import Problem
from propylon.app.urls import render_urls
from propylon.app.workspace import Workspace
from propylon.echo.answer import EchoIdentity
from propylon.echo.process import EchoProcess
from propylon.envoy import names
from propylon.graph.model import BackendKey, Endpoint, PortKey
from propylon.proxies.process import ProcessProxies
from propylon.proxies.settings import BackingOff, Exited, ProxyError, ProxyEvent, ProxySettings, Refused, Started
from propylon.status import PortProgrammed, Status, merge_status
from propylon.store import NotFound, StoreUnavailable
from propylon.xds import LDS, Event, Server

log = logging.getLogger("propylon")

RETRY_SECONDS = 1.0
"""How often a port that could not be bound and a status that could not be written are tried again."""

QUIET_TURNS = 3
"""Findings wait while up to so many turns follow each other at once: a missing certificate may be issued next."""


class Runtime:
    """Everything that `propylon up` runs."""

    def __init__(self, options: UpOptions, say: Callable[[str], None]) -> None:
        """`say` prints one line for people. Raises StoreError, ProxyError."""
        self.options = options
        self.say = say
        self.workspace = Workspace(options, options.data_dir, say)
        self.proxies = ProcessProxies(options.data_dir, on_event=self._proxy_event)
        self.xds = Server(on_event=self._xds_event)
        run = self.proxies.run_directory
        self.echo = (
            EchoProcess(run / "echo.sock", options.data_dir / "echo.log", on_moved=self._echo_moved)
            if options.echo
            else None
        )
        self.acknowledgements = Acknowledgements()
        self.guard = PortGuard()
        self.control = ControlServer(
            self.proxies.run_directory / "control.sock", {"status": self._status, "config": self._config}
        )
        self._bell = asyncio.Event()
        self._stopping = asyncio.Event()
        self._told: set[str] = set()
        """Nodes whose proxies spoke since the last turn."""
        self._served: set[Node] = set()
        self._echoed: dict[BackendKey, tuple[Endpoint, ...]] = {}
        self._unwritten: set[api.ObjectRef] = set()
        self._retry_at: float | None = None
        self._settled = False
        self._silent = 0
        self._noticed: frozenset[str] = frozenset()
        self._unannounced = False

    # -- events: they only ring --------------------------------------------------------------------------------------

    def _xds_event(self, event: Event) -> None:
        if self.acknowledgements.accept(event):
            self._told.add(event.node)
            self._bell.set()

    def _proxy_event(self, event: ProxyEvent) -> None:
        if isinstance(event, Started):
            self.acknowledgements.restarted(event.node)
            self._told.add(event.node)
        elif isinstance(event, Exited) and not event.expected:
            self.say(f"proxy of {event.node} ended (pid {event.pid})")
        elif isinstance(event, Refused):
            self.say(f"error: the proxy of {event.node} keeps its old settings: {event.reason}")
        elif isinstance(event, BackingOff):
            self.say(f"proxy of {event.node} starts again in {event.seconds:.1f} s: {event.reason}")
        self._bell.set()

    def _echo_moved(self, identity: EchoIdentity, host: str, port: int) -> None:
        """The echo process was replaced, and another program had taken this port meanwhile."""
        key = BackendKey("Service", identity.namespace, identity.service, identity.port)
        self._echoed[key] = (Endpoint(host, port),)
        self.workspace.controller.sources.fallback_endpoints.set(key, self._echoed[key])
        self._bell.set()

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until told to stop; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)

        def ring() -> None:
            loop.call_soon_threadsafe(self._bell.set)

        unsubscribe = self.workspace.store.subscribe(ring)
        self.workspace.ring = ring
        await self._start()
        watching = asyncio.create_task(self.workspace.files.run(self._stopping), name="watch files")
        try:
            await self._serve(watching)
        finally:
            self.say("stopping: proxies are drained")
            await asyncio.gather(watching, return_exceptions=True)
            unsubscribe()
            await self.control.stop()
            await self.proxies.stop(drain=True)
            await self.xds.stop(0)
            if self.echo is not None:
                await self.echo.stop()
            self.workspace.store.close()
        return 0

    async def _start(self) -> None:
        for node in await self.proxies.start():
            self.guard.trust(node)
            self.say(f"proxy of {node} is still running: adopted")
        if self.echo is not None:
            await self.echo.start()
        await self.control.start()
        await self.xds.start([f"unix:{self.proxies.xds_socket}"])
        self.workspace.files.sync()
        await self._turn()
        await self.proxies.retain(["/".join(node) for node in self._served])

    async def _serve(self, watching: asyncio.Task[None]) -> None:
        stop = asyncio.create_task(self._stopping.wait())
        while not self._stopping.is_set():
            ring = asyncio.create_task(self._bell.wait())
            timeout = max(0.0, self._retry_at - time.monotonic()) if self._retry_at is not None else None
            await asyncio.wait({ring, stop, watching}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            ring.cancel()
            if watching.done() and not self._stopping.is_set():
                watching.result()
            await self._turn()
        stop.cancel()

    # -- one turn ----------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        """Drain, compute, publish. Never raises for what an object, a proxy or the disk may be like."""
        self._bell.clear()
        self._settled = False
        due = self._retry_at is not None and time.monotonic() >= self._retry_at
        if due:
            self._retry_at = None
        try:
            outcome = self.workspace.turn()
        except StoreUnavailable as error:
            self._store_failed(error)
            return
        await self._publish(outcome, retry=due)
        if self.echo is not None:
            await self._echo_for_unserved(self.echo, outcome)
        self._note_acknowledgements(outcome)
        self._write_statuses(outcome)
        self._tell()

    async def _publish(self, outcome: Outcome, *, retry: bool) -> None:
        """Hand changed resources to the xDS server, start proxies of new Gateways, stop those of Gateways gone."""
        graph = self.workspace.controller.graph
        wanted = (
            {key for key, gateway in graph.gateways.items() if gateway.accepted} if outcome.gateways else self._served
        )
        self._unannounced = self._unannounced or bool(outcome.gateways)
        for node in sorted(wanted - self._served):
            outcome.resources.setdefault(node, {})
        held = self.guard.review(graph.ports, outcome.resources, retry=retry)
        for node, port_names in held.released.items():
            for name in port_names:
                resource = self.workspace.controller.resource(node, (LDS, name))
                if resource is not None:
                    outcome.resources.setdefault(node, {})[LDS, name] = resource.body
        for node, changes in outcome.resources.items():
            if node in wanted:
                sent = {name: body for name, body in changes.items() if not self.guard.holds(node, name)}
                self.xds.update("/".join(node), sent, complete=True)
                self._told.add("/".join(node))
        for node in sorted(wanted - self._served):
            await self._start_proxy("/".join(node))
        for node in sorted(self._served - wanted):
            name = "/".join(node)
            self.xds.forget(name)
            self.acknowledgements.forget(name)
            self.guard.forget(node)
            asyncio.get_running_loop().create_task(self.proxies.remove(name), name=f"remove {name}")
        self._served = wanted
        if retry:
            for name in self.acknowledgements.nodes_with_rejections:
                self.xds.retry(name)
        if self.guard.waiting:
            self._retry_later()

    async def _start_proxy(self, node: str) -> None:
        try:
            await self.proxies.ensure(node, ProxySettings(concurrency=self.options.concurrency or 0))
        except (ProxyError, ValueError, OSError) as error:
            self.workspace.problems.set_others(
                f"proxy {node}",
                [Problem("error", "", 0, 0, f"Gateway {node}", "", f"no proxy can be started: {error}")],
            )

    async def _echo_for_unserved(self, echo: EchoProcess, outcome: Outcome) -> None:
        """Have an echo server answer for every Service port that is referred to and has no endpoints of its own."""
        if not outcome.unserved_changed:
            return
        wanted = {key for key, _ in self.workspace.controller.graph.unserved.items()}
        overrides = self.workspace.controller.sources.fallback_endpoints
        for key in sorted(wanted - set(self._echoed)):
            host, port = await echo.ensure(EchoIdentity(key.namespace, key.name, key.port))
            self._echoed[key] = (Endpoint(host, port),)
            overrides.set(key, self._echoed[key])
            self._bell.set()
        for key in sorted(set(self._echoed) - wanted):
            del self._echoed[key]
            overrides.remove(key)
            await echo.release(EchoIdentity(key.namespace, key.name, key.port))
            self._bell.set()

    # -- acknowledgements and statuses -------------------------------------------------------------------------------

    def _note_acknowledgements(self, outcome: Outcome) -> None:
        """Bring what proxies said into the engine: it becomes `Programmed`."""
        controller = self.workspace.controller
        nodes = {*self._told, *("/".join(node) for node in (*outcome.resources, *outcome.gateways))}
        self._told = set()
        if not nodes:
            return
        for name in nodes:
            self.acknowledgements.drop_outdated(name, self.xds.desired(name))
        for key in [key for key, _ in controller.programmed.items() if key not in controller.graph.ports]:
            controller.programmed.remove(key)
            self._bell.set()
        for key in controller.graph.ports:
            if "/".join(key.gateway) in nodes:
                state = self._port_state(key)
                if controller.programmed.get(key) != state:
                    controller.programmed.set(key, state)
                    self._bell.set()
        self._note_rejections()

    def _port_state(self, key: PortKey) -> PortProgrammed:
        if (obstacle := self.guard.obstacle(key)) is not None:
            return PortProgrammed(state="Rejected", message=obstacle)
        name = names.listener(key)
        resource = self.workspace.controller.resource(key.gateway, (LDS, name))
        return self.acknowledgements.port_state("/".join(key.gateway), name, resource.body if resource else None)

    def _note_rejections(self) -> None:
        controller = self.workspace.controller
        several = []
        for name in self.acknowledgements.nodes_with_rejections:
            node = api.ObjectKey(*name.split("/", 1))
            refused = self.acknowledgements.rejected(name)
            origins = {r: found.origins for r in refused if (found := controller.resource(node, r)) is not None}
            several.append(rejection_findings(refused, origins))
            if any(type_url == LDS for type_url, _ in refused):
                self._retry_later()
        merged = merge_findings(several)
        before = dict(controller.rejections.items())
        if merged != before:
            controller.rejections.replace(merged)
            self._bell.set()

    def _write_statuses(self, outcome: Outcome) -> None:
        """Write what changed, in one transaction; what cannot be written now is written later."""
        refs = {*outcome.statuses, *self._unwritten}
        if not refs:
            return
        self._unwritten = set()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        store, statuses = self.workspace.store, self.workspace.statuses

        def merged(desired: Status | None) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
            return lambda document: merge_status(document, desired, now) or document.get("status")

        try:
            with store.transaction():
                for ref in sorted(refs):
                    try:
                        store.patch_status(ref, merged(statuses.get(ref)))
                    except NotFound:
                        continue
        except StoreUnavailable as error:
            self._unwritten = refs
            self._store_failed(error)
        else:
            self.workspace.problems.set_others("store", ())

    def _store_failed(self, error: StoreUnavailable) -> None:
        problem = Problem("error", str(self.options.data_dir), 0, 0, "", "", error.message, error.remedy)
        self.workspace.problems.set_others("store", [problem])
        self._retry_later()
        self._tell()

    def _retry_later(self) -> None:
        if self._retry_at is None:
            self._retry_at = time.monotonic() + RETRY_SECONDS

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Print what became wrong or right, and once all is programmed, where it answers."""
        graph = self.workspace.controller.graph
        self.workspace.problems.set_others("ports", self.guard.problems(graph.ports, self.workspace.manifests.locate))
        if self._bell.is_set() and self._silent < QUIET_TURNS:
            self._silent += 1  # the next turn may mend what this one found
        else:
            self._silent = 0
            self._tell_news()
        pending = [
            k
            for k, _ in graph.ports.items()
            if (s := self.workspace.controller.programmed.get(k)) is None or s.state == "Pending"
        ]
        self._settled = not pending and not self._bell.is_set() and not self._unwritten
        if self._settled and self._unannounced:
            self._unannounced = False
            for line in render_urls(graph):
                self.say(line)

    def _tell_news(self) -> None:
        for notice in self.workspace.notices:
            if notice not in self._noticed:
                self.say(notice)
        self._noticed = frozenset(self.workspace.notices)
        for new, what in self.workspace.problems.news():
            if isinstance(what, Problem):
                self.say(f"{what.severity if new else 'mended'}: {what.line_of_text()}")
            else:
                self.say(f"mended: {what}")

    async def _status(self, _arguments: Any) -> dict[str, Any]:
        return {"report": self.workspace.report(), "settled": self._settled}

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
            "xds-socket": str(self.proxies.xds_socket),
        }
