"""A client for a proxy's admin interface on its Unix socket: one request, one connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from propylon.proxies.settings import AdminUnreachableError

LARGEST_ANSWER = 1 << 30
"""Bytes; a config_dump of a large Gateway is tens of megabytes."""


async def request(socket: Path, method: str, target: str, *, seconds: float = 5.0) -> tuple[int, bytes]:
    """Status and body of one admin request, e.g. `request(socket, "GET", "/ready")`. Raises `AdminUnreachableError`."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                # `admin` as the Host: Envoy asks for one, and for HTTP/1.1.
                writer.write(
                    f"{method} {target} HTTP/1.1\r\n"
                    "Host: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
                )
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status_line, _, header_lines = head.partition("\r\n")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in header_lines.splitlines())
                }
                return int(status_line.split()[1]), await _body(reader, headers)
            finally:
                writer.close()
    except (
        OSError,
        TimeoutError,
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
        ValueError,
        IndexError,
    ) as error:
        raise AdminUnreachableError(f"{method} {target} on {socket}: {str(error) or type(error).__name__}") from error


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"]))
        return await reader.read(LARGEST_ANSWER)
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if len(body) > LARGEST_ANSWER:
            raise ValueError("the answer is too large")
    return bytes(body)


async def is_ready(socket: Path) -> bool:
    """Whether the proxy serves: it has its configuration and is not draining."""
    try:
        status, _ = await request(socket, "GET", "/ready", seconds=2.0)
    except AdminUnreachableError:
        return False
    return status == 200


async def server_info(socket: Path) -> dict[str, Any]:
    """`/server_info`: state, version, command line options. Raises `AdminUnreachableError`."""
    return await _json(socket, "/server_info")


async def config_dump(socket: Path, query: str = "include_eds") -> dict[str, Any]:
    """`/config_dump?query`: what the proxy runs with, endpoints included. Raises `AdminUnreachableError`."""
    return await _json(socket, f"/config_dump?{query}" if query else "/config_dump")


async def _json(socket: Path, target: str) -> dict[str, Any]:
    status, body = await request(socket, "GET", target, seconds=30.0)
    if status != 200:
        raise AdminUnreachableError(f"GET {target} on {socket}: {status}")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise AdminUnreachableError(f"GET {target} on {socket}: {error}") from error


async def in_flight(socket: Path) -> int:
    """What a stop would cut off: HTTP requests being answered, and connections that carry no HTTP. Raises
    `AdminUnreachableError`.

    An idle keep-alive connection is not counted: closing it loses nothing, and a browser would hold one for minutes.
    """
    query = r"/stats?format=text&filter=(^listener\..*\.downstream_cx_active$|^http\..*\.downstream_(cx|rq)_active$)"
    status, body = await request(socket, "GET", query)
    if status != 200:
        raise AdminUnreachableError(f"GET {query} on {socket}: {status}")
    return count_in_flight(body.decode())


def count_in_flight(stats: str) -> int:
    """`in_flight` from Envoy's stats as text, `name: value` a line. Pure."""
    connections = http_connections = requests = 0
    for line in stats.splitlines():
        name, _, value = line.partition(": ")
        parts = name.split(".")
        if not value.isdigit() or len(parts) < 3 or parts[1] == "admin":
            continue
        if parts[0] == "http":
            if parts[-1] == "downstream_rq_active":
                requests += int(value)
            elif parts[-1] == "downstream_cx_active":
                http_connections += int(value)
        # Listeners count again per worker, as listener.ADDRESS.worker_N.downstream_cx_active.
        elif parts[0] == "listener" and not parts[-2].startswith("worker_") and parts[-1] == "downstream_cx_active":
            connections += int(value)
    return requests + max(0, connections - http_connections)
