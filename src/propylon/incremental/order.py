"""The order of keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def in_order(keys: Iterable[K]) -> list[K]:
    """Return the keys sorted, so that batches are alike in every process; as they come if they cannot be compared."""
    try:
        return sorted(keys)  # type: ignore[type-var]
    except TypeError:
        return list(keys)


def ordered(values: dict[K, V]) -> dict[K, V]:
    """Return the same in the order of keys: itself where it is so already."""
    keys = in_order(values)
    return values if keys == list(values) else {key: values[key] for key in keys}
