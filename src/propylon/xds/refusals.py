"""What Envoy's words of refusal tell."""

from __future__ import annotations

import re
from collections.abc import Iterable


def mentioned(names: Iterable[str], message: str) -> list[str]:
    """Return the names that stand in an error message as words of their own."""
    return [
        name
        for name in names
        if name in message and re.search(rf"(?<![\w/.\-]){re.escape(name)}(?![\w/\-]|\.\w)", message)
    ]


def readable(message: str) -> str:
    """Return an error message without the dump of the resource that Envoy puts into some: long, and it may hold
    secrets.
    """
    return re.sub(r"goo\.gle/debug\w*\s.*?(\n: |\Z)", "", message, flags=re.DOTALL).strip().rstrip(":")
