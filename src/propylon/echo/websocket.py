"""WebSocket (RFC 6455), as far as an echo needs it: every data frame is sent back as it came."""

from __future__ import annotations

import base64
import hashlib

from propylon.echo.channel import Channel

LARGEST_FRAME = 1 << 20
"""Bytes of payload; a larger frame closes the connection with 1009."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE, _PING, _PONG = 0x8, 0x9, 0xA


def accept_key(key: str) -> str:
    """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2)."""
    return base64.b64encode(
        hashlib.sha1(key.strip().encode("latin-1") + _GUID, usedforsecurity=False).digest()
    ).decode()


def encode_frame(first: int, payload: bytes) -> bytes:
    """An unmasked frame, as servers send them; `first` is the byte with FIN and the opcode."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload


class WebSocketEcho:
    """Speaks WebSocket after the handshake."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._buffer = bytearray()
        self._closed = False

    def data_received(self, data: bytes) -> None:
        """Answer every complete frame."""
        if self._closed:
            return
        self._buffer += data
        while not self._closed and self._next_frame():
            pass

    def eof_received(self) -> None:
        """The peer is gone."""
        self._channel.close()

    def _next_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        first, second = buffer[0], buffer[1]
        opcode, length, start = first & 0x0F, second & 0x7F, 2
        if length == 126:
            start, length = 4, int.from_bytes(buffer[2:4], "big") if len(buffer) >= 4 else -1
        elif length == 127:
            start, length = 10, int.from_bytes(buffer[2:10], "big") if len(buffer) >= 10 else -1
        if length < 0:
            return False
        control = opcode >= _CLOSE
        if (
            first & 0x70
            or not second & 0x80
            or (control and (length > 125 or not first & 0x80))
            or opcode not in _OPCODES
        ):
            self._fail(1002)
            return False
        if length > LARGEST_FRAME:
            self._fail(1009)
            return False
        if len(buffer) < start + 4 + length:
            return False
        mask, masked = bytes(buffer[start : start + 4]), bytes(buffer[start + 4 : start + 4 + length])
        del buffer[: start + 4 + length]
        payload = _unmask(mask, masked)
        if opcode == _CLOSE:
            self._finish(payload)
        elif opcode == _PING:
            self._channel.write(encode_frame(0x80 | _PONG, payload))
        elif opcode != _PONG:
            self._channel.write(encode_frame(first, payload))
        return True

    def _fail(self, code: int) -> None:
        self._finish(code.to_bytes(2, "big"))

    def _finish(self, payload: bytes) -> None:
        self._closed = True
        self._buffer.clear()
        self._channel.write(encode_frame(0x80 | _CLOSE, payload))
        self._channel.close()


_OPCODES = frozenset((0x0, 0x1, 0x2, _CLOSE, _PING, _PONG))


def _unmask(mask: bytes, payload: bytes) -> bytes:
    if not payload:
        return b""
    # As one large number: many times faster than byte by byte.
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
