"""The network that everything runs in: one namespace for the node, one for each pod.

``enter`` starts a command in new user, mount, process and network namespaces, which needs no rights on a machine that
allows unprivileged user namespaces. The process namespace is what guarantees the end: when its first process dies, for
whatever reason, the kernel kills all others in it.

Inside, the node owns every address of 10.0.0.0/9 (any of them can be bound, ports below 1024 too); pods have addresses
of 10.128.0.0/16 in namespaces of their own, all on one bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from .processes import ProcessFailedError, run

NODE_IP = "10.0.0.1"
NODE_RANGE = "10.0.0.0/9"
SERVICE_RANGE = "10.96.0.0/16"
GATEWAY_RANGE = "10.100.0.0/16"  # inside NODE_RANGE: free for addresses of Gateways
BRIDGE = "pods"
BRIDGE_IP = "10.128.0.1"
POD_PREFIX = "10.128"

_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL"]
_UNSHARE += ["--mount-proc"]
_STOP_SECONDS = 60


class NamespacesUnavailableError(Exception):
    """The namespaces cannot be made; the message says which and why."""


class NamespacesRefusedError(NamespacesUnavailableError):
    """This machine does not let us make them, and no package that is missing would change that."""


def require_namespaces() -> None:
    """Tries what a run needs. Raises NamespacesUnavailableError."""
    for tool, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        if shutil.which(tool) is None:
            raise NamespacesUnavailableError(f"the command {tool} is missing: install {package}")
    trial = "ip link add name try0 type veth peer name try1 && ip link add name try2 type bridge && unshare --net true"
    done = subprocess.run([*_UNSHARE, "sh", "-c", trial], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NamespacesRefusedError(
            "the conformance run needs user, process and network namespaces, veth and bridge devices, and this machine "
            f"refuses them: {done.stderr.strip() or done.stdout.strip()}\n"
            "Run as root, or allow unprivileged user namespaces (sysctl user.max_user_namespaces, "
            "kernel.apparmor_restrict_unprivileged_userns=0); in a container, give it SYS_ADMIN and an unmasked /proc."
        )


def enter(command: Sequence[str], lifeline_option: str, arguments: Sequence[str]) -> int:
    """Runs ``command`` in new namespaces and returns its exit code.

    ``lifeline_option``, the number of a file descriptor and ``arguments`` follow the command. The descriptor reads end
    of file when the command should stop: on SIGINT, SIGTERM or SIGHUP here, or when this process is gone.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen([*_UNSHARE, *command, lifeline_option, str(reader), *arguments], pass_fds=[reader])
    os.close(reader)
    closed = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal closed
        if not closed:
            closed = True
            os.close(writer)
            signal.alarm(_STOP_SECONDS)

    def give_up(_number: int, _frame: object) -> None:
        process.kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGALRM, give_up)
    code = process.wait()
    return 128 - code if code < 0 else code


def watch_lifeline(descriptor: int, stop: Callable[[], None]) -> None:
    """Calls ``stop`` once when the lifeline ends, or on SIGTERM. SIGINT is left to the process outside."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(descriptor)
        # Nobody may be left outside to lose patience. The end of this process is the end of all.
        loop.call_later(_STOP_SECONDS, os._exit, 1)
        stop()

    loop.add_reader(descriptor, ended)
    loop.add_signal_handler(signal.SIGTERM, stop)
    # A handler, not SIG_IGN: children would inherit the latter.
    loop.add_signal_handler(signal.SIGINT, lambda: None)


async def set_up_node() -> None:
    """Addresses and the bridge of the node. To be called once, inside."""
    # "The next hop is on your own network" is true for a pod that asks another, not for one that asks a Service's
    # address: a pod that heeds it there loses its packets.
    for name in ("all", "default"):
        Path(f"/proc/sys/net/ipv4/conf/{name}/send_redirects").write_text("0")
    lines = [
        "link set lo up",
        f"route add local {NODE_RANGE} dev lo",
        f"link add name {BRIDGE} type bridge",
        f"addr add {BRIDGE_IP}/16 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]
    await run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
    # Where the kernel has bridge netfilter, translated packets would stay on the bridge, which never sends a packet
    # back where it came from: a pod could not be its own target.
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged.exists():
        bridged.write_text("0")
    # From pod to pod through a Service's address, which the node translates.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # An Envoy or a test that opens hundreds of connections in a row must not run out of source ports.
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("10240 65000")


class Sandbox:
    """A pod's network namespace, kept alive by a process that only sleeps."""

    def __init__(self, ip: str, holder: asyncio.subprocess.Process) -> None:
        self.ip = ip
        self._holder = holder

    @property
    def enter_command(self) -> list[str]:
        """The command prefix that runs a program in this namespace."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def listens(self) -> bool:
        """True once some process has a listening TCP socket or a bound UDP socket here."""
        # State 0A is LISTEN; an unconnected UDP socket has 07 (include/net/tcp_states.h).
        wanted = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
        for name, state in wanted.items():
            with contextlib.suppress(OSError):
                rows = Path(f"/proc/{self._holder.pid}/net/{name}").read_text().splitlines()[1:]
                if any(row.split()[3] == state for row in rows):
                    return True
        return False

    async def close(self) -> None:
        """Ends the namespace; its link goes with it."""
        with contextlib.suppress(ProcessLookupError):
            self._holder.kill()
        await self._holder.wait()


class PodNetwork:
    """Hands out sandboxes."""

    def __init__(self) -> None:
        self._numbers = itertools.count(10)

    async def create(self) -> Sandbox:
        """A new namespace with an address that no pod had before."""
        number = next(self._numbers)
        if number >= 65_000:
            raise ProcessFailedError("the pod addresses are used up")
        ip = f"{POD_PREFIX}.{number >> 8}.{number & 255}"
        holder = await asyncio.create_subprocess_exec(
            *["unshare", "--net", "sh", "-c", "echo made; exec sleep infinity"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        sandbox = Sandbox(ip, holder)
        try:
            assert holder.stdout is not None
            if not await holder.stdout.readline():
                raise ProcessFailedError("cannot make a network namespace for a pod")
            host = [
                f"link add name pod{number} type veth peer name eth0 netns {holder.pid}",
                f"link set pod{number} master {BRIDGE} up",
            ]
            await run(["ip", "-batch", "-"], stdin="\n".join(host) + "\n")
            inner = [
                "link set lo up",
                f"addr add {ip}/16 dev eth0",
                "link set eth0 up",
                f"route add default via {BRIDGE_IP}",
            ]
            await run([*sandbox.enter_command, "ip", "-batch", "-"], stdin="\n".join(inner) + "\n")
        except BaseException:
            await sandbox.close()
            raise
        return sandbox


def processes_left() -> list[str]:
    """Names of the other processes in this process namespace, for telling whether a run cleaned up."""
    names = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    names.append((entry / "comm").read_text().strip())
    return sorted(names)
