"""Rules that nothing can reach: those before them take every request that they would take.

Only what is certain is claimed: one earlier match has to take all that a later one takes; or, where the later one's
expressions stand for a few texts (`v1|v2`), one for each of these. Order is the Graph's own.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import msgspec

from propylon import api
from propylon.explain.expressions import language
from propylon.explain.predicates import path_holds, value_holds
from propylon.graph.model import Cors, Match, ValueMatch, VirtualHost, VirtualHostEntry, VirtualHostKey

MOST_PARTS = 64
"""Into so many parts a match is taken apart at most."""


class Shadowed(NamedTuple):
    """A match that is never reached, and the entry that is in its way."""

    entry: VirtualHostEntry
    match: int
    by: tuple[VirtualHostEntry, ...]
    """One that takes all, or several that do so together."""
    host: VirtualHostKey
    whole_rule: bool
    """None of the rule's matches is ever reached, under any of its hostnames."""


class Place(NamedTuple):
    """One match of one rule."""

    route: api.ObjectRef
    rule: int
    match: int


def unreachable(hosts: Iterable[VirtualHost]) -> list[Shadowed]:
    """Matches that are reached under none of their virtual hosts, each once."""
    shadows: dict[Place, tuple[VirtualHostEntry, tuple[VirtualHostEntry, ...], VirtualHostKey]] = {}
    reached: set[Place] = set()
    places: dict[tuple[api.ObjectRef, int], set[Place]] = {}
    for host in hosts:
        for entry, by in shadows_in(host.entries):
            place = Place(entry.route, entry.rule.index, _index(entry))
            places.setdefault(place[:2], set()).add(place)
            if not by:
                reached.add(place)
            else:
                shadows.setdefault(place, (entry, by, host.key))
    return [
        Shadowed(entry, place.match, by, key, not (places[place[:2]] & reached))
        for place, (entry, by, key) in sorted(shadows.items(), key=lambda item: item[0])
        if place not in reached
    ]


def _index(entry: VirtualHostEntry) -> int:
    return next(i for i, match in enumerate(entry.rule.matches) if match is entry.match)


def shadows_in(
    entries: Sequence[VirtualHostEntry],
) -> Iterator[tuple[VirtualHostEntry, tuple[VirtualHostEntry, ...]]]:
    """Each entry of a virtual host with the earlier ones that take all of its requests; none if it can be reached."""
    by_path: dict[tuple[str, str], list[VirtualHostEntry]] = {}
    expressions: list[VirtualHostEntry] = []
    for entry in entries:
        yield entry, _taken_by(entry, by_path, expressions)
        match = entry.match
        if match.path_type == "RegularExpression":
            expressions.append(entry)
        path = (match.path.rstrip("/") or "/") if match.path_type == "PathPrefix" else match.path
        by_path.setdefault((match.path_type, path), []).append(entry)


Paths = dict[tuple[str, str], list[VirtualHostEntry]]


def _taken_by(
    entry: VirtualHostEntry, by_path: Paths, expressions: list[VirtualHostEntry]
) -> tuple[VirtualHostEntry, ...]:
    """The earlier entries that together take all that an entry takes: one for all of it, or one for each part."""
    whole = _first_taker(entry, by_path, expressions)
    if whole is not None:
        return (whole,)
    found: dict[int, VirtualHostEntry] = {}
    for match in parts_of(entry.match):
        part = msgspec.structs.replace(entry, match=match)
        taker = _first_taker(part, by_path, expressions)
        if taker is None:
            return ()
        found.setdefault(id(taker), taker)
    return tuple(found.values())


def _first_taker(
    entry: VirtualHostEntry, by_path: Paths, expressions: list[VirtualHostEntry]
) -> VirtualHostEntry | None:
    return next((each for each in _before(entry.match, by_path, expressions) if takes_all(each, entry)), None)


def parts_of(match: Match) -> Sequence[Match]:
    """Matches without expressions that together take what a match takes; none if these are not few, or it has none.

    A header may come in several lines: one of them is the text, and the part for that text takes the request.
    """
    if match.path_type == "RegularExpression":
        paths = language(match.path)
        if paths is None or not all(path.startswith("/") for path in paths):
            return ()
        ways: list[list[tuple[str, str | ValueMatch]]] = [[("path", path) for path in paths]]
    else:
        ways = []
    for kind, values in (("header", match.headers), ("query", match.query)):
        for value in values:
            if value.type == "RegularExpression" and (texts := language(value.value)):
                ways.append([(kind, ValueMatch(value.name, text)) for text in texts])
    if not ways or prod(map(len, ways)) > MOST_PARTS:
        return ()
    return [_part(match, chosen) for chosen in product(*ways)]


def _part(match: Match, chosen: Iterable[tuple[str, str | ValueMatch]]) -> Match:
    headers = {value.name: value for value in match.headers}
    query = {value.name: value for value in match.query}
    for kind, what in chosen:
        if isinstance(what, str):
            match = msgspec.structs.replace(match, path=what, path_type="Exact")
        else:
            (headers if kind == "header" else query)[what.name] = what
    return msgspec.structs.replace(match, headers=tuple(headers.values()), query=tuple(query.values()))


def _before(match: Match, by_path: Paths, expressions: list[VirtualHostEntry]) -> Iterator[VirtualHostEntry]:
    """Earlier entries whose path may take all that this one's takes."""
    if match.path_type == "RegularExpression":
        yield from by_path.get(("RegularExpression", match.path), ())
        yield from by_path.get(("PathPrefix", "/"), ())
        return
    if match.path_type == "Exact":
        yield from by_path.get(("Exact", match.path), ())
        yield from expressions
    path = match.path.rstrip("/")
    while path:
        yield from by_path.get(("PathPrefix", path), ())
        path = path.rpartition("/")[0]
    yield from by_path.get(("PathPrefix", "/"), ())


def takes_all(first: VirtualHostEntry, second: VirtualHostEntry) -> bool:
    """Whether every request that `second` takes is one that `first` takes."""
    one, other = first.match, second.match
    if any(isinstance(each, Cors) for each in second.rule.filters) and (one.method is not None or one.headers):
        return False  # it still answers preflights, which carry another method and none of the headers
    if one.method is not None and one.method != other.method:
        return False
    return (
        _path_takes_all(one, other)
        and _values_take_all(one.headers, other.headers)
        and _values_take_all(one.query, other.query)
    )


def _path_takes_all(one: Match, other: Match) -> bool:
    if one.path_type == "PathPrefix" and one.path.rstrip("/") == "":
        return True
    if other.path_type == "Exact":
        return path_holds(one, other.path)
    if one.path_type == "PathPrefix" and other.path_type == "PathPrefix":
        return path_holds(one, other.path.rstrip("/") or "/")
    return (one.path_type, one.path) == (other.path_type, other.path)


def _values_take_all(ones: Iterable[ValueMatch], others: Sequence[ValueMatch]) -> bool:
    return all(any(_value_takes_all(one, other) for other in others if other.name == one.name) for one in ones)


def _value_takes_all(one: ValueMatch, other: ValueMatch) -> bool:
    return one == other or (other.type == "Exact" and value_holds(one, other.value))
