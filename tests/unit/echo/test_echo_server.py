"""The echo server as clients see it: real sockets, every protocol on one port."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
import websockets
from h2.connection import H2Connection
from h2.events import DataReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from propylon.echo.answer import LARGEST_BODY, EchoIdentity
from propylon.echo.connection import detect
from propylon.echo.server import EchoServers

WEB = EchoIdentity("shop", "web", 80)


@asynccontextmanager
async def echo(identity: EchoIdentity = WEB) -> AsyncIterator[tuple[str, int]]:
    servers = EchoServers()
    try:
        yield await servers.ensure(identity)
    finally:
        await servers.close()


def scenario(run: Callable[[str, int], Awaitable[None]]) -> None:
    async def main() -> None:
        async with echo() as (host, port), asyncio.timeout(30):
            await run(host, port)

    asyncio.run(main())


async def exchange(host: str, port: int, *parts: bytes) -> bytes:
    """Send, end, and read all there is to read."""
    reader, writer = await asyncio.open_connection(host, port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def bodies(answers: bytes) -> list[dict[str, Any]]:
    """The JSON bodies of HTTP/1 answers on one connection."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        found.append(json.loads(rest[:length]))
        answers = rest[length:]
    return found


def test_a_request_is_told_back() -> None:
    async def run(host: str, port: int) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"http://{host}:{port}/a/b?x=1&y=2&y=3", content=b"hi", headers=[("X-A", "1"), ("x-a", "2")]
            )
        told = answer.json()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-echo-service"] == "web"
        assert told["environment"]["HOSTNAME"].startswith("web-")
        assert (told["service"], told["namespace"], told["port"]) == ("web", "shop", 80)
        request = told["request"]
        assert (request["method"], request["path"], request["body"]) == ("POST", "/a/b", "hi")
        assert request["query"] == {"x": "1", "y": ["2", "3"]}
        assert request["headers"]["x-a"] == "1, 2"
        assert all(name == name.lower() for name in request["headers"])
        assert request["protocol"] == "HTTP/1.1"
        assert request["tls"] is None

    scenario(run)


def test_options_shape_the_answer() -> None:
    async def run(host: str, port: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            late = await client.get("/?echo_status=503&echo_delay=10ms&echo_header=X-Told:yes&echo_header=x-b:%20c")
            assert (late.status_code, late.headers["x-told"], late.headers["x-b"]) == (503, "yes", "c")
            assert (await client.get("/?echo_status=204")).content == b""
            for wrong in ("echo_status=99", "echo_status=x", "echo_delay=soon", "echo_header=a", "echo_header=a:%0a"):
                refused = await client.get(f"/?{wrong}")
                assert refused.status_code == 400
                assert wrong.partition("=")[0] in refused.json()["error"]
            head = await client.head("/")
            assert (head.content, int(head.headers["content-length"]) > 0) == (b"", True)

    scenario(run)


def test_pipelined_requests_are_answered_in_order_however_they_are_cut() -> None:
    stream = (
        b"GET /1?echo_delay=20ms HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
        b"POST /3 HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz"
        b"\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /6 HTTP/1.1\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n\r\n"
    )

    async def run(host: str, port: int) -> None:
        for size in (1, 7, 50, len(stream)):
            reader, writer = await asyncio.open_connection(host, port)
            writer.transport.set_write_buffer_limits(0)
            for start in range(0, len(stream), size):
                writer.write(stream[start : start + size])
                await asyncio.sleep(0)
            told = [each["request"] for each in bodies(await reader.read())]
            assert [each["path"] for each in told] == ["/1", "/2", "/3", "/4", "/5", "/6"]
            assert [each["body"] for each in told] == ["", "abcde", "xyz", "", "", ""]
            assert told[1]["trailers"] == {"x-t": "1"}
            writer.close()

    scenario(run)


def test_the_last_answer_arrives_although_the_client_sends_on() -> None:
    async def run(host: str, port: int) -> None:
        for _ in range(20):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            await asyncio.sleep(0)  # the server answers and closes, and then comes more
            for _ in range(20):
                writer.write(b"x" * 10_000)
                await asyncio.sleep(0)
            assert bodies(await reader.read())[0]["request"]["path"] == "/"
            writer.close()

    scenario(run)


def test_expect_continue_is_answered_before_the_body() -> None:
    async def run(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"PUT /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        writer.write_eof()
        assert bodies(await reader.read())[0]["request"]["body"] == "ok"
        writer.close()

    scenario(run)


def test_large_and_binary_bodies() -> None:
    async def run(host: str, port: int) -> None:
        async with httpx.AsyncClient() as client:
            large = (await client.post(f"http://{host}:{port}/", content=b"x" * (LARGEST_BODY + 5))).json()["request"]
            assert (len(large["body"]), large["bodyLength"]) == (LARGEST_BODY, LARGEST_BODY + 5)
            binary = (await client.post(f"http://{host}:{port}/", content=b"\xff\x00")).json()["request"]
            assert (binary["body"], binary["bodyEncoding"]) == ("/wA=", "base64")

    scenario(run)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000, 431),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_malformed_requests_are_refused_and_the_connection_closed(request_: bytes, status: int) -> None:
    async def run(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request_)
        answer = await reader.read()  # no end of ours: the server must close
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        writer.close()

    scenario(run)


def test_http_1_0_closes_unless_asked_to_keep_alive() -> None:
    async def run(host: str, port: int) -> None:
        assert b"connection: close" in await exchange(host, port, b"GET / HTTP/1.0\r\n\r\n")
        assert b"keep-alive" in await exchange(host, port, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    scenario(run)


def test_websocket() -> None:
    async def run(host: str, port: int) -> None:
        async with websockets.connect(f"ws://{host}:{port}/ws", subprotocols=["chat"]) as client:
            assert client.subprotocol == "chat"
            for message in ("hello", b"\x00\x01", "x" * 200, "y" * 70_000, ""):
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "pieces"])
            assert await client.recv() == "in pieces"
            await (await client.ping())
            await client.close(4000)
            assert client.close_code == 4000
        async with websockets.connect(f"ws://{host}:{port}/", max_size=None) as client:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.send(b"x" * (LARGEST_BODY + 1))
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    scenario(run)


