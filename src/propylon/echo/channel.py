"""What a protocol of the echo server stands on, and what it looks like from below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from propylon.echo.answer import EchoIdentity, TlsInfo


class Channel(Protocol):
    """A connection, or TLS on one, as a protocol sees it."""

    identity: EchoIdentity
    client: str
    tls: TlsInfo | None

    def write(self, data: bytes) -> None:
        """Send; what the peer does not take is buffered."""

    def close(self) -> None:
        """Close once everything written is sent."""

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver again."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call later unless the connection is lost before; the returned function cancels it."""


class Speaker(Protocol):
    """A protocol spoken on a channel. It must survive any bytes, and keep what it buffers within bounds."""

    def data_received(self, data: bytes) -> None:
        """The next bytes."""

    def eof_received(self) -> None:
        """No more bytes will come; the other direction may still be open."""


class RawEcho:
    """Plain bytes: sent back as they come."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self._channel.write(data)

    def eof_received(self) -> None:
        """Answer an end with an end."""
        self._channel.close()
