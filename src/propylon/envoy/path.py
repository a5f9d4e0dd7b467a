"""Paths anew: what HTTPPathModifier does to the path of a rewrite or of a redirect."""

from typing import Any

import re2
from envoy.type.matcher.v3 import regex_pb2

from propylon import api
from propylon.graph.model import Match


def build_regex_rewrite(modifier: api.HTTPPathModifier, match: Match) -> Any | None:
    """RegexMatchAndSubstitute that changes a path as asked, or None if the modifier changes nothing.

    The query is untouched. ReplacePrefixMatch takes the matched prefix away by segments: `/a` replaced by `/` makes
    `/a/b` into `/b` and `/a` into `/`, never `//b` (which Envoy's own prefix_rewrite would give).
    """
    if modifier.type == "ReplaceFullPath":
        full = modifier.replace_full_path or "/"
        return _substitute("^/.*$", full)
    prefix = match.path.rstrip("/") if match.path_type == "PathPrefix" else ""
    replacement = (modifier.replace_prefix_match or "/").rstrip("/")
    if prefix == replacement:
        return None
    if not prefix:
        return _substitute("^/", replacement + "/")
    if not replacement:
        return _substitute(f"^{re2.escape(prefix)}/?", "/")
    return _substitute(f"^{re2.escape(prefix)}", replacement)


def _substitute(pattern: str, replacement: str) -> Any:
    return regex_pb2.RegexMatchAndSubstitute(
        pattern=regex_pb2.RegexMatcher(regex=pattern),
        substitution=replacement.replace("\\", "\\\\"),
    )
