"""A real Envoy with a pod's bootstrap: mutual TLS with the xDS server, probes, rotation of certificates."""

import asyncio
import contextlib
import datetime as dt
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx

from propylon.api import ObjectKey
from propylon.proxies.kubernetes.authority import Authority, admits, identity, issue, make_authority, trust
from propylon.proxies.kubernetes.bootstrap import (
    RUN_DIRECTORY,
    XDS_DIRECTORY,
    ControlPlane,
    Probes,
    build_pod_bootstrap,
    sds_files,
)
from propylon.proxies.process import embedded_envoy
from propylon.proxies.settings import ProxySettings
from propylon.xds import Connected, Disconnected, Event, Server

SERVER_NAME = "propylon-xds.propylon-system.svc"
WEB = ObjectKey("shop", "web")


class ControlPlaneForTest:
    """An xDS server over TLS whose authorities can be exchanged; knows who is connected."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.refused: set[str] = set()
        self.trusts: tuple[Authority, ...] = ()
        self.port = 0
        self._server = Server(on_event=self._note, admit=self._admit)
        self._server.update("shop/web", {}, complete=True)

    def _note(self, event: Event) -> None:
        if isinstance(event, Connected):
            self.connected.add(event.node)
        elif isinstance(event, Disconnected) and event.last:
            self.connected.discard(event.node)

    def _admit(self, node: str, peer: Any) -> bool:
        if admits(node, [uri.decode() for uri in peer.get("peer_uri", ())]):
            return True
        self.refused.add(node)
        return False

    async def serve(self, authority: Authority, *trusted: Authority) -> None:
        leaf = issue(authority, dt.datetime.now(dt.UTC), dns_names=[SERVER_NAME])
        credentials = grpc.ssl_server_credentials(
            [(leaf.key_pem.encode(), leaf.certificate_pem.encode())], trust(trusted).encode(), True
        )
        (self.port,) = await self._server.start([f"127.0.0.1:{self.port}"], credentials)

    async def stop(self) -> None:
        await self._server.stop(0)


def write_files(directory: Path, authority: Authority, node: ObjectKey, *trusted: Authority) -> None:
    """Swap all files at once, in the way of kubelets: a symbolic link to a directory is replaced."""
    leaf = issue(authority, dt.datetime.now(dt.UTC), uris=[identity(node)])
    version = directory / f"..{len(list(directory.iterdir()))}"
    version.mkdir()
    for name, text in sds_files(leaf.certificate_pem, leaf.key_pem, trust(trusted)).items():
        (version / name).write_text(text, encoding="utf-8")
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)
    (directory / "..new").symlink_to(version.name)
    (directory / "..new").rename(directory / "..data")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def envoy(tmp_path: Path, files: Path, xds_port: int, probe_port: int) -> AsyncIterator[None]:
    run = tmp_path / "run"
    run.mkdir()
    text = build_pod_bootstrap(
        "shop/web",
        ControlPlane("127.0.0.1", xds_port, SERVER_NAME),
        probes=Probes("127.0.0.1", probe_port, "/drain/token", drain_seconds=1),
        settings=ProxySettings(),
    )
    text = text.replace(XDS_DIRECTORY, str(files)).replace(RUN_DIRECTORY, os.path.relpath(run))
    with (tmp_path / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(embedded_envoy()),
            *("--config-yaml", text, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.kill()
            await process.wait()


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], tmp_path: Path) -> None:
    try:
        async with asyncio.timeout(30):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError((tmp_path / "envoy.log").read_text(encoding="utf-8")[-2000:]) from None


def test_a_proxy_gets_in_with_its_certificate_and_again_with_the_next_one(tmp_path: Path) -> None:
    old, new = make_authority(dt.datetime.now(dt.UTC)), make_authority(dt.datetime.now(dt.UTC))
    files = tmp_path / "xds"
    files.mkdir()
    write_files(files, old, WEB, old, new)

    async def main() -> None:
        plane = ControlPlaneForTest()
        await plane.serve(old, old)
        probe_port = free_port()

        async def answers(path: str, status: int) -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get(f"http://127.0.0.1:{probe_port}{path}")).status_code == status
            return False

        try:
            async with envoy(tmp_path, files, plane.port, probe_port):
                await until(lambda: "shop/web" in plane.connected, tmp_path)
                await until(lambda: answers("/ready", 200), tmp_path)
                await until(lambda: answers("/stats/prometheus", 200), tmp_path)
                assert await answers("/config_dump", 404)
                # The old authority is gone: only a certificate of the new one opens, and Envoy has to see its files.
                await plane.stop()
                await until(lambda: not plane.connected, tmp_path)
                await plane.serve(new, new)
                write_files(files, new, WEB, new)
                await until(lambda: "shop/web" in plane.connected, tmp_path)
                assert await answers("/ready", 200)
        finally:
            await plane.stop()

    asyncio.run(main())


def test_a_proxy_that_is_to_end_is_not_ready_any_more_and_answers_when_it_has_drained(tmp_path: Path) -> None:
    authority = make_authority(dt.datetime.now(dt.UTC))
    files = tmp_path / "xds"
    files.mkdir()
    write_files(files, authority, WEB, authority)

    async def main() -> None:
        plane = ControlPlaneForTest()
        await plane.serve(authority, authority)
        probe_port = free_port()
        try:
            async with (
                envoy(tmp_path, files, plane.port, probe_port),
                httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{probe_port}") as client,
            ):

                async def ready(status: int) -> bool:
                    with contextlib.suppress(httpx.TransportError):
                        return (await client.get("/ready")).status_code == status
                    return False

                await until(lambda: ready(200), tmp_path)
                assert (await client.get("/drain/guessed")).status_code == 404
                assert (await client.post("/drain/token")).status_code == 404
                assert await ready(200)
                began = asyncio.get_running_loop().time()
                draining = asyncio.create_task(client.get("/drain/token"))
                await until(lambda: ready(503), tmp_path)
                answer = await client.get("/stats/prometheus")
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
                assert (await draining).text == "drained\n"
                assert asyncio.get_running_loop().time() - began >= 1
        finally:
            await plane.stop()

    asyncio.run(main())


def test_a_proxy_cannot_ask_for_the_configuration_of_another_gateway(tmp_path: Path) -> None:
    authority = make_authority(dt.datetime.now(dt.UTC))
    files = tmp_path / "xds"
    files.mkdir()
    write_files(files, authority, ObjectKey("shop", "other"), authority)

    async def main() -> None:
        plane = ControlPlaneForTest()
        await plane.serve(authority, authority)
        try:
            async with envoy(tmp_path, files, plane.port, free_port()):
                await until(lambda: "shop/web" in plane.refused, tmp_path)
                assert plane.connected == set()
        finally:
            await plane.stop()

    asyncio.run(main())
