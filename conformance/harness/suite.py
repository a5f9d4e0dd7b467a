"""Runs the suite's test binary and follows its progress."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .processes import end_group

_TEST = "TestConformance"


@dataclass
class Outcome:
    """How the tests ended: ShortName -> "pass", "fail" or "skip", and their seconds. ``code`` is the binary's."""

    code: int = -1
    seconds: float = 0
    results: dict[str, str] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where the controller's log stood when a test began and when it ended (bytes), as `mark` told."""
    outputs: dict[str, list[str]] = field(default_factory=dict)
    """What tests that did not pass printed."""
    set_up: bool = False
    """False if the suite failed before its first test."""

    def named(self, result: str) -> list[str]:
        """The tests with one result, sorted."""
        return sorted(name for name, value in self.results.items() if value == result)


def run_pattern(names: Sequence[str]) -> str:
    """The ``-test.run`` expression of exactly these tests."""
    return f"^{_TEST}$/^({'|'.join(re.escape(name) for name in names)})$"


async def run_suite(
    binary: Path,
    test2json: Path,
    flags: Sequence[str],
    *,
    kubeconfig: Path,
    results: Path,
    progress: Callable[[str], None],
    mark: Callable[[], int] = lambda: 0,
) -> Outcome:
    """Runs the binary to its end. ``results`` receives go-test.json and failed/NAME.txt with a failed test's output."""
    outcome = Outcome()
    outputs = outcome.outputs
    start = time.monotonic()
    reader, writer = os.pipe()
    suite = await asyncio.create_subprocess_exec(
        *[str(binary), "-test.v=test2json", *flags],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        cwd=results,
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        start_new_session=True,
    )
    os.close(writer)
    converter = await asyncio.create_subprocess_exec(
        *[str(test2json), "-t"], stdin=reader, stdout=asyncio.subprocess.PIPE, limit=1 << 24, start_new_session=True
    )
    os.close(reader)
    assert converter.stdout is not None
    try:
        with (results / "go-test.json").open("wb") as log:
            async for line in converter.stdout:
                log.write(line)
                _take(json.loads(line), outcome, outputs, progress, mark)
        outcome.code = await suite.wait()
    finally:
        await end_group(suite, 5)
        await end_group(converter, 1)
        outcome.seconds = time.monotonic() - start
        _write_failures(outcome, outputs, results)
    return outcome


def _take(
    event: dict[str, Any],
    outcome: Outcome,
    outputs: dict[str, list[str]],
    progress: Callable[[str], None],
    mark: Callable[[], int] = lambda: 0,
) -> None:
    top, _, rest = event.get("Test", "").partition("/")
    if top and top != _TEST:
        return
    name = rest.partition("/")[0]
    action = event["Action"]
    if action == "output":
        outputs.setdefault(name, []).append(event["Output"])
    if not name:
        return
    outcome.set_up = True
    if rest == name and action in {"run", "cont"}:
        outcome.spans[name] = (mark(), 0)
    if rest == name and action in {"pass", "fail", "skip"}:
        outcome.results[name] = action
        outcome.durations[name] = event.get("Elapsed", 0.0)
        outcome.spans[name] = (outcome.spans.get(name, (0, 0))[0], mark())
        if action != "skip":
            count = sum(result != "skip" for result in outcome.results.values())
            progress(f"{count:4} {action.upper()} {event.get('Elapsed', 0.0):6.1f} s  {name}")
        if action != "fail":
            outputs.pop(name, None)


def _write_failures(outcome: Outcome, outputs: dict[str, list[str]], results: Path) -> None:
    directory = results / "failed"
    directory.mkdir(exist_ok=True)
    for name, lines in outputs.items():
        if name and outcome.results.get(name, "fail") == "fail":
            (directory / f"{name}.txt").write_text("".join(lines))
    (results / "suite.txt").write_text("".join(outputs.get("", [])))
