"""xDS for proxies that somebody else runs: over TCP, with certificates on both sides, from every replica."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from propylon.app.cluster_authority import Identities
from propylon.app.controller import Controller, Node
from propylon.app.data_plane import DataPlane
from propylon.app.ports import PortGuard, Review
from propylon.app.replicas import LargeTables, Listener, Reporter
from propylon.envoy import names
from propylon.graph.model import RouteTableKey
from propylon.proxies.kubernetes.authority import admits
from propylon.xds import Connected, Disconnected, Event, Server

ABSENCE_SECONDS = 10.0
"""A Gateway none of whose proxies came back after so long is not programmed; a replica that was not heard of for so
long is forgotten."""


class _NoGuard(PortGuard):
    """Ports of a pod belong to nobody else."""

    def holds(self, node: Node, name: tuple[str, str]) -> bool:
        del node, name
        return False

    def review(self, *_arguments: Any, **_options: Any) -> Review:
        return Review({})


class PodDataPlane(DataPlane):
    """The xDS server for proxies that somebody else runs: over TCP, with certificates on both sides."""

    def __init__(
        self,
        controller: Controller,
        data_dir: Any,
        *,
        ring: Callable[[], None],
        say: Callable[[str], None],
        listen: str,
        identities: Identities,
    ) -> None:
        """Raises ProxyError if the data directory cannot be used."""
        super().__init__(controller, data_dir, ring=ring, say=say)
        self.guard = _NoGuard()
        self._listen = listen
        self._identities = identities
        self._rung = ring
        self.xds = Server(
            on_event=self._pod_event,
            admit=_admit,
            on_demand=names.is_on_demand,
            awaits=names.awaited_endpoints,
        )
        self.serving = False
        large = LargeTables(self._large_tables, self._adopt_tables)
        self.listener = Listener(self.acknowledgements, large, self._tell, grace=ABSENCE_SECONDS)
        self.reporter = Reporter(self.acknowledgements.own, large, identities)

    def introduce(self, identity: str, release: str) -> None:
        """Say who this is to other replicas: as what it takes part in the election, and what makes its resources."""
        for end in (self.listener, self.reporter):
            end.identity, end.release = identity, release

    async def start(self) -> None:
        """Nothing to adopt, and xDS is served when all is known."""

    async def retain(self) -> None:
        """Pods are retained by who applies them."""

    async def serve(self) -> None:
        """Let proxies in. Raises RuntimeError if the address cannot be bound."""
        if not self.serving:
            credentials = self._identities.server_credentials()
            await self.xds.start([self._listen], credentials, [self.listener.handler])
            self.serving = True

    async def close(self) -> None:
        """Send proxies away, to other replicas; they keep what they have."""
        if self.serving:
            self.serving = False
            await self.xds.stop(0)
            await self.listener.ended()

    async def stop(self) -> None:
        """The proxies go on."""
        await self.close()

    def configure(self, node: Node, *, concurrency: int | None, log_level: str | None) -> None:
        """Pods are configured by their Deployment."""

    def _withdraw(self, node: Node) -> None:
        name = "/".join(node)
        self.xds.forget(name)
        self.acknowledgements.forget(name)

    async def _start_proxy(self, node: str) -> None:
        """Its pods come with its objects."""

    def _pod_event(self, event: Event) -> None:
        self._xds_event(event)
        if isinstance(event, Connected):
            self._tell((event.node,))
        elif isinstance(event, Disconnected) and event.last:
            asyncio.get_running_loop().call_later(ABSENCE_SECONDS, self._absent, event.node)

    def _absent(self, node: str) -> None:
        if self.serving and node not in self.acknowledgements.own.connected:
            self.acknowledgements.restarted(node)
            self._tell((node,))

    def _tell(self, nodes: Iterable[str]) -> None:
        """There is something new of nodes."""
        self._told.update(nodes)
        self._rung()

    def _large_tables(self) -> set[RouteTableKey]:
        return self.form_changes.large

    def _adopt_tables(self, tables: Iterable[RouteTableKey]) -> None:
        if self.form_changes.adopt(tables, time.monotonic()):
            self._rung()


def _admit(node: str, peer: Mapping[str, Any]) -> bool:
    return admits(node, [uri.decode(errors="replace") for uri in peer.get("peer_uri", ())])
