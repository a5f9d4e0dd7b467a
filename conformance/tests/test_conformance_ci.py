"""When a run of CI may say that it was not run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import build
import clients
import run as entry
from harness import netns


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(netns, "require_namespaces", lambda: None)
    monkeypatch.setattr(netns, "enter", lambda *_: pytest.fail("nothing is to be run"))
    monkeypatch.setattr(sys, "argv", ["run.py", "--ci", "--controller-command", "true"])


def refuse(error: Exception):
    def refusing(*_arguments: object, **_options: object) -> None:
        raise error

    return refusing


def test_a_machine_that_refuses_namespaces(arguments, monkeypatch, capsys):
    monkeypatch.setattr(netns, "require_namespaces", refuse(netns.NamespacesRefusedError("no unshare here")))
    assert entry.main() == 0
    assert capsys.readouterr().out == "not run: no unshare here\n"


def test_a_package_that_is_missing_is_to_be_installed(arguments, monkeypatch, capsys):
    monkeypatch.setattr(netns, "require_namespaces", refuse(netns.NamespacesUnavailableError("install iproute2")))
    assert entry.main() == 2
    assert "install iproute2" in capsys.readouterr().err


def test_modules_that_nobody_can_download(arguments, monkeypatch, capsys):
    monkeypatch.setattr(build, "build", refuse(build.BuildError("building etcd failed")))
    monkeypatch.setattr(build, "modules_unavailable", lambda: "dial tcp: no route")
    assert entry.main() == 0
    assert "dial tcp: no route" in capsys.readouterr().out
    monkeypatch.setattr(build, "modules_unavailable", lambda: "")
    assert entry.main() == 2, "what does not build although everything is there is to be mended"


def test_clients_that_nobody_can_download(monkeypatch, capsys):
    monkeypatch.setattr(build, "build_clients", refuse(build.BuildError("building helm failed")))
    monkeypatch.setattr(build, "modules_unavailable", lambda: "dial tcp: no route")
    assert clients.main() == 0
    assert capsys.readouterr().out == "not run: Go modules cannot be had: dial tcp: no route\n"
    monkeypatch.setattr(build, "modules_unavailable", lambda: "")
    assert clients.main() == 2


def test_a_client_that_fails_is_an_error(monkeypatch, capsys):
    def fails(_clients: object) -> None:
        clients.expect("hostname", "old", "new")

    monkeypatch.setattr(build, "build_clients", lambda: None)
    monkeypatch.setattr(clients, "CHECKS", (fails,))
    assert clients.main() == 1
    assert "'old', expected 'new'" in capsys.readouterr().err


def test_without_the_flag_nothing_is_excused(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "--controller-command", "true"])
    monkeypatch.setattr(netns, "require_namespaces", refuse(netns.NamespacesRefusedError("no")))
    assert entry.main() == 2


def test_whether_modules_can_be_had_is_asked_of_go(tmp_path: Path):
    go = tmp_path / "go"
    script = [
        "#!/bin/sh",
        '[ -z "$(ls "$GOMODCACHE")" ] || exit 0',
        'echo "$@" > "$0.asked"',
        "echo no proxy >&2; exit 1",
    ]
    go.write_text("\n".join(script) + "\n")
    go.chmod(0o755)
    assert build.modules_unavailable(str(go)) == "no proxy"
    asked = (tmp_path / "go.asked").read_text()
    assert asked.startswith("list -m sigs.k8s.io/gateway-api@v")
    go.write_text("#!/bin/sh\nexit 0\n")
    assert build.modules_unavailable(str(go)) == ""
    assert build.modules_unavailable("/nonexistent/go")
