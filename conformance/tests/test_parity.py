"""The parity script's own parts: scenarios, normalisation, what counts as a difference."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity.compare import Expected, difference, read_expected, report
from parity.kubectl import Outcome
from parity.normalise import normalised
from parity.scenario import ScenarioError, Step, read_scenarios

STEP = Step(1, "get", ("get", "pods"))


def expected(theirs: str, ours: str, invocations: str = ".") -> Expected:
    return Expected("known", "a reason", *(re.compile(pattern) for pattern in (invocations, theirs, ours)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("uid: 0b7a3a52-2f5e-4c58-a0a9-0a2a2b6ff0c1", "uid: UID"),
        ('creationTimestamp: "2026-01-02T03:04:05Z"', 'creationTimestamp: "TIME"'),
        ('  resourceVersion: "123"', '  resourceVersion: "VERSION"'),
        ("Resource Version:  12", "Resource Version:  VERSION"),
        ("NAME    AGE\nshop    5m2s\n", "NAME  AGE\nshop  AGE\n"),
        ("--- /tmp/x/LIVE-12/a\t2026-01-02 03:04:05.123 +0000", "--- LIVE/a  TIME"),
        (f"[X509SHA256={'0f' * 32}]", "[X509SHA256=HASH]"),
        ("  indented: 10s-of-them", "  indented: 10s-of-them"),
    ],
)
def test_only_times_uids_and_versions_are_taken_out(text: str, shown: str) -> None:
    assert normalised(text) == shown


def test_a_difference_is_known_line_by_line() -> None:
    theirs, ours = Outcome(0, "a\nb\n", ""), Outcome(0, "a\nc\nd\n", "")
    assert difference(STEP, theirs, theirs, []) is None
    found = difference(STEP, theirs, ours, [])
    assert found is not None
    assert found.lines == ("-b", "+c", "+d")
    half = difference(STEP, theirs, ours, [expected("^b$", "^c$")])
    assert half is not None
    assert (half.lines, half.names) == (("+d",), ("known",))
    other = difference(STEP, theirs, ours, [expected("", "", "kubectl delete")])
    assert other is not None
    assert other.lines == found.lines


def test_exit_codes_and_errors_count() -> None:
    found = difference(STEP, Outcome(1, "", "no\n"), Outcome(0, "", ""), [])
    assert found is not None
    assert found.lines == ("-! no", "-= exit code 1", "+= exit code 0")


def test_order_counts_unless_there_is_none() -> None:
    theirs, ours = Outcome(0, "a\nb\n", ""), Outcome(0, "b\na\n", "")
    assert difference(STEP, theirs, ours, []) is not None
    assert difference(Step(1, "get", ("get",), ordered=False), theirs, ours, []) is None


def test_the_report_counts() -> None:
    found = difference(STEP, Outcome(0, "a", ""), Outcome(0, "b", ""), [])
    assert found is not None
    versions = dict.fromkeys(("kubectl", "KUBERNETES_VERSION", "ETCD_VERSION", "GATEWAY_API_VERSION"), "v1")
    text = report([STEP, Step(2, "get", ("get",))], [found], [expected("", "")], versions)
    assert "Equal: 1. Different as expected: 0. Different otherwise: 1." in text
    assert "| get | 2 | 1 |" in text


def test_the_scenarios_are_read_and_the_differences_few() -> None:
    steps = read_scenarios()
    assert len(steps) >= 150
    assert all(known.reason for known in read_expected())
    assert len(read_expected()) <= 10
    ends = {step.end for step in steps if step.end}
    assert ends == {step.watch for step in steps if step.watch}


def test_a_step_that_means_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "01-a.yaml").write_text("- {runs: get pods}\n")
    with pytest.raises(ScenarioError, match="step 1 of a"):
        read_scenarios(tmp_path)
