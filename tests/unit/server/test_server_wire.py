"""HTTP/1.1 on a real socket, without TLS: what a connection makes of bytes, whole and broken."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from propylon.server.requests import Answer, Sink, Stream
from propylon.server.wire import HEAD_LIMIT, HttpServer, Received

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Story = Callable[[Reader, Writer], Awaitable[None]]


async def echo(received: Received) -> Answer:
    """Says what was received."""
    said = {"method": received.method, "url": received.url.decode(), "body": received.body.decode()}
    return Answer(201, json.dumps(said).encode(), headers=(("x-seen", str(len(received.headers))),))


def served(story: Story, respond: Callable[[Received], Awaitable[Answer]] = echo) -> None:
    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(respond, None)
        await server.start(listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            await asyncio.wait_for(story(reader, writer), 20)
        finally:
            writer.close()
            await server.stop()

    asyncio.run(run())


async def read(reader: Reader, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
    """One answer whose length is told."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    length = int(headers.get("content-length", "0"))
    return int(head[0].split()[1]), headers, await reader.readexactly(length if body else 0)


def test_one_request_after_the_other_on_one_connection() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        for number in range(3):
            body = b"x" * number
            writer.write(b"POST /p?q=%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (number, number, body))
            code, headers, answered = await read(reader)
            assert (code, headers["x-seen"], headers["cache-control"]) == (201, "2", "no-cache, private")
            assert json.loads(answered) == {"method": "POST", "url": f"/p?q={number}", "body": "x" * number}

    served(story)


def test_requests_in_a_row_are_answered_in_their_order() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(8)))
        answers = [json.loads((await read(reader))[2])["url"] for _ in range(8)]
        assert answers == [f"/{number}" for number in range(8)]

    served(story)


def test_a_request_in_small_pieces_and_a_chunked_body() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        request = b"PUT /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        for index in range(len(request)):
            writer.write(request[index : index + 1])
            await writer.drain()
        assert json.loads((await read(reader))[2])["body"] == "abcde"

    served(story)


def test_a_head_request_has_no_body_and_an_old_client_is_not_kept() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n")
        code, headers, _ = await read(reader, body=False)
        assert (code, int(headers["content-length"]) > 0) == (201, True)
        writer.write(b"GET /y HTTP/1.0\r\n\r\n")
        _, headers, body = await read(reader)
        assert (headers["connection"], json.loads(body)["url"]) == ("close", "/y")
        assert await reader.read() == b""

    served(story)


def test_continue_is_said_before_the_body_comes() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ab")
        assert json.loads((await read(reader))[2])["body"] == "ab"

    served(story)


def test_what_is_no_http_is_refused_and_the_connection_closed() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        code, headers, body = await read(reader)
        assert (code, headers["connection"], json.loads(body)["kind"]) == (400, "close", "Status")
        assert await reader.read() == b""

    served(story)


def test_too_large_a_body_is_refused_before_it_comes() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 100_000)
        code, _, body = await read(reader)
        assert (code, json.loads(body)["reason"]) == (413, "RequestEntityTooLarge")

    served(story)


def test_a_chunked_body_that_grows_too_large_is_refused() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(60):
            writer.write(chunk)
        assert (await read(reader))[0] == 413

    served(story)


def test_a_head_without_an_end_is_refused() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\n" + b"X-Much: " + b"y" * (HEAD_LIMIT + 100_000))
        assert (await read(reader))[0] == 431

    served(story)


def test_an_upgrade_is_answered_as_if_it_were_none() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"GET /exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nbinary\x00")
        code, headers, _ = await read(reader)
        assert (code, headers["connection"]) == (201, "close")
        assert await reader.read() == b""

    served(story)


class Numbers(Stream):
    """Writes as much as it may, and goes on when told to."""

    def __init__(self, count: int, size: int) -> None:
        self.left, self.size = count, size
        self.paused = 0
        self.closed = False
        self.sink: Sink | None = None

    def attach(self, sink: Sink) -> None:
        self.sink = sink
        self.resume()

    def resume(self) -> None:
        assert self.sink is not None
        while self.left and not self.sink.full:
            self.left -= 1
            self.sink.write(b"%d" % (self.left % 10) * self.size)
        if self.left:
            self.paused += 1
        else:
            self.sink.end()

    def close(self) -> None:
        self.closed = True


def test_a_stream_waits_for_its_reader_and_the_connection_goes_on() -> None:
    stream = Numbers(400, 50_000)

    async def respond(received: Received) -> Answer:
        return Answer(stream=stream) if received.url == b"/stream" else await echo(received)

    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        size = 0
        while length := int(await reader.readline(), 16):
            size += len(await reader.readexactly(length))
            await reader.readexactly(2)
        await reader.readexactly(2)
        assert (size, stream.paused > 0) == (400 * 50_000, True)
        writer.write(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await read(reader))[0] == 201

    served(story, respond)


def test_a_stream_is_closed_when_its_reader_leaves() -> None:
    stream = Numbers(1_000_000, 50_000)

    async def respond(_received: Received) -> Answer:
        return Answer(stream=stream)

    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        async with asyncio.timeout(10):
            while not stream.closed:  # noqa: ASYNC110 - a stream tells nobody
                await asyncio.sleep(0.001)

    served(story, respond)


def test_pieces_that_come_by_themselves_are_streamed_too() -> None:
    async def pieces() -> Any:
        for number in range(3):
            yield b"%d" % number

    async def respond(_received: Received) -> Answer:
        return Answer(stream=pieces(), content_type="text/plain")

    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"GET /log HTTP/1.0\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert (body, b"chunked" in head) == (b"012", False)

    served(story, respond)


def test_stopping_lets_a_write_be_answered() -> None:
    async def run() -> None:
        going_on = asyncio.Event()
        began = asyncio.Event()

        async def respond(received: Received) -> Answer:
            began.set()
            await going_on.wait()
            return await echo(received)

        listener = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(respond, None)
        await server.start(listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        await began.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        going_on.set()
        code, headers, _ = await asyncio.wait_for(read(reader), 10)
        assert (code, headers["connection"]) == (201, "close")
        await stopping
        writer.close()

    asyncio.run(run())
