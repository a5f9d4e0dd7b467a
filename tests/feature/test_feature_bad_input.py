"""What is broken is named with file, line, object, field and remedy; everything else keeps serving."""

import base64
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.backends import Backend
from support.instance import Instance, eventually
from support.manifests import GATEWAY, OFFSET, route, service, to, write

pytestmark = pytest.mark.feature


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, Path]]:
    directory = tmp_path_factory.mktemp("bad-input")
    with Backend("a") as a:
        manifests = write(
            directory / "manifests",
            gateway=GATEWAY,
            services=service("a"),
            good=route("good", "good.example.com", to("a")),
        )
        with Instance(
            directory, str(manifests), "--port-offset", str(OFFSET), "--backend", f"default/a={a.address}"
        ) as instance:
            instance.ready()
            yield instance, manifests


@pytest.fixture(autouse=True)
def _good_stays_good(world: tuple[Instance, Path]) -> Iterator[None]:
    """Before and after every case the good route answers, and afterwards nothing is left to complain about."""
    instance, manifests = world
    client = instance.client("default/web", "http")
    assert client.get("good.example.com").status_code == 200
    yield
    assert client.get("good.example.com").status_code == 200
    for file in manifests.glob("bad*"):
        file.unlink()
    eventually(lambda: not instance.status()["errors"], "nothing is wrong any more")
    assert client.get("good.example.com").status_code == 200


def complaint(instance: Instance, file: str, words: str, *, severity: str = "error") -> dict[str, Any]:
    """Wait for the entry of `errors` about a file whose message has these words."""

    def found() -> dict[str, Any] | None:
        wanted = [e for e in instance.status()["errors"] if e["file"].endswith(file) and e["severity"] == severity]
        return next((e for e in wanted if all(w in str(e) for w in words.split())), None)

    entry = eventually(found, f"{file}: {words}")
    assert entry is not None
    return entry


