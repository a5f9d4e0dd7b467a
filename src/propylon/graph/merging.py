"""The listeners of a Gateway and of its ListenerSets brought together, each judged by those that it meets.

A Gateway may have thousands of ListenerSets, so nothing here holds all of its listeners. A listener reads who has its
socket, who has its hostname, and whether a hostname around or inside its own is there. A change of one is therefore as
dear as those that share its hostname are many.
"""

from collections.abc import Iterator
from typing import NamedTuple

from propylon import api
from propylon.graph.conflicts import (
    Claim,
    Host,
    Precedence,
    Socket,
    Taker,
    claim_of,
    families_in_force,
    judge_added,
    mark_overlapping,
    taker_of,
)
from propylon.graph.hostnames import ancestors, normalized
from propylon.graph.model import Candidates, Listener, ListenerKey
from propylon.incremental import Collection, Engine, Index, Look
from propylon.incremental.union import Union


class Secured(NamedTuple):
    """A hostname ("*" for every one) for which TLS ends on a port."""

    gateway: api.ObjectKey
    port: int
    hostname: str


class Verdicts(NamedTuple):
    """Who has what is claimed."""

    claims: Collection[Precedence, Claim]
    families: Collection[Socket, tuple[str, ...]]
    by_host: Index[Host, Precedence, Claim]

    def taker(self, look: Look, host: Host) -> Taker | None:
        """Return who has a hostname; None if nobody claims it."""
        claimants = look.keys(self.by_host, host)
        if not claimants:
            return None
        precedence = taker_of(claimants)
        claim = look.get(self.claims, precedence)
        return Taker(precedence, claim.protocol) if claim is not None else None


def precedence_of(listener: Listener, created: str = "") -> Precedence:
    """Return the place of a listener in the order of precedence; `created` is the ListenerSet's, if it is of one."""
    key = listener.key
    return Precedence(key.gateway, key.kind == "ListenerSet", created, key.namespace, key.name, listener.index)


def _claims(
    engine: Engine,
    own: Collection[api.ObjectKey, tuple[Listener, ...]],
    sets: Collection[api.ObjectKey, Candidates],
) -> Collection[Precedence, Claim]:
    def of_gateway(_key: api.ObjectKey, listeners: tuple[Listener, ...], _look: Look) -> dict[Precedence, Claim]:
        claims = ((precedence_of(listener), claim_of(listener)) for listener in listeners)
        return {precedence: claim for precedence, claim in claims if claim is not None}

    def of_set(_key: api.ObjectKey, found: Candidates, _look: Look) -> dict[Precedence, Claim]:
        claims = ((precedence_of(listener, found.created), claim_of(listener)) for listener in found.listeners)
        return {precedence: claim for precedence, claim in claims if claim is not None}

    return Union(
        engine,
        "claims",
        engine.flat_derive("claims of Gateways", own, of_gateway),
        engine.flat_derive("claims of ListenerSets", sets, of_set),
    )


def _verdicts(engine: Engine, claims: Collection[Precedence, Claim]) -> Verdicts:
    def first(_key: tuple[Socket, str], claimants: tuple[Precedence, ...], _look: Look) -> Precedence:
        return claimants[0]

    def in_force(_socket: Socket, keys: tuple[tuple[Socket, str], ...], look: Look) -> tuple[str, ...]:
        found = ((look.get(firsts, key), key[1]) for key in keys)
        return families_in_force((each, family) for each, family in found if each is not None)

    by_family = claims.index("claims by family", lambda _key, claim: ((claim.host.socket, claim.host.family),))
    firsts = engine.derive("first claims", by_family, first)
    by_socket = firsts.index("families by socket", lambda key, _first: (key[0],))
    by_host = claims.index("claims by hostname", lambda _key, claim: (claim.host,))
    return Verdicts(claims, engine.derive("families of sockets", by_socket, in_force), by_host)


def build_listeners(
    engine: Engine,
    own: Collection[api.ObjectKey, tuple[Listener, ...]],
    sets: Collection[api.ObjectKey, Candidates],
) -> Collection[ListenerKey, Listener]:
    """Judge every listener among the others; `own` and `sets` hold them as they are by themselves, `own` with the
    conflicts among the Gateway's own listeners.
    """
    verdicts = _verdicts(engine, _claims(engine, own, sets))

    def of_gateway(_key: api.ObjectKey, listeners: tuple[Listener, ...], _look: Look) -> dict[ListenerKey, Listener]:
        return {listener.key: listener for listener in listeners}

    def of_set(_key: api.ObjectKey, found: Candidates, look: Look) -> dict[ListenerKey, Listener]:
        return {listener.key: judged(listener, found.created, look) for listener in found.listeners}

    def judged(listener: Listener, created: str, look: Look) -> Listener:
        claim = claim_of(listener)
        if claim is None:
            return listener
        families = look.get(verdicts.families, claim.host.socket) or ()
        taker = verdicts.taker(look, claim.host)
        return judge_added(listener, precedence_of(listener, created), claim.host, families, taker)

    settled: Collection[ListenerKey, Listener] = Union(
        engine,
        "settled listeners",
        engine.flat_derive("settled listeners of Gateways", own, of_gateway),
        engine.flat_derive("settled listeners of ListenerSets", sets, of_set),
    )

    def mark(_key: ListenerKey, listener: Listener, look: Look) -> Listener:
        here = _secured(listener)
        if here is None:
            return listener
        overlaps = look.count(inside, here) or any(look.count(secured, wider) for wider in _around(here))
        return mark_overlapping(listener) if overlaps else listener

    def exactly(_key: ListenerKey, listener: Listener) -> tuple[Secured, ...]:
        here = _secured(listener)
        return () if here is None else (here,)

    def around(_key: ListenerKey, listener: Listener) -> tuple[Secured, ...]:
        here = _secured(listener)
        return () if here is None else tuple(_around(here))

    secured = settled.index("listeners by secured hostname", exactly)
    inside = settled.index("listeners inside a hostname", around)
    return engine.derive("listeners", settled, mark)


def _secured(listener: Listener) -> Secured | None:
    if listener.tls is None or listener.tls.mode != "Terminate" or not listener.accepted:
        return None
    return Secured(listener.key.gateway, listener.port, normalized(listener.hostname))


def _around(here: Secured) -> Iterator[Secured]:
    """Yield the wider hostnames that cover this one."""
    wider = ancestors(here.hostname)
    next(wider)
    return (Secured(here.gateway, here.port, hostname) for hostname in wider)
