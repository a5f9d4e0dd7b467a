"""Real kubectl against an API server of the tests' own, as fixtures."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from propylon.server.service import ApiServer
from propylon.store import LocalStore

KUBECTL = str(Path(sys.executable).parent / "kubectl")


class Kubectl:
    """Real kubectl against a server of the test's own."""

    def __init__(self, server: ApiServer, home: Path) -> None:
        self.server = server
        self._program = Path(sys.executable).parent / "kubectl"
        path = f"{self._program.parent}:{os.environ['PATH']}"
        self._environment = {"PATH": path, "HOME": str(home), "KUBECONFIG": str(server.kubeconfig)}

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._program), *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self._environment,
        )

    def __call__(self, *arguments: str, given: str = "") -> str:
        """What it prints; an AssertionError if it fails."""
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def fails(self, *arguments: str, given: str = "") -> str:
        """What it complains of; an AssertionError if it does not."""
        done = self.run(*arguments, given=given)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stderr


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """One server for all tests, each of which uses a namespace of its own."""
    directory = tmp_path_factory.mktemp("server")
    with LocalStore(directory) as store:
        server = ApiServer(store, directory, port=0)
        server.start()
        try:
            server.wait_ready()
            yield Kubectl(server, directory)
        finally:
            server.stop()


@pytest.fixture
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60].strip("-").lower()
    kubectl("create", "namespace", name)
    return name
