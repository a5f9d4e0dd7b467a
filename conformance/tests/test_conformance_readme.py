"""The README says what the reports say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import readme
from harness.report import Counts, Profile


def test_the_readme_and_the_reports_agree(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["readme.py", "--check"])
    assert readme.main() == 0, "python conformance/readme.py"


def test_the_committed_reports_are_whole_runs_without_a_failure_or_a_skip():
    reports = readme.read_reports(readme.REPORTS)
    assert {"Envoy as pods", "Envoy as processes"} <= set(reports)
    for profiles in reports.values():
        assert [profile.name.removeprefix("GATEWAY-") for profile in profiles] == ["GRPC", "HTTP", "TCP", "TLS", "UDP"]
        for part in (part for profile in profiles for part in (profile.core, profile.extended)):
            assert part.passed == part.total > 0


def test_what_failed_or_was_skipped_is_in_the_table():
    profile = Profile("GATEWAY-TCP", Counts(passed=3, failed=1), Counts(passed=2, skipped=2))
    table = readme.render({"here": [profile], "there": []})
    head, _, row = table.splitlines()
    assert head == "| profile | here: core | here: extended | there: core | there: extended | skipped | failed |"
    assert row == "| GATEWAY-TCP | 3/4 | 2/4 | - | - | 2 | 1 |"


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="lacks"):
        readme.replaced("# Title\n", "| |")
    once = readme.replaced(f"a\n{readme.BEGIN}\nold\n{readme.END}\nb\n", "new")
    assert once == f"a\n{readme.BEGIN}\nnew\n{readme.END}\nb\n"
    assert readme.replaced(once, "new") == once
