"""The table at the end: what the suite's report says, cross-checked with what go test saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .suite import Outcome


@dataclass(frozen=True)
class Counts:
    """Tests of one profile's core or extended part."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        """All that apply: a skipped test counts as not passed."""
        return self.passed + self.failed + self.skipped


@dataclass(frozen=True)
class Profile:
    """One line of the table."""

    name: str
    core: Counts
    extended: Counts
    failed_tests: tuple[str, ...] = ()


def read_profiles(path: Path) -> list[Profile]:
    """The profiles of a ConformanceReport, by name. An absent file has none."""
    if not path.exists():
        return []
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    profiles = []
    for entry in document.get("profiles") or []:
        parts = [entry.get("core") or {}, entry.get("extended") or {}]
        failed = tuple(name for part in parts for name in part.get("failedTests") or [])
        profiles.append(Profile(entry["name"], _counts(parts[0]), _counts(parts[1]), failed))
    return sorted(profiles, key=lambda profile: profile.name)


def table(profiles: Sequence[Profile], outcome: Outcome) -> str:
    """The table, and below it every failed test."""
    rows: list[tuple[str, ...]] = [("profile", "core", "extended", "skipped", "failed")]
    for profile in profiles:
        parts = (profile.core, profile.extended)
        passed = [f"{part.passed}/{part.total}" if part.total else "-" for part in parts]
        skipped, failed = sum(part.skipped for part in parts), sum(part.failed for part in parts)
        rows.append((profile.name, *passed, str(skipped), str(failed)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(_aligned(row, widths)) for row in rows] if profiles else ["the suite wrote no report"]
    passed_tests, failed_tests = outcome.named("pass"), outcome.named("fail")
    lines.append("")
    lines += [f"FAILED  {name}  ({outcome.durations.get(name, 0):.1f} s)" for name in failed_tests]
    if unseen := outside_profiles(profiles, outcome):
        lines.append(f"failed, but in no profile of the report: {', '.join(unseen)}")
    if not outcome.set_up:
        lines.append("the suite ended before its first test: see suite.txt")
    lines.append(
        f"{len(passed_tests)} tests passed, {len(failed_tests)} failed, {len(outcome.named('skip'))} skipped "
        f"in {outcome.seconds:.0f} s"
    )
    return "\n".join(lines)


def outside_profiles(profiles: Sequence[Profile], outcome: Outcome) -> list[str]:
    """Tests that failed and that no profile counts: the suite has tests that belong to none."""
    counted = {name for profile in profiles for name in profile.failed_tests}
    return [name for name in outcome.named("fail") if name not in counted]


def _counts(part: dict[str, Any]) -> Counts:
    statistics = {key.lower(): int(value) for key, value in (part.get("statistics") or {}).items()}
    return Counts(statistics.get("passed", 0), statistics.get("failed", 0), statistics.get("skipped", 0))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
