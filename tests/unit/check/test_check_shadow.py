"""Unreachable rules: what is claimed is true. For each claim a thousand requests try to reach the rule."""

import random

import pytest

from propylon import api
from propylon.check.shadow import shadows_in, takes_all
from propylon.explain.predicates import Subject
from propylon.explain.request import Asked
from propylon.explain.walk import try_entries
from propylon.graph.model import Cors, Match, Route, Rule, ValueMatch, VirtualHostEntry
from propylon.graph.precedence import ordered

PATHS = ["/", "/a", "/b", "/a/b"]
EXPRESSIONS = ["/a.*", ".*", "/(a|b)", "/a/?b?"]
VALUES = ["1", "2", "one"]


def value(chance, name):
    if chance.random() < 0.4:
        return ValueMatch(name, chance.choice(["[0-9]", "1|2", "o.*"]), "RegularExpression")
    return ValueMatch(name, chance.choice(VALUES))


def match(chance):
    kind = chance.choice(["Exact", "PathPrefix", "PathPrefix", "RegularExpression"])
    return Match(
        chance.choice(EXPRESSIONS if kind == "RegularExpression" else PATHS),
        kind,
        chance.choice([None, None, "GET", "OPTIONS"]),
        tuple(value(chance, name) for name in chance.sample(["x", "y"], chance.choice([0, 0, 0, 1, 2]))),
        tuple(value(chance, name) for name in chance.sample(["q"], chance.choice([0, 0, 0, 1]))),
    )


def entries_of(chance):
    routes = []
    for number in range(chance.randint(2, 5)):
        rules = tuple(
            Rule(
                index,
                None,
                tuple(match(chance) for _ in range(chance.randint(1, 2))),
                (Cors(api.HTTPCORSFilter(allow_origins=("*",))),) if chance.random() < 0.2 else (),
            )
            for index in range(chance.randint(1, 3))
        )
        ref = api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "default", f"r{number}")
        routes.append((Route(ref, "", 1, (), rules, ()), ""))
    return ordered(routes)


def request(chance):
    target = chance.choice([*PATHS, "/a/c", "/a/b/c/d", "/b", "/ab"])
    query = "&".join(f"{name}={chance.choice(VALUES)}" for name in ("q", "r") if chance.random() < 0.6)
    headers = [(name, chance.choice(VALUES)) for name in ("x", "y", "x") if chance.random() < 0.6]
    method = chance.choice(["GET", "POST", "OPTIONS"])
    if method == "OPTIONS" and chance.random() < 0.7:
        headers += [("origin", "https://o"), ("access-control-request-method", chance.choice(["GET", "PUT"]))]
    target = f"{target}?{query}" if query else target
    return Subject(Asked("http", "h", 80, "h", method, target, tuple(headers), "", "", False), target)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_called_unreachable_is(seed):
    chance = random.Random(seed)
    entries = entries_of(chance)
    claimed = {position for position, (_, by) in enumerate(shadows_in(entries)) if by}
    reached = {try_entries(entries, request(chance)).winner for _ in range(1000)}
    assert not claimed & reached


def test_claims_are_made():
    chance = random.Random(1)
    assert sum(bool(by) for _ in range(40) for _, by in shadows_in(entries_of(chance))) > 10


def test_several_together_are_found():
    chance = random.Random(2)
    assert any(len(by) > 1 for _ in range(300) for _, by in shadows_in(entries_of(chance)))


def together(later, *earlier):
    """Whether the last of these is taken by those before it."""
    *_, (last, by) = shadows_in([*(entry(match) for match in earlier), entry(later)])
    return {each.match for each in by} if last.match is later else None


def test_expressions_of_few_texts_are_taken_apart():
    versions = [Match(headers=(ValueMatch("v", each),)) for each in ("1", "2", "3")]
    either = Match(headers=(ValueMatch("v", "1|2", "RegularExpression"),))
    assert together(either, *versions) == set(versions[:2])
    assert together(either, versions[0], versions[2]) == set()
    assert together(Match("/(a|b)", "RegularExpression"), Match("/a", "Exact"), Match("/b")) == {
        Match("/a", "Exact"),
        Match("/b"),
    }
    assert together(Match("/(a|b).*", "RegularExpression"), Match("/a", "Exact"), Match("/b")) == set()
    assert together(Match("/(?i:a|b)", "RegularExpression"), Match("/a", "Exact"), Match("/b")) == set()
    query = Match(query=(ValueMatch("q", "[ab]", "RegularExpression"),))
    assert together(query, *(Match(query=(ValueMatch("q", each),)) for each in "ab")) != set()


def entry(match_, *filters):
    rule = Rule(0, None, (match_,), filters)
    return VirtualHostEntry(api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "default", "r"), "", rule, match_)


@pytest.mark.parametrize(
    ("first", "second", "takes"),
    [
        (Match("/"), Match("/a", "Exact", "GET"), True),
        (Match("/a"), Match("/a/b"), True),
        (Match("/a"), Match("/ab"), False),
        (Match("/a.*", "RegularExpression"), Match("/ab", "Exact"), True),
        (Match("/a.*", "RegularExpression"), Match("/ab"), False),
        (Match("/", method="GET"), Match("/"), False),
        (
            Match("/", headers=(ValueMatch("x", "[0-9]", "RegularExpression"),)),
            Match("/", headers=(ValueMatch("x", "1"),)),
            True,
        ),
        (Match("/", headers=(ValueMatch("x", "1"),)), Match("/"), False),
    ],
)
def test_taking_all(first, second, takes):
    assert takes_all(entry(first), entry(second)) is takes


def test_preflights_of_a_cors_rule_are_reached_all_the_same():
    cors = Cors(api.HTTPCORSFilter(allow_origins=("*",)))
    assert not takes_all(entry(Match("/", method="GET")), entry(Match("/", method="GET"), cors))
    assert takes_all(entry(Match("/")), entry(Match("/", method="GET"), cors))
