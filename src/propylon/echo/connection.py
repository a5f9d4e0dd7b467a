"""One TCP connection of the echo server: finds out what is spoken on it from its first bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from propylon.echo.answer import EchoIdentity, TlsInfo
from propylon.echo.channel import Channel, RawEcho, Speaker
from propylon.echo.http1 import Http1

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]\r?\n")
_METHODS = tuple(
    method + b" "
    for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI")
)
_LONGEST_REQUEST_LINE = 1 << 16
PATIENCE = 0.25
"""Seconds to wait for more when the first bytes could be the beginning of several protocols; then they are plain
bytes.
"""

LINGER = 1.0
"""Seconds that a connection closed by us stays half open for the client to notice."""


def detect(data: bytes) -> str | None:
    """What connection begins with `data`: "http1", "http2", "tls", "raw", or None if that needs more bytes. Pure.

    TLS: a handshake record (RFC 8446 section 5.1). HTTP/2: its preface (RFC 9113 section 3.4). HTTP/1: a complete
    request line, or the beginning of one with a method of RFC 9110.
    """
    if not data:
        return None
    if data[0] == 0x16:
        if len(data) == 1:
            return None
        return "tls" if data[1] == 0x03 else "raw"
    if data.startswith(_PREFACE):
        return "http2"
    if _PREFACE.startswith(data):
        return None
    line, newline, _ = data.partition(b"\n")
    if newline:
        # RFC 9112 section 2.2: a client may send an empty line before its request.
        if line in (b"", b"\r"):
            return detect(data[len(line) + 1 :])
        return "http1" if _REQUEST_LINE.fullmatch(line + b"\n") else "raw"
    if len(data) > _LONGEST_REQUEST_LINE:
        return "raw"
    if begins_request(data) or any(method.startswith(data) for method in _METHODS) or data == b"\r":
        return None
    return "raw"


def begins_request(data: bytes) -> bool:
    """Whether `data` begins with a known method: worth waiting for the rest, however slowly it is typed."""
    return data.startswith(_METHODS)


class EchoConnection(asyncio.Protocol):
    """A `Channel` on an asyncio transport."""

    def __init__(self, identity: EchoIdentity, connections: set[EchoConnection]) -> None:
        """`connections` holds every open connection, so that a server can close them."""
        self.identity = identity
        self.client = ""
        self.tls: TlsInfo | None = None
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._speaker: Speaker | None = None
        self._first = b""
        self._timers: set[asyncio.TimerHandle] = set()
        self._give_up: Callable[[], None] | None = None
        self._reading_pauses = 0
        self._peer_ended = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.client = f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, and with it what was to happen later."""
        del error
        self._connections.discard(self)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def data_received(self, data: bytes) -> None:
        """Pass on, after having found out to whom."""
        if self._closing:
            return
        if self._speaker is not None:
            self._speaker.data_received(data)
            return
        self._first += data
        protocol = detect(self._first)
        if protocol is not None:
            self._decide(protocol)
        elif self._give_up is None and not begins_request(self._first):
            self._give_up = self.call_later(PATIENCE, self._lose_patience)

    def eof_received(self) -> bool:
        """Keep the other direction open: the answer may still be on its way."""
        self._peer_ended = True
        if self._closing:
            return False  # nothing left to linger for
        if self._speaker is None:
            self._decide("raw")
        assert self._speaker is not None
        self._speaker.eof_received()
        return True

    def pause_writing(self) -> None:
        """The peer does not take what we send: take nothing more from it."""
        self.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self.resume_reading()

    def _lose_patience(self) -> None:
        if self._speaker is None and not begins_request(self._first):
            self._decide("raw")

    def _decide(self, protocol: str) -> None:
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        self._speaker = speaker_for(protocol, self)
        first, self._first = self._first, b""
        if first:
            self._speaker.data_received(first)

    def write(self, data: bytes) -> None:
        """See `Channel`."""
        self._transport.write(data)

    def close(self) -> None:
        """See `Channel`. What the client still sends is taken in for a moment (RFC 9112 section 9.6).

        Closing with unread bytes would reset the connection, and with it the last answer on its way.
        """
        if self._closing:
            return
        self._closing = True
        if self._peer_ended or self._transport.is_closing():
            self._transport.close()
            return
        self._transport.write_eof()
        self.call_later(LINGER, self._transport.close)

    def abort(self) -> None:
        """Close without sending what is buffered."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """See `Channel`."""
        self._reading_pauses += 1
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See `Channel`."""
        self._reading_pauses -= 1
        if self._reading_pauses == 0:
            self._transport.resume_reading()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """See `Channel`."""

        def run() -> None:
            self._timers.discard(timer)
            call()

        def cancel() -> None:
            self._timers.discard(timer)
            timer.cancel()

        timer = self._loop.call_later(seconds, run)
        self._timers.add(timer)
        return cancel


class SniffedPlaintext:
    """What is spoken within TLS when ALPN did not say."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._speaker: Speaker | None = None
        self._first = b""

    def data_received(self, data: bytes) -> None:
        """Pass on, after having found out to whom."""
        if self._speaker is None:
            self._first += data
            protocol = detect(self._first)
            if protocol is None:
                self._channel.call_later(PATIENCE, self._lose_patience)
                return
            # TLS within TLS is bytes to us.
            self._begin("raw" if protocol == "tls" else protocol)
            return
        self._speaker.data_received(data)

    def eof_received(self) -> None:
        """No more bytes."""
        if self._speaker is None:
            self._begin("raw")
        assert self._speaker is not None
        self._speaker.eof_received()

    def _lose_patience(self) -> None:
        if self._speaker is None and not begins_request(self._first):
            self._begin("raw")

    def _begin(self, protocol: str) -> None:
        self._speaker = speaker_for(protocol, self._channel)
        first, self._first = self._first, b""
        if first:
            self._speaker.data_received(first)


def speaker_for(protocol: str, channel: Channel) -> Speaker:
    """The speaker of a protocol that `detect` named."""
    if protocol == "http1":
        return Http1(channel)
    if protocol == "http2":
        from propylon.echo.http2 import Http2  # noqa: PLC0415 - h2 takes 50 ms to import

        return Http2(channel)
    if protocol == "tls":
        from propylon.echo.tls import TlsLayer  # noqa: PLC0415

        return TlsLayer(channel, _within_tls)
    return RawEcho(channel)


def _within_tls(channel: Channel, alpn: str) -> Speaker:
    if alpn == "h2":
        return speaker_for("http2", channel)
    return speaker_for("http1", channel) if alpn == "http/1.1" else SniffedPlaintext(channel)
