"""Requests made from matches: every one is taken by what it was made from, and every sort of path is among them."""

import itertools

import pytest

from propylon.explain.expressions import language, samples
from propylon.explain.predicates import Subject, expression, first_failure
from propylon.explain.request import Asked
from propylon.explain.witness import probes
from propylon.graph.model import Match, ValueMatch

PATTERNS = [
    "/a.*",
    "/[ab]+",
    "/a/(b|c)",
    "/.*/b",
    r"/v\d{1,3}/(?:x|y)?",
    "(?i)/foo[^/]+$",
    r"/users/[[:lower:]]{2,4}/\w+",
    r"^/\x41\.b$",
    "/(?P<name>a|b)c*?",
    "/[^/]*/[]x-]",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_samples_match(pattern):
    found = samples(pattern)
    assert found
    assert all(expression(pattern).fullmatch(each) for each in found)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("1|2", {"1", "2"}),
        ("a(b|c)?", {"a", "ab", "ac"}),
        ("[a-c]{2}", {"".join(pair) for pair in itertools.product("abc", repeat=2)}),
        (r"v\d", {f"v{n}" for n in range(10)}),
        ("", {""}),
    ],
)
def test_few_texts_are_told_completely(pattern, texts):
    assert set(language(pattern) or ()) == texts


@pytest.mark.parametrize(
    "pattern", ["a*", "a.", "(?i)a", "(?i:a)", "[^a]", r"\w", r"\pL", "[[:word:]]", "[a-z]{2}", "^a$"]
)
def test_what_is_much_or_not_understood_is_not_told(pattern):
    assert language(pattern) is None


MATCHES = [
    Match("/a"),
    Match("/"),
    Match("/a/b", "Exact", "POST"),
    Match("/[a-z]+", "RegularExpression"),
    Match("/a", headers=(ValueMatch("x", "[0-9]+", "RegularExpression"), ValueMatch("y", "1"))),
    Match("/a", query=(ValueMatch("q", "a|b", "RegularExpression"),)),
]


@pytest.mark.parametrize("matches", [*((m,) for m in MATCHES), *itertools.combinations(MATCHES, 2)])
def test_requests_are_taken_by_all_they_were_made_from(matches):
    found = probes(matches)
    for probe in found:
        asked = Asked("http", "h", 80, "h", probe.method, probe.target, probe.headers, "", "", False)
        assert [first_failure(match, Subject(asked, probe.target)) for match in matches] == [None] * len(matches)
    assert len(set(found)) == len(found)
    if len(matches) == 1:
        assert found


def test_contradictions_have_no_requests():
    assert not probes([Match("/a", "Exact"), Match("/b")])
    assert not probes([Match("/", method="GET"), Match("/", method="POST")])
    assert not probes([Match(headers=(ValueMatch("x", "1"),)), Match(headers=(ValueMatch("x", "2"),))])


def test_a_prefix_is_tried_in_all_its_forms():
    assert {probe.path for probe in probes([Match("/a")])} == {"/a", "/a/", "/a/zq7", "/a/zq7/zq7"}
