"""What a stream knows of one type: what the proxy asks for and has, what is under way, what is left to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from propylon.xds.events import ResourceName
from propylon.xds.world import Resource

NEVER = float("inf")
EVER = 0
"""The epoch of what a proxy lacked before it said a word."""


class Flight(msgspec.Struct, frozen=True):
    """A response that is not answered yet. `epoch` is the earliest among its resources."""

    nonce: str
    resources: Mapping[str, Resource]
    removed: tuple[str, ...]
    epoch: float
    is_removal: bool


class Plan(msgspec.Struct):
    """What is left to do for one type.

    A change waits according to its resource's own epoch, a removal according to the first of its epochs. Others wait
    for either according to the second: the epoch since which the proxy is behind, which may be that of an earlier
    version.
    """

    changes: dict[str, tuple[Resource, int]] = {}
    absent: list[str] = []
    removals: dict[str, tuple[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self.changes or self.absent or self.removals)


NOTHING = Plan()
"""The plan of a type of which nothing is left to do."""


class Subscription:
    """One type on one stream."""

    def __init__(self, type_url: str, is_kept_back: Callable[[ResourceName], bool] = lambda _name: False) -> None:
        self.type_url = type_url
        self._is_kept_back = is_kept_back
        self.wildcard = False
        self.greeted = True
        """False until a wildcard subscription of a fresh proxy got its first response."""
        self.is_blank = False  # whether the proxy had nothing of this type when it first asked
        self.introduction: int | None = None
        """The epoch in which a proxy that had no scopes asked for them, until it was sent those."""
        self.names: set[str] = set()
        self.acked: dict[str, str] = {}
        """The version the proxy has, as far as it told."""
        self.rejected: dict[str, dict[str, str]] = {}
        """Versions refused since the desired one last changed, with Envoy's message. None of them is tried again."""
        self.pending: dict[str, int] = {}
        """Names to look at, with the epoch of their oldest change that was not sent."""
        self.gone: dict[str, int] = {}
        """The epoch in which a name vanished: its removal waits for the changes that came with that."""
        self.demanded: set[str] = set()
        """Names that get an answer even if the proxy has that version, or if there is no such resource."""
        self.flight: Flight | None = None
        self.overtaken: dict[str, Flight] = {}
        """Responses that took too long to be waited for, by nonce. They may still be answered."""
        self.half_taken: set[str] = set()
        """Scopes that Envoy may have noted without serving them (see `scopes`)."""
        self.trials: deque[tuple[str, ...]] = deque()
        """After a refusal that named nobody: groups to be sent by themselves until the offender is found."""
        self.trial_epoch: float = NEVER

    @property
    def has_work(self) -> bool:
        """Whether there is anything to look at, so that a plan may have to be made."""
        return bool(
            self.pending
            or self.trials
            or not self.greeted
            or self.introduction is not None
            or self.trial_epoch != NEVER
        )

    def covers(self, name: str) -> bool:
        """Whether the proxy is to have `name`: it asks for it, or for everything and has it or is to be sent it."""
        if name in self.names:
            return True
        return self.wildcard and (not self._is_kept_back((self.type_url, name)) or self.has(name) is not None)

    def takes(self, name: str) -> bool:
        """Whether the proxy keeps `name` if it is sent it."""
        return self.wildcard or name in self.names

    def mark(self, name: str, epoch: int) -> None:
        """Have `name` looked at."""
        self.pending.setdefault(name, epoch)

    def land(self, nonce: str) -> Flight | None:
        """Return the response that a nonce answers, which is in flight no more; None for a stale nonce."""
        if self.flight is not None and self.flight.nonce == nonce:
            flight, self.flight = self.flight, None
            return flight
        return self.overtaken.pop(nonce, None)

    def flights(self) -> tuple[Flight, ...]:
        """Return the unanswered responses, newest first."""
        return (*((self.flight,) if self.flight else ()), *reversed(self.overtaken.values()))

    def carries(self, name: str) -> bool:
        """Whether some version of `name`, or its removal, is under way."""
        return any(name in flight.resources or name in flight.removed for flight in self.flights())

    def has(self, name: str) -> str | None:
        """Return the version the proxy has, or will have when it accepts what is under way."""
        if self.flight is None and not self.overtaken:
            return self.acked.get(name)
        for flight in self.flights():
            if name in flight.resources:
                return flight.resources[name].version
            if name in flight.removed:
                return None
        return self.acked.get(name)
