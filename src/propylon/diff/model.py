"""What a comparison says. Its JSON form is these structs; docs/reference/diff.md is their schema."""

from typing import Literal

import msgspec


class Aspect(msgspec.Struct, frozen=True):
    """One thing about an answer that changes; "" where there is no such thing."""

    name: str
    before: str
    after: str


class Example(msgspec.Struct, frozen=True):
    """A request that is answered differently."""

    request: str
    """In one line."""
    curl: str
    """A command that sends it; "" for what curl cannot send."""
    before: str
    after: str
    url: str
    method: str
    headers: tuple[tuple[str, str], ...]
    sni: str | None
    """Server name of the TLS handshake, if it is not the URL's host."""


class Change(msgspec.Struct, frozen=True):
    """Requests whose answer changes for one cause."""

    summary: str
    before: str
    """The rule that answered (`HTTPRoute shop/cart rule 0`); "" if none did."""
    after: str
    gateway: str
    port: int
    aspects: tuple[Aspect, ...]
    example: Example
    hosts: tuple[str, ...]
    """The first of those for which it was seen."""
    hosts_total: int
    alike: tuple[str, ...] = ()
    """Other rules that change in just this way."""
    causes: tuple[str, ...] = ()
    """Changed objects that it comes from, as far as can be told."""


class ObjectChange(msgspec.Struct, frozen=True):
    """An object that is on one side only, or is written differently."""

    object: str
    change: Literal["added", "removed", "changed"]
    fields: tuple[str, ...] = ()
    """Paths of fields that differ, the first ones."""
    place: str = ""
    """`FILE:LINE`, after the change if it is still there."""


class ConditionChange(msgspec.Struct, frozen=True):
    """A condition that would be another one."""

    object: str
    of: str
    """Part of the status: `listeners[https]`, `parents[shop/edge]`; "" for the object's own."""
    type: str
    before: str
    """`True (Accepted)`; "" if there was none."""
    after: str
    message: str
    """Of the new one."""


class Difference(msgspec.Struct, frozen=True):
    """All that differs between two sets of objects."""

    changes: tuple[Change, ...] = ()
    conditions: tuple[ConditionChange, ...] = ()
    objects: tuple[ObjectChange, ...] = ()
    hosts_same: int = 0
    """Hosts (of a port) that provably answer alike."""
    hosts_tried: int = 0
    """Hosts whose rules differ: requests were made from every match that does."""
    requests: int = 0
    """So many were compared."""
    complete: bool = True
    """False if there were more requests to compare than allowed."""
    unknown: tuple[str, ...] = ()
    """Changed matches for which no request could be made."""

    @property
    def same(self) -> bool:
        """Whether clients, backends and readers of status would see no difference."""
        return not self.changes and not self.conditions
