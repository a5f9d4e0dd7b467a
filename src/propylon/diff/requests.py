"""Requests worth asking both sides: from every match that one side has alone, by itself and together with its
neighbours, with the headers that filters touch, and as browsers ask before."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from propylon.diff.entries import Changed
from propylon.diff.places import Place
from propylon.explain.expressions import samples
from propylon.explain.predicates import value_holds
from propylon.explain.request import Request, host_of
from propylon.explain.witness import Probe, probes
from propylon.graph.hostnames import ancestors
from propylon.graph.model import Cors, Filter, Match, RequestHeaders, VirtualHostEntry

_NEIGHBOURS = 48
"""So many other matches are combined with a changed one at most, the first in the order of precedence."""
_PROBE = "probe"
_ORIGIN = ("origin", "https://origin.example")
_KEPT = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "content-type"})
"""Headers that a probe does not set: they mean something to the connection."""


class Pair(NamedTuple):
    """The entries of a host on both sides, and which of them have to be tried."""

    before: tuple[VirtualHostEntry, ...]
    after: tuple[VirtualHostEntry, ...]
    changed: Changed

    @property
    def aligned(self) -> bool:
        """Whether both sides have the same matches in the same order: each request is taken in the same position."""
        return [(e.match, _has_cors(e)) for e in self.before] == [(e.match, _has_cors(e)) for e in self.after]

    def tried(self) -> list[VirtualHostEntry]:
        """The entries that one side has alone; each match once, those of the later side first."""
        found = [self.after[p] for p in self.changed.after] + [self.before[p] for p in self.changed.before]
        seen: dict[tuple[Match, str], VirtualHostEntry] = {}
        for entry in found:
            seen.setdefault((entry.match, entry.route.kind), entry)
        return list(seen.values())


def request_of(place: Place, probe: Probe, authority: str = "") -> Request:
    """A request to a place."""
    headers = ((("Host", authority),) if authority else ()) + probe.headers
    url = f"{place.scheme}://{place.host}:{place.port.port}{probe.target}"
    return Request(url, probe.method, headers, str(place.port.gateway))


def plain_request(place: Place) -> Request:
    """A request to a place that says nothing else: bytes, or GET /."""
    if place.scheme in {"http", "https"}:
        return request_of(place, Probe("GET", "/"))
    return Request(f"{place.scheme}://{place.host}:{place.port.port}", gateway=str(place.port.gateway))


class Asked(NamedTuple):
    """A request, and what it was made from."""

    request: Request
    entry: VirtualHostEntry
    path: str
    plain: bool
    """Nothing but what the match itself asks for."""


def requests_for(pair: Pair, place: Place, names: frozenset[str], unknown: set[str]) -> Iterator[Asked]:
    """Requests that may be answered differently; matches for which none could be made are put into `unknown`."""
    tried = pair.tried()
    touched = tuple(dict.fromkeys(chain(*(_touched(entry) for entry in tried))))[:16]
    aligned = pair.aligned
    neighbours = list({(entry.match, _has_cors(entry)): entry for entry in (*pair.after, *pair.before)}.values())
    for entry in tried:
        alone = probes([entry.match])
        if not alone:
            unknown.add(f"{entry.route} rule {entry.rule.index}")
        for plain, probe in chain(
            ((True, probe) for probe in alone),
            ((False, probe) for probe in chain(_dressed(alone, touched), _preflights(alone, entry))),
            ((False, probe) for probe in (() if aligned else _together(entry, neighbours))),
        ):
            for authority in _authorities(entry, place, names):
                request = request_of(place, _as_grpc(probe, entry), authority)
                yield Asked(request, entry, probe.path, plain)


def _together(entry: VirtualHostEntry, neighbours: Iterable[VirtualHostEntry]) -> Iterator[Probe]:
    for other in _near(entry.match, neighbours):
        found = probes([entry.match, other.match], 8)
        yield from chain(found, _preflights(found, entry, other))


def _as_grpc(probe: Probe, entry: VirtualHostEntry) -> Probe:
    if entry.route.kind != "GRPCRoute" or any(name == "content-type" for name, _ in probe.headers):
        return probe
    return probe._replace(method="POST", headers=(*probe.headers, ("content-type", "application/grpc")))


def _dressed(alone: list[Probe], touched: tuple[str, ...]) -> Iterator[Probe]:
    """Requests with the headers that filters touch."""
    for probe in alone[:2]:
        own = {name for name, _ in probe.headers}
        extra = tuple((name, _PROBE) for name in touched if name not in own)
        if extra:
            yield probe._replace(headers=(*probe.headers, *extra))


def _preflights(found: list[Probe], *entries: VirtualHostEntry) -> Iterator[Probe]:
    """What a browser asks before: without the headers of the request, and with its method as a header."""
    if any(map(_has_cors, entries)):
        for probe in found:
            yield probe._replace(method="OPTIONS", headers=(_ORIGIN, ("access-control-request-method", probe.method)))


def _has_cors(entry: VirtualHostEntry) -> bool:
    return any(isinstance(each, Cors) for each in entry.rule.filters)


def _touched(entry: VirtualHostEntry) -> Iterator[str]:
    filters: Iterable[Filter] = chain(entry.rule.filters, *(ref.filters for ref in entry.rule.backends))
    for each in filters:
        if isinstance(each, RequestHeaders):
            names = (*each.change.remove, *(h.name for h in (*each.change.set, *each.change.add)))
            yield from (name.lower() for name in names if name.lower() not in _KEPT)


def _near(match: Match, others: Iterable[VirtualHostEntry]) -> list[VirtualHostEntry]:
    """Entries that may take some of the same requests."""
    found = []
    for entry in others:
        other = entry.match
        if other != match and (other.method is None or match.method in {None, other.method}) and _meet(match, other):
            found.append(entry)
            if len(found) == _NEIGHBOURS:
                break
    return found


def _meet(one: Match, other: Match) -> bool:
    """Whether paths may have something in common; True if that cannot be told."""
    if "RegularExpression" in {one.path_type, other.path_type}:
        return True
    if one.path_type == other.path_type == "Exact":
        return one.path == other.path
    short, long = sorted((one.path.rstrip("/"), other.path.rstrip("/")), key=len)
    return long.startswith(short) and long[len(short) : len(short) + 1] in {"", "/"}


def _authorities(entry: VirtualHostEntry, place: Place, names: frozenset[str]) -> list[str]:
    """Host headers that meet the match's own conditions on the host; one that says nothing ("") if it has none."""
    wanted = [header for header in entry.match.headers if header.name in {"host", ":authority"}]
    if not wanted:
        return [""]
    hosts = [place.host, *(value for header in wanted for value in _texts(header.type, header.value))]
    found = []
    for host in dict.fromkeys(hosts):
        name = next((each for each in ancestors(host_of(host)) if each in names), "")
        if host and name == place.name and all(value_holds(header, host) for header in wanted):
            found.append(host)
    return found[:2]


def _texts(kind: str, value: str) -> tuple[str, ...]:
    return (value,) if kind == "Exact" else samples(value)
