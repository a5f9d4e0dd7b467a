"""What differs, what of that was expected, and the report. Pure."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from parity.kubectl import Outcome
from parity.scenario import HERE, Step


@dataclasses.dataclass(frozen=True)
class Expected:
    """A difference that is known: which lines of which invocations, and why it stays."""

    name: str
    reason: str
    invocations: re.Pattern[str]
    theirs: re.Pattern[str]
    ours: re.Pattern[str]


def read_expected(path: Path = HERE / "differences.yaml") -> list[Expected]:
    """The differences that are known. A pattern that is missing fits no line."""
    never = r"(?!)"
    return [
        Expected(
            entry["name"],
            entry["reason"],
            re.compile(entry["invocations"]),
            re.compile(entry.get("theirs", never)),
            re.compile(entry.get("ours", never)),
        )
        for entry in yaml.safe_load(path.read_text()) or ()
    ]


@dataclasses.dataclass(frozen=True)
class Difference:
    """What one invocation showed there (`-`) and here (`+`), and the names of the known differences it falls under."""

    step: Step
    lines: tuple[str, ...]
    names: tuple[str, ...]


def difference(step: Step, theirs: Outcome, ours: Outcome, expected: Sequence[Expected]) -> Difference | None:
    """How the two outcomes differ; `lines` is empty if all of it was expected. None if they do not."""
    left, right = theirs.lines(ordered=step.ordered), ours.lines(ordered=step.ordered)
    if left == right:
        return None
    names: list[str] = []
    told: list[str] = []
    concerned = [known for known in expected if known.invocations.search(step.title)]
    for line in difflib.unified_diff(left, right, lineterm="", n=0):
        if line.startswith(("---", "+++", "@@")):
            continue
        side, text = line[0], line[1:]
        for known in concerned:
            if (known.theirs if side == "-" else known.ours).search(text):
                names.append(known.name)
                break
        else:
            told.append(line)
    return Difference(step, tuple(told), tuple(dict.fromkeys(names)))


def report(
    steps: Sequence[Step], differences: Sequence[Difference], expected: Sequence[Expected], versions: dict[str, str]
) -> str:
    """The report, as Markdown."""
    counted = [step for step in steps if not step.watch]
    unknown = [found for found in differences if found.lines]
    chapters: dict[str, list[int]] = {}
    different = {found.step.number for found in differences}
    for step in counted:
        row = chapters.setdefault(step.chapter, [0, 0])
        row[0] += 1
        row[1] += step.number not in different
    text = [
        "# kubectl here and there",
        "",
        f"{len(counted)} invocations of kubectl {versions['kubectl']} were run against the API of `propylon up` and "
        f"against kube-apiserver {versions['KUBERNETES_VERSION']} with etcd {versions['ETCD_VERSION']}, both with the "
        f"official CRDs of Gateway API {versions['GATEWAY_API_VERSION']} (experimental channel). Compared: standard "
        "output, standard error, exit code. Normalised: times and ages, uids, resource versions; the spaces between "
        "columns, names of temporary files and the servers' addresses, which follow from those.",
        "",
        f"Equal: {len(counted) - len(differences)}. Different as expected: {len(differences) - len(unknown)}. "
        f"Different otherwise: {len(unknown)}.",
        "",
        "Reproduce with `make parity`.",
        "",
        "| chapter | invocations | equal |",
        "|---|---|---|",
        *(f"| {chapter} | {row[0]} | {row[1]} |" for chapter, row in chapters.items()),
        "",
        "## Known differences",
        "",
        "| difference | invocations | reason |",
        "|---|---|---|",
    ]
    for known in expected:
        number = sum(known.name in found.names for found in differences)
        text.append(f"| {known.name} | {number} | {' '.join(known.reason.split())} |")
    if unknown:
        text += ["", "## Others", ""]
        for found in unknown:
            text += [f"`{found.step.title}`", "", "```diff", *found.lines, "```", ""]
    return "\n".join(text).rstrip() + "\n"
