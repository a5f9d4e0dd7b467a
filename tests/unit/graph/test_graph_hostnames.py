from hypothesis import given
from hypothesis import strategies as st

from propylon.graph.hostnames import ancestors, covers, effective, intersection, specificity

LABELS = st.sampled_from(["a", "b", "com", "example"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(NAMES, NAMES.map(lambda name: f"*.{name}"), st.just("*"))


def matches(pattern: str, host: str) -> bool:
    """The definition, spelled out: a wildcard stands for one or more labels."""
    if pattern == "*":
        return True
    if not pattern.startswith("*."):
        return pattern == host
    wanted, given_ = pattern[2:].split("."), host.split(".")
    return len(given_) > len(wanted) and given_[-len(wanted) :] == wanted


@given(PATTERNS, PATTERNS, NAMES)
def test_intersection_takes_what_both_take(one: str, other: str, host: str) -> None:
    common = intersection(one, other)
    assert (common is not None and matches(common, host)) == (matches(one, host) and matches(other, host))


@given(PATTERNS, PATTERNS)
def test_intersection_is_symmetric(one: str, other: str) -> None:
    assert intersection(one, other) == intersection(other, one)


@given(PATTERNS, PATTERNS, NAMES)
def test_covers_means_matching_no_less(broad: str, narrow: str, host: str) -> None:
    if covers(broad, narrow) and matches(narrow, host):
        assert matches(broad, host)


@given(PATTERNS, PATTERNS)
def test_ancestors_are_all_that_cover_most_specific_first(pattern: str, other: str) -> None:
    chain = list(ancestors(pattern))
    assert (other in chain) == covers(other, pattern)
    assert [specificity(p) for p in chain] == sorted(specificity(p) for p in chain)


def test_effective_hostnames_keep_what_the_route_wrote() -> None:
    def pairs(route: list[str], listener: str) -> list[tuple[str, str]]:
        return [(h.hostname, h.original) for h in effective(route, listener)]

    assert pairs([], "") == [("*", "")]
    assert pairs([], "*.Example.com") == [("*.example.com", "")]
    assert pairs(["*.com", "*.example.com", "ABC.example.com"], "abc.example.com") == [
        ("abc.example.com", "abc.example.com")
    ]
    assert pairs(["example.com", "a.b.example.com"], "*.example.com") == [("a.b.example.com", "a.b.example.com")]
    assert pairs(["other.org"], "*.example.com") == []
