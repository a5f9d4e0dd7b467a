"""The simple JSON paths of printer columns and the scale subresource: `.a.b`, `['c']`, `[0]`, `[*]`,
`[?(@.type=="Ready")]`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

Step = Callable[[Any], Iterable[Any]]

_STEP = re.compile(
    r"\.?\[\?\(@(?P<left>[^=!<>]+?)\s*(?P<op>==|!=)\s*(?P<quote>[\"'])(?P<right>.*?)(?P=quote)\)\]"
    r"|\.?\[(?P<mark>[\"'])(?P<quoted>.*?)(?P=mark)\]"
    r"|\.?\[(?P<index>-?\d+)\]"
    r"|\.?\[(?P<all>\*)\]"
    r"|\.(?P<star>\*)"
    r"|\.?(?P<name>(?:\\.|[^.\[\]\\])+)"
)


def find_all(document: Any, path: str) -> list[Any]:
    """Every value at the path, in order; none for what is no such path."""
    found = [document]
    for step in _steps(path.strip().removeprefix("{").removesuffix("}").removeprefix("$")):
        found = [value for held in found for value in step(held)]
    return found


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or match.end() == position:
            return (lambda _: (),)
        steps.append(_step(match))
        position = match.end()
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    if match["left"] is not None:
        left, equal, right = match["left"], match["op"] == "==", match["right"]
        return lambda value: [
            item for item in _items(value) if (right in [str(found) for found in find_all(item, left)]) is equal
        ]
    if match["all"] or match["star"]:
        return _items
    if match["index"] is not None:
        index = int(match["index"])
        return lambda value: value[index : index + 1 or None] if isinstance(value, list) else ()
    name = match["quoted"] if match["quoted"] is not None else re.sub(r"\\(.)", r"\1", match["name"])
    return lambda value: [value[name]] if isinstance(value, Mapping) and name in value else ()


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else ()
