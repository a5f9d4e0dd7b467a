"""Where in a file a field stands. Worked out only when something must be located: the file is composed again for it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from propylon.store.files.parsing import ParseError, compose_nodes


class Position(NamedTuple):
    """A place in a file, counted from 1."""

    line: int
    column: int


_STEP = re.compile(r"\[(?:(\d+)|\"([^\"]*)\"|'([^']*)'|([^\]]*))\]|([^.\[\]]+)")

Step = str | int


def field_steps(field: str) -> list[Step]:
    """The steps of a field path: `spec.rules[0].matches` -> spec, rules, 0, matches. `[name]` and `["na.me"]` step
    into a map."""
    steps: list[Step] = []
    for index, double, single, bare, word in _STEP.findall(field):
        steps.append(int(index) if index else double or single or bare or word)
    return steps


class Positions:
    """The nodes of one text. A field that is not there is located at its nearest ancestor that is."""

    def __init__(self, text: str) -> None:
        self._roots: list[Any] = []
        with contextlib.suppress(ParseError):  # what stands before the error can still be located
            self._roots.extend(root for root in compose_nodes(text) if not _is_empty(root))

    def locate(self, index: int, inside: Sequence[Step], field: str) -> Position:
        """The place of a field of the object at `inside` (such as items, 3) of the document number `index`."""
        if index >= len(self._roots):
            return Position(1, 1)
        node = self._roots[index]
        marked = node
        steps: list[Step] = [*inside, *field_steps(field)]
        while steps:
            found, mark, used = _descend(node, steps)
            if found is None:
                break
            node, marked, steps = found, mark, steps[used:]
        return Position(marked.start_mark.line + 1, marked.start_mark.column + 1)


def _is_empty(root: Any) -> bool:
    return type(root) is yaml.ScalarNode and root.value in ("", "~", "null")


def _descend(node: Any, steps: list[Step]) -> tuple[Any, Any, int]:
    """The child that the next steps name, the node that marks its place (its key), and how many steps that took.

    Names with dots in them (annotations) are written like paths, so several steps may be one key.
    """
    if type(node) is yaml.SequenceNode:
        if isinstance(steps[0], int) and steps[0] < len(node.value):
            child = node.value[steps[0]]
            return child, child, 1
        return None, None, 0
    if type(node) is not yaml.MappingNode:
        return None, None, 0
    entries = {key.value: (key, value) for key, value in node.value if type(key) is yaml.ScalarNode}
    for used in range(1, len(steps) + 1):
        name = ".".join(str(step) for step in steps[:used])
        if name in entries:
            key, value = entries[name]
            return value, key, used
    return None, None, 0
