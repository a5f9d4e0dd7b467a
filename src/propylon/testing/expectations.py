"""Whether an answer is the one that is expected. Pure."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from propylon.testing.model import Answer, Expectation, HeaderExpectation, Pairs, Unmet, Way

ALPHA = 1e-9
"""How likely a split that is as it should be may be called wrong, for each share that is looked at."""


class Check(NamedTuple):
    """One expected thing: whether a way that a request can go has it."""

    field: str
    wanted: str
    holds: Callable[[Way], bool]
    found: Callable[[Way], str]


def unmet(expect: Expectation, answer: Answer) -> tuple[Unmet, ...]:
    """What does not hold: expected things have to hold for every way the request can go, unwanted ones for none."""
    out = []
    for check in checks(expect, answer):
        failing = [way for way in answer.ways if not check.holds(way)]
        if failing:
            out.append(Unmet(answer.engine, check.field, check.wanted, _several(check, failing, answer)))
    if expect.backends is not None:
        out.extend(_split(expect.backends, answer))
    if expect.unwanted is not None:
        for check in checks(expect.unwanted, answer):
            holding = [way for way in answer.ways if check.holds(way)]
            if holding:
                found = _several(check, holding, answer)
                out.append(Unmet(answer.engine, f"not.{check.field}", f"anything but {check.wanted}", found))
        if expect.unwanted.backends is not None and not list(_split(expect.unwanted.backends, answer)):
            wanted = _shares(expect.unwanted.backends)
            out.append(Unmet(answer.engine, "not.backends", f"anything but {wanted}", wanted))
    return tuple(out)


def _several(check: Check, ways: list[Way], answer: Answer) -> str:
    """What was found, with the share where the request can go other ways as well."""
    found = dict.fromkeys(check.found(way) for way in ways)
    text = " or ".join(found)
    share = sum(way.share for way in ways)
    return text if len(answer.ways) == 1 or share > 0.9999 else f"{text} ({100 * share:.3g} % of the requests)"


def checks(expect: Expectation, answer: Answer) -> Iterator[Check]:
    """What is expected of each way, one thing at a time."""
    if expect.backend is not None:
        backend = expect.backend
        yield Check("backend", backend, lambda way: is_backend(backend, way.backend), where)
    if expect.outcome is not None:
        yield Check("outcome", expect.outcome, lambda way: way.outcome == expect.outcome, where)
    if expect.status is not None:
        yield Check("status", str(expect.status), lambda way: way.status == expect.status, _status)
    if expect.grpc_status is not None:
        wanted = str(expect.grpc_status)
        yield Check("grpcStatus", wanted, lambda way: way.grpc_status == expect.grpc_status, _grpc_status)
    if expect.location is not None:
        location = expect.location
        yield Check("redirect", location, lambda way: way.location == location, lambda way: way.location or where(way))
    yield from _rule_checks(expect, answer)
    if expect.path is not None:
        yield Check("path", expect.path, lambda way: way.path == expect.path, lambda way: _at_backend(way, way.path))
    if expect.host is not None:
        yield Check("host", expect.host, lambda way: way.host == expect.host, lambda way: _at_backend(way, way.host))
    if expect.backend_headers is not None:
        yield from _header_checks("backendHeaders", expect.backend_headers, lambda way: way.headers)
    if expect.response_headers is not None:
        for check in _header_checks("responseHeaders", expect.response_headers, lambda way: way.response_headers):
            if answer.cors and answer.engine == "graph" and "access-control-" in check.field:
                nothing = "nothing: the Graph does not tell the headers of CORS, ask Envoy (--engine envoy)"
                yield check._replace(holds=lambda _: False, found=lambda _, text=nothing: text)  # type: ignore[misc]
            else:
                yield check


def _rule_checks(expect: Expectation, answer: Answer) -> Iterator[Check]:
    taken = rule_text(answer)
    if answer.route is None:  # the engine cannot tell, and the other one does
        return
    if expect.route is not None:
        route = expect.route
        yield Check("route", route, lambda _: is_named(route, answer.route or ""), lambda _: taken)
    if expect.rule is not None:
        rule = expect.rule
        right = answer.rule == rule if isinstance(rule, int) else answer.rule_name == rule
        yield Check("rule", str(rule), lambda _: right, lambda _: taken)
    if expect.unrouted is not None:
        wanted = "no rule takes it" if expect.unrouted else "a rule takes it"
        right_ = (answer.route == "") == expect.unrouted
        yield Check("unrouted", wanted, lambda _: right_, lambda _: taken)


def rule_text(answer: Answer) -> str:
    """`HTTPRoute shop/cart rule 0 (canary)`."""
    if not answer.route:
        return "no rule takes it"
    name = f" ({answer.rule_name})" if answer.rule_name else ""
    return f"{answer.route} rule {answer.rule}{name}"


def _header_checks(field: str, expect: HeaderExpectation, headers: Callable[[Way], Pairs | None]) -> Iterator[Check]:
    def value(name: str, way: Way) -> str | None:
        return joined(headers(way) or ()).get(name)

    def found(name: str) -> Callable[[Way], str]:
        return lambda way: where(way) if headers(way) is None else repr(text) if (text := value(name, way)) else "none"

    for name, wanted in joined(expect.present).items():
        yield Check(
            f"{field}.set[{name}]",
            repr(wanted),
            lambda way, name=name, wanted=wanted: value(name, way) == wanted,  # type: ignore[misc]
            found(name),
        )
    for name in expect.absent:
        yield Check(
            f"{field}.absent[{name}]",
            "no such header",
            lambda way, name=name: headers(way) is not None and value(name, way) is None,  # type: ignore[misc]
            found(name),
        )


def joined(pairs: Pairs) -> dict[str, str]:
    """Headers by name; the values of one name in their order, joined (RFC 9110 5.3)."""
    out: dict[str, str] = {}
    for name, value in pairs:
        out[name] = f"{out[name]},{value}" if name in out else value
    return out


def is_named(wanted: str, found: str) -> bool:
    """Whether `Kind ns/name` is what is meant by `ns/name` or `Kind ns/name`."""
    return found == wanted if " " in wanted else found.partition(" ")[2] == wanted


def is_backend(wanted: str, found: str) -> bool:
    """Whether `Service ns/name:port` is what is meant, where kind and port may be left out."""
    return is_named(wanted, found if ":" in wanted else found.rpartition(":")[0])


def where(way: Way) -> str:
    """Where a way leads, in few words."""
    if way.outcome == "forwarded":
        return way.backend or "a backend that is not known"
    if way.outcome == "redirected":
        return f"{way.status} to {way.location}"
    if way.outcome == "answered":
        return f"status {way.status} by the proxy" + (
            f" (gRPC status {way.grpc_status})" if way.grpc_status is not None else ""
        )
    return f"the connection is {way.outcome}"


def _status(way: Way) -> str:
    return str(way.status) if way.status is not None else where(way)


def _grpc_status(way: Way) -> str:
    return str(way.grpc_status) if way.grpc_status is not None else where(way)


def _at_backend(way: Way, text: str | None) -> str:
    return text if text is not None else where(way)


# --- splits -----------------------------------------------------------------------------------------------------------


def _shares(weights: tuple[tuple[str, float], ...]) -> str:
    total = sum(weight for _, weight in weights)
    return ", ".join(f"{name} {100 * weight / total:.3g} %" for name, weight in weights)


def _split(wanted: tuple[tuple[str, float], ...], answer: Answer) -> Iterator[Unmet]:
    total = sum(weight for _, weight in wanted)
    rest = 1.0
    text = _shares(wanted)
    for name, weight in wanted:
        found = sum(way.share for way in answer.ways if is_backend(name, way.backend))
        rest -= found
        if not plausible(found, weight / total, answer.samples):
            yield Unmet(answer.engine, f"backends[{name}]", text, _found_split(answer))
            return
    if rest > 1e-6:
        yield Unmet(answer.engine, "backends", text, _found_split(answer))


def _found_split(answer: Answer) -> str:
    shares: dict[str, float] = {}
    for way in answer.ways:
        shares[where(way)] = shares.get(where(way), 0.0) + way.share
    text = ", ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
    return f"{text} of {answer.samples} requests" if answer.samples else text


def plausible(found: float, share: float, samples: int) -> bool:
    """Whether a share that was found can be the share that is.

    Without samples shares are exact. With them the number of hits is binomial, and it has to lie where it would with a
    likelihood above ALPHA: a split that is right is practically never refused, one that is off by far is.
    """
    if not samples:
        return math.isclose(found, share, abs_tol=1e-6)
    hits = round(found * samples)
    if share <= 0 or share >= 1:
        return hits == (0 if share <= 0 else samples)
    return min(_tail(0, hits, samples, share), _tail(hits, samples, samples, share)) >= ALPHA / 2


def _tail(first: int, last: int, samples: int, share: float) -> float:
    """Likelihood of so many hits."""
    return sum(
        math.exp(
            math.lgamma(samples + 1)
            - math.lgamma(hits + 1)
            - math.lgamma(samples - hits + 1)
            + hits * math.log(share)
            + (samples - hits) * math.log1p(-share)
        )
        for hits in range(first, last + 1)
    )
