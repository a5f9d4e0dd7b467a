"""The control socket: how `propylon status`, `logs` and `config view` ask the running process.

One JSON object a line in, one out, over a Unix socket that only its owner may open.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from propylon.proxies.directories import run_directory

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]
LIMIT = 1 << 20


def control_socket(data_dir: Path) -> Path:
    """Where the running process of a data directory answers."""
    return run_directory(data_dir) / "control.sock"


class NotRunningError(Exception):
    """Nobody answers on the control socket."""


class ControlError(Exception):
    """The running process refused the call; the message is its own."""


class ControlServer:
    """Answers calls by name; a handler that fails costs its caller an error and nobody else anything."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind; a stale socket of a dead process is replaced (the data directory's lock tells that it is dead)."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LIMIT)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            call = json.loads(line)
            handler = self._handlers[call["call"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "unknown call"}
        try:
            return {"result": await handler(call.get("arguments") or {})}
        except Exception as error:  # noqa: BLE001 - told to the caller; the server lives on
            return {"error": f"{type(error).__name__}: {error}"}


def call(path: Path, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 10.0) -> Any:
    """Ask the running process and wait for its answer. Raises NotRunningError, ControlError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(str(path))
            client.sendall(json.dumps({"call": name, "arguments": arguments or {}}).encode() + b"\n")
            with client.makefile("rb") as answers:
                line = answers.readline()
        except (FileNotFoundError, ConnectionError, TimeoutError) as error:
            raise NotRunningError(str(path)) from error
    if not line:
        raise NotRunningError(str(path))
    answer = json.loads(line)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["result"]
