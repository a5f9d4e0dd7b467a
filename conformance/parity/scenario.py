"""The invocations: read from YAML, in the order in which they run.

A step is a mapping, or just the text of its `run`: kubectl's command line, split like a shell would. `given` is its
standard input, `editor` what `kubectl edit` calls. `watch` names a command that goes on in the background until `end`
with that name, which waits until it has printed `lines` lines. `sorted: true` compares the lines of the output in any
order, for lists that have none.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent


class ScenarioError(Exception):
    """A scenario file says something that means nothing; the message names the step."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One invocation of kubectl, or the end of one in the background."""

    number: int
    chapter: str
    arguments: tuple[str, ...]
    given: str = ""
    editor: str = ""
    watch: str = ""
    end: str = ""
    lines: int = 0
    ordered: bool = True

    @property
    def title(self) -> str:
        """The command as a person would type it."""
        return shlex.join(["kubectl", *self.arguments]) + (" <<<..." if self.given else "")


def read_scenarios(directory: Path = HERE / "scenarios") -> list[Step]:
    """All steps of all files, the files in the order of their names. Raises ScenarioError."""
    steps: list[Step] = []
    for path in sorted(directory.glob("*.yaml")):
        chapter = path.stem.partition("-")[2]
        for found in yaml.safe_load(path.read_text()):
            steps.append(_step(len(steps) + 1, chapter, found))
    return steps


_KNOWN = {"run", "given", "editor", "watch", "end", "lines", "sorted"}


def _step(number: int, chapter: str, found: Any) -> Step:
    if isinstance(found, str):
        found = {"run": found}
    if not isinstance(found, Mapping) or set(found) - _KNOWN or not ("run" in found or "end" in found):
        raise ScenarioError(f"step {number} of {chapter}: {found!r}")
    return Step(
        number=number,
        chapter=chapter,
        arguments=tuple(shlex.split(found.get("run", ""))),
        given=found.get("given", ""),
        editor=found.get("editor", ""),
        watch=found.get("watch", ""),
        end=found.get("end", ""),
        lines=found.get("lines", 0),
        ordered=not found.get("sorted", False),
    )
