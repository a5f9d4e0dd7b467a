import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from propylon import api
from propylon.graph.model import Match, Route, Rule, ValueMatch
from propylon.graph.precedence import ordered

VALUES = st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=2).map(
    lambda names: tuple(ValueMatch(name, "1") for name in names)
)
MATCHES = st.builds(
    Match,
    path=st.sampled_from(["/", "/a", "/a/b"]),
    path_type=st.sampled_from(["Exact", "PathPrefix", "RegularExpression"]),
    method=st.sampled_from([None, "GET"]),
    headers=VALUES,
    query=VALUES,
)


def route(name: str, created: str, rules: list[list[Match]]) -> Route:
    ref = api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "n", name)
    built = tuple(Rule(index, None, tuple(matches)) for index, matches in enumerate(rules))
    return Route(ref, created, 1, (), built, ())


ROUTES = st.lists(
    st.tuples(
        st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
        st.sampled_from(["", "*.com", "*.example.com", "x.example.com"]),
        st.lists(st.lists(MATCHES, min_size=1, max_size=3), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(ROUTES, st.randoms(use_true_random=False))
def test_the_order_depends_on_nothing_but_the_routes(found: list, rnd: random.Random) -> None:
    routes = [(route(f"r{i}", created, rules), original) for i, (created, original, rules) in enumerate(found)]
    shuffled = list(routes)
    rnd.shuffle(shuffled)
    assert ordered(routes) == ordered(shuffled)
    assert len(ordered(routes)) == sum(len(rule.matches) for r, _ in routes for rule in r.rules)


@given(ROUTES)
def test_of_two_neighbours_the_first_has_precedence(found: list) -> None:
    """Each criterion of the specification in turn: the first one that differs has to favour the first entry."""
    routes = [(route(f"r{i}", created, rules), original) for i, (created, original, rules) in enumerate(found)]
    created = {r.ref: r.created for r, _ in routes}
    entries = ordered(routes)
    for first, second in itertools.pairwise(entries):
        criteria = []
        for entry in (first, second):
            exact_host = not entry.original.startswith("*") and entry.original != ""
            match = entry.match
            criteria.append(
                (
                    -len(entry.original) if exact_host else 0,
                    -len(entry.original),
                    match.path_type != "Exact",
                    match.path_type == "PathPrefix",
                    -len(match.path),
                    match.method is None,
                    -len(match.headers),
                    -len(match.query),
                    created[entry.route],
                    entry.route.name,
                    entry.rule.index,
                )
            )
        assert criteria[0] <= criteria[1]
