"""Plays scheduler and kubelet of a cluster with one node: pods become processes.

Every pod is bound to the node and runs in a network namespace of its own. Without a readiness probe a pod is Ready once
something listens in it, a little later than a kubelet would say so and never too early.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import httpx

from . import netns
from .api import Api, ApiError, Object
from .containers import NotYetError, Program, UnsupportedError, environment, prepare, program_for, write_volumes
from .logs import KUBELET_PORT, Log, LogServer
from .pki import Authority
from .probes import is_ready
from .processes import ProcessFailedError, end_group

NODE = "conformance"
_RETRY_SECONDS = 0.3
_BACKOFF_SECONDS = (0.5, 1, 2, 5, 10)
_GRACE_SECONDS = 5

logger = logging.getLogger(__name__)


class Kubelet:
    """Watches all pods and runs them until ``stop``.

    ``directory`` holds their files while they run, ``logs`` keeps what they print.
    """

    def __init__(self, api: Api, directory: Path, logs: Path, programs: Mapping[str, Program]) -> None:
        self._api = api
        self._directory = directory
        self._logs = logs
        self._programs = programs
        self._network = netns.PodNetwork()
        self._pods: dict[str, _Pod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log_server = LogServer(self._log)
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, authority: Authority) -> None:
        """Registers the node, serves logs, and starts watching."""
        certificate, key = authority.issue("kubelet", f"system:node:{NODE}", names=[netns.NODE_IP, NODE])
        await self._log_server.start(netns.NODE_IP, authority.server_context(certificate, key))
        await self._api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        await self._api.merge(f"/api/v1/nodes/{NODE}/status", {"status": _node_status()})
        self._watching = asyncio.create_task(self._watch())

    def check(self) -> None:
        """Raises what ended the watch, if something did."""
        if self._watching is not None and self._watching.done() and not self._watching.cancelled():
            self._watching.result()

    @property
    def running(self) -> int:
        """How many pods have processes now."""
        return len(self._pods)

    async def stop(self) -> None:
        """Ends all pods' processes, leaving the objects as they are."""
        self._stopping = True
        if self._watching is not None:
            self._watching.cancel()
        for pod in self._pods.values():
            pod.cancel()
        await asyncio.gather(*self._tasks, *([self._watching] if self._watching else []), return_exceptions=True)
        await self._log_server.stop()

    async def _watch(self) -> None:
        async for kind, item in self._api.follow("/api/v1/pods"):
            if kind == "SYNC":
                listed = {pod["metadata"]["uid"]: pod for pod in item["items"]}
                for uid in self._pods.keys() - listed.keys():
                    self._pods[uid].cancel()
                for pod in listed.values():
                    self._changed(pod)
            elif kind == "DELETED":
                if running := self._pods.get(item["metadata"]["uid"]):
                    running.cancel()
            elif kind in {"ADDED", "MODIFIED"}:
                self._changed(item)

    def _changed(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        running = self._pods.get(uid)
        if pod["metadata"].get("deletionTimestamp"):
            if running is not None:
                running.cancel()
            elif pod["spec"].get("nodeName") == NODE:
                self._spawn(self._remove(pod))
        elif "nodeName" not in pod["spec"]:
            self._spawn(self._bind(pod))
        elif running is None and pod["spec"]["nodeName"] == NODE:
            directories = (self._directory, self._logs)
            self._pods[uid] = created = _Pod(self._api, self._network, self._programs, directories, pod)
            created.task = self._spawn(self._run(created))

    async def _run(self, pod: _Pod) -> None:
        try:
            await pod.run()
        except asyncio.CancelledError:
            pass
        except (ApiError, httpx.TransportError, ProcessFailedError, OSError, ExceptionGroup):
            logger.exception("pod %s failed", pod.name)
        try:
            await pod.end(graceful=not self._stopping)
        finally:
            del self._pods[pod.uid]
        if not self._stopping:
            await self._remove(pod.object, only_deleted=True)

    async def _bind(self, pod: Object) -> None:
        metadata = pod["metadata"]
        path = _path(pod) + "/binding"
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
        # 404: deleted meanwhile; 409: a second event of the same pod came before its binding did.
        with _expected(404, 409):
            await self._api.create(path, body)

    async def _remove(self, pod: Object, *, only_deleted: bool = False) -> None:
        """Confirms a deletion: nothing of the pod is left on the node."""
        uid = pod["metadata"]["uid"]
        if only_deleted:
            current = await self._api.find(_path(pod))
            if current is None or not current["metadata"].get("deletionTimestamp"):
                return
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        with _expected(409):
            await self._api.delete(_path(pod), options)

    def _log(self, namespace: str, pod: str, container: str) -> Log | None:
        for running in self._pods.values():
            if running.name == f"{namespace}/{pod}":
                return running.logs.get(container)
        return None

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("kubelet: %s", error, exc_info=error)


class _Pod:
    """One pod's namespace, volumes, containers and status."""

    def __init__(
        self,
        api: Api,
        network: netns.PodNetwork,
        programs: Mapping[str, Program],
        directories: tuple[Path, Path],
        pod: Object,
    ) -> None:
        directory, logs = directories
        metadata = pod["metadata"]
        self.object = pod
        self.uid: str = metadata["uid"]
        self.name = f"{metadata['namespace']}/{metadata['name']}"
        self.task: asyncio.Task[None] | None = None
        self.logs: dict[str, Log] = {}
        self._api = api
        self._network = network
        self._programs = programs
        self._files = directory / "pods" / self.uid
        self._log_directory = logs / "pods" / f"{metadata['namespace']}_{metadata['name']}"
        self._sandbox: netns.Sandbox | None = None
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._restarts: dict[str, int] = {}
        self._reported: Object | None = None
        self._ending = False
        self._started = _now()

    def cancel(self) -> None:
        """Starts the end of the pod; ``Kubelet._run`` confirms it. A second call changes nothing."""
        if self.task is not None and not self._ending:
            self._ending = True
            self.task.cancel()

    async def run(self) -> None:
        """Runs the pod until cancelled."""
        self._sandbox = await self._network.create()
        volumes = await self._await_volumes()
        async with asyncio.TaskGroup() as group:
            for container in self.object["spec"]["containers"]:
                group.create_task(self._supervise(container, volumes, self._sandbox))
            group.create_task(self._report_readiness(self._sandbox))

    async def end(self, *, graceful: bool) -> None:
        """Ends the processes and the namespace. Logs stay on disk."""
        grace = self.object["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)
        seconds = min(grace, _GRACE_SECONDS) if graceful else 0
        await asyncio.gather(*(end_group(process, seconds) for process in self._processes.values()))
        if self._sandbox is not None:
            await self._sandbox.close()
        for log in self.logs.values():
            await log.close()

    async def _await_volumes(self) -> dict[str, Path]:
        """Tries until everything the pod mounts is there, as a kubelet does."""
        while True:
            try:
                return await write_volumes(self._api, self.object, self._files / "volumes")
            except (NotYetError, UnsupportedError) as error:
                await self._report(ready=False, waiting=("ContainerCreating", str(error)))
            await asyncio.sleep(_RETRY_SECONDS)

    async def _supervise(self, container: Object, volumes: Mapping[str, Path], sandbox: netns.Sandbox) -> None:
        name: str = container["name"]
        log = self.logs[name] = Log(self._log_directory / f"{name}.log")
        for attempt in range(1_000_000):
            try:
                program = program_for(container["image"], self._programs)
                variables = await environment(self._api, self.object, container, sandbox.ip)
                launch = prepare(container, program, sandbox, variables, volumes, self._files / "roots" / name)
            except (NotYetError, UnsupportedError) as error:
                reason = "ErrImagePull" if isinstance(error, UnsupportedError) else "CreateContainerConfigError"
                await self._report(ready=False, waiting=(reason, str(error)))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=launch.environment,
                start_new_session=True,
            )
            self._processes[name] = process
            self._restarts[name] = self._restarts.get(name, -1) + 1
            assert process.stdout is not None
            await log.read_from(process.stdout)
            code = await process.wait()
            logger.warning("pod %s: container %s ended with exit code %s", self.name, name, code)
            await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])

    async def _report_readiness(self, sandbox: netns.Sandbox) -> None:
        """Keeps the status up to date. Asks often until the pod is ready, then only now and then."""
        while True:
            containers = self.object["spec"]["containers"]
            running = [self._running(container["name"]) for container in containers]
            ready = all(running) and await is_ready(containers, sandbox)
            if all(running):
                await self._report(ready=ready)
            elif self._reported is not None and self._restarts:
                await self._report(ready=False, waiting=("CrashLoopBackOff", "the container's process has ended"))
            await asyncio.sleep(0.5 if ready else 0.1)

    def _running(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.returncode is None

    async def _report(self, *, ready: bool, waiting: tuple[str, str] | None = None) -> None:
        status = self._status(ready, waiting)
        if status == self._reported:
            return
        body = {"metadata": {"uid": self.uid}, "status": status}
        try:
            await self._api.merge(_path(self.object) + "/status", body)
        except (ApiError, httpx.TransportError) as error:
            # The next round tries again; a pod that is gone will be ended by its event.
            logger.debug("pod %s: status not written: %s", self.name, error)
        else:
            self._reported = status

    def _status(self, ready: bool, waiting: tuple[str, str] | None) -> Object:
        previous = {entry["type"]: entry for entry in (self._reported or {}).get("conditions", [])}
        initialized = waiting is None or waiting[0] != "ContainerCreating"
        types = {"PodScheduled": True, "Initialized": initialized, "ContainersReady": ready, "Ready": ready}
        conditions = []
        for kind, value in types.items():
            status = str(value)
            old = previous.get(kind)
            since = old["lastTransitionTime"] if old and old["status"] == status else _now()
            conditions.append({"type": kind, "status": status, "lastTransitionTime": since})
        ip = self._sandbox.ip if self._sandbox else ""
        containers = [self._container_status(entry, ready, waiting) for entry in self.object["spec"]["containers"]]
        return {
            "phase": "Pending" if waiting and not self._restarts else "Running",
            "conditions": conditions,
            "hostIP": netns.NODE_IP,
            "hostIPs": [{"ip": netns.NODE_IP}],
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": self._started,
            "containerStatuses": containers,
        }

    def _container_status(self, container: Object, ready: bool, waiting: tuple[str, str] | None) -> Object:
        name = container["name"]
        running = waiting is None or self._running(name)
        state: Object = {"running": {"startedAt": self._started}}
        if waiting and not running:
            state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
        return {
            "name": name,
            "image": container["image"],
            "imageID": container["image"],
            "containerID": f"process://{self.uid}/{name}",
            "ready": ready,
            "started": running,
            "restartCount": max(self._restarts.get(name, 0), 0),
            "state": state,
        }


def _node_status() -> Object:
    now = _now()
    resources = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "pods run as processes",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {
        "addresses": [{"type": "InternalIP", "address": netns.NODE_IP}, {"type": "Hostname", "address": NODE}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "capacity": resources,
        "allocatable": resources,
        "conditions": [condition],
    }


def _path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


class _expected(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads like contextlib.suppress
    """Ignores API errors with one of these HTTP statuses."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = statuses

    def __exit__(self, _kind: object, error: object, _trace: object) -> bool:
        return isinstance(error, ApiError) and error.status in self._statuses
