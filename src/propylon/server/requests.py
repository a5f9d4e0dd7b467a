"""One request and one answer, apart from any server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

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


class Answer(msgspec.Struct):
    """A status code, and a body or a stream of pieces of one."""

    code: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None


def answer(document: Any, code: int = 200, warnings: tuple[str, ...] = ()) -> Answer:
    """A JSON answer; warnings go into headers (RFC 9111 section 5.5, as Kubernetes uses them)."""
    headers = tuple(("warning", f"299 - {_quoted(text)}") for text in warnings)
    return Answer(code, encode(document), headers=headers)


def _quoted(text: str) -> str:
    plain = "".join(char if 32 <= ord(char) < 127 else "?" for char in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
