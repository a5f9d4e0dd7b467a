"""Expectations and answers: what holds, what does not, and when two engines disagree."""

import math
import random
from typing import Any

import msgspec
import pytest

from propylon.testing.agreement import disagreements
from propylon.testing.expectations import ALPHA, plausible, unmet
from propylon.testing.model import Answer, Expectation, HeaderExpectation, Way

CART = Way(
    "forwarded",
    1.0,
    200,
    backend="Service shop/cart:80",
    path="/x?y",
    host="a.test",
    headers=(("x-a", "1"), ("x-a", "2")),
    response_headers=(("content-type", "text/plain"),),
)
NEXT = msgspec.structs.replace(CART, backend="Service shop/next:80", share=0.25)
MOVED = Way("redirected", 1.0, 302, location="https://b.test/")
GONE = Way("answered", 1.0, 404)


def answer(*ways: Way, engine: Any = "graph", samples: int = 0, rule: int | None = 2, name: str | None = "n") -> Answer:
    route = "HTTPRoute shop/r" if rule is not None else ""
    return Answer(engine, ways, route, rule, name, samples)


def split(share: float) -> tuple[Way, Way]:
    return msgspec.structs.replace(CART, share=1 - share), msgspec.structs.replace(NEXT, share=share)


@pytest.mark.parametrize(
    ("expect", "given", "fields"),
    [
        ({"backend": "shop/cart:80"}, answer(CART), []),
        ({"backend": "shop/cart"}, answer(CART), []),
        ({"backend": "Service shop/cart:80"}, answer(CART), []),
        ({"backend": "XBackend shop/cart:80"}, answer(CART), ["backend"]),
        ({"backend": "shop/cart:8"}, answer(CART), ["backend"]),
        ({"backend": "shop/car"}, answer(CART), ["backend"]),
        ({"backend": "shop/cart:80"}, answer(*split(0.25)), ["backend"]),
        ({"backend": "shop/cart:80"}, answer(GONE), ["backend"]),
        ({"status": 200}, answer(*split(0.25)), []),
        ({"status": 200}, answer(GONE), ["status"]),
        ({"outcome": "answered"}, answer(GONE), []),
        ({"outcome": "closed"}, answer(GONE), ["outcome"]),
        ({"outcome": "redirected", "location": "https://b.test/"}, answer(MOVED), []),
        ({"location": "https://b.test"}, answer(MOVED), ["redirect"]),
        ({"location": "https://b.test"}, answer(CART), ["redirect"]),
        ({"route": "shop/r", "rule": 2}, answer(CART), []),
        ({"route": "HTTPRoute shop/r", "rule": "n"}, answer(CART), []),
        ({"route": "GRPCRoute shop/r", "rule": 1}, answer(CART), ["route", "rule"]),
        ({"rule": "m"}, answer(CART), ["rule"]),
        ({"rule": 0}, answer(GONE, rule=None), ["rule"]),
        ({"unrouted": True}, answer(GONE, rule=None), []),
        ({"unrouted": True}, answer(CART), ["unrouted"]),
        ({"unrouted": False}, answer(CART), []),
        ({"path": "/x?y", "host": "a.test"}, answer(CART), []),
        ({"path": "/x", "host": "b.test"}, answer(CART), ["path", "host"]),
        ({"path": "/x"}, answer(MOVED), ["path"]),
        ({"grpc_status": 0}, answer(msgspec.structs.replace(CART, grpc_status=0)), []),
        ({"grpc_status": 12}, answer(CART), ["grpcStatus"]),
        ({"backend_headers": HeaderExpectation((("x-a", "1,2"),), ("x-b",))}, answer(CART), []),
        ({"backend_headers": HeaderExpectation((("x-a", "1"),))}, answer(CART), ["backendHeaders.set[x-a]"]),
        ({"backend_headers": HeaderExpectation((), ("x-a",))}, answer(CART), ["backendHeaders.absent[x-a]"]),
        ({"backend_headers": HeaderExpectation((), ("x-a",))}, answer(GONE), ["backendHeaders.absent[x-a]"]),
        ({"response_headers": HeaderExpectation((("content-type", "text/plain"),))}, answer(CART), []),
        ({"unwanted": Expectation(backend="shop/next")}, answer(CART), []),
        ({"unwanted": Expectation(backend="shop/next")}, answer(*split(0.01)), ["not.backend"]),
        ({"unwanted": Expectation(status=404, rule=2)}, answer(CART), ["not.rule"]),
        ({"backends": (("shop/cart", 3.0), ("shop/next", 1.0))}, answer(*split(0.25)), []),
        ({"backends": (("shop/cart", 1.0), ("shop/next", 1.0))}, answer(*split(0.25)), ["backends[shop/cart]"]),
        ({"backends": (("shop/cart", 1.0),)}, answer(CART), []),
        ({"backends": (("shop/cart", 1.0), ("shop/next", 0.0))}, answer(CART), []),
        ({"backends": (("shop/cart", 1.0), ("shop/next", 0.0))}, answer(*split(0.01)), ["backends[shop/cart]"]),
        ({"unwanted": Expectation(backends=(("shop/cart", 1.0),))}, answer(CART), ["not.backends"]),
        ({"unwanted": Expectation(backends=(("shop/cart", 1.0),))}, answer(*split(0.5)), []),
    ],
)
def test_what_does_not_hold(expect: dict[str, Any], given: Answer, fields: list[str]) -> None:
    assert [each.field for each in unmet(Expectation(**expect), given)] == fields


