"""`propylon controller` in process mode, told over standard input what to tell: the same `ClusterRuntime`."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from bench.commands import serve
from propylon import api
from propylon.app.cluster import ClusterOptions, ClusterRuntime
from propylon.store.cluster import load_credentials


class ClusterHost:
    """Executes commands beside a running ClusterRuntime; called from the thread that reads standard input."""

    def __init__(self, options: ClusterOptions, kubeconfig: str) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._options = options
        self._kubeconfig = kubeconfig
        self._runtime: ClusterRuntime | None = None

    async def run(self) -> int:
        """The runtime, from beginning to end."""
        credentials = load_credentials(self._kubeconfig, None)
        self._runtime = ClusterRuntime(
            self._options, credentials, lambda line: print(line, file=sys.stderr, flush=True)
        )
        return await self._runtime.run()

    @property
    def runtime(self) -> ClusterRuntime:
        """What runs. Raises RuntimeError before it does."""
        if self._runtime is None:
            raise RuntimeError("not running yet")
        return self._runtime

    def usage(self) -> dict[str, Any]:
        """CPU seconds of this process so far, exact."""
        return {"cpu": time.process_time()}

    def proxies(self) -> dict[str, Any]:
        """Process ids of the proxies."""
        return {"pids": [state.pid for state in self.runtime.data_plane.proxies.states().values() if state.pid]}

    def programmed(self, namespace: str, name: str) -> dict[str, Any]:
        """Whether the Gateway is programmed and every status written."""
        if self._runtime is None:
            return {"programmed": False}
        status = self.runtime.statuses.get(api.ObjectRef(api.GATEWAY_GROUP, "Gateway", namespace, name)) or {}
        programmed = any(c["type"] == "Programmed" and c["status"] == "True" for c in status.get("conditions", []))
        return {"programmed": programmed and self.runtime.settled}

    def idle(self) -> dict[str, Any]:
        """Whether every kind is known, and every change that was seen worked off, acknowledged and written."""
        return {"idle": self._runtime is not None and self.runtime.settled}


def main() -> None:
    data_dir, kubeconfig = sys.argv[1:]
    options = ClusterOptions(
        data_dir=Path(data_dir),
        controller_name="propylon.dev/gateway-controller",
        concurrency=1,
        access_log=False,
        leader_elect=False,
    )
    serve(ClusterHost(options, kubeconfig))


if __name__ == "__main__":
    main()
