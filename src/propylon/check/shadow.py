"""Rules that nothing can reach: those before them take every request that they would take.

Only what is certain is claimed: one earlier match has to take all that a later one takes. (Several earlier ones may do
so together; that is not looked for.) Order is the Graph's own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from propylon import api
from propylon.explain.predicates import path_holds, value_holds
from propylon.graph.model import Cors, Match, ValueMatch, VirtualHost, VirtualHostEntry, VirtualHostKey


class Shadowed(NamedTuple):
    """A match that is never reached, and the entry that is in its way."""

    entry: VirtualHostEntry
    match: int
    by: VirtualHostEntry
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
    shadows: dict[Place, tuple[VirtualHostEntry, VirtualHostEntry, VirtualHostKey]] = {}
    reached: set[Place] = set()
    places: dict[tuple[api.ObjectRef, int], set[Place]] = {}
    for host in hosts:
        for entry, by in shadows_in(host.entries):
            place = Place(entry.route, entry.rule.index, _index(entry))
            places.setdefault(place[:2], set()).add(place)
            if by is None:
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


def shadows_in(entries: Sequence[VirtualHostEntry]) -> Iterator[tuple[VirtualHostEntry, VirtualHostEntry | None]]:
    """Each entry of a virtual host with the earlier one that takes all of its requests, if there is one."""
    by_path: dict[tuple[str, str], list[VirtualHostEntry]] = {}
    expressions: list[VirtualHostEntry] = []
    for entry in entries:
        yield entry, next((each for each in _before(entry.match, by_path, expressions) if takes_all(each, entry)), None)
        match = entry.match
        if match.path_type == "RegularExpression":
            expressions.append(entry)
        path = (match.path.rstrip("/") or "/") if match.path_type == "PathPrefix" else match.path
        by_path.setdefault((match.path_type, path), []).append(entry)


def _before(
    match: Match, by_path: dict[tuple[str, str], list[VirtualHostEntry]], expressions: list[VirtualHostEntry]
) -> Iterator[VirtualHostEntry]:
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