def test_what_is_found_names_the_share() -> None:
    (found,) = unmet(Expectation(backend="shop/cart:80"), answer(*split(0.25)))
    assert str(found) == "backend: wanted shop/cart:80, found Service shop/next:80 (25 % of the requests)"


def test_cors_headers_are_no_matter_of_the_graph() -> None:
    expect = Expectation(response_headers=HeaderExpectation((("access-control-allow-origin", "*"),)))
    given = msgspec.structs.replace(answer(CART), cors=True)
    assert "ask Envoy" in unmet(expect, given)[0].found


def test_a_right_split_is_not_refused_and_a_wrong_one_is() -> None:
    """Every count that 200 samples can give: refused together with a likelihood below ALPHA."""
    for share in (0.01, 0.05, 0.25, 0.5, 0.9):
        refused = [hits for hits in range(201) if not plausible(hits / 200, share, 200)]
        likelihood = math.fsum(math.comb(200, k) * share**k * (1 - share) ** (200 - k) for k in refused)
        assert 0 < likelihood < ALPHA
    generator = random.Random(7)
    hits = sum(generator.random() < 0.25 for _ in range(200))
    assert plausible(hits / 200, 0.25, 200)
    assert not plausible(hits / 200, 0.75, 200)
    assert not plausible(1 / 200, 0.0, 200)
    assert not plausible(199 / 200, 1.0, 200)
    assert plausible(1.0, 1.0, 200)


def test_engines_that_agree() -> None:
    graph = answer(*split(0.25))
    envoy = answer(*split(0.23), engine="envoy", samples=200)
    assert disagreements(graph, envoy, ()) == ()
    assert disagreements(answer(MOVED), answer(MOVED, engine="envoy", samples=1), ()) == ()


def test_what_nobody_can_tell_is_no_disagreement() -> None:
    graph = answer(Way("forwarded", 1.0, None, backend="Service shop/cart:80"))
    assert disagreements(graph, answer(CART, engine="envoy", samples=1), ()) == ()
    unknown = Answer("envoy", (CART,), None, None, None, 1)
    assert disagreements(answer(CART), unknown, ()) == ()
    more = msgspec.structs.replace(CART, headers=(*(CART.headers or ()), ("x-forwarded-for", "::1"), ("x-b", "1")))
    assert disagreements(answer(CART), answer(more, engine="envoy", samples=1), ()) == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"backend": "Service shop/next:80"}, "Service shop/cart:80 by the Graph, Service shop/next:80 by Envoy"),
        ({"status": 500}, "status for Service shop/cart:80: 200 by the Graph, 500 by Envoy"),
        ({"path": "/"}, "path for Service shop/cart:80: /x?y by the Graph, / by Envoy"),
        ({"host": "b"}, "host for Service shop/cart:80: a.test by the Graph, b by Envoy"),
        ({"headers": ()}, "header x-a for Service shop/cart:80: '1,2' by the Graph, None by Envoy"),
        ({"response_headers": ()}, "response header content-type for Service shop/cart:80: 'text/plain' by the Graph"),
        ({"outcome": "closed", "status": None}, "Service shop/cart:80 by the Graph, the connection is closed by Envoy"),
    ],
)
def test_engines_that_do_not_agree(changes: dict[str, Any], text: str) -> None:
    found = disagreements(answer(CART), answer(msgspec.structs.replace(CART, **changes), engine="envoy"), ())
    assert len(found) == 1
    assert text in found[0]


def test_a_header_that_was_to_be_removed() -> None:
    kept = msgspec.structs.replace(CART, headers=(*(CART.headers or ()), ("x-b", "1")))
    assert disagreements(answer(CART), answer(kept, engine="envoy"), (("x-b", "1"),)) == (
        "header x-b for Service shop/cart:80: None by the Graph, '1' by Envoy",
    )


def test_another_rule_and_another_share() -> None:
    other = answer(CART, engine="envoy", rule=1, name=None)
    assert disagreements(answer(CART), other, ()) == (
        "rule: HTTPRoute shop/r rule 2 (n) by the Graph, HTTPRoute shop/r rule 1 by Envoy",
    )
    envoy = answer(*split(0.75), engine="envoy", samples=200)
    found = disagreements(answer(*split(0.25)), envoy, ())
    assert found[0] == "share of Service shop/cart:80: 75 % by the Graph, 25 % of 200 requests by Envoy"