def test_http2_with_prior_knowledge_multiplexes() -> None:
    async def run(host: str, port: int) -> None:
        async with httpx.AsyncClient(http1=False, http2=True, base_url=f"http://{host}:{port}") as client:
            slow = asyncio.create_task(client.get("/slow?echo_delay=100ms"))
            answers = await asyncio.gather(*(client.post(f"/{n}", content=b"b" * n) for n in range(30)))
            assert [answer.json()["request"]["path"] for answer in answers] == [f"/{n}" for n in range(30)]
            assert answers[29].json()["request"]["body"] == "b" * 29
            assert answers[0].json()["request"]["protocol"] == "HTTP/2"
            assert answers[0].json()["request"]["headers"]["host"] == f"{host}:{port}"
            assert (await slow).status_code == 200
            # Larger than any window: both directions must give it back.
            large = await client.post("/large", content=b"x" * 900_000)
            assert len(large.json()["request"]["body"]) == 900_000
            assert (await client.get("/?echo_status=503")).status_code == 503
            assert (await client.head("/")).content == b""

    scenario(run)


def test_grpc_gets_its_messages_back() -> None:
    async def run(host: str, port: int) -> None:
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            call = channel.unary_unary("/any.Service/Method")(b"message")
            assert await call == b"message"
            assert dict(await call.initial_metadata())["x-echo-service"] == "web"
            assert await channel.unary_unary("/any.Service/Empty")(b"") == b""
            large = b"x" * 3_000_000
            assert await channel.unary_unary("/any.Service/Large")(large) == large
            stream = channel.stream_stream("/any.Service/Stream")()
            for message in (b"one", b"two"):
                await stream.write(message)
                assert await stream.read() == message
            await stream.done_writing()
            assert await stream.read() == grpc.aio.EOF
            assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"

    scenario(run)