def test_malformed_yaml(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    write(manifests, bad="apiVersion: v1\nkind: Service\nmetadata: {name: x\n")
    entry = complaint(instance, "bad.yaml", "cannot be read")
    assert entry["line"] >= 3
    assert f"bad.yaml:{entry['line']}" in instance.output()


def test_wrong_type(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    rule = "{matches: {path: {value: /}}, backendRefs: [{name: a, port: 80}]}"
    write(manifests, bad=route("typed", "typed.example.com", rule))
    entry = complaint(instance, "bad.yaml", "matches")
    assert entry["field"] == "spec.rules[0].matches"
    assert entry["object"] == "HTTPRoute default/typed"
    assert entry["line"] == 8


def test_unknown_kind_is_kept_and_unknown_field_is_named(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    sealed = (
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: s}\nspec: {encryptedData: {a: b}}\n"
    )
    write(manifests, bad=sealed + "---\n" + service("b").replace("ports:", "port: 1, ports:"))
    entry = complaint(instance, "bad.yaml", "port ports", severity="warning")
    assert entry["field"] == "spec.port"


def test_duplicate_object(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    write(manifests, bad1=route("twice", "one.example.com", to("a")), bad2=route("twice", "two.example.com", to("a")))
    entry = complaint(instance, "bad2.yaml", "bad1.yaml")
    assert entry["object"] == "HTTPRoute default/twice"
    client = instance.client("default/web", "http")
    assert client.get("one.example.com").status_code == 200


def test_violated_rule_of_the_crd(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}"
    rule = f"{{filters: [{redirect}], backendRefs: [{{name: a, port: 80}}]}}"
    write(manifests, bad=route("both", "both.example.com", rule))
    entry = complaint(instance, "bad.yaml", "RequestRedirect")
    assert entry["field"].startswith("spec.rules")
    assert entry["remedy"]


def test_dangling_and_forbidden_references(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    forbidden = "{matches: [{path: {value: /f}}], backendRefs: [{name: b, namespace: other, port: 80}]}"
    write(manifests, bad=route("dangling", "d.example.com", to("nowhere"), forbidden, to("a", prefix="/ok")))
    entry = complaint(instance, "bad.yaml", "BackendNotFound")
    assert entry["field"].startswith("spec.rules[0].backendRefs[0]")
    assert complaint(instance, "bad.yaml", "RefNotPermitted ReferenceGrant")
    client = instance.client("default/web", "http")
    assert eventually(lambda: client.get("d.example.com", "/ok").status_code == 200, "the good rule serves")
    assert client.get("d.example.com").status_code == 500
    assert client.get("d.example.com", "/f").status_code == 500


def test_missing_gateway_and_listener(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    write(manifests, bad=route("lost", "l.example.com", to("a"), gateway="webb"))
    assert "default/web" in complaint(instance, "bad.yaml", "webb")["message"]
    write(manifests, bad=route("lost", "l.example.com", to("a"), section="htp"))
    assert "http" in complaint(instance, "bad.yaml", "NoMatchingParent htp")["message"]


def test_unusable_certificate_leaves_other_listeners(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    garbage = base64.b64encode(b"no certificate").decode()
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ntype: kubernetes.io/tls\n"
        f"data: {{tls.crt: {garbage}, tls.key: {garbage}}}\n"
    )
    listener = "    - {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: bad}]}}\n"
    write(manifests, bad=secret, gateway=GATEWAY + listener)
    assert complaint(instance, "gateway.yaml", "InvalidCertificateRef")["field"].startswith("spec.listeners[1]")
    report = instance.status()
    states = {
        entry["name"]: {c["type"]: c["status"] for c in entry["conditions"]}
        for entry in report["gateways"][0]["listeners"]
    }
    assert states["tls"]["ResolvedRefs"] == "False"
    assert states["tls"]["Programmed"] == "False"
    assert states["http"]["Programmed"] == "True"
    write(manifests, gateway=GATEWAY)


def test_port_in_use_and_freed(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    address, _ = instance.place("default/web", "http")
    with socket.create_server((address, OFFSET + 81)):
        write(manifests, gateway=GATEWAY + "    - {name: taken, port: 81, protocol: HTTP}\n")
        entry = complaint(instance, "gateway.yaml", "in use")
        assert entry["field"] == "spec.listeners[1].port"
        assert entry["object"] == "Gateway default/web"
    client = instance.client("default/web", "taken")
    eventually(lambda: client.get("good.example.com").status_code == 200, "the freed port serves")
    write(manifests, gateway=GATEWAY)


def test_invalid_regular_expression(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    rule = "{matches: [{path: {type: RegularExpression, value: '/a(b'}}], backendRefs: [{name: a, port: 80}]}"
    write(manifests, bad=route("regex", "regex.example.com", rule, to("a", prefix="/fine")))
    assert complaint(instance, "bad.yaml", "regular expression")["object"] == "HTTPRoute default/regex"


def test_unfilled_variable(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    write(manifests, bad=route("variable", "www.${domain}", to("a")))
    entry = complaint(instance, "bad.yaml", "domain")
    assert entry["line"]


def test_broken_file_keeps_its_last_good_objects(world: tuple[Instance, Path]) -> None:
    instance, manifests = world
    write(manifests, bad=route("kept", "kept.example.com", to("a")))
    client = instance.client("default/web", "http")
    eventually(lambda: client.get("kept.example.com").status_code == 200, "served")
    (manifests / "bad.yaml").write_text("kind: [", encoding="utf-8")
    complaint(instance, "bad.yaml", "cannot be read")
    assert client.get("kept.example.com").status_code == 200
    (manifests / "bad.yaml").unlink()
    eventually(lambda: client.get("kept.example.com").status_code == 404, "pruned with its file")


def test_full_disk_under_the_store(world: tuple[Instance, Path]) -> None:
    """No byte more may be written to any file, as on a full disk; then there is room again."""
    instance, manifests = world
    assert instance.process is not None
    before = resource.prlimit(instance.process.pid, resource.RLIMIT_FSIZE)
    client = instance.client("default/web", "http")
    resource.prlimit(instance.process.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        write(manifests, bad=route("full", "full.example.com", to("a")))
        entry = eventually(
            lambda: next((e for e in instance.status()["errors"] if "store" in str(e).lower()), None), "said so"
        )
        assert entry["remedy"]
        assert client.get("good.example.com").status_code == 200
    finally:
        resource.prlimit(instance.process.pid, resource.RLIMIT_FSIZE, before)
    eventually(lambda: client.get("full.example.com").status_code == 200, "what waited is served")
    stored = instance.run("get", "httproute", "full", "-o", "name", check=True).stdout
    assert stored == "httproute/full\n"
