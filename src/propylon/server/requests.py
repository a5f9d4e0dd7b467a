"""One request and one answer, apart from any server."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import msgspec

from propylon.server.errors import ApiError
from propylon.server.identity import ANONYMOUS, User

encode = msgspec.json.Encoder(enc_hook=str).encode


class Request(msgspec.Struct):
    """A request whose body has been read. Header names are in lower case."""

    method: str
    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    user: User = ANONYMOUS

    def flag(self, name: str) -> bool:
        """Whether a parameter is set to what counts as true."""
        return self.parameters.get(name, "").lower() in ("1", "t", "true")


class Sink(Protocol):
    """Where a stream writes to."""

    @property
    def full(self) -> bool:
        """Whether the client has yet to read what was written; `Stream.resume` is called when it has."""

    def write(self, piece: bytes) -> None:
        """Send a piece."""

    def end(self) -> None:
        """There are no more pieces."""


class Stream(ABC):
    """An answer's pieces, written as they come to be, in the event loop, without anybody waiting for them."""

    @abstractmethod
    def attach(self, sink: Sink) -> None:
        """Begin to write."""

    @abstractmethod
    def resume(self) -> None:
        """The sink is no longer full."""

    @abstractmethod
    def close(self) -> None:
        """Write no more; also when `attach` was never called."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces, for those who would rather wait for them."""
        sink = _Queue()
        self.attach(sink)
        try:
            while (piece := await sink.pieces.get()) is not None:
                yield piece
        finally:
            self.close()


class _Queue:
    """A sink that is never full."""

    full = False

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def write(self, piece: bytes) -> None:
        self.pieces.put_nowait(piece)

    def end(self) -> None:
        self.pieces.put_nowait(None)


class Answer(msgspec.Struct):
    """A status code, and a body or a stream of pieces of one."""

    code: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: Stream | AsyncIterator[bytes] | None = None


def answer(document: Any, code: int = 200, warnings: tuple[str, ...] = ()) -> Answer:
    """A JSON answer; warnings go into headers (RFC 9111 section 5.5, as Kubernetes uses them)."""
    headers = tuple(("warning", f"299 - {_quoted(text)}") for text in warnings)
    return Answer(code, encode(document), headers=headers)


def refusal(error: ApiError) -> Answer:
    """The answer that is a Status."""
    said = answer(error.status(), error.code)
    if error.retry_after:
        said.headers = (*said.headers, ("retry-after", str(error.retry_after)))
    return said


def _quoted(text: str) -> str:
    plain = "".join(char if 32 <= ord(char) < 127 else "?" for char in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
