"""Listener.filter_chain_matcher: which SNI leads to which filter chain, by name.

It is made of one part per chain, so that adding one among thousands serializes one: a map of exact names, behind it a
list of wildcards, longest first (a wildcard stands for any number of labels), behind them the chain of every other
connection. (Envoy has a ServerNameMatcher for wildcards; its authors call it work in progress and not to be trusted.)
"""

import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from google.protobuf import wrappers_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from propylon.envoy.resource import pack, serialize
from propylon.wire_format import embed

SHARES = 64
"""So many parts of exact names are joined by themselves, so that one name more among thousands joins few anew."""
_ON_MATCH = matcher_pb2.Matcher.OnMatch
_TREE = matcher_pb2.Matcher.MatcherTree
_MATCHER_OF_LISTENER = listener_pb2.Listener.DESCRIPTOR.fields_by_name["filter_chain_matcher"].number
_TREE_OF_MATCHER = matcher_pb2.Matcher.DESCRIPTOR.fields_by_name["matcher_tree"].number
_EXACT_OF_TREE = _TREE.DESCRIPTOR.fields_by_name["exact_match_map"].number


@lru_cache(maxsize=1 << 16)
def build_entry(sni: str, chain: str) -> bytes:
    """One chain's part: an entry of the map for an exact name, of the list for a wildcard, an action for the others."""
    action = _ON_MATCH(action=_extension("chain", wrappers_pb2.StringValue(value=chain)))
    if not sni:
        return serialize(action)
    if not sni.startswith("*"):
        return serialize(_TREE.MatchMap(map={sni: action}))
    out = matcher_pb2.Matcher.MatcherList.FieldMatcher(on_match=action)
    out.predicate.single_predicate.input.CopyFrom(_sni())
    out.predicate.single_predicate.value_match.suffix = sni.removeprefix("*")
    return serialize(matcher_pb2.Matcher.MatcherList(matchers=[out]))


def share_of_name(sni: str) -> int:
    """Among which exact names one is joined before the whole matcher is; -1 if it is none."""
    return zlib.crc32(sni.encode()) % SHARES if sni and not sni.startswith("*") else -1


def join_entries(entries: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, bytes], ...]:
    """Join the parts of exact names into one, which goes by the first of them; the others stay as they are."""
    every = tuple(entries)
    exact = [(sni, entry) for sni, entry in every if sni and not sni.startswith("*")]
    others = tuple(each for each in every if not each[0] or each[0].startswith("*"))
    return ((exact[0][0], b"".join(entry for _, entry in exact)), *others) if exact else others


def build_matcher(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """The matcher, given (SNI, part), as a serialized Listener with nothing else; exact names may be joined."""
    exact: list[bytes] = []
    wildcards: list[tuple[int, bytes]] = []
    otherwise = matcher_pb2.Matcher()
    for sni, entry in entries:
        if not sni:
            otherwise.on_no_match.ParseFromString(entry)
        elif sni.startswith("*"):
            wildcards.append((-len(sni), entry))
        else:
            exact.append(entry)
    if wildcards:
        wildcards.sort()
        otherwise.matcher_list.ParseFromString(b"".join(entry for _, entry in wildcards))
    if not exact:
        return embed(_MATCHER_OF_LISTENER, serialize(otherwise if wildcards else _only(otherwise)))
    tree_body = serialize(_TREE(input=_sni())) + embed(_EXACT_OF_TREE, b"".join(exact))
    head = matcher_pb2.Matcher()
    if wildcards:
        head.on_no_match.matcher.CopyFrom(otherwise)
    elif otherwise.HasField("on_no_match"):
        head.on_no_match.CopyFrom(otherwise.on_no_match)
    return embed(_MATCHER_OF_LISTENER, serialize(head) + embed(_TREE_OF_MATCHER, tree_body))


def _only(otherwise: Any) -> Any:
    """A matcher must look at something, even where all connections are led to the same chain."""
    tree = otherwise.matcher_tree
    tree.input.CopyFrom(_sni())
    tree.exact_match_map.map[""].CopyFrom(otherwise.on_no_match)
    return otherwise


def _sni() -> Any:
    return _extension("sni", network_inputs_pb2.ServerNameInput())


def _extension(name: str, message: Any) -> Any:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(message))
