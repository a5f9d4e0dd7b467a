"""The routes of a large virtual host as a tree over the path, so that the last of 10,000 costs what the first does.

Envoy tries the routes of a list one by one. Here a map from path prefixes to short lists chooses by the longest prefix
(`VirtualHost.matcher`, a prefix_match_map on `:path`), and only that list is tried. It holds, in the order of
precedence, every route that can match a path whose longest prefix in the map this is, so the answer is the list's.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.type.matcher.v3 import http_inputs_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from propylon.envoy.resource import TYPE_PREFIX, pack, serialize
from propylon.graph.model import Match

LARGE = 32
"""From so many matches on a virtual host is a tree.

A list of 16 takes 2 % of the requests/s of direct responses, one of 63 takes 8 % (bench P2).
"""
COPIES = 8
"""A tree may hold so many times the routes of its list. Many expressions without a literal beginning would have to
stand at every leaf; then the list stays.
"""
_META = frozenset("\\.+*?()|[]{}^$")
_QUANTIFIERS = frozenset("*?+{")
_ROUTE_LIST = TYPE_PREFIX + route_pb.RouteList.DESCRIPTOR.full_name


class Reach(NamedTuple):
    """Which paths a match may take: `anchor` itself, what follows it after a slash, or whatever begins with it."""

    anchor: str
    kind: str
    """"exact", "segments" or "text"."""


def reach(match: Match) -> Reach:
    """Say which paths a match may take, from its path alone; rather too many than too few."""
    if match.path_type == "RegularExpression":
        found = Reach(literal_beginning(match.path), "text")
    elif match.path_type == "Exact":
        found = Reach(match.path, "exact")
    else:
        found = Reach(match.path.rstrip("/"), "segments")
    end = min((i for i in map(found.anchor.find, "?#") if i >= 0), default=-1)
    # `:path` has the query in it: an anchor that reaches into one could hide the right list.
    return found if end < 0 else Reach(found.anchor[:end], "text")


def literal_beginning(pattern: str) -> str:
    """Return text with which everything begins that an RE2 expression matches as a whole; "" if that is not plain."""
    if "|" in pattern:
        return ""
    body = pattern.removeprefix("^")
    end = next((i for i, char in enumerate(body) if char in _META or not char.isascii()), len(body))
    if end < len(body) and body[end] in _QUANTIFIERS:
        end -= 1  # the last character may be missing
    return body[: max(end, 0)]


def plan_leaves(matches: Sequence[Match]) -> dict[str, list[int]] | None:
    """Return, per path prefix of the map, the positions of the matches to try in their order; None if too many.

    The list under "" is for paths that begin with none of the others.
    """
    reaches = [reach(match) for match in matches]
    keys = sorted({each.anchor for each in reaches} | {""})
    ranges = [_covered(keys, each) for each in reaches]
    if sum(last - first + single for single, first, last in ranges) > COPIES * len(matches):
        return None
    leaves: dict[str, list[int]] = {key: [] for key in keys}
    for position, (each, (single, first, last)) in enumerate(zip(reaches, ranges, strict=True)):
        if single:
            leaves[each.anchor].append(position)
        for key in keys[first:last]:
            leaves[key].append(position)
    return leaves


def _covered(keys: list[str], each: Reach) -> tuple[int, int, int]:
    """Whether the anchor's own list is concerned (0 or 1), and the range of further keys."""
    if each.kind == "exact":
        return 1, 0, 0
    if each.kind == "segments" and each.anchor:
        inside = each.anchor + "/"
        return 1, bisect_left(keys, inside), bisect_left(keys, _after(inside))
    return 0, bisect_left(keys, each.anchor), bisect_left(keys, _after(each.anchor)) if each.anchor else len(keys)


def _after(text: str) -> str:
    """Return the least string that is greater than all that begin with `text`."""
    return text[:-1] + chr(ord(text[-1]) + 1)


def build_path_tree(matches: Sequence[Match], routes: Sequence[Sequence[Any]]) -> Any | None:
    """Build the matcher of a virtual host from its matches and the Route messages of each; None if a list is better."""
    leaves = plan_leaves(matches)
    if leaves is None:
        return None
    # Repeated fields merge by concatenation: each route is serialized once, however many lists it is in.
    fragments = [serialize(route_pb.RouteList(routes=each)) for each in routes]

    def action(positions: list[int]) -> Any:
        on_match = matcher_pb2.Matcher.OnMatch()
        on_match.action.name = "routes"
        on_match.action.typed_config.type_url = _ROUTE_LIST
        on_match.action.typed_config.value = b"".join(fragments[position] for position in positions)
        return on_match

    path = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":path")
    out = matcher_pb2.Matcher(on_no_match=action(leaves.pop("")))
    tree = out.matcher_tree
    tree.input.CopyFrom(extension_pb2.TypedExtensionConfig(name="path", typed_config=pack(path)))
    for key, positions in leaves.items():
        tree.prefix_match_map.map[key].CopyFrom(action(positions))
    return out
