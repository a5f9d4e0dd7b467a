"""Which matches of which rules the tests reach. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from propylon import api
from propylon.explain import Candidate
from propylon.explain.model import Place
from propylon.explain.predicates import match_text
from propylon.explain.walk import Locate
from propylon.graph import Graph

_RULELESS = ("TLSRoute", "TCPRoute", "UDPRoute")
Key = tuple[str, int, int]
"""Object, rule and match, as `explain.Candidate` names them."""


class Match(msgspec.Struct, frozen=True):
    """One match of one rule that a request could reach."""

    object: str
    rule: int
    rule_name: str | None
    match: int
    text: str
    place: Place | None
    attached: bool
    """Whether its route is attached to a listener at all."""


class Coverage(msgspec.Struct, frozen=True):
    """How many of all matches were reached, and which were not, by place."""

    total: int
    missed: tuple[Match, ...]

    @property
    def percent(self) -> float:
        """0 to 100; 100 if there is nothing to reach."""
        return 100.0 if not self.total else 100.0 * (self.total - len(self.missed)) / self.total


def matches_of(graph: Graph, locate: Locate) -> dict[Key, Match]:
    """Every match of the Graph's routes."""
    out: dict[Key, Match] = {}
    for ref, route in graph.routes.items():
        attached = any(parent.accepted and parent.attachments for parent in route.parents)
        name = f"{ref.kind} {ref.key}"
        if ref.kind in _RULELESS:
            out[name, 0, 0] = Match(name, 0, None, 0, "", _place(locate, ref, "spec.rules[0]"), attached)
            continue
        for rule in route.rules:
            for index, match in enumerate(rule.matches):
                place = _place(locate, ref, f"spec.rules[{rule.index}].matches[{index}]")
                out[name, rule.index, index] = Match(
                    name, rule.index, rule.name, index, match_text(match), place, attached
                )
    return out


def _place(locate: Locate, ref: api.ObjectRef, field: str) -> Place | None:
    file, line, column = locate(ref, field)
    return Place(file, line, column) if file else None


def key_of(winner: Candidate) -> Key:
    """What a request reached."""
    return winner.object, winner.rule, winner.match


def coverage(every: Iterable[Mapping[Key, Match]], reached: Iterable[tuple[Mapping[Key, Match], Key]]) -> Coverage:
    """Coverage of several sets of manifests; what stands at one place is one match, in however many sets it is."""
    found: dict[tuple[str, int, int, str, int, int], Match] = {}
    for matches in every:
        for match in matches.values():
            found.setdefault(_identity(match), match)
    hit = {_identity(matches[key]) for matches, key in reached if key in matches}
    missed = (match for identity, match in found.items() if identity not in hit)
    return Coverage(len(found), tuple(sorted(missed, key=_identity)))


def _identity(match: Match) -> tuple[str, int, int, str, int, int]:
    place = match.place or Place("", 0, 0)
    return place.file, place.line, place.column, match.object, match.rule, match.match
