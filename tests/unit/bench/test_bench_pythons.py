"""Which interpreter the benchmarks run with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import pythons


def test_another_is_chosen_only_if_it_is_clearly_faster() -> None:
    assert pythons.fastest({"own": 1.0, "other": 0.97}) == "own"
    assert pythons.fastest({"own": 1.0, "other": 0.9, "third": 0.6}) == "third"
    assert pythons.fastest({"own": 1.0}) == "own"


def test_all_pythons_of_the_search_path_are_looked_at_once(tmp_path: Path) -> None:
    for name in ("python3", "python3.99", "python3-config", "python3.9-dbg"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python3.98").write_text("not a program")
    (tmp_path / "python3.97").symlink_to("python3")
    found = pythons.candidates(os.pathsep.join([str(tmp_path), "/nonexistent", str(tmp_path)]), sys.executable)
    assert found == [sys.executable, str(tmp_path / "python3"), str(tmp_path / "python3.99")]


def test_what_cannot_be_used_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\necho too old >&2\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setattr(pythons, "ROUNDS", 1)
    seconds = pythons.measured([str(tmp_path / "python3"), sys.executable, sys.executable])
    assert list(seconds) == [os.path.realpath(sys.executable)]
    assert next(iter(seconds.values())) > 0


def test_it_prints_one_that_works() -> None:
    script = Path(pythons.__file__)
    printed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout.strip()
    asked = subprocess.run([printed, "-c", "import sys, venv; print(sys.version_info >= (3, 11))"], capture_output=True)
    assert asked.stdout.strip() == b"True"
