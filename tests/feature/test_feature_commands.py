"""The command line, as its users meet it."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from propylon.cli.main import main
from support.instance import COMMAND, Instance
from support.manifests import GATEWAY, OFFSET, route, service, to, write

pytestmark = pytest.mark.feature


def propylon(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_status_without_a_running_instance(tmp_path: Path) -> None:
    done = propylon("status", "--data-dir", str(tmp_path))
    assert done.returncode == 3
    assert "propylon up" in done.stderr
    waited = propylon("status", "--wait=200ms", "--data-dir", str(tmp_path))
    assert waited.returncode in {3, 124}


def test_version_and_completion() -> None:
    assert json.loads(propylon("version", "-o", "json").stdout)["gateway-api"] == "v1.7.0"
    for shell in ("bash", "zsh", "fish"):
        assert "_PROPYLON_COMPLETE" in propylon("completion", shell).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--backend", "nonsense"),
        ("up", "--var", "x"),
        ("up", "--port-offset", "99999"),
        ("status", "--wait=soon"),
    ],
)
def test_bad_options_are_named(arguments: tuple[str, ...]) -> None:
    done = propylon(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_once_reports_and_exits(tmp_path: Path) -> None:
    manifests = write(
        tmp_path / "m", gateway=GATEWAY, services=service("a"), shop=route("shop", "shop.example.com", to("a"))
    )
    good = propylon("up", str(manifests), "--once", "-o", "json", "--data-dir", str(tmp_path / "data"))
    report = json.loads(good.stdout)
    assert good.returncode == 0, report["errors"]
    assert report["gateways"][0]["accepted"]
    assert report["gateways"][0]["listeners"][0]["attached_routes"] == 1
    assert not report["gateways"][0]["programmed"], "nothing was started"
    write(manifests, shop=route("shop", "shop.example.com", to("nowhere")))
    bad = propylon("up", str(manifests), "--once", "-o", "json", "--data-dir", str(tmp_path / "data"))
    assert bad.returncode == 1
    assert "BackendNotFound" in bad.stdout


def test_get_config_logs(tmp_path: Path) -> None:
    manifests = write(
        tmp_path / "m", gateway=GATEWAY, services=service("a"), shop=route("shop", "shop.example.com", to("a"))
    )
    write(manifests, kept="apiVersion: example.org/v1\nkind: WidgetPolicy\nmetadata: {name: w1}\nspec: {any: [1]}\n")
    with Instance(tmp_path, str(manifests), "--echo", "--port-offset", str(OFFSET)) as instance:
        instance.ready()
        table = instance.run("get", "gateways", check=True).stdout
        assert table.splitlines()[0].split() == ["NAMESPACE", "NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"]
        assert table.splitlines()[1].split()[4] == "True"
        one = yaml.safe_load(instance.run("get", "gtw", "web", "-n", "default", "-o", "yaml", check=True).stdout)
        assert one["status"]["listeners"][0]["attachedRoutes"] == 1
        assert instance.run("get", "httproute", "nothing").returncode == 1
        assert instance.run("get", "nonsense").returncode == 2
        kept = instance.run("get", "widgetpolicies", check=True).stdout
        assert "w1" in kept, "kinds that mean nothing to us are kept, and can be read"
        view = instance.run("config", "view", check=True).stdout
        assert any(line.split() == ["enable-gateway-api", "true"] for line in view.splitlines())
        assert instance.client("default/web", "http").get("shop.example.com", "/logged").status_code == 200
        logs = instance.run("logs", "web", check=True).stdout
        assert "/logged" in logs
        assert instance.run("logs", "nothing").returncode == 1
        second = instance.run("up", str(manifests))
        assert second.returncode == 1, "one instance a data directory"
        assert "Traceback" not in second.stderr
        assert instance.stop() == 0
    assert "stopping" in instance.output()


def test_a_gateway_without_routes_is_programmed(tmp_path: Path) -> None:
    manifests = write(tmp_path / "m", gateway=GATEWAY)
    with Instance(tmp_path, str(manifests), "--port-offset", str(OFFSET)) as instance:
        assert instance.ready()["gateways"][0]["programmed"]
        assert instance.client("default/web", "http").get("any.example.com").status_code == 404


def test_every_command_takes_a_data_directory() -> None:
    def leaves(command: click.Command, context: click.Context) -> Iterator[click.Command]:
        if not isinstance(command, click.Group):
            yield command
            return
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from leaves(inner, context)

    without = [c.name for c in leaves(main, click.Context(main)) if "--data-dir" not in str([p.opts for p in c.params])]
    assert without == []
