"""Which matches of a virtual host differ between two sides, whatever their rules are called and how they are counted.

If both sides have an entry (the same match, the same action) and keep the order of all those that they share, then a
request is answered differently only if an entry takes it that one side has alone. So only such entries have to be
tried.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from propylon import api
from propylon.diff.answers import Side
from propylon.graph.model import BackendRef, ExternalAuth, Filter, Mirror, Rule, VirtualHost, VirtualHostEntry

_encode = msgspec.msgpack.Encoder().encode


class Shape(NamedTuple):
    """All of a virtual host that decides an answer."""

    entries: tuple[bytes, ...]
    filters: bytes


class Shapes:
    """Shapes of one side's virtual hosts; each rule is looked at once."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._rules: dict[tuple[api.ObjectKey, int], tuple[Rule, bytes]] = {}

    def of(self, host: VirtualHost | None) -> Shape:
        """The shape of a virtual host; an empty one if there is none."""
        if host is None:
            return Shape((), b"")
        gateway = host.key.table.gateway
        filters = b"".join(_encode(self._filter(gateway, each)) for each in host.filters)
        return Shape(tuple(self._entry(gateway, entry) for entry in host.entries), filters)

    def _entry(self, gateway: api.ObjectKey, entry: VirtualHostEntry) -> bytes:
        known = self._rules.get((gateway, id(entry.rule)))
        if known is None or known[0] is not entry.rule:
            known = self._rules[gateway, id(entry.rule)] = (entry.rule, self._action(gateway, entry))
        return _encode(entry.match) + known[1]

    def _action(self, gateway: api.ObjectKey, entry: VirtualHostEntry) -> bytes:
        rule = entry.rule
        return _encode(
            [
                entry.route.kind == "GRPCRoute" and not all(ref.cluster for ref in rule.backends),
                [self._filter(gateway, each) for each in rule.filters],
                [self._backend(gateway, ref) for ref in rule.backends if ref.weight],
                rule.timeouts,
                rule.retry,
                rule.session,
                rule.finding is not None,
            ]
        )

    def _backend(self, gateway: api.ObjectKey, ref: BackendRef) -> list[Any]:
        return [
            ref.weight,
            ref.cluster,
            ref.target,
            [self._filter(gateway, each) for each in ref.filters],
            sorted(self._side.connection(gateway, ref.cluster).items()),
            self._side.is_empty(ref.cluster),
        ]

    def _filter(self, gateway: api.ObjectKey, each: Filter) -> list[Any]:
        if isinstance(each, Mirror):
            return ["Mirror", self._backend(gateway, each.backend), each.numerator, each.denominator]
        if isinstance(each, ExternalAuth):
            return ["ExternalAuth", self._backend(gateway, each.backend), msgspec.to_builtins(each.auth)]
        return [msgspec.to_builtins(each)]


class Changed(NamedTuple):
    """Positions of the entries that one side has alone, or in another order."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def changed_entries(before: Sequence[bytes], after: Sequence[bytes]) -> Changed:
    """Leave the longest sequence that both sides share, and name the rest."""
    begin = 0
    while begin < min(len(before), len(after)) and before[begin] == after[begin]:
        begin += 1
    end = 0
    while end < min(len(before), len(after)) - begin and before[-1 - end] == after[-1 - end]:
        end += 1
    there: dict[bytes, list[int]] = {}
    for position in range(len(after) - end - 1, begin - 1, -1):
        there.setdefault(after[position], []).append(position)
    pairs = [
        (position, found.pop())
        for position in range(begin, len(before) - end)
        if (found := there.get(before[position]))
    ]
    kept = _longest_rising(pairs)
    kept_before, kept_after = {pair[0] for pair in kept}, {pair[1] for pair in kept}
    return Changed(
        tuple(p for p in range(begin, len(before) - end) if p not in kept_before),
        tuple(p for p in range(begin, len(after) - end) if p not in kept_after),
    )


def _longest_rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence in which the second numbers rise (patience sorting)."""
    tops: list[int] = []
    at: list[int] = []
    previous: list[int] = []
    for number, (_, second) in enumerate(pairs):
        pile = bisect_left(tops, second)
        previous.append(at[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [second]
        at[pile : pile + 1] = [number]
    found = []
    number = at[-1] if at else -1
    while number >= 0:
        found.append(pairs[number])
        number = previous[number]
    return found[::-1]
