"""Other people's clients, unchanged, against the embedded API: ``python conformance/clients.py`` (``make clients``).

Builds client-go's informers (`go/informer`), the kubectl plug-in kubectl-validate and Helm, and runs each against an
API server in this process. The informers' server keeps a short change log, so that a watch falls behind and is
answered with 410.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import build  # noqa: E402

from propylon.api.meta import ObjectRef  # noqa: E402
from propylon.server.machine import MachineStore  # noqa: E402
from propylon.server.service import ApiServer  # noqa: E402
from propylon.store import NotFound  # noqa: E402

RETAINED = 50
_SECONDS = 180
_CHART = HERE / "client-inputs" / "chart"
_MANIFESTS = HERE / "client-inputs" / "manifests"
_ROUTE = ObjectRef("gateway.networking.k8s.io", "HTTPRoute", "shop", "shop")
_SETTINGS = ObjectRef("", "ConfigMap", "shop", "shop")


class ClientError(Exception):
    """A client did not find what it would find with a cluster."""


class Site:
    """An API server, and the surroundings in which clients are run against it."""

    def __init__(self, store: MachineStore, server: ApiServer, home: Path) -> None:
        self.store = store
        self.kubeconfig = server.kubeconfig
        self.programs = home / "programs"
        self.programs.mkdir()
        self._environment = {
            "PATH": f"{self.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "KUBECONFIG": str(server.kubeconfig),
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One command and what it prints."""
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=_SECONDS
        )

    def must(self, *command: str) -> str:
        """What a command prints that must succeed. Raises ClientError."""
        done = self.run(*command)
        if done.returncode:
            raise ClientError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def must_not(self, *command: str) -> str:
        """What a command complains of that must fail. Raises ClientError."""
        done = self.run(*command)
        if not done.returncode:
            raise ClientError(f"{' '.join(command)} succeeded:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def holds(self, ref: ObjectRef) -> dict[str, object] | None:
        """The object as it is stored."""
        with contextlib.suppress(NotFound):
            return self.store.get(ref)
        return None


def expect(what: str, found: object, wanted: object) -> None:
    """Raises ClientError where something else was found than with a cluster."""
    if found != wanted:
        raise ClientError(f"{what}: {found!r}, expected {wanted!r}")


def expect_words(said: str, *words: str) -> None:
    """Raises ClientError for words that are missing from what was said."""
    missing = [word for word in words if word not in said]
    if missing:
        raise ClientError(f"{missing} are not in:\n{said}")


@contextlib.contextmanager
def served(retained: int) -> Iterator[Site]:
    """An API server over a new store that retains so many changes."""
    with tempfile.TemporaryDirectory(prefix="clients-") as directory:
        data = Path(directory) / "data"
        data.mkdir()
        with MachineStore(data, retained_changes=retained) as store:
            server = ApiServer(store, data, port=0)
            server.start()
            try:
                server.wait_ready()
                yield Site(store, server, Path(directory))
            finally:
                server.stop()


def check_informers(clients: build.Clients) -> None:
    """List, watch, relist after 410, bookmarks, streaming lists."""
    with served(RETAINED) as site:
        # More than are retained, and a tenth more than that is what the log may hold before it is cut.
        print(site.must(str(clients.informer), "--changes", str(3 * RETAINED)), end="")


def check_plugin(clients: build.Clients) -> None:
    """kubectl finds the plug-in, which reads our discovery and OpenAPI documents and validates by them."""
    with served(20_000) as site:
        (site.programs / "kubectl-validate").symlink_to(clients.validate)
        expect_words(site.must("kubectl", "plugin", "list"), "kubectl-validate")
        said = site.must("kubectl", "validate", str(_MANIFESTS / "good.yaml"))
        expect_words(said, "good.yaml", "OK")
        said = site.must_not("kubectl", "validate", str(_MANIFESTS / "bad.yaml"))
        expect_words(
            said, "spec.hostnames[0]", "spec.rules[0].matches[0].path.type", "spec.rules[0].backendRefs[0].port"
        )
        definition = str(_MANIFESTS / "definition.yaml")
        site.must("kubectl", "apply", "-f", definition)
        said = site.must_not("kubectl", "validate", str(_MANIFESTS / "custom.yaml"))
        expect_words(said, "spec.size")  # checked by a schema that came with a CustomResourceDefinition
    print("ok  kubectl validate: Gateway API's kinds, core kinds, custom kinds")


def check_helm(clients: build.Clients) -> None:
    """A release: installed, changed, refused, rolled back, uninstalled."""
    helm = str(clients.helm)

    def hostname() -> object:
        return site.must("kubectl", "-n", "shop", "get", "httproute", "shop", "-o", "jsonpath={.spec.hostnames[0]}")

    with served(20_000) as site:
        site.must(helm, "install", "shop", str(_CHART), "-n", "shop", "--create-namespace")
        # The chart has an HTTPRoute only where discovery tells of that kind.
        expect("hostname after install", hostname(), "shop.example.com")
        listed = json.loads(site.must(helm, "list", "-n", "shop", "-o", "json"))
        expect(
            "releases", [(one["name"], one["revision"], one["status"]) for one in listed], [("shop", "1", "deployed")]
        )
        new = ("--set", "hostname=new.example.com", "--set", "settings.color=null", "--set", "settings.size=xl")
        site.must(helm, "upgrade", "shop", str(_CHART), "-n", "shop", *new)
        expect("hostname after upgrade", hostname(), "new.example.com")
        held = site.holds(_SETTINGS)
        expect("settings after upgrade", held and held["data"], {"size": "xl"})
        said = site.must_not(helm, "upgrade", "shop", str(_CHART), "-n", "shop", "--set", "hostname=not a host")
        expect_words(said, "spec.hostnames[0]")
        expect("hostname after a refusal", hostname(), "new.example.com")
        site.must(helm, "rollback", "shop", "1", "-n", "shop")
        expect("hostname after rollback", hostname(), "shop.example.com")
        held = site.holds(_SETTINGS)
        expect("settings after rollback", held and held["data"], {"color": "red"})
        states = [one["status"] for one in json.loads(site.must(helm, "history", "shop", "-n", "shop", "-o", "json"))]
        expect("history", states, ["superseded", "superseded", "failed", "deployed"])
        site.must(helm, "uninstall", "shop", "-n", "shop", "--wait")
        expect("what is left", (site.holds(_ROUTE), site.holds(_SETTINGS)), (None, None))
    print("ok  helm: install, list, upgrade, refusal, rollback, history, uninstall")


CHECKS: tuple[Callable[[build.Clients], None], ...] = (check_informers, check_plugin, check_helm)


def main() -> int:
    """The exit code: 0, also where Go modules cannot be had; 1 if a client fails; 2 if one cannot be built."""
    try:
        clients = build.build_clients()
    except build.BuildError as error:
        if why := build.modules_unavailable():
            print(f"not run: Go modules cannot be had: {why}")
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 2
    for check in CHECKS:
        try:
            check(clients)
        except (ClientError, subprocess.TimeoutExpired) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