def test_a_stream_that_is_reset_at_once_ends_alone() -> None:
    async def run(host: str, port: int) -> None:
        client = H2Connection()
        client.initiate_connection()
        for stream, kind in ((1, "application/grpc"), (3, "text/plain"), (5, "text/plain")):
            headers = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", f"/{stream}")]
            client.send_headers(stream, [*headers, ("content-type", kind)], end_stream=stream == 5)
            if stream < 5:
                client.send_data(stream, b"\x00\x00\x00\x00\x01a")
                client.reset_stream(stream)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(client.data_to_send())
        answered: dict[int, bytes] = {}
        while not any(body.endswith(b"}\n") for body in answered.values()):
            received = await reader.read(65536)
            assert received, "the connection was closed"
            for event in client.receive_data(received):
                if isinstance(event, DataReceived):
                    answered[event.stream_id] = answered.get(event.stream_id, b"") + event.data
        assert set(answered) == {5}
        writer.close()

    scenario(run)


def test_tls_is_terminated_for_any_name_and_any_protocol_within() -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    async def run(host: str, port: int) -> None:
        for http2, protocol, alpn in ((False, "HTTP/1.1", "http/1.1"), (True, "HTTP/2", "h2")):
            async with httpx.AsyncClient(http2=http2, verify=trusting) as client:
                answer = await client.get(f"https://{host}:{port}/", extensions={"sni_hostname": "web.example.com"})
            request = answer.json()["request"]
            assert request["protocol"] == protocol
            assert request["tls"]["server_name"] == "web.example.com"
            assert request["tls"]["alpn"] == alpn
        # Without ALPN the first bytes within decide.
        plain = ssl.create_default_context()
        plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
        for sent, wanted in ((b"\x01bytes", b"\x01bytes"), (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200")):
            reader, writer = await asyncio.open_connection(host, port, ssl=plain, server_hostname="a.example")
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert b"a.example" in certificate
            writer.write(sent)
            assert await reader.readexactly(len(wanted)) == wanted
            writer.close()

    scenario(run)


def test_anything_else_comes_back_as_it_is() -> None:
    async def run(host: str, port: int) -> None:
        for sent in (b"hello\n", b"PUT it here\n", b"HELLO", b"P", b"\x16", b"\x16\x09", b"", b"\n", b"\x00" * 300_000):
            assert await exchange(host, port, sent) == sent
        # Ambiguous and not ended: patience runs out.
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"P")
        assert await reader.readexactly(1) == b"P"
        writer.write(b"OST / HTTP/1.1\r\n\r\n")
        assert await reader.readexactly(5) == b"OST /"
        writer.close()

    scenario(run)


def test_udp_on_the_same_port() -> None:
    async def run(host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((host, port))
            for datagram in (b"one", b"x" * 60_000):
                await loop.sock_sendall(client, datagram)
                assert await loop.sock_recv(client, 65536) == datagram

    scenario(run)


def test_a_server_is_kept_until_released_and_a_preferred_port_is_used_if_free() -> None:
    async def main() -> None:
        servers = EchoServers()
        first = await servers.ensure(WEB)
        assert await servers.ensure(WEB) == first
        other = EchoIdentity("shop", "other", 80)
        second = await servers.ensure(other, prefer=first[1])
        assert second != first
        reader, writer = await asyncio.open_connection(*first)
        await servers.release(WEB)
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*first)
        assert servers.addresses() == {other: second}
        assert await servers.ensure(WEB, prefer=first[1]) == first
        await servers.close()

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"Host: a\r\n",
                    b"\r\n",
                    b"Transfer-Encoding: chunked\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                    b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
                ]
            ),
        ),
        max_size=8,
    )
)
def test_no_bytes_are_fatal(parts: list[bytes]) -> None:
    failures: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        async with echo() as (host, port), asyncio.timeout(20):
            with suppress(OSError):  # it may well be cut off
                await exchange(host, port, *parts)
            assert b"200 OK" in await exchange(host, port, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")

    asyncio.run(main())
    assert failures == []


@given(st.binary(max_size=60), st.integers(0, 60))
def test_more_bytes_never_change_what_was_detected(data: bytes, cut: int) -> None:
    early = detect(data[:cut])
    if early is not None and early != "raw":
        assert detect(data) == early
    assert detect(data) in (None, "http1", "http2", "tls", "raw")


def test_hostnames_are_stable_and_differ() -> None:
    assert WEB.hostname == EchoIdentity("shop", "web", 8080).hostname
    assert WEB.hostname != EchoIdentity("other", "web", 80).hostname
