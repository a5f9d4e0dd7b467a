"""examples/quickstart does what its README says: the first thing that anybody runs."""

import json
import shlex
import shutil
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from support.instance import Instance, eventually

pytestmark = pytest.mark.feature
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
OFFSET = 10_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, Path]]:
    directory = tmp_path_factory.mktemp("quickstart")
    manifests = Path(shutil.copytree(QUICKSTART, directory / "quickstart"))
    with Instance(directory, str(manifests), "--port-offset", str(OFFSET)) as instance:
        instance.ready()
        yield instance, manifests


def test_the_report_is_clean(running: tuple[Instance, Path]) -> None:
    report = running[0].status()
    assert report["errors"] == []
    (gateway,) = report["gateways"]
    assert gateway["programmed"]
    assert gateway["addresses"] == ["127.0.0.1"]
    listeners = {entry["name"]: (entry["port"], entry["bound_port"]) for entry in gateway["listeners"]}
    assert listeners == {"http": (8080, 18080), "https": (8443, 18443), "tcp": (9000, 19000)}
    assert {(r["kind"], r["name"]) for r in report["routes"]} == {
        ("HTTPRoute", "to-https"),
        ("HTTPRoute", "blog"),
        ("HTTPRoute", "whoami"),
        ("GRPCRoute", "whoami"),
        ("TCPRoute", "whoami"),
    }
    assert all(p["accepted"] and p["resolved_refs"] for r in report["routes"] for p in r["parents"])


def test_plain_http_is_redirected(running: tuple[Instance, Path]) -> None:
    answer = running[0].client("edge/front", "http").get("blog.localhost", "/a?b=c")
    assert answer.status_code == 301
    assert answer.headers["location"] == "https://blog.localhost:18443/a?b=c", (
        "the offset leads to a port that is bound"
    )


def test_the_split_and_the_editors(running: tuple[Instance, Path]) -> None:
    client = running[0].client("edge/front", "https", tls=True)
    names = Counter(client.get("blog.localhost").json()["service"] for _ in range(2000))
    assert set(names) == {"blog", "blog-next"}
    assert 60 <= names["blog-next"] <= 140, "5 % of 2,000, four sigma"
    editors = {client.get("blog.localhost", headers={"X-Preview": "yes"}).json()["service"] for _ in range(20)}
    assert editors == {"blog-next"}
    assert client.get("blog.localhost").headers["cache-control"] == "max-age=60"


def test_pictures_come_from_another_namespace(running: tuple[Instance, Path]) -> None:
    client = running[0].client("edge/front", "https", tls=True)
    answer = client.get("blog.localhost", "/pictures/cat.png").json()
    assert (answer["namespace"], answer["service"], answer["request"]["path"]) == ("media", "pictures", "/cat.png")


def test_headers_are_changed(running: tuple[Instance, Path]) -> None:
    client = running[0].client("edge/front", "https", tls=True)
    headers = client.get("whoami.localhost", headers={"Cookie": "secret=1"}).json()["request"]["headers"]
    assert headers["x-asked-for"] == "whoami"
    assert "cookie" not in headers
    assert headers["x-forwarded-proto"] == "https"


def test_grpc(running: tuple[Instance, Path]) -> None:
    instance = running[0]
    address, port = instance.place("edge/front", "https")
    authority = next((instance.data_dir / "authority").glob("*.crt"), None) or next(
        (instance.data_dir / "authority").glob("*.pem")
    )
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    options = [("grpc.ssl_target_name_override", "grpc.localhost"), ("grpc.default_authority", "grpc.localhost")]
    with grpc.secure_channel(f"{address}:{port}", credentials, options) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01", "HealthCheckResponse{status: SERVING}"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/other.Service/Method")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_tcp(running: tuple[Instance, Path]) -> None:
    with socket.create_connection(running[0].place("edge/front", "tcp"), timeout=10) as connection:
        connection.sendall(b"\x00hello")
        assert connection.recv(100) == b"\x00hello"


def test_the_certificate_is_the_local_authoritys(running: tuple[Instance, Path]) -> None:
    instance = running[0]
    address, port = instance.place("edge/front", "https")
    with socket.create_connection((address, port), timeout=10) as raw:
        context = ssl.create_default_context(cafile=str(next((instance.data_dir / "authority").glob("*.[pc]*"))))
        with context.wrap_socket(raw, server_hostname="blog.localhost") as tls:
            assert ("DNS", "*.localhost") in tls.getpeercert()["subjectAltName"]  # type: ignore[index]


def test_the_printed_curl_lines_answer(running: tuple[Instance, Path]) -> None:
    eventually(lambda: "curl -k --resolve" in running[0].output(), "URLs are printed")
    output = running[0].output()
    lines = [line.partition("curl ")[2] for line in output.splitlines() if "curl -k --resolve" in line]
    assert any("blog.localhost" in line for line in lines)
    for line in lines:
        done = subprocess.run(["curl", "-sS", "--max-time", "10", *shlex.split(line)], capture_output=True, check=False)
        assert done.returncode == 0, (line, done.stderr)


def test_an_edit_answers(running: tuple[Instance, Path]) -> None:
    instance, manifests = running
    client = instance.client("edge/front", "https", tls=True)
    file = manifests / "whoami.yaml"
    original = file.read_text(encoding="utf-8")
    file.write_text(original.replace("value: whoami", "value: edited"), encoding="utf-8")
    eventually(
        lambda: client.get("whoami.localhost").json()["request"]["headers"]["x-asked-for"] == "edited",
        "the edit answers",
    )
    assert "whoami.yaml" in instance.output().splitlines()[-1] or "HTTPRoute whoami/whoami" in instance.output()
    file.write_text(original, encoding="utf-8")
    eventually(
        lambda: client.get("whoami.localhost").json()["request"]["headers"]["x-asked-for"] == "whoami", "and back"
    )
    assert json.loads(instance.run("status", "-o", "json").stdout)["errors"] == []
