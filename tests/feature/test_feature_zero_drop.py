"""Under load of keep-alive and new connections, no change that a user makes loses a request."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.backends import Backend
from support.instance import Instance, eventually
from support.load import Load
from support.manifests import GATEWAY, OFFSET, route, service, to, write

pytestmark = [pytest.mark.feature, pytest.mark.timeout(180)]
ENOUGH = 10_000
HTTPS = (
    GATEWAY
    + """\
    - name: https
      port: 443
      protocol: HTTPS
      hostname: "*.example.com"
      tls: {certificateRefs: [{name: tls}]}
"""
)


def certificate(directory: Path, serial: int) -> str:
    """A kubernetes.io/tls Secret for *.example.com with a serial number to recognise it by."""
    key, crt = directory / "key.pem", directory / "crt.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            key,
            "-out",
            crt,
            "-days",
            "30",
            "-subj",
            "/CN=x",
            "-addext",
            "subjectAltName=DNS:*.example.com",
            "-set_serial",
            str(serial),
        ],
        check=True,
        capture_output=True,
    )
    indent = "\n".join("    " + line for line in crt.read_text().splitlines())
    indent_key = "\n".join("    " + line for line in key.read_text().splitlines())
    return (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: default}\ntype: kubernetes.io/tls\n"
        f"stringData:\n  tls.crt: |\n{indent}\n  tls.key: |\n{indent_key}\n"
    )


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[Backend, Backend]]:
    with Backend("a") as a, Backend("b") as b:
        yield a, b


@pytest.fixture
def world(tmp_path: Path, backends: tuple[Backend, Backend]) -> Iterator[tuple[Instance, Path]]:
    manifests = write(
        tmp_path / "manifests",
        gateway=HTTPS,
        services=service("a") + "---\n" + service("b"),
        tls=certificate(tmp_path, 1),
        route=route("shop", "shop.example.com", to("a")),
    )
    a, b = backends
    instance = Instance(
        tmp_path,
        str(manifests),
        *("--port-offset", str(OFFSET), "--no-access-log"),
        *("--backend", f"default/a={a.address}", "--backend", f"default/b={b.address}"),
    )
    with instance:
        instance.ready()
        yield instance, manifests


def under_load(instance: Instance, change: Callable[[int], None], *, tls: bool = False, rounds: int = 10) -> None:
    """Change again and again while at least ENOUGH requests are answered; none may fail."""
    address, port = instance.place("default/web", "https" if tls else "http")
    with Load(address, port, "shop.example.com", tls=tls) as load:
        eventually(lambda: load.result.answered > 50, "load begins")
        for n in range(rounds):
            goal = load.result.answered + ENOUGH // rounds
            change(n)
            eventually(lambda goal=goal: load.result.answered >= goal or load.result.failures, "requests answered", 60)
        eventually(lambda: load.result.answered >= ENOUGH or load.result.failures, "enough requests", 60)
    assert load.result.failures == []
    assert load.result.answered >= ENOUGH


def test_a_route_changes(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    client = instance.client("default/web", "http")

    def change(n: int) -> None:
        header = f"{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-N, value: '{n}'}}]}}}}"
        rule = f"{{filters: [{header}], backendRefs: [{{name: a, port: 80}}]}}"
        write(manifests, route=route("shop", "shop.example.com", rule))
        eventually(lambda: client.get("shop.example.com").headers.get("x-n") == str(n), "the change answers")

    under_load(instance, change)


def test_the_backend_is_swapped(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    client = instance.client("default/web", "http")

    def change(n: int) -> None:
        name = "ba"[n % 2]
        write(manifests, route=route("shop", "shop.example.com", to(name)))
        eventually(lambda: client.get("shop.example.com").json()["name"] == name, "the other backend answers")

    under_load(instance, change)


def test_rules_are_reordered(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    rules = [to("a"), to("b", prefix="/b"), to("a", prefix="/c"), to("b", prefix="/d/e")]

    def change(n: int) -> None:
        turned = rules[n % 4 :] + rules[: n % 4]
        write(manifests, route=route("shop", "shop.example.com", *turned))

    under_load(instance, change)


def test_a_listener_is_added_and_removed(world: tuple[Instance, Path]) -> None:
    instance, manifests = world

    def change(n: int) -> None:
        more = f"    - {{name: extra, port: {8080 + n}, protocol: HTTP}}\n" if n % 2 == 0 else ""
        write(manifests, gateway=HTTPS + more)
        if more:
            eventually(lambda: instance.place("default/web", "extra")[1] == OFFSET + 8080 + n, "the listener is there")

    under_load(instance, change, tls=True)


def test_the_certificate_is_replaced(world: tuple[Instance, Path], tmp_path: Path) -> None:
    instance, manifests = world
    address, port = instance.place("default/web", "https")

    def serial() -> str:
        shown = subprocess.run(
            f"openssl s_client -connect {address}:{port} -servername shop.example.com </dev/null 2>/dev/null"
            " | openssl x509 -noout -serial",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        return shown.stdout.strip().removeprefix("serial=")

    def change(n: int) -> None:
        write(manifests, tls=certificate(tmp_path, 0x100 + n))
        eventually(lambda: int(serial() or "0", 16) == 0x100 + n, "the new certificate is shown")

    under_load(instance, change, tls=True, rounds=5)


def test_propylon_is_killed_and_comes_back(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    client = instance.client("default/web", "http")

    def change(n: int) -> None:
        instance.kill()
        name = "ba"[n % 2]
        write(manifests, route=route("shop", "shop.example.com", to(name)))
        instance.start()
        eventually(lambda: client.get("shop.example.com").json()["name"] == name, "the change made meanwhile answers")

    under_load(instance, change, rounds=4)
    assert "adopted" in instance.output()


def test_the_directory_vanishes_and_comes_back(world: tuple[Instance, Path], tmp_path: Path) -> None:
    instance, manifests = world

    def change(n: int) -> None:
        if n % 2 == 0:
            shutil.move(manifests, tmp_path / "away")
            eventually(lambda: any(str(manifests) in e["file"] for e in instance.status()["errors"]), "said so")
        else:
            shutil.move(tmp_path / "away", manifests)
            eventually(lambda: not instance.status()["errors"], "mended")

    under_load(instance, change, rounds=4)
