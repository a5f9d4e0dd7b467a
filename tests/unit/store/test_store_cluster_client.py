"""Requests and streams of the client, against a server that answers byte by byte what a test says."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from propylon.store.cluster import client as module
from propylon.store.cluster.client import ApiError, Client, Unreachable
from propylon.store.cluster.credentials import BearerAuth, Credentials

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
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
            except (asyncio.IncompleteReadError, ConnectionError):
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
            if self.close:
                break
        writer.close()


def run(server: Server, work: Callable[[Client], Awaitable[None]], path: str = "") -> None:
    async def whole() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        client = Client(Credentials(f"http://127.0.0.1:{port}{path}", None, BearerAuth(Tokens()), "default"))
        try:
            await work(client)
        finally:
            await client.close()
            listening.close()

    asyncio.run(whole())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for knows of no event
            await asyncio.sleep(0)


def test_a_connection_is_used_again_and_says_who_asks() -> None:
    server = Server(OK, OK)

    async def work(client: Client) -> None:
        assert await client.request("GET", "/x") == b"ok"
        parameters = {"labelSelector": "a in (b, c)"}
        await client.request("PATCH", "/y%2Fz", parameters=parameters, body=b"body", content_type="text/plain")

    run(server, work, path="/k8s/clusters/c1")
    assert server.connections == 1
    first, second = server.requests
    assert first.startswith(b"GET /k8s/clusters/c1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer t1\r\n" in first
    assert b"\r\nUser-Agent: propylon\r\n" in first
    assert b"\r\nAccept-Encoding: identity\r\n" in first
    assert second.startswith(b"PATCH /k8s/clusters/c1/y%2Fz?labelSelector=a+in+%28b%2C+c%29 HTTP/1.1\r\n")
    assert b"\r\nContent-Type: text/plain\r\n" in second
    assert second.endswith(b"\r\n\r\nbody")


def test_as_many_connections_as_requests_at_once() -> None:
    server = Server(*[OK] * 150)

    async def work(client: Client) -> None:
        server.gate = asyncio.Event()
        several = asyncio.gather(*(client.request("GET", "/x") for _ in range(120)))
        await until(lambda: server.at_once == 120)
        server.gate.set()
        assert await several == [b"ok"] * 120
        await client.request("GET", "/x")

    run(server, work)
    assert server.connections == 120


def test_a_refusal_says_why_and_how_long_to_wait() -> None:
    status = b'{"kind": "Status", "reason": "TooManyRequests", "message": "later", "code": 429}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n" % len(status)
    server = Server(head + status, head + status)

    async def work(client: Client) -> None:
        with pytest.raises(ApiError) as refused:
            await client.request("GET", "/x")
        assert (refused.value.status, refused.value.reason, refused.value.message) == (429, "TooManyRequests", "later")
        assert refused.value.retry_after == 7
        with pytest.raises(ApiError):
            async with client.lines("/x", {}, silence=5):
                pass

    run(server, work)


def test_where_it_leads_elsewhere_nobody_goes() -> None:
    server = Server(b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", OK)

    async def work(client: Client) -> None:
        assert await client.request("GET", "/x") == b""

    run(server, work)
    assert len(server.requests) == 1


def test_a_fresh_token_after_a_401() -> None:
    server = Server(UNAUTHORIZED, OK, UNAUTHORIZED, UNAUTHORIZED, OK)  # the last one is not asked for

    async def work(client: Client) -> None:
        assert await client.request("GET", "/x") == b"ok"
        with pytest.raises(ApiError) as refused:
            async with client.lines("/x", {}, silence=5):
                pass
        assert refused.value.status == 401

    run(server, work)
    assert [next(t for t in (b"t1", b"t2", b"t3", b"t4") if t in each) for each in server.requests] == [
        b"t1",
        b"t2",
        b"t2",
        b"t3",
    ]


@pytest.mark.parametrize(
    "reply",
    [None, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"HTTP/1.1 200 OK\r\nContent", b"nonsense\r\n\r\n"],
)
def test_no_answer_or_half_of_one(reply: Reply) -> None:
    server = Server(reply, OK, close=True)

    async def work(client: Client) -> None:
        with pytest.raises(Unreachable):
            await client.request("POST", "/x", body=b"{}")
        assert await client.request("GET", "/x") == b"ok"

    run(server, work)


def test_silence_ends_a_request_and_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.2)
    server = Server(OK, OK)

    async def work(client: Client) -> None:
        server.gate = asyncio.Event()
        with pytest.raises(Unreachable):
            await client.request("POST", "/x", body=b"{}")
        server.gate.set()
        await client.request("GET", "/x")

    run(server, work)
    assert server.connections == 2


def test_lines_come_as_they_are_sent_and_a_half_one_is_dropped() -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\n{1\r\n3\r\n2}\n\r\n4\r\n{3}\n\r\n2\r\n{4\r\n"
    server = Server(body, close=True)
    found: list[bytes] = []

    async def work(client: Client) -> None:
        with pytest.raises(Unreachable, match="broke off"):
            async with client.lines("/x", {"watch": "1"}, silence=5) as lines:
                while True:
                    found.append(await anext(lines))

    run(server, work)
    assert found == [b"{}", b"{12}", b"{3}"]
    assert server.requests[0].startswith(b"GET /x?watch=1 HTTP/1.1\r\n")


def test_a_stream_may_be_silent_for_so_long() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n", OK)

    async def work(client: Client) -> None:
        with pytest.raises(Unreachable):
            async with client.lines("/x", {}, silence=0.2) as lines:
                assert [line async for line in lines] == [b"{}"]

    run(server, work)


def test_a_certificate_of_today_needs_connections_of_today() -> None:
    server = Server(OK, OK, OK, OK)
    rotations = 0

    async def work(client: Client) -> None:
        nonlocal rotations
        client.credentials = client.credentials._replace(rotations=lambda: rotations)
        for rotations in range(4):
            await client.request("GET", "/x")
            assert server.connections == rotations + 1

    run(server, work)
