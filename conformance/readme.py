"""Writes the table of conformance into the README, from the committed reports: ``python conformance/readme.py``.

``--check`` writes nothing and says by its exit code whether the README has the table that the reports make.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from harness.report import Counts, Profile, read_profiles  # noqa: E402

README = HERE.parent / "README.md"
REPORTS = HERE / "reports" / "v1.7.0"
BEGIN = "<!-- conformance: written by conformance/readme.py from the reports -->"
END = "<!-- /conformance -->"
MODES = {
    "experimental-kubernetes": "Envoy as pods",
    "experimental-process": "Envoy as processes",
    "experimental-embedded": "without a cluster",
}
"""Reports that the table is made of, and what they are about; one that is not there has no columns."""


def read_reports(directory: Path) -> dict[str, list[Profile]]:
    """The profiles of each report that there is, by what it is about."""
    found = {title: directory / f"{name}.yaml" for name, title in MODES.items()}
    return {title: read_profiles(path) for title, path in found.items() if path.exists()}


def render(reports: Mapping[str, list[Profile]]) -> str:
    """The table: passed of all tests that the claimed features select, core and extended, for each mode."""
    names = sorted({profile.name for profiles in reports.values() for profile in profiles})
    titles = list(reports)
    head = ["profile", *(f"{title}: {part}" for title in titles for part in ("core", "extended")), "skipped", "failed"]
    lines = [_row(head), _row(["---"] * len(head))]
    for name in names:
        found = [next((p for p in reports[title] if p.name == name), None) for title in titles]
        parts = [
            counts for profile in found for counts in ((profile.core, profile.extended) if profile else (None, None))
        ]
        known = [counts for counts in parts if counts is not None]
        skipped, failed = sum(c.skipped for c in known), sum(c.failed for c in known)
        lines.append(_row([name, *map(_cell, parts), str(skipped), str(failed)]))
    return "\n".join(lines)


def _cell(counts: Counts | None) -> str:
    return f"{counts.passed}/{counts.total}" if counts is not None else "-"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replaced(text: str, table: str) -> str:
    """The README with this table between the marks. Raises ValueError if they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    """Returns the exit code: with ``--check`` 1 if the README is not what the reports say."""
    parser = argparse.ArgumentParser(description="Write the table of conformance into README.md.")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    wanted = replaced(text, render(read_reports(REPORTS)))
    if options.check:
        if wanted != text:
            print("README.md does not say what the reports say: python conformance/readme.py", file=sys.stderr)
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
