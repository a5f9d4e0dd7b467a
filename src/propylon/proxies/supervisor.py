"""One node's proxy: started, watched, replaced, drained. A small explicit machine around one process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from propylon.proxies import admin, log
from propylon.proxies.backoff import BackoffPolicy, delay, next_failures
from propylon.proxies.bootstrap import build_bootstrap
from propylon.proxies.directories import ProxyFiles
from propylon.proxies.handle import FoundProcess, ProcessHandle, start_process
from propylon.proxies.settings import (
    AdminUnreachableError,
    Adopted,
    BackingOff,
    Drained,
    Exited,
    Phase,
    ProxyError,
    ProxyEvent,
    ProxySettings,
    ProxyState,
    Refused,
    Started,
    default_concurrency,
)

_STARTUP = 10.0
"""Seconds; a process that ended earlier probably never worked, and its last line says why."""
_POLL = 0.05
"""Seconds between two looks at what Envoy has no event for."""


class LaunchPlan(msgspec.Struct, frozen=True):
    """What to run: the bootstrap, the command line without what changes from epoch to epoch, and the name of both
    together.
    """

    bootstrap: bytes
    options: tuple[str, ...]
    fingerprint: str
    settings: ProxySettings


def plan_launch(files: ProxyFiles, xds_socket: Path, envoy: Path, settings: ProxySettings) -> LaunchPlan:
    """The plan for a node.

    A proxy whose fingerprint is the plan's is left as it is. Reads the binary's size and time.
    """
    bootstrap = build_bootstrap(files.node, xds_socket=xds_socket, admin_socket=files.admin_socket, settings=settings)
    options = [
        *("--concurrency", str(settings.concurrency or default_concurrency())),
        *("--log-level", settings.log_level),
        *("--drain-time-s", str(max(1, round(settings.drain_seconds)))),
        # Closing starts at once: whoever drains here has nobody to send the connections to bit by bit.
        *("--drain-strategy", "immediate"),
        *("--parent-shutdown-time-s", str(max(1, round(settings.drain_seconds)) + 1)),
    ]
    if settings.hot_restart and os.access("/dev/shm", os.W_OK):
        options += ["--socket-path", str(files.hot_restart_socket), "--socket-mode", "600"]
    else:
        options += ["--disable-hot-restart"]
    binary = envoy.stat()
    digest = hashlib.sha256(
        msgspec.json.encode([bootstrap.decode(), options, str(envoy), binary.st_size, binary.st_mtime_ns])
    )
    return LaunchPlan(bootstrap, tuple(options), digest.hexdigest()[:16], settings)


class Supervisor:
    """Keeps the proxy of one node as it was last asked to be.

    `want` says how; `stop` ends it; `detach` lets go and leaves it running. What happens goes to `emit`.
    """

    def __init__(
        self, files: ProxyFiles, envoy: Path, emit: Callable[[ProxyEvent], None], policy: BackoffPolicy
    ) -> None:
        self.files = files
        self.envoy = envoy
        self._emit = emit
        self._policy = policy
        self._plan: LaunchPlan | None = None
        self._process: ProcessHandle | None = None
        self._predecessors: list[ProcessHandle] = []
        self._fingerprint = ""
        self._refused = ""
        self._base_id: int | None = None
        self._epoch = 0
        self._adopted = False
        self._started_at = 0.0
        self._failures = 0
        self._restarts = 0
        self._retry_in: float | None = None
        self._reason = ""
        self._phase = Phase.STOPPED
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> ProxyState:
        """What is known right now."""
        running = self._process is not None and self._process.running
        return ProxyState(
            node=self.files.node,
            phase=self._phase,
            pid=self._process.pid if running and self._process is not None else None,
            epoch=self._epoch,
            adopted=self._adopted,
            restarts=self._restarts,
            retry_in=self._retry_in,
            reason=self._reason,
        )

    def adopt(self, found: list[FoundProcess]) -> bool:
        """Take over what runs for this node; whether anything still did.

        During a hot restart two run: the younger one is the proxy, the older one is about to close.
        """
        for each in sorted(found, key=lambda process: process.epoch, reverse=True):
            try:
                handle = ProcessHandle(each.pid)
            except ProcessLookupError:
                continue
            if self._process is not None:
                self._predecessors.append(handle)
                continue
            self._process, self._epoch, self._adopted = handle, each.epoch, True
            self._base_id = each.base_id if each.base_id is not None else self.files.read_base_id()
            self._fingerprint = each.bootstrap.stem.removeprefix("bootstrap-")
            self._started_at = time.monotonic()
            self._phase = Phase.RUNNING
            self._emit(Adopted(self.files.node, each.pid, each.epoch))
        if self._process is None:
            return False
        self._begin()
        return True

    def want(self, plan: LaunchPlan) -> None:
        """Run with this plan from now on."""
        if self._plan is not None and self._plan.fingerprint == plan.fingerprint:
            return
        self._plan = plan
        self._failures, self._refused, self._reason = 0, "", ""
        self._changed.set()
        self._begin()

    async def stop(self, *, drain: bool) -> None:
        """Drain if asked to, end every process of the node, and remove its sockets."""
        await self._end_task()
        self._phase = Phase.DRAINING
        if self._process is not None and self._process.running:
            if drain:
                seconds = self._plan.settings.drain_seconds if self._plan else ProxySettings().drain_seconds
                remaining = await drain_proxy(self.files.admin_socket, self._process, seconds)
                self._emit(Drained(self.files.node, remaining))
            await self._process.terminate()
            self._emit(Exited(self.files.node, self._process.pid, expected=True))
        for each in self._predecessors:
            await each.terminate()
        self._predecessors.clear()
        self._process = None
        self._phase = Phase.STOPPED
        self.files.forget_sockets()

    async def detach(self) -> None:
        """Stop watching and leave the proxy running, to be adopted later."""
        await self._end_task()
        for each in (self._process, *self._predecessors):
            if each is not None:
                each.release()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"proxy {self.files.node}")

    async def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            if self._plan is None and self._process is None:
                await self._changed.wait()
            self._changed.clear()
            plan = self._plan
            if self._process is None and plan is not None:
                await self._launch(plan)
            elif plan is not None and plan.fingerprint not in (self._fingerprint, self._refused):
                await self._replace(plan)
            if self._process is not None:
                await self._watch(self._process)

    async def _watch(self, process: ProcessHandle) -> None:
        """Return when the process has ended (and its end is dealt with) or the plan has changed."""
        await _first(process.wait(), self._changed.wait())
        if process.running:
            return
        self._process = None
        self._adopted = False
        self._emit(Exited(self.files.node, process.pid, expected=False))
        for each in self._predecessors:
            # It handed over its sockets and its admin interface: nothing leads back.
            await each.terminate()
        self._predecessors.clear()
        self.files.forget_sockets()
        self._epoch = 0
        ran_for = time.monotonic() - self._started_at
        self._failures = next_failures(self._failures, ran_for, self._policy)
        self._restarts += 1
        await self._back_off(last_words(log.last_lines(self.files.log, 20)[0] if ran_for < _STARTUP else [], ran_for))

    async def _back_off(self, reason: str) -> None:
        if self._plan is None:  # adopted, and nobody has asked for it: nothing to restart
            self._phase = Phase.STOPPED
            return
        self._retry_in, self._reason, self._phase = delay(self._failures, self._policy), reason, Phase.BACKING_OFF
        self._emit(BackingOff(self.files.node, self._retry_in, reason))
        # Other settings may be the cure, so a change ends the wait.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._retry_in):
                await self._changed.wait()
        self._retry_in, self._reason = None, ""

    async def _launch(self, plan: LaunchPlan, epoch: int = 0) -> None:
        """Start a process; a failure to do so backs off."""
        identity: tuple[str, ...]
        if epoch:
            identity = ("--restart-epoch", str(epoch), "--base-id", str(self._base_id))
        elif "--disable-hot-restart" in plan.options:
            identity = ()
        else:
            identity = ("--use-dynamic-base-id", "--base-id-path", str(self.files.base_id))
        try:
            self.files.create()
            if not epoch:
                self.files.base_id.unlink(missing_ok=True)
            bootstrap = self._write_bootstrap(plan)
            for other in self.files.directory.glob("bootstrap-*.json"):
                if other != bootstrap:
                    other.unlink()
            self._process = await start_process(
                (str(self.envoy), "-c", str(bootstrap), *plan.options, *identity),
                log=self.files.log,
                directory=self.files.directory,
            )
        except (OSError, subprocess.SubprocessError, ProxyError) as error:
            self._failures += 1
            await self._back_off(f"Envoy cannot be started: {error}")
            return
        self._fingerprint, self._epoch, self._adopted = plan.fingerprint, epoch, False
        self._base_id = None if not epoch else self._base_id
        self._started_at = time.monotonic()
        self._phase = Phase.RUNNING
        self._emit(Started(self.files.node, self._process.pid, epoch))

    async def _replace(self, plan: LaunchPlan) -> None:
        """Start the successor: by hot restart, or where that cannot be, after the running one is drained and gone."""
        running = self._process
        assert running is not None
        draining = [each for each in self._predecessors if each.running]
        if draining:
            # Envoy takes one successor at a time. Until the last one is in charge, its predecessor may still serve.
            await _first(running.wait(), *(each.wait() for each in draining))
            self._changed.set()
            return
        if refusal := await self._validate(plan):
            self._refused, self._reason = plan.fingerprint, refusal
            self._emit(Refused(self.files.node, refusal))
            return
        if await self._can_hot_restart(plan):
            self._predecessors.clear()
            await self._launch(plan, self._epoch + 1)
            if self._process is running:  # no successor, and the back-off is over
                self._phase = Phase.RUNNING
                self._changed.set()
            else:
                self._predecessors.append(running)
            return
        self._phase = Phase.DRAINING
        remaining = await drain_proxy(self.files.admin_socket, running, plan.settings.drain_seconds)
        self._emit(Drained(self.files.node, remaining))
        await running.terminate()
        self._emit(Exited(self.files.node, running.pid, expected=True))
        self._process = None
        self.files.forget_sockets()
        await self._launch(plan)

    def _write_bootstrap(self, plan: LaunchPlan) -> Path:
        """Its path. Raises OSError."""
        bootstrap = self.files.bootstrap(plan.fingerprint)
        temporary = bootstrap.with_suffix(".new")
        temporary.write_bytes(plan.bootstrap)
        temporary.replace(bootstrap)
        return bootstrap

    async def _validate(self, plan: LaunchPlan) -> str:
        """What Envoy has against the plan, "" if nothing: a process that serves is not given up for one that cannot."""
        try:
            validation = await asyncio.create_subprocess_exec(
                *(self.envoy, "--mode", "validate", "-c", self._write_bootstrap(plan), "--log-level", "error"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            _, complaint = await validation.communicate()
        except OSError as error:
            return f"Envoy cannot be started: {error}"
        if validation.returncode == 0:
            return ""
        lines = complaint.decode(errors="replace").strip().splitlines()
        return f"Envoy refuses its bootstrap: {lines[-1] if lines else f'exit code {validation.returncode}'}"

    async def _can_hot_restart(self, plan: LaunchPlan) -> bool:
        """Whether the running process is up and will talk to a successor."""
        if "--disable-hot-restart" in plan.options:
            return False
        if self._base_id is None:
            self._base_id = self.files.read_base_id()
        if self._base_id is None:
            return False
        try:
            # Envoy refuses a successor while it is itself starting.
            return (await admin.server_info(self.files.admin_socket)).get("state") in ("LIVE", "DRAINING")
        except AdminUnreachableError:
            return False


def last_words(lines: list[str], ran_for: float) -> str:
    """Why a process may have ended, from what it logged: nobody's child leaves no exit code. Pure."""
    for line in reversed(lines):
        if "[critical]" in line:
            return f"Envoy ended: {line}"
    if lines and ran_for < _STARTUP:
        # Not even far enough to log: the loader, or a program that is no Envoy.
        return f"Envoy ended at once: {lines[-1]}"
    return "Envoy ended"


async def _first(*waiting: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has."""
    tasks = [asyncio.create_task(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def drain_proxy(admin_socket: Path, process: ProcessHandle, seconds: float) -> int:
    """Let requests in flight finish, `seconds` at most; what is still in flight then (see `admin.in_flight`).

    In the first half connections are accepted and told to close with their next answer; in the second no new ones are
    accepted, because under constant load there would never be a quiet moment.
    """
    deadline = time.monotonic() + seconds
    accepting_until = time.monotonic() + seconds / 2
    remaining = 0
    try:
        await admin.request(admin_socket, "POST", "/healthcheck/fail")
        await admin.request(admin_socket, "POST", "/drain_listeners?graceful&skip_exit")
        accepting = True
        while process.running:
            remaining = await admin.in_flight(admin_socket)
            now = time.monotonic()
            if now >= deadline or (remaining == 0 and not accepting):
                break
            if accepting and (remaining == 0 or now >= accepting_until):
                await admin.request(admin_socket, "POST", "/drain_listeners")
                accepting = False
                continue
            await asyncio.sleep(_POLL)
    except AdminUnreachableError:
        # It is starting, dying, or was never configured: there is nothing to drain, or no way to.
        return remaining
    return remaining
