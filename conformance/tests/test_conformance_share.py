"""What is said of the controller's share of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import share
from harness.suite import Outcome, _take


def route(generation: int, observed: int | None) -> share.Object:
    conditions = [] if observed is None else [{"type": "Accepted", "status": "True", "observedGeneration": observed}]
    return {
        "kind": "HTTPRoute",
        "metadata": {"namespace": "n", "name": "r", "generation": generation},
        "spec": {},
        "status": {"parents": [{"conditions": conditions}]},
    }


def gateway(generation: int, programmed: str, observed: int) -> share.Object:
    condition = {"type": "Programmed", "status": programmed, "observedGeneration": observed}
    metadata = {"namespace": "n", "name": "g", "generation": generation}
    return {"kind": "Gateway", "metadata": metadata, "spec": {}, "status": {"conditions": [condition]}}


def test_what_waits():
    assert share.waits(route(1, None))
    assert share.waits(route(2, 1))
    assert not share.waits(route(2, 2))
    assert share.waits({**route(1, None), "status": None})
    assert share.waits(gateway(1, "Unknown", 1))
    assert share.waits(gateway(2, "True", 1))
    assert not share.waits(gateway(2, "False", 2)), "that it cannot be served is an answer as well"


def test_waiting_is_counted_once_however_many_wait():
    clock = [0.0]
    waiting = share.Waiting(lambda: clock[0])
    waiting.see("a", route(1, None))
    clock[0] = 1
    waiting.see("b", route(1, None))
    waiting.see("a", route(2, None))  # changed again before it was answered: it waits on
    clock[0] = 3
    waiting.see("a", route(2, 2))
    waiting.see("c", route(1, None))
    clock[0] = 4
    waiting.see("b", route(1, 1))
    clock[0] = 9
    waiting.see("c", None)  # nobody ever answered
    assert waiting.seconds == 4
    assert waiting.longest == {"a": 3.0, "b": 3.0}


def test_union_of_intervals():
    assert share.union([(5, 6), (0, 2), (1, 3), (1, 1.5)]) == 4
    assert share.union([]) == 0


def test_a_process_is_metered():
    spin = "sum(range(3000000)); input()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE) as process:
        meter = share.Meter(process.pid)
        try:
            while not meter.usage.cpu:
                assert process.poll() is None
                meter.read()
        finally:
            process.communicate(b"\n")
        before = meter.usage.peak_megabytes
        assert 1 < before < 500
        meter.read()
        assert meter.usage.peak_megabytes == before, "of a process that is gone the last reading is kept"


def test_lines_of_errors_are_our_own_not_findings_about_objects():
    ours = ["ERROR propylon.app: a computation failed", "Traceback (most recent call last):"]
    log = "\n".join(["INFO x: fine", "  1.2  error: Gateway a/b: spec: wrong", *ours, "  File x"])
    assert share.error_lines(log) == ours


def test_the_log_of_a_test_is_what_was_logged_from_its_start_to_its_end(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("before\n")
    outcome = Outcome()

    def take(action: str) -> None:
        event = {"Action": action, "Test": "TestConformance/A", "Elapsed": 1.0}
        _take(event, outcome, outcome.outputs, lambda _line: None, lambda: log.stat().st_size)

    take("run")
    with log.open("a") as file:
        file.write("one\ntwo\nthree\n")
    take("fail")
    with log.open("a") as file:
        file.write("after\n")
    assert share.excerpt(log, outcome.spans["A"]) == "one\ntwo\nthree"
    assert share.excerpt(log, outcome.spans["A"], 1).endswith(f"see {log}\nthree")
