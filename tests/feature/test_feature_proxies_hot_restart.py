"""Real Envoys whose settings change: replaced without a lost request, or left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from test_feature_proxies_process import (
    NODE,
    SETTINGS,
    ControlPlane,
    data,  # noqa: F401 - a fixture
    free_port,
    get,
    listener,
    running,
    until,
)

from propylon.proxies.handle import find_processes
from propylon.proxies.process import ProcessProxies
from propylon.proxies.settings import Adopted, BackingOff, ProxyEvent, ProxySettings, Refused, Started

pytestmark = pytest.mark.feature


def test_changed_settings_hot_restart_without_a_lost_request(data: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        port, events = free_port(), list[ProxyEvent]()
        async with running(data, port, events) as proxies:
            await proxies.ensure(NODE, SETTINGS)
            await until(lambda: proxies.ready(NODE))
            first = proxies.states()[NODE].pid
            answers: list[str] = []
            done = asyncio.Event()

            async def load() -> None:
                while not done.is_set():
                    answers.append(await get(port))

            client = asyncio.create_task(load())
            await until(lambda: len(answers) > 20)
            await proxies.ensure(NODE, ProxySettings(concurrency=1, drain_seconds=1.0, max_connections=1000))
            await until(lambda: any(isinstance(event, Started) and event.epoch == 1 for event in events))
            await until(lambda: [found.epoch for found in find_processes(data.resolve())] == [1])
            await until(lambda: proxies.ready(NODE))
            seen = len(answers)
            await until(lambda: len(answers) > seen + 20)
            done.set()
            await client
            assert set(answers) == {"hello"}
            state = proxies.states()[NODE]
            assert (state.epoch, state.restarts) == (1, 0)
            assert state.pid != first

    asyncio.run(scenario())


def test_an_adopted_proxy_takes_new_settings_by_hot_restart_and_can_be_adopted_again(data: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        port = free_port()
        first = ProcessProxies(data)
        await first.start()
        server = await ControlPlane(listener(port)).serve(first.xds_socket)
        await first.ensure(NODE, SETTINGS)
        await until(lambda: first.ready(NODE))
        for epoch in (1, 2):
            await first.detach()
            events = list[ProxyEvent]()
            first = ProcessProxies(data, on_event=events.append)
            await first.start()
            await first.ensure(NODE, ProxySettings(concurrency=1, drain_seconds=1.0, max_connections=1000 + epoch))
            await until(lambda epoch=epoch: [found.epoch for found in find_processes(data.resolve())] == [epoch])
            await until(lambda proxies=first: proxies.ready(NODE))
            assert [type(event) for event in events] == [Adopted, Started]
            assert await get(port) == "hello"
        await first.stop()
        await server.stop(None)
        assert find_processes(data.resolve()) == []

    asyncio.run(scenario())


def test_a_crash_during_a_hot_restart_leaves_nobody_behind(data: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        port, events = free_port(), list[ProxyEvent]()
        first = ProcessProxies(data)
        await first.start()
        server = await ControlPlane(listener(port)).serve(first.xds_socket)
        slow = ProxySettings(concurrency=1, drain_seconds=600.0)
        await first.ensure(NODE, slow)
        await until(lambda: first.ready(NODE))
        await first.ensure(NODE, msgspec.structs.replace(slow, max_connections=1000))
        await until(lambda: first.states()[NODE].epoch == 1)
        await until(lambda: first.ready(NODE))
        await first.detach()
        assert sorted(found.epoch for found in find_processes(data.resolve())) == [0, 1]
        second = ProcessProxies(data, on_event=events.append)
        await second.start()
        assert [event.epoch for event in events if isinstance(event, Adopted)] == [1]
        assert await get(port) == "hello"
        await second.stop(drain=False)
        assert find_processes(data.resolve()) == []
        await server.stop(None)

    asyncio.run(scenario())


def test_changes_in_quick_succession_end_with_the_last_one_and_lose_no_request(data: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        port, events = free_port(), list[ProxyEvent]()
        async with running(data, port, events) as proxies:
            await proxies.ensure(NODE, SETTINGS)
            await until(lambda: proxies.ready(NODE))
            await get(port)
            answers: list[str] = []
            done = asyncio.Event()

            async def load() -> None:
                while not done.is_set():
                    answers.append(await get(port))

            client = asyncio.create_task(load())
            for most in (1000, 1001, 1002):
                await proxies.ensure(NODE, ProxySettings(concurrency=1, drain_seconds=1.0, max_connections=most))
                seen = len(answers)
                await until(lambda seen=seen: len(answers) > seen + 5)

            def settled() -> bool:
                found = find_processes(data.resolve())
                if len(found) != 1 or not found[0].bootstrap.exists():
                    return False
                return b'"max_active_downstream_connections":1002' in found[0].bootstrap.read_bytes()

            await until(settled)
            await until(lambda: proxies.ready(NODE))
            done.set()
            await client
            assert set(answers) == {"hello"}
            assert proxies.states()[NODE].epoch == find_processes(data.resolve())[0].epoch >= 2
            assert not any(isinstance(event, BackingOff) for event in events)

    asyncio.run(scenario())


def test_settings_that_envoy_refuses_leave_the_running_proxy_alone(data: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        port, events = free_port(), list[ProxyEvent]()
        async with running(data, port, events) as proxies:
            await proxies.ensure(NODE, SETTINGS)
            await until(lambda: proxies.ready(NODE))
            pid = proxies.states()[NODE].pid
            broken = ProxySettings(concurrency=1, static_resources={"clusters": [{"name": "x", "type": "NONSENSE"}]})
            await proxies.ensure(NODE, broken)
            await until(lambda: any(isinstance(event, Refused) for event in events))
            assert "NONSENSE" in proxies.states()[NODE].reason
            assert proxies.states()[NODE].pid == pid
            assert await get(port) == "hello"
            # And it is still watched, and takes the next settings.
            await proxies.ensure(NODE, ProxySettings(concurrency=1, drain_seconds=1.0, max_connections=999))
            await until(lambda: proxies.states()[NODE].epoch == 1)
            assert proxies.states()[NODE].reason == ""

    asyncio.run(scenario())


def test_without_hot_restart_changed_settings_replace_the_proxy(data: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        port, events = free_port(), list[ProxyEvent]()
        async with running(data, port, events) as proxies:
            plain = ProxySettings(concurrency=1, drain_seconds=1.0, hot_restart=False)
            await proxies.ensure(NODE, plain)
            await until(lambda: proxies.ready(NODE))
            first = proxies.states()[NODE].pid
            await proxies.ensure(NODE, ProxySettings(concurrency=2, drain_seconds=1.0, hot_restart=False))
            await until(lambda: proxies.states()[NODE].pid not in (first, None))
            await until(lambda: proxies.ready(NODE))
            assert await get(port) == "hello"
        assert not any(isinstance(event, BackingOff) for event in events)

    asyncio.run(scenario())
