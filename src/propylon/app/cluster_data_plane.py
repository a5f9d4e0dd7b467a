"""xDS for proxies that somebody else runs: over TCP, with certificates on both sides, from whoever leads."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from propylon.app.cluster_authority import Identities
from propylon.app.controller import Controller, Node
from propylon.app.data_plane import DataPlane
from propylon.app.ports import PortGuard, Review
from propylon.proxies.kubernetes.authority import admits
from propylon.xds import Connected, Disconnected, Event, Server

ABSENCE_SECONDS = 10.0
"""A Gateway none of whose proxies came back after so long is not programmed."""


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
        self.xds = Server(on_event=self._pod_event, admit=_admit)
        self.connected: set[str] = set()
        """Nodes with at least one proxy."""
        self.serving = False

    async def start(self) -> None:
        """Nothing to adopt, and xDS is served by the leader only."""

    async def retain(self) -> None:
        """Pods are retained by who applies them."""

    async def serve(self) -> None:
        """Let proxies in. Raises RuntimeError if the address cannot be bound."""
        if not self.serving:
            await self.xds.start([self._listen], self._identities.server_credentials())
            self.serving = True

    async def close(self) -> None:
        """Send proxies away, to whoever leads now; they keep what they have."""
        if self.serving:
            self.serving = False
            await self.xds.stop(0)

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
        if isinstance(event, Connected):
            self.connected.add(event.node)
            self._rung()
        elif isinstance(event, Disconnected) and event.last:
            self.connected.discard(event.node)
            asyncio.get_running_loop().call_later(ABSENCE_SECONDS, self._absent, event.node)
        self._xds_event(event)

    def _absent(self, node: str) -> None:
        if self.serving and node not in self.connected:
            self.acknowledgements.restarted(node)
            self._told.add(node)
            self._rung()


def _admit(node: str, peer: Mapping[str, Any]) -> bool:
    return admits(node, [uri.decode(errors="replace") for uri in peer.get("peer_uri", ())])
