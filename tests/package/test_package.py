"""Wheel and sdist, installed where nothing else is, give a working command."""

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    return out


def test_the_wheel_carries_licence_and_types(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "propylon/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("examples/quickstart/gateway.yaml") for name in archive.getnames())


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_a_clean_environment_runs_the_quickstart(built: Path, tmp_path: Path, pattern: str) -> None:
    (package,) = built.glob(pattern)
    venv.create(tmp_path / "venv", with_pip=True)
    command = tmp_path / "venv" / "bin"
    subprocess.run([command / "pip", "install", "--quiet", str(package)], check=True, capture_output=True)
    version = subprocess.run(
        [command / "propylon", "version", "-o", "json"], check=True, capture_output=True, text=True
    )
    assert json.loads(version.stdout)["envoy"].startswith("1.40")
    quickstart = ROOT / "examples" / "quickstart"
    once = subprocess.run(
        [command / "propylon", "up", quickstart, "--once", "-o", "json", "--data-dir", tmp_path / "data"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert once.returncode == 0, once.stdout + once.stderr
    assert [g["name"] for g in json.loads(once.stdout)["gateways"]] == ["front"]
