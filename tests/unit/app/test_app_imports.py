"""What is read from the disk before something is of use: a library that many wait for and few need is found here."""

import subprocess
import sys

import pytest

CONTROL_PLANE = {"grpc", "envoy", "xds", "propylon.graph", "propylon.xds", "propylon.envoy", "propylon.app.runtime"}
CLUSTER = {"aiohttp", "kubernetes_asyncio", "propylon.store.cluster"}
API = "propylon.app.run, propylon.server.http, propylon.server.bootstrap, propylon.server.watches"


def imported(statement: str) -> set[str]:
    """The modules that a fresh interpreter holds after these imports."""
    script = f"import {statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "needless"),
    [
        ("propylon.cli.main", CONTROL_PLANE | CLUSTER | {"propylon.api", "cryptography"}),
        (API, CONTROL_PLANE | CLUSTER | {"google.protobuf"}),
        ("propylon.cli.get", CONTROL_PLANE | CLUSTER | {"cryptography"}),
        ("propylon.cli.explain", CLUSTER | {"grpc", "envoy", "propylon.xds", "propylon.store.files"}),
        ("propylon.cli.check", CLUSTER | {"grpc", "envoy", "propylon.xds"}),
        ("propylon.cli.test", CLUSTER | {"grpc", "envoy", "propylon.xds"}),
    ],
)
def test_nobody_waits_for_libraries_of_others(statement: str, needless: set[str]) -> None:
    found = imported(statement)
    assert set(statement.split(", ")) <= found
    assert not needless & found
