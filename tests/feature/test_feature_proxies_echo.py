"""A crash of the program that runs proxies and echo servers is not noticed by clients of either."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_feature_proxies_process import (
    NODE,
    ControlPlane,
    data,  # noqa: F401 - a fixture
    free_port,
    get,
    listener,
    until,
)

from propylon.echo.answer import EchoIdentity
from propylon.echo.process import EchoProcess
from propylon.proxies.process import ProcessProxies

pytestmark = pytest.mark.feature

WEB = EchoIdentity("shop", "web", 80)

PROGRAM = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from propylon.echo.process import EchoProcess
    from propylon.proxies.process import ProcessProxies
    from propylon.proxies.settings import ProxySettings
    from test_feature_proxies_echo import WEB
    from test_feature_proxies_process import NODE, ControlPlane, listener, until

    async def main():
        data, port = Path(sys.argv[1]), int(sys.argv[2])
        proxies = ProcessProxies(data)
        await proxies.start()
        echo = EchoProcess(proxies.run_directory / "echo.sock", data / "echo.log")
        await echo.start()
        host, at = await echo.ensure(WEB)
        server = await ControlPlane(listener(port, upstream=at)).serve(proxies.xds_socket)
        address = {"socket_address": {"address": host, "port_value": at}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        cluster = {
            "name": "slow",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "slow", "endpoints": endpoints},
        }
        await proxies.ensure(NODE, ProxySettings(concurrency=1, static_resources={"clusters": [cluster]}))
        await until(lambda: proxies.ready(NODE))
        print(at, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
""")


def test_clients_do_not_notice_a_crash_and_a_restart(data: Path) -> None:  # noqa: F811
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

    async def scenario() -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, data, str(port), env=environment, stdout=subprocess.PIPE
        )
        assert program.stdout is not None
        at = int(await program.stdout.readline())
        answers: list[str] = []
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                answers.append(await get(port))

        client = asyncio.create_task(load())
        await until(lambda: len(answers) > 20)
        program.kill()
        await program.wait()
        await until(lambda seen=len(answers): len(answers) > seen + 20)  # noqa: B008 - evaluated once, on purpose
        proxies = ProcessProxies(data)
        assert await proxies.start() == [NODE]
        echo = EchoProcess(proxies.run_directory / "echo.sock", data / "echo.log")
        try:
            assert await echo.start() == {WEB: ("127.0.0.1", at)}
            control_plane = ControlPlane(listener(port, upstream=at))
            server = await control_plane.serve(proxies.xds_socket)
            await until(lambda: control_plane.streams > 0)
            await until(lambda seen=len(answers): len(answers) > seen + 20)  # noqa: B008
            done.set()
            await client  # raises if a request failed
            assert {json.loads(answer)["environment"]["HOSTNAME"] for answer in answers} == {WEB.hostname}
            await server.stop(None)
        finally:
            await proxies.stop()
            await echo.stop()

    asyncio.run(scenario())
