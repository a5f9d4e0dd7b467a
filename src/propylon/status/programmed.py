"""Programmed: what running proxies acknowledged, port by port."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from propylon.graph.model import Finding, Listener, PortKey
from propylon.incremental import Collection, Look
from propylon.status.conditions import Judgement


class PortProgrammed(msgspec.Struct, frozen=True):
    """Where the proxies of a Gateway stand with one of its ports."""

    state: Literal["Programmed", "Pending", "Rejected"]
    message: str = ""


class ChainPlace(NamedTuple):
    """A listener that changes without its port: the port and the listener's hostname ("" for every one)."""

    port: PortKey
    hostname: str


Programmed = Collection[PortKey | ChainPlace, PortProgrammed]
"""Where proxies stand with every port, and with listeners with which they do not stand as with their port."""


def port_key(listener: Listener) -> PortKey:
    """Return the port a listener is served on."""
    return PortKey(listener.key.gateway, listener.port, "UDP" if listener.protocol == "UDP" else "TCP")


def place_judgement(look: Look, programmed: Programmed, listener: Listener) -> Judgement:
    """Judge what a listener is served by: its own filter chain if there is anything to be said of it, or its port."""
    key = port_key(listener)
    chain = look.get(programmed, ChainPlace(key, listener.hostname))
    port = port_judgement(look, programmed, key)
    if chain is None or port.status != "True":
        return port
    status: Literal["Unknown", "False"] = "Unknown" if chain.state == "Pending" else "False"
    reason = "Pending" if chain.state == "Pending" else "Invalid"
    return Judgement(status, reason, f"listener {listener.key.section}: {chain.message}")


def port_judgement(look: Look, programmed: Programmed, key: PortKey) -> Judgement:
    """Judge a port that ought to be served."""
    port = look.get(programmed, key)
    if port is None or port.state == "Pending":
        message = port.message if port is not None and port.message else "no proxy has acknowledged it yet"
        return Judgement("Unknown", "Pending", f"port {key.port}: {message}")
    if port.state == "Rejected":
        return Judgement("False", "Invalid", f"port {key.port}: {port.message}")
    return Judgement("True", "Programmed", "acknowledged by every running proxy")


def worst(judgements: Iterable[Judgement]) -> Judgement:
    """Sum up several ports: a refusal outweighs one that is pending, that one outweighs success."""
    every = list(judgements)
    for status in ("False", "Unknown"):
        found = [j for j in every if j.status == status]
        if found:
            return Judgement(found[0].status, found[0].reason, "; ".join(j.message for j in found))
    return Judgement("True", "Programmed", "acknowledged by every running proxy")


def listener_programmed(
    look: Look, programmed: Programmed, listener: Listener, obstacle: Judgement | None
) -> Judgement:
    """Judge one listener; `obstacle` is what keeps its whole Gateway from being served."""
    conflict = next((f for f in listener.findings if f.condition == "Conflicted"), None)
    if conflict is not None:
        return Judgement("False", conflict.reason, conflict.message)
    if not listener.servable:
        refused = [f.message for f in listener.findings if f.condition == "Accepted"]
        causes = refused or [f.message for f in listener.findings if f.condition == "ResolvedRefs"]
        return Judgement("False", "Invalid", "; ".join(causes) or "it cannot be served")
    if obstacle is not None:
        return obstacle
    return place_judgement(look, programmed, listener)


def gateway_obstacle(findings: Iterable[Finding], bound: bool) -> Judgement | None:
    """Return what keeps a whole Gateway from being served, if anything does."""
    every = list(findings)
    refused = [f for f in every if f.condition == "Accepted" and f.status == "False"]
    if refused:
        return Judgement("False", "Invalid", "the Gateway is not accepted: " + "; ".join(f.message for f in refused))
    if not bound:
        reasons = [f for f in every if f.condition == "Programmed"]
        message = "; ".join(f.message for f in reasons) or "no address was assigned yet"
        return Judgement("False", "Pending", message)
    return None
