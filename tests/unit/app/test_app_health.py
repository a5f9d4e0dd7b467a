"""/healthz and /readyz."""

import asyncio
import contextlib

import pytest

from propylon.app.health import LIMIT, HealthServer, parse_listen


async def ask(port: int, request: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(request)
        await writer.drain()
    try:
        answer = await reader.read()
    except ConnectionError:
        answer = b""
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body


def test_what_is_answered() -> None:
    reason = ["waiting for Gateway"]

    async def scenario() -> None:
        server = HealthServer("127.0.0.1:0", lambda: reason[0])
        await server.start()
        try:
            get = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
            assert await ask(server.port, get % b"/healthz") == (b"HTTP/1.1 200 OK", b"ok\n")
            refused = (b"HTTP/1.1 503 Service Unavailable", b"waiting for Gateway\n")
            assert await ask(server.port, get % b"/readyz?verbose") == refused
            reason[0] = ""
            assert await ask(server.port, get % b"/readyz") == (b"HTTP/1.1 200 OK", b"ok\n")
            assert await ask(server.port, b"HEAD /readyz HTTP/1.1\r\n\r\n") == (b"HTTP/1.1 200 OK", b"")
            assert (await ask(server.port, get % b"/"))[0] == b"HTTP/1.1 404 Not Found"
            assert (await ask(server.port, b"POST /healthz HTTP/1.1\r\n\r\n"))[0] == b"HTTP/1.1 405 Method Not Allowed"
            assert (await ask(server.port, b"\x16\x03\x01 hello\r\n\r\n"))[0] == b"HTTP/1.1 400 Bad Request"
            assert await ask(server.port, b"GET /" + b"x" * LIMIT + b"\r\n") == (b"", b"")
            assert (await ask(server.port, get % b"/healthz"))[1] == b"ok\n", "nobody else is disturbed"
        finally:
            await server.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (":8081", (None, 8081)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_addresses(text: str, place: tuple[str | None, int]) -> None:
    assert parse_listen(text) == place


@pytest.mark.parametrize("text", ["8081", "host:", "host:http", "::1:80", "host:70000", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_listen(text)
