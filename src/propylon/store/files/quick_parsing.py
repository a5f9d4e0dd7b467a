"""The fast path of `parsing`: a Rust translation of libyaml, for text that both surely read alike.

It follows YAML 1.2 in what unquoted scalars mean, knows no places, and gives up on what it does not like. So it is
asked only for text without the few things that it would read otherwise, what it read is looked through for values that
may have been such things, and whatever is doubtful is read again by the other parser, which also says where an error
is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ryaml import _ryaml

_DOUBTFUL = (
    "&",  # anchors, and with them aliases
    "!",  # tags
    "${",  # variables: their scalars are read again once they are filled in
    "<<",  # merges
    "\n...",  # ends of documents
    "\n%",  # directives
    *("\r", "\x85", "\u2028", "\u2029"),  # other ends of lines
    "\ufeff",  # byte order marks
)
_OLD_WORDS = frozenset(
    word for lower in ("yes", "no", "on", "off") for word in (lower, lower.capitalize(), lower.upper())
)
"""Booleans of YAML 1.1 that are strings in YAML 1.2. Here they may have been quoted as well."""
_OLD_NUMBER = re.compile(r"[-+]?(?:0|\.[0-9])[0-9a-zA-Z_.+-]*\Z")
"""What may be a number in one of both; for the rest of the numbers see the test that compares."""
_NUMBER_STARTS = frozenset("0+-.")
_LARGEST = 2**53
"""Integers and floats beyond are left to the other parser."""
_CONTENT = re.compile(r"[ \t]*(?:\#[^\n]*)?(?:\n[ \t]*(?:\#[^\n]*)?)*")
"""Blanks and comments in front of a document's content; its last line's indentation is no matter."""


SAFE_NESTING = 1000
"""Both parsers go this deep on any stack, and as fast as ever."""


def may_be_deep(text: str) -> bool:
    """Whether a document may nest deeper than `SAFE_NESTING`: it has many brackets, or a long line (in block style
    every level takes a column)."""
    documents = text.split("\n---") if text.count("[") + text.count("{") > SAFE_NESTING else ()
    if any(document.count("[") + document.count("{") > SAFE_NESTING for document in documents):
        return True
    at = 0
    while (end := at + SAFE_NESTING) < len(text):
        at = text.rfind("\n", at, end + 1) + 1
        if at == 0:
            return True
    return False


def parse_quickly(text: str) -> list[tuple[Any, int]] | None:
    """Every document that is not empty, with the line (from 1) on which it starts; None if the text has to be read by
    the other parser."""
    if text[:1] == "%" or any(doubtful in text for doubtful in _DOUBTFUL) or may_be_deep(text):
        return None
    try:
        values = _ryaml.loads_all(text)
    except Exception:  # noqa: BLE001 - whatever it is, the other parser finds it too, or reads what this one cannot
        return None
    starts = list(_document_starts(text))
    if not isinstance(values, list) or len(values) != len(starts) or not _is_certain(values):
        return None
    found = []
    line, seen = 1, 0
    for value, start in zip(values, starts, strict=True):
        if value is not None:
            line += text.count("\n", seen, start)
            seen = start
            found.append((value, line))
    return found


def _document_starts(text: str) -> Iterator[int]:
    """Where the content of each document begins: behind its `---`, blank lines and comments.

    At the beginning of a line `---` is nothing else, not even within a quoted or block scalar. Before the first one
    there is a document only if there is content.
    """
    marker = 0 if text.startswith("---") and text[3:4] in " \t\n" else _next_marker(text, 0)
    if _content(text, 0) < marker:
        yield _content(text, 0)
    while marker < len(text):
        after = marker + 3
        yield (
            after + 1
            if text[after : after + 1] == "\n" and text[after + 1 : after + 2].isalpha()
            else _content(text, after)
        )
        marker = _next_marker(text, after)


def _next_marker(text: str, at: int) -> int:
    while (at := text.find("\n---", at)) >= 0:
        if text[at + 4 : at + 5] in " \t\n":  # or it is the end of the text
            return at + 1
        at += 4
    return len(text)


def _content(text: str, at: int) -> int:
    match = _CONTENT.match(text, at)
    return match.end() if match is not None else at


def _is_certain(values: list[Any]) -> bool:
    """Whether the other parser would have read the same. All keys have to be strings: `80: x` has the key "80" for the
    Kubernetes tools."""
    left: list[Any] = [values]
    while left:
        each = left.pop()
        if type(each) is dict:
            for key in each:
                if type(key) is not str:
                    return False
            each = each.values()
        for value in each:
            kind = type(value)
            if kind is str:
                if value in _OLD_WORDS or (value[:1] in _NUMBER_STARTS and _OLD_NUMBER.match(value)):
                    return False
            elif kind is dict or kind is list:
                left.append(value)
            # Nor is "not a number" within any bounds.
            elif (kind is int or kind is float) and not -_LARGEST < value < _LARGEST:
                return False
    return True
