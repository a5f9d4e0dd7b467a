"""Short requests over kept connections, against a server that answers byte by byte what a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from propylon.store.cluster.connections import Answer, Connections
from propylon.store.cluster.credentials import BearerAuth, Credentials

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Reply = bytes | None
"""What is sent; None to close instead."""


class Tokens:
    """Hands out one token after another."""

    def __init__(self) -> None:
        self.number = 1

    async def token(self) -> str:
        return f"t{self.number}"

    def invalidate(self) -> None:
        self.number += 1


class Server:
    """Answers each request with the next reply; after the last one, connections are closed."""

    def __init__(self, *replies: Reply, close: bool = False) -> None:
        self.replies = list(replies)
        self.close = close
        self.requests: list[bytes] = []
        self.connections = 0
        self.at_once = 0
        self.gate: asyncio.Event | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.replies:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"Content-Length")), 0)
            self.requests.append(head + await reader.readexactly(length))
            self.at_once += 1
            if self.gate is not None:
                await self.gate.wait()
            reply = self.replies.pop(0) if self.replies else None
            if reply is None:
                break
            writer.write(reply)
            await writer.drain()
            if self.close:
                break
        writer.close()


@asynccontextmanager
async def connected(server: Server, path: str = "", silence: float = 5.0) -> AsyncIterator[Connections]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    credentials = Credentials(f"http://127.0.0.1:{port}{path}", None, BearerAuth(Tokens()), "default")
    connections = Connections(credentials, {"User-Agent": "test"}, [], silence)
    try:
        yield connections
    finally:
        connections.close()
        listening.close()


def run(server: Server, work: Callable[[Connections], Awaitable[None]], path: str = "", silence: float = 5.0) -> None:
    async def whole() -> None:
        async with connected(server, path, silence) as connections:
            await work(connections)

    asyncio.run(whole())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for knows of no event
            await asyncio.sleep(0)


async def get(connections: Connections, target: str = "/x") -> Answer:
    return await connections.ask("GET", target, {"Accept": "application/json"}, None)


def test_a_connection_is_used_again_and_says_who_asks() -> None:
    server = Server(OK, OK)

    async def work(connections: Connections) -> None:
        assert (await get(connections)).body == b"ok"
        assert (await connections.ask("PATCH", "/y?a=b", {"Content-Type": "text/plain"}, b"body")).status == 200

    run(server, work, path="/k8s/clusters/c1/")
    assert server.connections == 1
    first, second = server.requests
    assert first.startswith(b"GET /k8s/clusters/c1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer t1\r\n" in first
    assert b"\r\nUser-Agent: test\r\n" in first
    assert b"Content-Length" not in first
    assert second.startswith(b"PATCH /k8s/clusters/c1/y?a=b HTTP/1.1\r\n")
    assert second.endswith(b"\r\n\r\nbody")


def test_as_many_connections_as_requests_at_once() -> None:
    server = Server(OK, OK, OK, OK)

    async def work(connections: Connections) -> None:
        server.gate = asyncio.Event()
        several = asyncio.gather(get(connections), get(connections), get(connections))
        await until(lambda: server.at_once == 3)
        server.gate.set()
        assert [answer.status for answer in await several] == [200] * 3
        await get(connections)

    run(server, work)
    assert server.connections == 3


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde",
    ],
)
def test_forms_of_an_answer(reply: bytes) -> None:
    server = Server(reply, reply)

    async def work(connections: Connections) -> None:
        for _ in range(2):
            assert (await get(connections)).body == b"abcde"

    run(server, work)
    assert server.connections == (2 if b"close" in reply else 1)


def test_an_answer_that_ends_with_its_connection() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n\r\nabc", OK, close=True)

    async def work(connections: Connections) -> None:
        assert (await get(connections)).body == b"abc"
        assert (await get(connections)).body == b"ok"

    run(server, work)
    assert server.connections == 2


def test_a_refusal_is_an_answer() -> None:
    server = Server(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")

    async def work(connections: Connections) -> None:
        assert await get(connections) == Answer(429, {"retry-after": "7", "content-length": "0"}, b"")

    run(server, work)


def test_a_fresh_token_after_a_401() -> None:
    server = Server(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", OK)

    async def work(connections: Connections) -> None:
        assert (await get(connections)).status == 200

    run(server, work)
    assert [b"Bearer t1" in server.requests[0], b"Bearer t2" in server.requests[1]] == [True, True]


@pytest.mark.parametrize(
    "reply",
    [None, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"HTTP/1.1 200 OK\r\nContent", b"nonsense\r\n\r\n"],
)
def test_no_answer_or_half_of_one(reply: Reply) -> None:
    server = Server(reply, OK, close=True)

    async def work(connections: Connections) -> None:
        with pytest.raises(OSError):
            await get(connections)
        assert (await get(connections)).body == b"ok"

    run(server, work)


def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    server = Server(OK, OK, close=True)

    async def work(connections: Connections) -> None:
        await get(connections)
        await until(lambda: not any(connection.usable for connection in connections._idle))
        await get(connections)

    run(server, work)
    assert server.connections == 2


def test_silence_ends_a_request_and_its_connection() -> None:
    server = Server(OK, OK)

    async def work(connections: Connections) -> None:
        server.gate = asyncio.Event()
        with pytest.raises(TimeoutError):
            await get(connections)
        server.gate.set()
        await get(connections)

    run(server, work, silence=0.2)
    assert server.connections == 2


def test_a_cancelled_request_leaves_no_answer_to_the_next_one() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold", OK, OK)

    async def work(connections: Connections) -> None:
        server.gate = asyncio.Event()
        first = asyncio.create_task(get(connections))
        await until(lambda: server.at_once == 1)
        first.cancel()
        server.gate.set()
        await asyncio.gather(first, return_exceptions=True)
        assert (await get(connections)).body in {b"ok", b"old"}
        assert (await get(connections)).body == b"ok"

    run(server, work)
    assert server.connections == 2


def test_headers_are_those_of_the_flow_alone() -> None:
    class Plain(httpx.Auth):
        """No credentials at all."""

    server = Server(OK)

    async def whole() -> None:
        async with connected(server) as connections:
            connections._auth = Plain()
            await get(connections)

    asyncio.run(whole())
    assert b"Authorization" not in server.requests[0]
