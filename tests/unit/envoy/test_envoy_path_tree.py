"""The path tree: lists that hold what can match, and no more than they must."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propylon.envoy.path_tree import LARGE, build_path_tree, literal_beginning, plan_leaves
from propylon.envoy.redirect import Place
from propylon.envoy.virtual_host import build_virtual_host
from propylon.graph.model import Match, RouteTableKey, VirtualHost, VirtualHostKey
from support.envoy_world import GATEWAY, entry, ref

PLACE = Place("http", 80, 0, "tree.test")
KEY = VirtualHostKey(RouteTableKey(GATEWAY, 80, ""), "tree.test")


def takes(match, path):
    """What the Gateway API says of a path (without query) and a match."""
    if match.path_type == "Exact":
        return path == match.path
    if match.path_type == "RegularExpression":
        return re.fullmatch(match.path, path) is not None
    prefix = match.path.rstrip("/")
    return path == prefix or path.startswith(prefix + "/")


def chosen(leaves, path):
    """The list that Envoy's prefix map finds."""
    return leaves[max((key for key in leaves if path.startswith(key)), key=len)]


paths = st.lists(st.sampled_from(["a", "b", "ab", "a.b", "~", ""]), max_size=4).map(lambda parts: "/" + "/".join(parts))
patterns = st.sampled_from(
    ["/a.*", "/.*", ".*", "/a/b?", "/ab+", "/a|/b", "(?i)/A", "/a/[ab]+/.*", "^/a/b$", "/a\\.b", "/ab*c?", "/(a|b)/a"]
)
matches = st.one_of(
    st.builds(Match, paths, st.sampled_from(["Exact", "PathPrefix"])),
    st.builds(Match, patterns, st.just("RegularExpression")),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(matches, min_size=1, max_size=12), st.lists(paths, min_size=1, max_size=8), st.sampled_from(["", "?a=/b"])
)
def test_the_first_match_of_the_chosen_list_is_the_first_of_all(found, asked, query):
    leaves = plan_leaves(found * 8) or plan_leaves([*found, *[Match(f"/z/{i}", "Exact") for i in range(100)]])
    if leaves is None:
        return
    for path in asked:
        first = next((i for i, match in enumerate(found) if takes(match, path)), None)
        listed = next((i for i in chosen(leaves, path + query) if i < len(found) and takes(found[i], path)), None)
        assert listed == first, (path, leaves)


@pytest.mark.parametrize(
    ("pattern", "beginning"),
    [
        ("/a/b", "/a/b"),
        ("/a/.*", "/a/"),
        ("/ab*", "/a"),
        ("/ab?c", "/a"),
        ("/ab{0,2}", "/a"),
        ("^/a/[0-9]+", "/a/"),
        ("/a|/b", ""),
        ("(?i)/a", ""),
        (".*", ""),
        ("*", ""),
        ("", ""),
        ("/a\\/b", "/a"),
        ("/ä", "/"),
    ],
)
def test_literal_beginning(pattern, beginning):
    assert literal_beginning(pattern) == beginning


def test_lists_stay_short_however_many_paths_there_are():
    leaves = plan_leaves([*[Match(f"/p{i}") for i in range(1000)], Match("/")])
    assert max(map(len, leaves.values())) == 2


def test_neighbours_without_a_slash_between_share_nothing():
    leaves = plan_leaves([Match("/foo"), Match("/foobar"), Match("/foo/bar")])
    assert leaves == {"": [], "/foo": [0], "/foobar": [1], "/foo/bar": [0, 2]}


def test_a_path_that_reaches_into_the_query_is_no_key():
    leaves = plan_leaves([Match("/a", "Exact"), Match("/a?b", "Exact")])
    assert leaves == {"": [], "/a": [0, 1]}


def test_many_expressions_without_a_beginning_stay_a_list():
    found = [Match(f".*/{i}", "RegularExpression") for i in range(100)] + [Match(f"/p{i}") for i in range(100)]
    assert plan_leaves(found) is None
    assert build_path_tree(found, [[] for _ in found]) is None


def host_of(size):
    return VirtualHost(KEY, tuple(entry(Match(f"/p{i}"), route=f"r{i}", backends=(ref("a"),)) for i in range(size)))


def test_a_virtual_host_is_a_list_until_it_is_large():
    small = build_virtual_host(host_of(LARGE - 1), PLACE)
    assert len(small.routes) == LARGE - 1
    assert not small.HasField("matcher")
    large = build_virtual_host(host_of(LARGE), PLACE)
    assert not large.routes
    assert len(large.matcher.matcher_tree.prefix_match_map.map) == LARGE


def test_equal_hosts_give_equal_bytes():
    one, two = (build_virtual_host(host_of(200), PLACE).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
