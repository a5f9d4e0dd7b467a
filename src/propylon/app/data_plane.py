"""Proxies and what they are told: the half of a running process that does not depend on where objects come from."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from propylon import api
from propylon.app.acknowledgements import Acknowledgements, merge_findings, rejection_findings
from propylon.app.controller import Controller, Node, Outcome, ResourceName
from propylon.app.form_changes import FormChanges
from propylon.app.ports import PortGuard
from propylon.app.report import Problem
from propylon.envoy import names
from propylon.graph.model import PortKey
from propylon.proxies.process import ProcessProxies
from propylon.proxies.settings import BackingOff, Exited, ProxyError, ProxyEvent, ProxySettings, Refused, Started
from propylon.status import ChainPlace, PortProgrammed
from propylon.xds import FCDS, LDS, Acknowledged, Connected, Event, Rejected, Server

RETRY_SECONDS = 1.0
"""How often a port that could not be bound is tried again."""

WORTH_TELLING = 500
"""So many resources are told ahead at once at least, by Gateway: a hundred proxies that were told of a hundred little
worlds in pieces took longer than if they were told at the end (docs/design/013)."""

STARTING = 3 * (os.cpu_count() or 1)
"""So many proxies start at a time while it is being computed what they serve. Each competes with the computation, but
what it takes in the meantime nobody has to wait for afterwards."""


class DataPlane:
    """The xDS server, the proxies, and the way back from acknowledgements to `Programmed`.

    `ring` is called whenever another turn is due. All methods belong to one event loop.
    """

    def __init__(
        self,
        controller: Controller,
        data_dir: Path,
        *,
        ring: Callable[[], None],
        say: Callable[[str], None],
        concurrency: int = 0,
    ) -> None:
        """Raises ProxyError if the data directory cannot be used."""
        self.controller = controller
        self.proxies = ProcessProxies(data_dir, on_event=self._proxy_event)
        self.xds = Server(on_event=self._xds_event, on_demand=names.is_on_demand, awaits=names.awaited_endpoints)
        self.acknowledgements = Acknowledgements()
        self.guard = PortGuard()
        self.form_changes = FormChanges(controller.engine, controller.forms)
        self.retry_at: float | None = None
        """When (`time.monotonic`) what did not work is to be tried again."""
        self.awaits_answers = False
        """Whether `ring` is to be called too when a proxy has everything that was sent, if nothing else comes of it."""
        self.watch_proxies: Callable[[ProxyEvent], None] = lambda _event: None
        """Told of everything that happens to a proxy."""
        self._ring = ring
        self._say = say
        self._settings = ProxySettings(concurrency=concurrency)
        self._settings_of: dict[Node, ProxySettings] = {}
        """Where a Gateway's parameters say otherwise."""
        self._told: set[str] = set()
        """Nodes whose proxies spoke since the last turn."""
        self._chains: dict[str, set[str]] = {}
        """By node, the filter chains that changed and were not acknowledged when it was last looked."""
        self._served: set[Node] = set()
        self._held: dict[Node, dict[ResourceName, bytes | None]] = {}
        """By node, what its proxies could be told ahead, as long as it is little."""
        self._begun: set[Node] = set()
        """Nodes whose proxies were started before it was known what they serve."""
        self._waiting: list[Node] = []
        """Nodes whose proxies can be started ahead, the next one last."""
        self._starting: set[str] = set()
        """Those of them that were started and have not connected yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: dict[str, Problem] = {}
        self._pending = -1, True
        """The engine's count of batches when `pending` was found out, and what came of it."""

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Adopt proxies that still run, and serve xDS. Raises ProxyError."""
        for node in await self.proxies.start():
            self.guard.trust(node)
            self._say(f"proxy of {node} is still running: adopted")
        await self.xds.start([f"unix:{self.proxies.xds_socket}"])

    async def retain(self) -> None:
        """After the first publication: remove adopted proxies whose Gateways are gone."""
        await self.proxies.retain(["/".join(node) for node in self._served])

    async def stop(self) -> None:
        """Drain and stop every proxy."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.proxies.stop(drain=True)
        await self.xds.stop(0)

    # -- events: they only ring --------------------------------------------------------------------------------------

    def _xds_event(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._started(event.node)
        if self.acknowledgements.accept(event):
            self._told.add(event.node)
            self._ring()
        elif self.awaits_answers and isinstance(event, Acknowledged | Rejected) and event.all_settled:
            self._ring()

    def _proxy_event(self, event: ProxyEvent) -> None:
        if isinstance(event, Started):
            self.acknowledgements.restarted(event.node)
            self._told.add(event.node)
        elif isinstance(event, Exited) and not event.expected:
            self._say(f"proxy of {event.node} ended (pid {event.pid})")
        elif isinstance(event, Refused):
            self._say(f"error: the proxy of {event.node} keeps its old settings: {event.reason}")
        elif isinstance(event, BackingOff):
            self._started(event.node)
            self._say(f"proxy of {event.node} starts again in {event.seconds:.1f} s: {event.reason}")
        self.watch_proxies(event)
        self._ring()

    # -- out ---------------------------------------------------------------------------------------------------------

    def retry_is_due(self) -> bool:
        """Whether what did not work is to be tried again now; asking takes the note away."""
        if self.retry_at is None or time.monotonic() < self.retry_at:
            return False
        self.retry_at = None
        return True

    def publish_ahead(self, resources: Mapping[Node, Mapping[ResourceName, bytes | None]]) -> None:
        """Start proxies, some at a time, and have those that are new told of clusters, endpoints and Secrets, while it
        is still being found out what they serve; what is little is told later. What is published next is the rest.
        """
        wanted = {key for key, gateway in self.controller.graph.gateways.items() if gateway.accepted}
        self._waiting = sorted(wanted - self._served - self._begun, reverse=True)
        self._begin_waiting()
        for node in sorted(wanted.intersection(resources)):
            held = self._held.setdefault(node, {})
            held.update(resources[node])
            if len(held) >= WORTH_TELLING:
                self.xds.update("/".join(node), self._held.pop(node))
                self._begin({node})

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._starting) < STARTING:
            node = self._waiting.pop()
            self._starting.add("/".join(node))
            self._begin({node})

    def _started(self, name: str) -> None:
        """A proxy has started, or does not: another one may."""
        if name in self._starting:
            self._starting.remove(name)
            self._begin_waiting()

    def _begin(self, nodes: set[Node]) -> None:
        for node in sorted(nodes - self._served - self._begun):
            self._begun.add(node)
            self._in_background(self._start_proxy("/".join(node)))

    def publish(self, outcome: Outcome, *, retry: bool) -> None:
        """Hand changed resources to the xDS server, start proxies of new Gateways, stop those of Gateways gone."""
        graph = self.controller.graph
        wanted = (
            {key for key, gateway in graph.gateways.items() if gateway.accepted} if outcome.gateways else self._served
        )
        if wanted is not self._served:
            for node in wanted - self._served:
                outcome.resources.setdefault(node, {})
        held = self.guard.review(graph.bound_ports, outcome.resources, retry=retry)
        for node, port_names in held.released.items():
            for name in port_names:
                resource = self.controller.resource(node, (LDS, name))
                if resource is not None:
                    outcome.resources.setdefault(node, {})[LDS, name] = resource.body
        for node, changes in outcome.resources.items():
            if node in wanted:
                self._send("/".join(node), node, changes)
        if wanted is not self._served or self._begun:
            for node in sorted((self._served | self._begun) - wanted):
                self._withdraw(node)
            # In the background: a successor of the same name waits there until its predecessor is drained.
            for node in sorted(wanted - self._served - self._begun):
                self._in_background(self._start_proxy("/".join(node)))
            self._served, self._begun = wanted, set()
        self._waiting.clear()
        self._starting.clear()
        self._held.clear()
        if retry:
            for name in self.acknowledgements.nodes_with_rejections:
                self.xds.retry(name)
        if self.guard.waiting:
            self._retry_later()
        if self.form_changes.follow(time.monotonic()):
            self._ring()
        again = self.form_changes.next_at
        if again is not None:
            self.retry_at = again if self.retry_at is None else min(again, self.retry_at)

    def _send(self, name: str, node: Node, changes: Mapping[ResourceName, bytes | None]) -> None:
        """Hand changes of a node to the xDS server, and note whether they may change what is programmed."""
        sent = changes
        if self.guard.waiting:
            sent = {name: body for name, body in changes.items() if not self.guard.holds(node, name)}
        self.xds.update(name, sent, complete=True)
        kinds = {kind for kind, _ in changes}
        if FCDS in kinds:
            self._chains.setdefault(name, set()).update(chain for kind, chain in sent if kind == FCDS)
        if not changes or LDS in kinds or FCDS in kinds or name in self.acknowledgements.nodes_with_rejections:
            self._told.add(name)

    def configure(self, node: Node, *, concurrency: int | None, log_level: str | None) -> None:
        """Say how the proxy of a Gateway is to run, None where nothing is asked for; a running one is replaced."""
        asked = {"concurrency": concurrency, "log_level": log_level}
        settings = msgspec.structs.replace(self._settings, **{k: v for k, v in asked.items() if v is not None})
        if settings == self._settings_of.get(node, self._settings):
            return
        self._settings_of[node] = settings
        if node in self._served:
            self._in_background(self._start_proxy("/".join(node)))

    def _withdraw(self, node: Node) -> None:
        name = "/".join(node)
        self.xds.forget(name)
        self.acknowledgements.forget(name)
        self.guard.forget(node)
        self._failures.pop(name, None)
        self._chains.pop(name, None)
        self._settings_of.pop(node, None)
        self._in_background(self.proxies.remove(name))

    async def _start_proxy(self, node: str) -> None:
        self._failures.pop(node, None)
        try:
            settings = self._settings_of.get(api.ObjectKey(*node.split("/", 1)), self._settings)
            await self.proxies.ensure(node, settings)
        except (ProxyError, ValueError, OSError) as error:
            message = f"no proxy can be started: {error}"
            self._failures[node] = Problem("error", "", 0, 0, f"Gateway {node}", "", message)
            self._ring()

    def _in_background(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- back --------------------------------------------------------------------------------------------------------

    def note_acknowledgements(self, outcome: Outcome) -> None:
        """Bring what proxies said into the engine: it becomes `Programmed` with the next commit.

        Of the nodes that were published (`outcome`) those are looked at of which something changed that is programmed
        or refused: a Listener, a filter chain, a Gateway. All else is as it was.
        """
        controller = self.controller
        if not (self._told or outcome.gateways):
            return
        nodes = {*self._told, *map("/".join, outcome.gateways)}
        self._told = set()
        for name in nodes.intersection(self.acknowledgements.nodes_with_rejections):
            self.acknowledgements.drop_outdated(name, self.xds.desired(name))
        ports = controller.graph.ports
        gone = [key for key in controller.programmed if (key.port if isinstance(key, ChainPlace) else key) not in ports]
        for key in gone:
            controller.programmed.remove(key)
            self._ring()
        for key in controller.graph.ports:
            if (name := "/".join(key.gateway)) in nodes:
                state = self._port_state(key)
                if controller.programmed.get(key) != state:
                    controller.programmed.set(key, state)
                    if name in self._chains:  # told of when that of their port is committed
                        self._told.add(name)
                    self._ring()
        for name in nodes.intersection(self._chains):
            self._note_chains(name)
        self._note_rejections()

    def _note_chains(self, name: str) -> None:
        """Tell of filter chains that the proxies do not have although they have the Listener, until they do."""
        programmed, waiting = self.controller.programmed, self._chains[name]
        node = api.ObjectKey(*name.split("/", 1))
        for chain in sorted(waiting):
            port, sni = names.place_of_chain(chain)
            key = ChainPlace(PortKey(node, port, "TCP"), sni)
            resource = self.controller.resource(node, (FCDS, chain))
            state = self.acknowledgements.state(name, (FCDS, chain), resource.body) if resource is not None else None
            if state is None or state.state == "Programmed":
                waiting.discard(chain)
                if key in programmed:
                    programmed.remove(key)
                    self._ring()
                continue
            at = programmed.get(key.port)
            if at is not None and at.state != "Pending" and programmed.get(key) != state:
                programmed.set(key, state)
                self._ring()
        if not waiting:
            del self._chains[name]

    def _port_state(self, key: PortKey) -> PortProgrammed:
        if (obstacle := self.guard.obstacle(key)) is not None:
            return PortProgrammed(state="Rejected", message=obstacle)
        name = names.listener(key)
        resource = self.controller.resource(key.gateway, (LDS, name))
        node = "/".join(key.gateway)
        if resource is None:
            return self.acknowledgements.port_state(node, name, None)
        return self.acknowledgements.port_state(node, name, resource.body, resource.inside)

    def _note_rejections(self) -> None:
        several = []
        for name in self.acknowledgements.nodes_with_rejections:
            node = api.ObjectKey(*name.split("/", 1))
            refused = self.acknowledgements.rejected(name)
            origins = {r: found.origins for r in refused if (found := self.controller.resource(node, r)) is not None}
            several.append(rejection_findings(refused, origins))
            if any(type_url == LDS for type_url, _ in self.acknowledgements.own.refused.get(name, ())):
                self._retry_later()
        merged = merge_findings(several)
        if merged != dict(self.controller.rejections.items()):
            self.controller.rejections.replace(merged)
            self._ring()

    def _retry_later(self) -> None:
        if self.retry_at is None:
            self.retry_at = time.monotonic() + RETRY_SECONDS

    def problems(self, locate: Callable[[api.ObjectRef, str], tuple[str, int, int]]) -> Iterable[Problem]:
        """Ports that are held back, and proxies that cannot be started."""
        if not self.guard.waiting:
            return tuple(self._failures.values())
        return (*self.guard.problems(self.controller.graph.ports, locate), *self._failures.values())

    @property
    def pending(self) -> bool:
        """Whether any port or discovered filter chain waits for its proxy."""
        batches = self.controller.engine.batches
        if self._pending[0] != batches:
            programmed = self.controller.programmed
            self._pending = (
                batches,
                any(key not in programmed for key in self.controller.graph.ports)
                or any(state.state == "Pending" for _, state in programmed.items()),
            )
        return self._pending[1]
