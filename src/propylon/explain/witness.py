"""Requests that a match takes, made from its own conditions: for what has to be tried rather than proved."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, product
from typing import NamedTuple
from urllib.parse import quote

from propylon.explain.expressions import samples
from propylon.explain.predicates import path_holds, value_holds
from propylon.explain.request import normalized_path
from propylon.graph.model import Match, ValueMatch

FRESH = "zq7"
"""A word that manifests hardly contain."""
METHODS = ("GET", "POST", "PROPFIND")
"""Tried where a match names no method: two that others may match, and one that hardly anybody does."""
_FROM_CONNECTION = frozenset({"host", ":authority", "x-forwarded-proto"})
"""Headers whose values are not the client's choice alone."""


class Probe(NamedTuple):
    """A request, but for the host and port it is sent to."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()

    @property
    def target(self) -> str:
        """Path and query."""
        return self.path + ("?" + "&".join(f"{name}={value}" for name, value in self.query) if self.query else "")


def probes(matches: Sequence[Match], limit: int = 40) -> list[Probe]:
    """Requests that all of the matches take, the plainest first; none if none was found.

    Conditions on the host and the scheme are not looked at: they are the connection's.
    """
    methods = {match.method for match in matches} - {None}
    if len(methods) > 1:
        return []
    paths = [path for path in dict.fromkeys(chain(*map(_paths, matches))) if all(path_holds(m, path) for m in matches)]
    headers = _values([h for m in matches for h in m.headers if h.name not in _FROM_CONNECTION], _is_header)
    query = _values([q for m in matches for q in m.query], _is_query)
    if headers is None or query is None or not paths:
        return []
    named = [method for method in methods if method is not None]
    base = Probe("", "", tuple((n, v[0]) for n, v in headers), tuple((n, v[0]) for n, v in query))
    found = [base._replace(method=method, path=path) for path, method in product(paths, named or METHODS)]
    first = found[0]
    varied = [first._replace(headers=values) for values in _varied(headers)]
    varied += [first._replace(query=values) for values in _varied(query)]
    # Every dimension keeps a share: the last path matters as much as the last value.
    return list(islice(dict.fromkeys([*found[: max(limit // 2, limit - len(varied))], *varied, *found]), limit))


def _varied(values: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[tuple[str, str], ...]]:
    for number, (_, choices) in enumerate(values):
        for choice in choices[1:]:
            yield tuple((n, choice if i == number else v[0]) for i, (n, v) in enumerate(values))


def _paths(match: Match) -> Sequence[str]:
    """Paths of every sort that the match takes."""
    if match.path_type == "Exact":
        found: Sequence[str] = (match.path,)
    elif match.path_type == "PathPrefix":
        prefix = match.path.rstrip("/")
        found = (prefix or "/", f"{prefix}/{FRESH}", f"{prefix}/", f"{prefix}/{FRESH}/{FRESH}")
    else:
        found = samples(match.path)
    return [path for path in found if path and quote(path, safe="/%:@!$&'()*+,;=~") == normalized_path(path)]


def _values(wanted: Sequence[ValueMatch], sendable: Callable[[str], bool]) -> list[tuple[str, Sequence[str]]] | None:
    """By name the values that meet all conditions on it; None if there is a name without any."""
    by_name: dict[str, list[ValueMatch]] = {}
    for each in wanted:
        by_name.setdefault(each.name, []).append(each)
    found: list[tuple[str, Sequence[str]]] = []
    for name, conditions in by_name.items():
        candidates = dict.fromkeys(chain(*((c.value,) if c.type == "Exact" else samples(c.value) for c in conditions)))
        good = [value for value in candidates if sendable(value) and all(value_holds(c, value) for c in conditions)]
        if not good:
            return None
        found.append((name, good))
    return found


def _is_header(value: str) -> bool:
    return value == value.strip(" \t") and all(" " <= c < "\x7f" for c in value)


def _is_query(value: str) -> bool:
    return quote(value, safe="/%:@!$'()*,;=~-._|^`{}\"<>\\[]?") == value and "&" not in value and "#" not in value
