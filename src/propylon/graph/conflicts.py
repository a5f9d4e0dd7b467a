"""Listeners of one Gateway among themselves: which are indistinct, which lose, whose TLS overlaps (GEP-1713)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from propylon.graph.hostnames import ancestors, normalized
from propylon.graph.model import Finding, Listener

FAMILY = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}
"""Protocols that can share a port: HTTPS and TLS by SNI. UDP ports are ports of their own."""


def _shared(listener: Listener) -> tuple[int, bool] | None:
    """Return the socket a listener wants; None if it will never have one."""
    if listener.protocol not in FAMILY:
        return None
    return listener.port, listener.protocol == "UDP"


def resolve_conflicts(own: Sequence[Listener], added: Iterable[Listener]) -> tuple[Listener, ...]:
    """Mark the listeners that lose, in precedence order: the Gateway's own, then those of ListenerSets as given.

    Of the Gateway's own listeners all that are indistinct lose (Gateway API: none may be picked as the winner); one
    of a ListenerSet loses against those before it and takes nothing from them.
    """
    result = list(_own_conflicts(own))
    families: dict[tuple[int, bool], set[str]] = defaultdict(set)
    hostnames: dict[tuple[int, bool], dict[str, str]] = defaultdict(dict)
    for listener in own:
        place = _shared(listener)
        if place is not None:
            families[place].add(FAMILY[listener.protocol])
            hostnames[place][normalized(listener.hostname)] = listener.protocol
    for listener in added:
        place = _shared(listener)
        if place is None:
            result.append(listener)
            continue
        hostname = normalized(listener.hostname)
        if families[place] - {FAMILY[listener.protocol]}:
            others = " and ".join(sorted(families[place]))
            message = f"port {listener.port} is taken by {others} listeners attached to the same Gateway"
            result.append(_conflicted(listener, "ProtocolConflict", message))
        elif hostname in hostnames[place]:
            message = f"host {hostname} on port {listener.port} is taken by a listener attached to the same Gateway"
            result.append(_conflicted(listener, _reason(listener, hostnames[place][hostname]), message))
        else:
            families[place].add(FAMILY[listener.protocol])
            hostnames[place][hostname] = listener.protocol
            result.append(listener)
    return mark_overlapping_tls(result)


def _reason(listener: Listener, other_protocol: str) -> str:
    """Same host and port: a conflict of hostnames, or of protocols if HTTPS meets TLS, or if there are no hostnames."""
    same = listener.protocol == other_protocol and other_protocol not in {"TCP", "UDP"}
    return "HostnameConflict" if same else "ProtocolConflict"


def _own_conflicts(own: Sequence[Listener]) -> Iterable[Listener]:
    by_place: dict[tuple[int, bool], list[Listener]] = defaultdict(list)
    for listener in own:
        place = _shared(listener)
        if place is not None:
            by_place[place].append(listener)
    for listener in own:
        place = _shared(listener)
        others = [] if place is None else [o for o in by_place[place] if o is not listener]
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


def mark_overlapping_tls(listeners: Sequence[Listener]) -> tuple[Listener, ...]:
    """Mark listeners that terminate TLS on one port for hostnames that overlap: clients may coalesce connections."""
    by_port: dict[int, dict[str, int]] = defaultdict(dict)
    for position, listener in enumerate(listeners):
        if listener.tls is not None and listener.tls.mode == "Terminate" and listener.accepted:
            by_port[listener.port][normalized(listener.hostname)] = position
    overlapping: set[int] = set()
    for hostnames in by_port.values():
        for hostname, position in hostnames.items():
            others = [hostnames[h] for h in list(ancestors(hostname))[1:] if h in hostnames]
            if others:
                overlapping.update(others, (position,))
    result = list(listeners)
    for position in overlapping:
        listener = result[position]
        message = (
            f"another listener of port {listener.port} terminates TLS for an overlapping hostname: a client that "
            "reuses its connection for a host of the other one gets 421"
        )
        finding = Finding("OverlappingTLSConfig", "OverlappingHostnames", message, status="True")
        result[position] = msgspec.structs.replace(listener, findings=(*listener.findings, finding))
    return tuple(result)
