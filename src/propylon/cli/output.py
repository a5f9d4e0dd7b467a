"""How things look: tables, colours only on a terminal, JSON and YAML for machines."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import yaml


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns padded to their widest cell, three blanks apart, as kubectl prints them; empty cells become `-`."""
    cells = [[str(c) if c not in {"", None} else "-" for c in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    lines = [
        "   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [list(headers), *cells]
    ]
    return "\n".join(lines)


def emit(value: Any, form: str) -> None:
    """Print a document as `json` or `yaml`."""
    if form == "json":
        click.echo(json.dumps(value, indent=2))
    else:
        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())


def colour(text: str, name: str) -> str:
    """Colour for people: nothing is added when standard output is not a terminal."""
    return click.style(text, fg=name) if sys.stdout.isatty() else text


def truth(value: bool | str | None) -> str:
    """A condition's status, green or red on a terminal."""
    text = str(value) if value is not None else "Unknown"
    return colour(text, {"True": "green", "False": "red"}.get(text, "yellow"))


def visible_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Like `table`, for cells that carry colour: padding counts what is seen."""
    cells = [[str(c) if c not in {"", None} else "-" for c in row] for row in rows]
    everything = [list(headers), *cells]
    widths = [max(len(click.unstyle(row[i])) for row in everything) for i in range(len(headers))]
    return "\n".join(
        "   ".join(c + " " * (w - len(click.unstyle(c))) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in everything
    )
