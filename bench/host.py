"""A propylon of the bench's own: the same `Runtime` as `propylon up`, told over standard input what to store.

Answers every line with one JSON line. Runs in a process of its own, so that what asks and what measures take no time
from it.
"""

import asyncio
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

from propylon.app.memory import hold_collection

hold_collection()  # as `propylon up` does, before it imports the rest

from bench.commands import serve  # noqa: E402
from propylon import api  # noqa: E402
from propylon.app.configuration import UpOptions  # noqa: E402
from propylon.app.runtime import Runtime  # noqa: E402
from propylon.proxies import process  # noqa: E402
from propylon.store import LocalStore, NotFound  # noqa: E402

MANAGER = "bench"
NAMESPACE = "bench"
LOOK_SECONDS = 0.005


def preload(directory: Path, file: Path) -> None:
    """Put documents (a JSON array in `file`) into the store of a data directory, as if they had been there before."""
    directory.mkdir(parents=True, exist_ok=True)
    store = LocalStore(directory)
    try:
        store.apply_many(json.loads(file.read_bytes()), MANAGER, create_namespace=True)
    finally:
        store.close()


def _says_programmed(status: dict[str, Any] | None) -> bool:
    conditions = (status or {}).get("conditions", ())
    return any(c["type"] == "Programmed" and c["status"] == "True" for c in conditions)


class Host:
    """Executes commands beside a running Runtime; called from the thread that reads standard input."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> int:
        """The runtime, from beginning to end."""
        return await self.runtime.run()

    def apply(self, documents: list[dict[str, Any]]) -> dict[str, Any]:
        """Write to the store in one transaction. It is durable when this returns."""
        self.runtime.workspace.store.apply_many(documents, MANAGER)
        return {}

    def nothing(self, _documents: list[dict[str, Any]]) -> dict[str, Any]:
        """What it takes to be told."""
        return {}

    def delete(self, kind: str, name: str) -> dict[str, Any]:
        """Delete an object of the Gateway API in the bench's namespace."""
        self.runtime.workspace.store.delete(api.ObjectRef(api.GATEWAY_GROUP, kind, NAMESPACE, name))
        return {}

    def usage(self) -> dict[str, Any]:
        """CPU seconds of this process so far, exact."""
        return {"cpu": time.process_time()}

    def proxies(self) -> dict[str, Any]:
        """Process ids of the proxies."""
        return {"pids": [state.pid for state in self.runtime.plane.proxies.states().values() if state.pid]}

    def xds(self) -> dict[str, Any]:
        """Where proxies are told their configuration."""
        return {"socket": str(self.runtime.plane.proxies.xds_socket)}

    def replace(self, namespace: str, name: str, log_level: str) -> dict[str, Any]:
        """Have a Gateway's proxy run with another log level, which needs a new process: a hot restart."""
        if self.loop is None:
            raise RuntimeError("not running yet")
        key = api.ObjectKey(namespace, name)
        configure = functools.partial(self.runtime.plane.configure, key, concurrency=None, log_level=log_level)
        self.loop.call_soon_threadsafe(configure)
        return {}

    def programmed(self, namespace: str, name: str) -> dict[str, Any]:
        """Whether the Gateway's status says Programmed=True: all of it is acknowledged and written. What the status
        says from the life of another process does not count.
        """
        ref = api.ObjectRef(api.GATEWAY_GROUP, "Gateway", namespace, name)
        workspace = self.runtime.workspace
        if not _says_programmed(workspace.statuses.get(ref)):
            return {"programmed": False}
        try:
            return {"programmed": _says_programmed(workspace.store.get(ref).get("status"))}
        except NotFound:
            return {"programmed": False}

    def idle(self) -> dict[str, Any]:
        """Whether every change has been worked off and acknowledged."""
        return {"idle": self.runtime.settled}

    def settle(self) -> dict[str, Any]:
        """Return when every change has been worked off, or after a minute.

        Looked at in here: each `idle` from outside takes 0.15 ms of CPU, a twentieth of what a change costs.
        """
        deadline = time.monotonic() + 60
        time.sleep(LOOK_SECONDS)  # the loop has to hear of the change first
        while not self.runtime.settled and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return {"idle": self.runtime.settled}


def main() -> None:
    what, data_dir, *paths = sys.argv[1:]
    if what == "--preload":
        preload(Path(data_dir), Path(paths[0]))
        return
    options = json.loads(what)
    if options["envoy"]:
        process.embedded_envoy = lambda: Path(options["envoy"])
    runtime = Runtime(
        UpOptions(
            data_dir=Path(data_dir), paths=tuple(paths), concurrency=1, access_log=options["access_log"], api=False
        ),
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    serve(Host(runtime))


if __name__ == "__main__":
    main()
