"""Listeners of one Gateway among themselves: which are indistinct, which lose, whose TLS overlaps (GEP-1713).

Each verdict is reached from what a listener shares a socket or a hostname with, so that one listener among thousands is
judged without reading the others; `merging` finds those that count.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from propylon import api
from propylon.graph.hostnames import normalized
from propylon.graph.model import Finding, Listener

FAMILY = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}
"""Protocols that can share a port: HTTPS and TLS by SNI. UDP ports are ports of their own."""


class Socket(NamedTuple):
    """What listeners of one Gateway may want at the same time."""

    gateway: api.ObjectKey
    port: int
    udp: bool


class Host(NamedTuple):
    """A hostname ("*" for every one) on a socket that one family of protocols has."""

    socket: Socket
    family: str
    hostname: str


class Precedence(NamedTuple):
    """Listeners of a Gateway in the order in which they are heard: its own, then those of the oldest ListenerSet."""

    gateway: api.ObjectKey
    added: bool
    """By a ListenerSet."""
    created: str
    """When the ListenerSet was; "" for the Gateway's own."""
    namespace: str
    name: str
    position: int


class Claim(msgspec.Struct, frozen=True):
    """What a listener wants to have for itself, whether it gets it or not."""

    host: Host
    protocol: str


class Taker(NamedTuple):
    """Who has a hostname."""

    precedence: Precedence
    protocol: str


def claim_of(listener: Listener) -> Claim | None:
    """Return what a listener claims; None if it will never have a socket."""
    family = FAMILY.get(listener.protocol)
    if family is None:
        return None
    socket = Socket(listener.key.gateway, listener.port, listener.protocol == "UDP")
    return Claim(Host(socket, family, normalized(listener.hostname)), listener.protocol)


def families_in_force(firsts: Iterable[tuple[Precedence, str]]) -> tuple[str, ...]:
    """Return the families that have a socket, given the first claimant of each: all of the Gateway's own listeners, or
    else the one that was first.
    """
    every = list(firsts)
    own = tuple(sorted(family for first, family in every if not first.added))
    return own or (min(every)[1],)


def taker_of(claimants: Sequence[Precedence]) -> Precedence:
    """Return who has a hostname, given its claimants in order: the Gateway's own (the last, should there be several,
    which all lose), or else the first.
    """
    own = [each for each in claimants if not each.added]
    return own[-1] if own else claimants[0]


def judge_added(
    listener: Listener, precedence: Precedence, host: Host, families: Sequence[str], taker: Taker | None
) -> Listener:
    """Mark a listener of a ListenerSet if it loses: against those before it, from which it takes nothing."""
    if set(families) - {host.family}:
        others = " and ".join(families)
        message = f"port {listener.port} is taken by {others} listeners attached to the same Gateway"
        return _conflicted(listener, "ProtocolConflict", message)
    if taker is not None and taker.precedence != precedence:
        message = f"host {host.hostname} on port {listener.port} is taken by a listener attached to the same Gateway"
        return _conflicted(listener, _reason(listener, taker.protocol), message)
    return listener


def _reason(listener: Listener, other_protocol: str) -> str:
    """Same host and port: a conflict of hostnames, or of protocols if HTTPS meets TLS, or if there are no hostnames."""
    same = listener.protocol == other_protocol and other_protocol not in {"TCP", "UDP"}
    return "HostnameConflict" if same else "ProtocolConflict"


def judge_own(own: Sequence[Listener]) -> Iterable[Listener]:
    """Mark the Gateway's own listeners that are indistinct: all of them lose (Gateway API: none may be picked)."""
    by_socket: dict[Socket, list[Listener]] = defaultdict(list)
    claims = [claim_of(listener) for listener in own]
    for listener, claim in zip(own, claims, strict=True):
        if claim is not None:
            by_socket[claim.host.socket].append(listener)
    for listener, claim in zip(own, claims, strict=True):
        others = [] if claim is None else [o for o in by_socket[claim.host.socket] if o is not listener]
        foreign = [o for o in others if FAMILY[o.protocol] != FAMILY[listener.protocol]]
        same = [o for o in others if o.hostname == listener.hostname]
        if foreign:
            names = ", ".join(f"{o.key.section} ({o.protocol})" for o in foreign)
            message = f"port {listener.port} cannot serve {listener.protocol} and also {names}"
            yield _conflicted(listener, "ProtocolConflict", message)
        elif same:
            names = ", ".join(o.key.section for o in same)
            host = f"host {listener.hostname}" if listener.hostname else "every host"
            message = f"port {listener.port} and {host} are also claimed by listener {names}"
            foreign_protocol = next((o.protocol for o in same if o.protocol != listener.protocol), listener.protocol)
            yield _conflicted(listener, _reason(listener, foreign_protocol), message)
        else:
            yield listener


def _conflicted(listener: Listener, reason: str, message: str) -> Listener:
    findings = (*listener.findings, Finding("Conflicted", reason, message, f"spec.listeners[{listener.index}]", "True"))
    return msgspec.structs.replace(listener, findings=findings)


def mark_overlapping(listener: Listener) -> Listener:
    """Mark a listener that terminates TLS on one port with another whose hostname overlaps: clients may coalesce
    connections.
    """
    message = (
        f"another listener of port {listener.port} terminates TLS for an overlapping hostname: a client that "
        "reuses its connection for a host of the other one gets 421"
    )
    finding = Finding("OverlappingTLSConfig", "OverlappingHostnames", message, status="True")
    return msgspec.structs.replace(listener, findings=(*listener.findings, finding))
