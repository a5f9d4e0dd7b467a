"""A real etcd and kube-apiserver for every test here, in namespaces of their own.

`pytest tests/cluster` (or `make cluster`) starts itself again inside of new network and process namespaces, whose end
is the end of everything that tests started. Where that cannot be, the tests are skipped and say why.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(_REPOSITORY / "conformance"))

import build  # noqa: E402
from cluster_plane import Loop, Plane  # noqa: E402
from cluster_site import Site  # noqa: E402
from harness import netns  # noqa: E402

_INSIDE = "PROPYLON_TESTS_CLUSTER"
_WHY_NOT = "PROPYLON_TESTS_CLUSTER_WHY_NOT"
_LIFELINE = "--lifeline"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_LIFELINE, type=int, help="set by the process outside of the namespaces")


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Outside: build what is missing, run pytest again inside. Inside: go on."""
    if _INSIDE in os.environ:
        if (lifeline := config.getoption(_LIFELINE)) is not None:
            threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
        return None
    if config.option.collectonly or config.option.help or config.option.version:
        return None
    try:
        netns.require_namespaces()
        artifacts = build.build()
        older = build.older_crds()
    except netns.NamespacesRefusedError as error:
        os.environ[_WHY_NOT] = str(error)
        return None
    except build.BuildError as error:
        if not (why := build.modules_unavailable()):
            raise pytest.UsageError(str(error)) from error
        os.environ[_WHY_NOT] = f"what is not built yet needs Go modules, and none can be downloaded: {why}"
        return None
    except netns.NamespacesUnavailableError as error:
        raise pytest.UsageError(str(error)) from error
    paths = {
        "artifacts": {name: str(path) for name, path in dataclasses.asdict(artifacts).items()},
        "older": {version: str(path) for version, path in older.items()},
    }
    os.environ[_INSIDE] = json.dumps(paths)
    arguments = [*config.invocation_params.args]
    return netns.enter([sys.executable, "-m", "pytest"], _LIFELINE, [str(each) for each in arguments])


def _end_with(lifeline: int) -> None:
    """End like by Ctrl-C when the process outside does."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="session")
def built() -> Iterator[dict[str, dict[str, str]]]:
    """Paths of what was built; skips where there is nothing."""
    if _INSIDE not in os.environ:
        pytest.skip(os.environ.get(_WHY_NOT, "needs namespaces of its own: run `make cluster`"))
    yield json.loads(os.environ[_INSIDE])


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    with Loop() as found:
        yield found


@pytest.fixture(scope="session")
def node(built: dict[str, dict[str, str]], loop: Loop) -> None:
    """The addresses of the node, once for all."""
    loop.run(netns.set_up_node())


@pytest.fixture(scope="module")
def plane(
    node: None, built: dict[str, dict[str, str]], loop: Loop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plane]:
    """A control plane without any CRDs."""
    with Plane(loop, built, tmp_path_factory.mktemp("plane")) as found:
        yield found


@pytest.fixture
def fresh_plane(plane: Plane) -> Iterator[Plane]:
    """The module's control plane, emptied: another etcd."""
    plane.renew()
    yield plane


@pytest.fixture
def site(plane: Plane, tmp_path: Path) -> Iterator[Site]:
    """A GatewayClass, a Gateway and a route of this test's own, with the CRDs of v1.7.0 (experimental channel)."""
    plane.install_current()
    with Site(plane, tmp_path) as found:
        yield found
