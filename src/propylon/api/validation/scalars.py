"""Texts and numbers against the constraints beside their types."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache, partial

import re2

from propylon.api.schema import (
    LABEL_PATTERN,
    LABEL_VALUE_PATTERN,
    PATH_PATTERN,
    QUALIFIED_NAME_PATTERN,
    SUBDOMAIN_PATTERN,
    Constraint,
)
from propylon.api.validation.finding import placeholder_in
from propylon.api.validation.times import TIME_FORMATS

_INT_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_NAME_LENGTH = 253

# RE2 never backtracks but costs many microseconds a call from Python. These are as fast to match for Python's own
# engine, however long the text, because at each character at most one way leads on.
_LINEAR = (
    f"^{LABEL_PATTERN}$",
    f"^{SUBDOMAIN_PATTERN}$",
    f"^$|^{SUBDOMAIN_PATTERN}$",
    rf"^(\*\.)?{SUBDOMAIN_PATTERN}$",
    f"^{QUALIFIED_NAME_PATTERN}$",
    "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
    "^[a-z]([-a-z0-9]*[a-z0-9])?$",
    f"^{LABEL_VALUE_PATTERN}$",
    PATH_PATTERN,
)
_compiled = cache(re2.compile)
# In RE2 the end is the end; in Python, "$" forgives a newline.
_linear = {
    pattern: re.compile(pattern.replace("$|", r"\Z|").removesuffix("$") + r"\Z", re.ASCII) for pattern in _LINEAR
}
_LONGEST = 256


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern (RE2) is found in a text."""
    if (linear := _linear.get(pattern)) is not None:
        return linear.search(text) is not None
    return _remembered(pattern, text) if len(text) <= _LONGEST else _compiled(pattern).search(text) is not None


@lru_cache(maxsize=8192)  # the same few names, groups and kinds come again and again
def _remembered(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


class Pattern:
    """A pattern (RE2) of a rule. `search(text)` says whether (by what is true) it is found in a text."""

    __slots__ = ("search",)

    def __init__(self, pattern: str) -> None:
        linear = _linear.get(pattern)
        self.search: Callable[[str], object] = partial(matches, pattern) if linear is None else linear.search


def is_integer(number: float) -> bool:
    """Whether the API server takes a number for an integer: 64 bits, or with a point as far as each one has a float."""
    if isinstance(number, int):
        return -(2**63) <= number < 2**63
    return number.is_integer() and abs(number) < 2**53


def bounds(constraint: Constraint) -> tuple[int | None, int | None]:
    """The smallest and the largest number allowed."""
    low, high = _INT_RANGES.get(constraint.format or "", (None, None))
    return (
        constraint.minimum if constraint.minimum is not None else low,
        constraint.maximum if constraint.maximum is not None else high,
    )


def is_time(constraint: Constraint, text: str) -> bool:
    """Whether a text is a time, where the format asks for one."""
    check = TIME_FORMATS.get(constraint.format or "")
    return check is None or check(text)


def looks_unfilled(constraint: Constraint, text: str) -> bool:
    """Whether a name without a pattern of its own, which anything would fit, is a placeholder as a whole."""
    return constraint.pattern is None and constraint.max_length == _NAME_LENGTH and placeholder_in(text) == text


def text_is_fine(constraint: Constraint, text: str) -> bool:
    """Whether there is nothing to say about a text."""
    if constraint.enum is not None:
        return text in constraint.enum
    if len(text) < (constraint.min_length or 0):
        return False
    if constraint.max_length is not None and len(text) > constraint.max_length:
        return False
    if constraint.pattern is not None and not matches(constraint.pattern, text):
        return False
    if constraint.format is not None and not is_time(constraint, text):
        return False
    return constraint.pattern is not None or not looks_unfilled(constraint, text)


def number_is_fine(constraint: Constraint, number: float) -> bool:
    """Whether there is nothing to say about a number."""
    if constraint.enum is not None:
        return number in constraint.enum
    if not is_integer(number):
        return False
    low, high = bounds(constraint)
    return (low is None or number >= low) and (high is None or number <= high)
