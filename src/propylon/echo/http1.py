"""HTTP/1.0 and HTTP/1.1 (RFC 9112): keep-alive, pipelining, chunked bodies, `Expect: 100-continue`, WebSocket."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

from propylon.echo.answer import LARGEST_BODY, Answer, Request, build_answer
from propylon.echo.channel import Channel, Speaker
from propylon.echo.websocket import WebSocketEcho, accept_key

LARGEST_HEAD = 1 << 16
"""Bytes of a request line and its headers, and of trailers; more is answered with 431."""
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) (HTTP/1\.[01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?")
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class _BadRequest(Exception):  # noqa: N818 - named as the status it becomes
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Http1:
    """Speaks HTTP/1 on a channel, one request after the other."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._buffer = bytearray()
        self._step: Callable[[], bool] = self._read_head
        self._upgraded: Speaker | None = None
        self._cancel: Callable[[], None] | None = None
        self._paused = False
        self._ended = False
        self._begin()

    def _begin(self) -> None:
        self._method, self._target, self._protocol = "", "", "HTTP/1.1"
        self._headers: list[tuple[str, str]] = []
        self._trailers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._body_length = 0
        self._remaining = 0
        self._keep_alive = True
        self._step = self._read_head

    def data_received(self, data: bytes) -> None:
        """Take in bytes and answer every request that is complete."""
        if self._upgraded is not None:
            self._upgraded.data_received(data)
            return
        if self._ended:
            return
        self._buffer += data
        self._advance()

    def eof_received(self) -> None:
        """The client sends no more; an answer that waits is still sent."""
        if self._upgraded is not None:
            self._upgraded.eof_received()
        elif self._cancel is None:
            self._channel.close()
        else:
            self._keep_alive = False

    def _advance(self) -> None:
        try:
            while not self._ended and self._step():
                pass
        except _BadRequest as error:
            self._send(Answer(error.status, [("content-type", "text/plain")], f"{error}\n".encode()), last=True)
            return
        # While an answer waits, a client may send on; what it sends is bounded by not reading it.
        waiting = self._cancel is not None and len(self._buffer) > LARGEST_HEAD
        if waiting and not self._paused:
            self._paused = True
            self._channel.pause_reading()

    def _read_head(self) -> bool:
        while self._buffer.startswith((b"\r\n", b"\n")):  # RFC 9112 section 2.2
            del self._buffer[: 2 if self._buffer.startswith(b"\r\n") else 1]
        head = self._take_until_empty_line()
        if head is None:
            return False
        line, _, rest = head.partition(b"\n")
        match = _REQUEST_LINE.fullmatch(line.rstrip(b"\r"))
        if match is None:
            raise _BadRequest(400, "This is not an HTTP request line.")
        self._method, self._target, self._protocol = (part.decode("latin-1") for part in match.groups())
        self._headers = _parse_headers(rest)
        self._frame_body()
        return True

    def _take_until_empty_line(self) -> bytes | None:
        """Everything before an empty line, which is dropped as well; None if it has not come yet."""
        ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := self._buffer.find(mark)) >= 0]
        if not ends:
            if len(self._buffer) > LARGEST_HEAD:
                raise _BadRequest(431, "The headers are too large.")
            return None
        at, length = min(ends)
        if at > LARGEST_HEAD:
            raise _BadRequest(431, "The headers are too large.")
        taken = bytes(self._buffer[:at])
        del self._buffer[: at + length]
        return taken

    def _values(self, name: str) -> list[str]:
        return [value for key, value in self._headers if key == name]

    def _tokens(self, name: str) -> list[str]:
        return [token.strip().lower() for value in self._values(name) for token in value.split(",") if token.strip()]

    def _frame_body(self) -> None:
        """How long the body is (RFC 9112 section 6.3), strictly: who frames it in two ways is up to something."""
        connection = self._tokens("connection")
        self._keep_alive = "close" not in connection if self._protocol == "HTTP/1.1" else "keep-alive" in connection
        codings, lengths = self._tokens("transfer-encoding"), set(self._values("content-length"))
        if codings:
            if lengths or codings != ["chunked"] or self._protocol == "HTTP/1.0":
                raise _BadRequest(400, "The body's length is given in a way that cannot be trusted.")
            self._step = self._read_chunk_size
        elif lengths:
            value = lengths.pop()
            if lengths or not value.isascii() or not value.isdigit() or len(value) > 18:
                raise _BadRequest(400, "Content-Length is not one number.")
            self._remaining = int(value)
            self._step = self._read_body if self._remaining else self._answer
        else:
            self._step = self._answer
        if self._step != self._answer and "100-continue" in self._tokens("expect") and not self._buffer:
            self._channel.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_body(self) -> bool:
        """Move what has come of the body; whether it is complete."""
        taken = self._buffer[: self._remaining]
        del self._buffer[: len(taken)]
        self._remaining -= len(taken)
        self._body_length += len(taken)
        self._body += taken[: LARGEST_BODY - len(self._body)]
        return self._remaining == 0

    def _read_body(self) -> bool:
        if not self._take_body():
            return False
        self._step = self._answer
        return True

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > 4096:
                raise _BadRequest(400, "A chunk is not framed as one.")
            return None
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        return line

    def _read_chunk_size(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise _BadRequest(400, "A chunk has no size.")
        self._remaining = int(match[1], 16)
        self._step = self._read_chunk if self._remaining else self._read_trailers
        return True

    def _read_chunk(self) -> bool:
        if not self._take_body():
            return False
        self._step = self._read_chunk_end
        return True

    def _read_chunk_end(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        if line:
            raise _BadRequest(400, "A chunk is longer than its size.")
        self._step = self._read_chunk_size
        return True

    def _read_trailers(self) -> bool:
        # No trailers: the empty line comes at once.
        for mark in (b"\r\n", b"\n"):
            if self._buffer.startswith(mark):
                del self._buffer[: len(mark)]
                self._step = self._answer
                return True
        if len(self._buffer) < 2:
            return False
        trailers = self._take_until_empty_line()
        if trailers is None:
            return False
        self._trailers = _parse_headers(trailers)
        self._step = self._answer
        return True

    def _answer(self) -> bool:
        if "websocket" in self._tokens("upgrade") and self._upgrade():
            return False
        request = Request(
            method=self._method,
            target=self._target,
            headers=self._headers,
            protocol=self._protocol,
            body=bytes(self._body),
            body_length=self._body_length,
            trailers=self._trailers,
            tls=self._channel.tls,
            client=self._channel.client,
        )
        try:
            answer = build_answer(self._channel.identity, request)
        except ValueError as error:  # a target that is no URL
            raise _BadRequest(400, "The request target is no path.") from error
        if answer.delay <= 0:
            self._send(answer, last=not self._keep_alive)
            return True
        self._step = self._wait
        self._cancel = self._channel.call_later(answer.delay, lambda: self._send_late(answer))
        return False

    def _wait(self) -> bool:
        return False

    def _send_late(self, answer: Answer) -> None:
        self._cancel = None
        self._send(answer, last=not self._keep_alive)
        if self._paused:
            self._paused = False
            self._channel.resume_reading()
        self._advance()

    def _send(self, answer: Answer, *, last: bool) -> None:
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        bodiless = answer.status in (204, 304)
        if not bodiless:
            lines.append(f"content-length: {len(answer.body)}")
        if last:
            lines.append("connection: close")
        elif self._protocol == "HTTP/1.0":
            lines.append("connection: keep-alive")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self._channel.write(head if bodiless or self._method == "HEAD" else head + answer.body)
        if last:
            self._ended = True
            self._buffer.clear()
            self._channel.close()
        else:
            self._begin()

    def _upgrade(self) -> bool:
        keys = self._values("sec-websocket-key")
        if self._method != "GET" or len(keys) != 1:
            return False
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "upgrade: websocket",
            "connection: Upgrade",
            f"sec-websocket-accept: {accept_key(keys[0])}",
            f"x-echo-hostname: {self._channel.identity.hostname}",
        ]
        if offered := self._values("sec-websocket-protocol"):
            lines.append(f"sec-websocket-protocol: {offered[0].split(',')[0].strip()}")
        self._channel.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        self._upgraded = WebSocketEcho(self._channel)
        early, self._buffer = bytes(self._buffer), bytearray()
        if early:
            self._upgraded.data_received(early)
        return True


def _parse_headers(lines: bytes) -> list[tuple[str, str]]:
    headers = []
    for line in lines.split(b"\n"):
        stripped = line.rstrip(b"\r")
        if not stripped:
            continue
        match = _HEADER.fullmatch(stripped)
        if match is None:
            raise _BadRequest(400, "A header is not Name: Value.")
        headers.append((match[1].decode("ascii").lower(), match[2].decode("latin-1")))
    return headers
