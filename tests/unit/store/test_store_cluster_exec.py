"""Programs of a kubeconfig that hand out client certificates, against a server that wants one."""

import asyncio
import base64
import json
import ssl
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from propylon.store.cluster import Client, CredentialsError
from propylon.store.cluster.client import Unreachable
from propylon.store.cluster.credentials import kubeconfig_credentials
from support.envoy_certificates import Authority, Pair

CA = Authority()


class Server:
    """Tells who asks: the name in the client's certificate."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> "Server":
        context = CA.server(CA.issue("localhost"), clients=CA)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        certificate: dict[str, Any] = writer.get_extra_info("ssl_object").getpeercert()
        name = dict(certificate["subjectAltName"])["DNS"].encode()
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
            writer.close()


def kubeconfig(path: Path, port: int, **program: Any) -> Path:
    authority = base64.b64encode(CA.chain).decode()
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"realm": "x"}}
    cluster = {
        "server": f"https://127.0.0.1:{port}",
        "tls-server-name": "localhost",
        "certificate-authority-data": authority,
        "extensions": [extension],
    }
    document = {
        "current-context": "main",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"exec": {"command": "./login", **program}}}],
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def program(directory: Path, pair: Pair | None, expires: str = "2999-01-01T00:00:00Z", **status: str) -> None:
    """`login` prints this, and keeps what it was told in `told`."""
    if pair is not None:
        status |= {"clientCertificateData": pair.chain.decode(), "clientKeyData": pair.private_key.decode()}
    answer = {"kind": "ExecCredential", "status": {**status, "expirationTimestamp": expires}}
    (directory / "answer.json").write_text(json.dumps(answer))
    login = directory / "login"
    login.write_text('#!/bin/sh\ncd "$(dirname "$0")"; echo "$KUBERNETES_EXEC_INFO" > told; cat answer.json\n')
    login.chmod(login.stat().st_mode | stat.S_IXUSR)


Scenario = Callable[[Server, Client], Awaitable[None]]


def play(directory: Path, scenario: Scenario, **options: Any) -> None:
    async def run() -> None:
        async with Server() as server:
            client = Client(kubeconfig_credentials([kubeconfig(directory / "config", server.port, **options)]))
            try:
                await scenario(server, client)
            finally:
                await client.close()

    asyncio.run(run())


def test_a_certificate_that_a_program_hands_out(tmp_path: Path) -> None:
    program(tmp_path, CA.issue("first.test"))

    async def scenario(server: Server, client: Client) -> None:
        for _ in range(3):
            assert await client.request("GET", "/") == b"first.test"
        assert server.connections == 1
        assert json.loads((tmp_path / "told").read_text())["spec"] == {"interactive": False}

    play(tmp_path, scenario)


def test_a_certificate_is_replaced_before_it_ends(tmp_path: Path) -> None:
    program(tmp_path, CA.issue("first.test"), "2001-01-01T00:00:00Z")

    async def scenario(server: Server, client: Client) -> None:
        assert await client.request("GET", "/") == b"first.test"
        program(tmp_path, CA.issue("second.test"))
        # The request that has the program run may still go over a connection of before; the next one does not.
        await client.request("GET", "/")
        assert await client.request("GET", "/") == b"second.test"
        known = server.connections
        assert await client.request("GET", "/") == b"second.test"
        assert server.connections == known

    play(tmp_path, scenario)


def test_what_a_program_is_told_of_the_cluster(tmp_path: Path) -> None:
    program(tmp_path, CA.issue("first.test"))

    async def scenario(server: Server, client: Client) -> None:
        await client.request("GET", "/")
        told = json.loads((tmp_path / "told").read_text())
        assert told["spec"]["cluster"] == {
            "server": f"https://127.0.0.1:{server.port}",
            "tls-server-name": "localhost",
            "certificate-authority-data": base64.b64encode(CA.chain).decode(),
            "config": {"realm": "x"},
        }

    play(tmp_path, scenario, provideClusterInfo=True)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({}, "neither a token nor a certificate"),
        ({"clientCertificateData": "x"}, "neither a token nor a certificate"),
        ({"clientCertificateData": "x", "clientKeyData": "y"}, "a certificate that cannot be used"),
        ({"token": "1", "clientKeyData": 5}, "printed no ExecCredential"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(tmp_path: Path, status: dict[str, Any], message: str) -> None:
    program(tmp_path, None, **status)

    async def scenario(_server: Server, client: Client) -> None:
        with pytest.raises(Unreachable, match=f"credentials program .*login.*{message}"):
            await client.request("GET", "/")

    play(tmp_path, scenario)


def test_a_program_that_is_missing_comes_with_its_hint(tmp_path: Path) -> None:
    async def scenario(_server: Server, client: Client) -> None:
        with pytest.raises(Unreachable, match=r"cannot be run: No such file.*brew install login"):
            await client.request("GET", "/")

    play(tmp_path, scenario, installHint="brew install login")


def test_a_program_that_wants_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="wants a terminal"):
        kubeconfig_credentials([kubeconfig(tmp_path / "config", 1, interactiveMode="Always")])
