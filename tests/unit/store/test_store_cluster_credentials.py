"""Credentials from all that a kubeconfig or a pod may hold, and messages that name file and remedy."""

import asyncio
import base64
import datetime as dt
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from propylon.store.cluster import ApiError, Client, Credentials, CredentialsError, Unreachable, load_credentials
from propylon.store.cluster import credentials as module
from propylon.store.cluster.credentials import BearerAuth, in_cluster_credentials, kubeconfig_credentials


@pytest.fixture(scope="module")
def pem() -> tuple[str, str]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any], **context: Any) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "main",
                "clusters": [{"name": "c", "cluster": {"server": "https://api.example.com:6443/", **cluster}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", **context}}],
            }
        )
    )
    return path


def header(credentials: Credentials, answers: tuple[int, ...] = (200,)) -> list[str | None]:
    """The Authorization headers of one request, repeated as the answers ask for it."""

    async def ask() -> list[str | None]:
        sent: list[str | None] = []

        async def answer(request: web.Request) -> web.Response:
            sent.append(request.headers.get("Authorization"))
            return web.Response(status=answers[len(sent) - 1])

        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _, port = runner.addresses[0]
        client = Client(credentials._replace(server=f"http://127.0.0.1:{port}", context=None, server_name=None))
        try:
            await client.request("GET", "/")
        except ApiError:
            assert answers[-1] >= 400
        except Unreachable as error:
            raise error.__cause__ or error from error
        finally:
            await client.close()
            await runner.cleanup()
        return sent

    return asyncio.run(ask())


def test_inline_certificates_and_the_namespace_of_the_context(tmp_path: Path, pem: tuple[str, str]) -> None:
    certificate, key = (base64.b64encode(part.encode()).decode() for part in pem)
    file = kubeconfig(
        tmp_path / "config",
        {"certificate-authority-data": certificate, "tls-server-name": "kubernetes"},
        {"client-certificate-data": certificate, "client-key-data": key},
        namespace="team",
    )
    found = kubeconfig_credentials([file])
    assert found.server == "https://api.example.com:6443"
    assert (found.namespace, found.server_name) == ("team", "kubernetes")
    assert found.context is not None
    assert found.context.cert_store_stats()["x509"] == 1, "the given authority alone is trusted"
    assert header(found) == [None]


def test_files_are_found_beside_the_kubeconfig(tmp_path: Path, pem: tuple[str, str]) -> None:
    (tmp_path / "ca.pem").write_text(pem[0])
    (tmp_path / "key.pem").write_text(pem[1])
    user = {"client-certificate": "ca.pem", "client-key": "key.pem"}
    found = kubeconfig_credentials([kubeconfig(tmp_path / "config", {"certificate-authority": "ca.pem"}, user)])
    assert found.namespace == "default"
    with pytest.raises(CredentialsError, match="certificates of context 'main' cannot be used"):
        kubeconfig_credentials([kubeconfig(tmp_path / "other", {"certificate-authority": "absent.pem"}, user)])


def test_the_first_of_several_files_wins(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "first", {}, {"token": "one"})
    second = kubeconfig(tmp_path / "second", {"server": "https://other"}, {"token": "two"})
    found = load_credentials(os.pathsep.join(map(str, (first, second))))
    assert found.server == "https://api.example.com:6443"
    assert header(found) == ["Bearer one"]


def test_a_rotated_token_file_is_read_again_after_a_refusal(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    found = kubeconfig_credentials([kubeconfig(tmp_path / "config", {}, {"tokenFile": "token"})])
    assert header(found) == ["Bearer old"]
    token.write_text("new\n")
    assert header(found) == ["Bearer old"], "not read for every request"
    assert header(found, (401, 200)) == ["Bearer old", "Bearer new"]
    assert header(found, (401,)) == ["Bearer new"], "the same token would be refused again"
    token.unlink()
    assert isinstance(found.auth, BearerAuth)
    found.auth.source.invalidate()
    with pytest.raises(CredentialsError, match=r"token: the token cannot be read"):
        header(found)


def test_a_name_and_a_password(tmp_path: Path) -> None:
    found = kubeconfig_credentials([kubeconfig(tmp_path / "c", {}, {"username": "u", "password": "p"})])
    assert header(found) == ["Basic " + base64.b64encode(b"u:p").decode()]


def test_a_program_hands_out_tokens_until_they_end(tmp_path: Path) -> None:
    program = tmp_path / "login"
    answer = {
        "kind": "ExecCredential",
        "status": {"token": "t-$1-$FROM", "expirationTimestamp": "2999-01-01T00:00:00Z"},
    }
    script = f"#!/bin/sh\necho x >> {tmp_path}/calls\ncat <<END\n{json.dumps(answer)}\nEND\n"
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"command": "./login", "args": ["a"], "env": [{"name": "FROM", "value": "b"}]}}
    found = kubeconfig_credentials([kubeconfig(tmp_path / "config", {}, user)])
    assert header(found) == ["Bearer t-a-b"]
    assert header(found) == ["Bearer t-a-b"]
    assert (tmp_path / "calls").read_text().count("x") == 1
    program.write_text(script.replace("2999", "2001"))
    header(found, (401,))
    before = (tmp_path / "calls").read_text().count("x")
    header(found)
    assert (tmp_path / "calls").read_text().count("x") > before, "an expired token is not used again"
    program.write_text("#!/bin/sh\necho no access >&2\nexit 3\n")
    with pytest.raises(CredentialsError, match=r"failed \(exit code 3\): no access"):
        header(found)


def test_of_a_pod(tmp_path: Path, pem: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.crt").write_text(pem[0])
    (tmp_path / "namespace").write_text("propylon-system")
    (tmp_path / "token").write_text("pod")
    found = in_cluster_credentials(tmp_path, {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"})
    assert found.server == "https://[fd00::1]:6443"
    assert found.namespace == "propylon-system"
    assert header(found) == ["Bearer pod"]
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
    assert load_credentials().server == "https://10.0.0.1:443"
    named = kubeconfig(tmp_path / "config", {}, {})
    assert load_credentials(str(named)).server == "https://api.example.com:6443", "what is named comes first"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "not a kubeconfig"),
        ("contexts: [{context: {}}]", "not a kubeconfig"),
        ("{}", "no current-context: choose one with --context"),
        ("current-context: x", "there is no context 'x'; there are: none"),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: y, user: z}}], clusters: [{name: y}]}",
            "there is no user 'z'",
        ),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: y, user: z}}], "
            "clusters: [{name: y}], users: [{name: z}]}",
            "has no URL in `server`",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(CredentialsError) as error:
        kubeconfig_credentials([file])
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="no such kubeconfig: name one with --kubeconfig"):
        load_credentials(str(tmp_path / "absent"))
