"""What a proxy is asked to be, what it is found to be, and what happened to it: the values of this room."""

from __future__ import annotations

import enum
import os
from typing import Any

import msgspec

LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
"""Envoy's `--log-level` values."""


class ProxyError(Exception):
    """A data plane cannot be run as asked. The message names what is in the way and the remedy."""


class EnvoyMissingError(ProxyError):
    """There is no Envoy binary to start, or it is not executable."""


class DirectoryRefusedError(ProxyError):
    """A directory that would hold sockets is not ours alone, or its paths would be too long for a socket."""


class AdminUnreachableError(ProxyError):
    """The proxy's admin socket does not answer: it is not running, starting, or being replaced."""


def default_concurrency() -> int:
    """Worker threads for a proxy that shares its machine with everything else: the usable processors, four at most."""
    return max(1, min(len(os.sched_getaffinity(0)), 4))


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a proxy runs. Any difference to the running one replaces it, by hot restart where that is possible."""

    concurrency: int = 0
    """Worker threads; 0: `default_concurrency()`."""
    log_level: str = "warning"
    """One of `LOG_LEVELS`."""
    max_heap_bytes: int = 1 << 30
    """Above 95 % of this Envoy returns memory, above 98 % it answers new requests with 503."""
    max_connections: int = 50_000
    """Downstream connections, all listeners together; more are closed at once."""
    drain_seconds: float = 5.0
    """The longest wait for requests in flight before the proxy is stopped or its predecessor is closed."""
    hot_restart: bool = True
    """Whether a replacement may take over the listening sockets.

    Needs /dev/shm; without it the replacement starts afterwards.
    """
    static_resources: dict[str, Any] = {}
    """Envoy's `static_resources` (`listeners`, `clusters`, `secrets`) in addition to our own, as JSON."""

    def __post_init__(self) -> None:
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"log_level {self.log_level!r} is none of {', '.join(LOG_LEVELS)}")
        if self.concurrency < 0 or self.max_heap_bytes <= 0 or self.max_connections <= 0 or self.drain_seconds < 0:
            raise ValueError(
                "concurrency and drain_seconds must not be negative, "
                "max_heap_bytes and max_connections must be positive"
            )


class Phase(enum.Enum):
    """Where a proxy is in its life."""

    RUNNING = "Running"
    BACKING_OFF = "BackingOff"
    DRAINING = "Draining"
    STOPPED = "Stopped"


class ProxyState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one proxy right now."""

    node: str
    phase: Phase
    pid: int | None = None
    epoch: int = 0
    """Envoy's restart epoch: how many times a process took over from its predecessor."""
    adopted: bool = False
    """It was found running, not started by this program."""
    restarts: int = 0
    """Starts after an exit nobody asked for."""
    retry_in: float | None = None
    """Seconds the current back-off was set to."""
    reason: str = ""
    """Why it backs off, or why its last settings were refused, for people."""


class Started(msgspec.Struct, frozen=True, tag=True):
    """A process was started; it is not ready yet."""

    node: str
    pid: int
    epoch: int


class Adopted(msgspec.Struct, frozen=True, tag=True):
    """A process that was already running was taken over."""

    node: str
    pid: int
    epoch: int


class Exited(msgspec.Struct, frozen=True, tag=True):
    """A process ended; `expected` if it was asked to."""

    node: str
    pid: int
    expected: bool


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Envoy does not accept what it was to run with; the running process was left as it is."""

    node: str
    reason: str


class BackingOff(msgspec.Struct, frozen=True, tag=True):
    """The next start waits for `seconds`."""

    node: str
    seconds: float
    reason: str


class Drained(msgspec.Struct, frozen=True, tag=True):
    """Draining ended with `connections` still open (requests in flight, or connections that are not HTTP)."""

    node: str
    connections: int


ProxyEvent = Started | Adopted | Exited | Refused | BackingOff | Drained
