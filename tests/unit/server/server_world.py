"""The API in process, without a socket: requests in, answers out."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from propylon.server.application import Application
from propylon.server.credentials import ADMINS
from propylon.server.identity import User
from propylon.server.requests import Answer, Request
from propylon.server.watches import Hub
from propylon.store import LocalStore

T = TypeVar("T")
ADMIN = User("admin", (ADMINS,))
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


class World:
    """One application over one store."""

    def __init__(self, store: LocalStore, hub: Hub) -> None:
        self.store = store
        self.hub = hub
        self.application = Application(store, hub, lambda _token: None)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: User = ADMIN,
        content_type: str = "application/json",
        accept: str = "application/json",
        **parameters: str,
    ) -> Answer:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {"content-type": content_type, "accept": accept, "user-agent": "tests/1"}
        return await self.application.handle(Request(method, path, parameters, headers, raw, user))

    async def json(self, method: str, path: str, body: Any = None, code: int = 200, **options: Any) -> dict[str, Any]:
        answered = await self.send(method, path, body, **options)
        assert answered.code == code, answered.body
        found: dict[str, Any] = json.loads(answered.body)
        return found


def within(directory: Path, story: Callable[[World], Awaitable[T]], **options: Any) -> T:
    """Run a story in a world of its own."""

    async def run() -> T:
        with LocalStore(directory, **options) as store:
            hub = Hub(store)
            running = asyncio.create_task(hub.run())
            world = World(store, hub)
            try:
                return await asyncio.wait_for(story(world), 30)
            finally:
                world.application.close()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    return asyncio.run(run())


def route(name: str, *hostnames: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "labels": labels},
        "spec": {"hostnames": list(hostnames)},
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
