"""The embedded Kubernetes API as a part of `propylon up`: started when serving has begun, told of, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from propylon.app.configuration import UpOptions
from propylon.server.machine import OwnLog
from propylon.server.service import ApiServer
from propylon.store import LocalStore

START_AFTER_SECONDS = 2.0
"""The server starts when all is programmed, so that it delays nothing; after so long it starts whatever is pending."""


class KubernetesApi:
    """Starts the server once; its failure is told and ends nothing else."""

    def __init__(self, options: UpOptions, store: LocalStore, say: Callable[[str], None], own_log: OwnLog) -> None:
        """`own_log` is asked, in the server's thread, for the logs of the proxies' Pods."""
        self._say = say
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = False
        host, port = options.api_host, options.api_port
        self.server = ApiServer(store, options.data_dir, host=host, port=port, ready=self._on_ready, own_log=own_log)

    @property
    def address(self) -> str:
        """The URL of the server, once it is there."""
        return self.server.address if self.server.port else "starting"

    def schedule(self) -> None:
        """Start soon, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(START_AFTER_SECONDS, self.start)

    def start(self) -> None:
        """Start now, if that has not been done."""
        if not self._started and self._loop is not None:
            self._started = True
            self.server.start()

    async def stop(self) -> None:
        """End the server."""
        if self._started:
            await asyncio.to_thread(self.server.stop)
        self._started = True  # a late timer starts nothing

    def _on_ready(self, server: ApiServer) -> None:
        """Called in the server's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._announce, server)

    def _announce(self, server: ApiServer) -> None:
        if server.error is not None:
            self._say(f"error: the Kubernetes API does not run: {server.error}")
            return
        self._say(f'Kubernetes API at {server.address}; use it with: eval "$(propylon env)"')
