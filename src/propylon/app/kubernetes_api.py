"""The embedded Kubernetes API as a part of `propylon up`: there before the control plane, told of, stopped after it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from propylon import api
from propylon.app.configuration import UpOptions
from propylon.server.machine import LogOptions, MachineStore, OwnLog
from propylon.server.service import ApiServer, ApiServerError


class KubernetesApi:
    """One server over one store; its failure is told and ends nothing else.

    It needs neither the control plane nor its libraries, so it serves while those are still being read: what is
    written meanwhile is found in the store by the first turn.
    """

    def __init__(self, options: UpOptions, store: MachineStore, say: Callable[[str], None]) -> None:
        """`say` is also called in the server's thread."""
        self.store = store
        self._say = say
        self._own_log: OwnLog | None = None
        self._begun = False
        host, port = options.api_host, options.api_port
        self.server = ApiServer(store, options.data_dir, host=host, port=port, ready=self._announce, own_log=self._log)

    @property
    def address(self) -> str:
        """The URL of the server; "not served" if it failed."""
        return self.server.address if self.server.error is None else "not served"

    def start(self) -> None:
        """Start, and wait until requests are answered or the failure is told."""
        self._begun = True
        self.server.start()
        with contextlib.suppress(ApiServerError):
            self.server.wait_ready()

    def stop(self) -> None:
        """End the server, if it runs. Waits for it."""
        if self._begun:
            self.server.stop()

    def show_logs(self, own_log: OwnLog) -> None:
        """From now on ask `own_log`, in the server's thread, for the logs of the proxies' Pods."""
        self._own_log = own_log

    def _log(self, ref: api.ObjectRef, options: LogOptions) -> AsyncIterator[bytes] | None:
        return None if self._own_log is None else self._own_log(ref, options)

    def _announce(self, server: ApiServer) -> None:
        """Called in the server's thread."""
        if server.error is not None:
            self._say(f"error: the Kubernetes API does not run: {server.error}")
            return
        self._say(f'Kubernetes API at {server.address}; use it with: eval "$(propylon env)"')
