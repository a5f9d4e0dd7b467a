"""Both sides are asked what may have changed; answers that differ are put together by cause."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from propylon.diff.answers import ANSWER, BACKENDS, Answer, Question, Side, Winner
from propylon.diff.entries import Shape, Shapes, changed_entries
from propylon.diff.handshake import handshake
from propylon.diff.model import Aspect, Change, Example
from propylon.diff.places import Names, Place, names_by_port, places, schemes
from propylon.diff.requests import Pair, plain_request, requests_for
from propylon.explain.places import Chosen, End
from propylon.explain.request import Request
from propylon.explain.walk import describe
from propylon.graph.model import VirtualHost, VirtualHostKey

_SHOWN_HOSTS = 5
_CROSSED = 40
"""So many names of a port are tried as server name with the host of others, if its listeners differ."""


class Seen(NamedTuple):
    """A request that is answered differently."""

    place: Place
    question: Question
    before: Answer
    after: Answer


class Counts(msgspec.Struct):
    """What was done."""

    same: int = 0
    tried: int = 0
    requests: int = 0
    complete: bool = True


class Comparison:
    """One comparison of two sides."""

    def __init__(self, before: Side, after: Side, limit: int) -> None:
        """`limit`: so many requests are made at most."""
        self.before, self.after, self.limit = before, after, limit
        self.counts = Counts()
        self.unknown: set[str] = set()
        self._shapes = (Shapes(before), Shapes(after))
        self._known: dict[tuple[object, ...], list[Request]] = {}
        """By what a host has on both sides: requests, one for each way in which its answers differ."""
        self._groups: dict[tuple[object, ...], list[Seen]] = {}

    def run(self) -> list[Change]:
        """All changes, the farthest reaching first."""
        graphs = (self.before.graph, self.after.graph)
        for key, names in names_by_port(graphs).items():
            spoken = schemes(graphs, key)
            for place in places(key, names, spoken):
                self._compare(place, names)
            if "https" in spoken and self._listeners_differ(Place(key, "https", "*", "")):
                self._cross(Place(key, "https", "*", ""), names)
        together: dict[tuple[object, ...], list[list[Seen]]] = {}
        for group in self._groups.values():
            together.setdefault(_effect(group), []).append(group)
        changes = [_change(groups) for groups in together.values()]
        return sorted(changes, key=lambda c: (-c.hosts_total, c.gateway, c.port, c.summary))

    def places(self) -> frozenset[Place]:
        """Where something changes; of every other host it is said that it answers alike, or that nothing was found."""
        return frozenset(seen.place for group in self._groups.values() for seen in group)

    # -- one host ----------------------------------------------------------------------------------------------------

    def _compare(self, place: Place, names: Names) -> None:
        plain = Question.of(plain_request(place))
        left, right = self.before.place(place.port, plain.asked), self.after.place(place.port, plain.asked)
        self._compare_handshakes(place, plain, left[0], right[0])
        hosts = (_host(self.before, left[1]), _host(self.after, right[1]))
        if not any(hosts):
            # Bytes, datagrams, or nobody: every request is answered alike.
            new, _ = self._ask(place, plain)
            self.counts.same += not new
            self.counts.tried += new
            return
        shapes = (self._shape(0, hosts[0]), self._shape(1, hosts[1]))
        if _end(left) == _end(right) and shapes[0] == shapes[1]:
            self.counts.same += 1
            return
        self.counts.tried += 1
        pair = Pair(
            hosts[0].entries if hosts[0] else (),
            hosts[1].entries if hosts[1] else (),
            changed_entries(shapes[0].entries, shapes[1].entries),
        )
        known = (place.scheme, _end(left), _end(right), shapes, _looks_at_host(pair))
        if known in self._known and not known[-1]:
            for request in self._known[known]:
                self._ask(place, Question.of(_moved(request, place)))
            return
        self._known[known] = list(self._try(place, plain, pair, names, filters=shapes[0].filters != shapes[1].filters))

    def _try(self, place: Place, plain: Question, pair: Pair, names: Names, *, filters: bool) -> Iterator[Request]:
        """Ask all that may differ; yield one request for each way in which it does."""
        if self._ask(place, plain)[0]:
            yield plain.request
        if filters or not (pair.before and pair.after):  # all of its requests may be answered differently
            whole = (tuple(range(len(pair.before))), tuple(range(len(pair.after))))
            pair = pair._replace(changed=pair.changed._replace(before=whole[0], after=whole[1]))
        seen: set[Request] = set()
        reached: set[tuple[int, str]] = set()
        aligned = pair.aligned
        for request, entry, path, is_plain in requests_for(pair, place, names.all, self.unknown):
            if request in seen or (is_plain and aligned and (id(entry), path) in reached):
                continue  # where matches are the same, one request that is taken by it tells of a changed action
            seen.add(request)
            if self.counts.requests >= self.limit:
                self.counts.complete = False
                return
            new, after = self._ask(place, Question.of(request))
            if after.winner == Winner.of(entry):
                reached.add((id(entry), path))
            if new:
                yield request

    def _ask(self, place: Place, question: Question) -> tuple[bool, Answer]:
        """Ask both sides; whether they differ in a way that was not seen for this place before, and the later one."""
        self.counts.requests += 1
        before, after = self.before.ask(place.port, question), self.after.ask(place.port, question)
        if before.aspects == after.aspects:
            return False, after
        return self._differs(Seen(place, question, before, after)), after

    def _differs(self, seen: Seen) -> bool:
        names = tuple(aspect.name for aspect in aspects_of(seen.before, seen.after))
        kinds = tuple(answer.aspects[ANSWER].partition(" ")[0] for answer in (seen.before, seen.after))
        winners = tuple(answer.winner and answer.winner[:2] for answer in (seen.before, seen.after))
        backends = tuple(answer.aspects.get(BACKENDS, "") for answer in (seen.before, seen.after))
        group = self._groups.setdefault((seen.place.port, names, kinds, winners, backends), [])
        new = all(other.place != seen.place for other in group)
        if new:
            group.append(seen)
        return new

    def _shape(self, side: int, host: VirtualHost | None) -> Shape:
        return self._shapes[side].of(host)

    # -- TLS ---------------------------------------------------------------------------------------------------------

    def _compare_handshakes(
        self, place: Place, question: Question, before: Chosen | End | None, after: Chosen | End | None
    ) -> None:
        if not (isinstance(before, Chosen) and isinstance(after, Chosen)) or place.scheme not in {"https", "tls"}:
            return
        told = (handshake(self.before, before), handshake(self.after, after))
        if told[0] == told[1] or not all(told):
            return
        answers = [Answer({ANSWER: "handshake", **each}, each["certificate"]) for each in told if each]
        self._differs(Seen(place, question, answers[0], answers[1]))

    def _listeners_differ(self, place: Place) -> bool:
        ports = (self.before.graph.ports.get(place.port), self.after.graph.ports.get(place.port))
        found = [
            {(listener.hostname, listener.protocol) for listener in port.listeners} if port else set() for port in ports
        ]
        return found[0] != found[1]

    def _cross(self, place: Place, names: Names) -> None:
        """Connections that are used again for another host (421 or not)."""
        hosts = [names.witness(name) for name in sorted(names.all)][:_CROSSED]
        for sni in hosts:
            for host in hosts:
                if sni != host:
                    crossed = place._replace(name=names.nearest(host), host=host)
                    request = msgspec.structs.replace(plain_request(crossed), sni=sni)
                    question = Question.of(request)
                    before, after = self.before.ask(place.port, question), self.after.ask(place.port, question)
                    misdirected = [answer.aspects[ANSWER] == "421" for answer in (before, after)]
                    if misdirected[0] != misdirected[1]:
                        self._differs(Seen(crossed, question, before, after))


def _host(side: Side, found: VirtualHostKey | End | None) -> VirtualHost | None:
    return side.graph.virtual_hosts.get(found) if isinstance(found, VirtualHostKey) else None


def _end(place: tuple[Chosen | End | None, VirtualHostKey | End | None]) -> tuple[object, ...]:
    """How a request comes to an end before any rule is tried; nothing if it does not."""
    for each in place:
        if each is None:
            continue
        if isinstance(each, End):
            return (each.outcome, each.status)
        if isinstance(each, Chosen) and each.route is not None:
            return ("passed on",)
    return () if place[0] is not None else ("refused",)


def _looks_at_host(pair: Pair) -> bool:
    return any(
        header.name in {"host", ":authority"} for entry in (*pair.before, *pair.after) for header in entry.match.headers
    )


def _moved(request: Request, place: Place) -> Request:
    """The same request to another host."""
    scheme, _, rest = request.url.partition("://")
    target = rest[rest.index("/") :] if "/" in rest else ""
    return msgspec.structs.replace(
        request, url=f"{scheme}://{place.host}:{place.port.port}{target}", gateway=str(place.port.gateway)
    )


# --- for people -------------------------------------------------------------------------------------------------------


def aspects_of(before: Answer, after: Answer) -> tuple[Aspect, ...]:
    """What differs; nothing but the answer itself if one side forwards and the other does not."""
    one, other = before.aspects, after.aspects
    if one[ANSWER] != other[ANSWER]:
        return (Aspect(ANSWER, before.summary, after.summary),)
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return tuple(Aspect(name, one.get(name, ""), other.get(name, "")) for name in names)


def _plainest(group: list[Seen]) -> Seen:
    return min(group, key=lambda each: _plainness(each.question.request))


def _effect(group: list[Seen]) -> tuple[object, ...]:
    """What rules have in common that change in one way: a Service that is gone is one cause, not one for each rule."""
    seen = _plainest(group)
    winners = (seen.before.winner, seen.after.winner)
    rules = [winner and winner[:2] for winner in winners]
    same = rules[0] == rules[1] and rules[0] is not None
    return (seen.place.port, aspects_of(seen.before, seen.after), *(() if same else rules))


def _change(groups: list[list[Seen]]) -> Change:
    every = [seen for group in groups for seen in group]
    seen = _plainest(every)
    aspects = aspects_of(seen.before, seen.after)
    request = seen.question.request
    example = Example(
        request=describe(seen.question.asked),
        curl=curl_of(seen),
        before=seen.before.summary,
        after=seen.after.summary,
        url=request.url,
        method=seen.question.asked.method,
        headers=request.headers,
        sni=request.sni,
    )
    hosts = sorted({each.place.name for each in every} - {""})
    alike = sorted({_rule(each.after.winner) for each in every}) if len(groups) > 1 else []
    return Change(
        summary=_summary(seen.before, seen.after, aspects) + (f"; {len(alike) - 1} more rules alike" if alike else ""),
        before=_rule(seen.before.winner),
        after=_rule(seen.after.winner),
        gateway=str(seen.place.port.gateway),
        port=seen.place.port.port,
        aspects=aspects,
        example=example,
        hosts=tuple(hosts[:_SHOWN_HOSTS]),
        hosts_total=len({(each.place.name, each.place.scheme) for each in every}),
        alike=tuple(rule for rule in alike if rule != _rule(seen.after.winner)),
    )


def _plainness(request: Request) -> tuple[int, int, str]:
    return (len(request.headers) + (request.method not in {"", "GET"}), len(request.url), request.url)


def _rule(winner: Winner | None) -> str:
    if winner is None:
        return ""
    return f"{winner.route} rule {winner.rule}" if winner.match else str(winner.route)


def _summary(before: Answer, after: Answer, aspects: tuple[Aspect, ...]) -> str:
    one, other = _rule(before.winner), _rule(after.winner)
    what = ", ".join(aspect.name for aspect in aspects)
    if before.aspects[ANSWER] == "handshake":
        return f"TLS handshake: {what}"
    kinds = [answer.aspects[ANSWER].partition(" ")[0] for answer in (before, after)]
    if kinds[0] != kinds[1]:
        what = f"{kinds[0]} becomes {kinds[1]}"
    elif what == ANSWER:
        what = f"another {kinds[0]}"
    if one == other:
        return f"{one}: {what}" if one else what
    if not one:
        return f"{other} takes what no rule took: {what}"
    if not other:
        return f"{one} took what no rule takes: {what}"
    return f"{other} takes what {one} took: {what}"


def curl_of(seen: Seen) -> str:
    """The command that sends the request; "" for datagrams and bytes."""
    request, asked = seen.question.request, seen.question.asked
    if asked.scheme not in {"http", "https"}:
        return ""
    words = ["curl", "-i"]
    if asked.scheme == "https":
        words.append("-k")
    if asked.method != "GET":
        words += ["-I"] if asked.method == "HEAD" else ["-X", asked.method]
    for name, value in request.headers:
        words += ["-H", _quoted(f"{name}: {value}" if value else f"{name};")]
    host = request.sni or asked.host
    if host != asked.host:
        words += ["-H", _quoted(f"Host: {asked.authority}")]
    if "/." in asked.target:
        words.append("--path-as-is")
    words.append(_quoted(f"{asked.scheme}://{host}{asked.authority.removeprefix(asked.host)}{asked.target}"))
    return " ".join(words)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
