"""pods/log: the logs of the proxies that are shown as pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from propylon.server.errors import bad_request
from propylon.server.lists import whole_number
from propylon.server.requests import Answer

LOG_ANNOTATION = "api.propylon.dev/log"
"""Names the log of a proxy's Pod, relative to the data directory."""
_PIECE = 64 * 1024
_PAUSE = 0.2


def log_of(data_dir: Path | None, pod: Mapping[str, Any], parameters: Mapping[str, str]) -> Answer:
    """The log of a pod, from its end if `tailLines` is given, going on with `follow`. Raises ApiError."""
    said = (pod["metadata"].get("annotations") or {}).get(LOG_ANNOTATION)
    name = pod["metadata"]["name"]
    if data_dir is None or not said:
        raise bad_request(f'pod "{name}" runs nowhere: this API stores pods and runs none but its own proxies')
    path = (data_dir / said).resolve()
    if not path.is_relative_to(data_dir.resolve()) or path.suffix != ".log" or not path.is_file():
        raise bad_request(f'the log of pod "{name}" does not exist')
    tail = whole_number(parameters, "tailLines") if parameters.get("tailLines") else None
    limit = whole_number(parameters, "limitBytes") or None
    follow = parameters.get("follow", "").lower() in ("1", "true")
    return Answer(content_type="text/plain", stream=_pieces(path, tail, limit, follow))


async def _pieces(path: Path, tail: int | None, limit: int | None, follow: bool) -> AsyncIterator[bytes]:
    left = limit
    with path.open("rb") as file:
        if tail is not None:
            file.seek(_start_of_tail(path, tail))
        while True:
            piece = file.read(_PIECE if left is None else min(_PIECE, left))
            if piece:
                left = None if left is None else left - len(piece)
                yield piece
            elif follow and (left is None or left > 0):
                await asyncio.sleep(_PAUSE)
            else:
                return


def _start_of_tail(path: Path, lines: int) -> int:
    """Where the last so many lines begin."""
    if lines == 0:
        return path.stat().st_size
    with path.open("rb") as file:
        position = end = file.seek(0, 2)
        count = 0
        while position > 0:
            size = min(_PIECE, position)
            position -= size
            file.seek(position)
            piece = file.read(size)
            index = len(piece)
            while (index := piece.rfind(b"\n", 0, index)) >= 0:
                if position + index == end - 1:
                    continue
                count += 1
                if count == lines:
                    return position + index + 1
        return 0
