"""The columns of `propylon get`: those that kubectl shows for the same kinds, and who accepted a route."""

from collections.abc import Callable, Mapping
from typing import Any

from propylon.server.columns import NAME, columns_of

Document = Mapping[str, Any]
Column = tuple[str, Callable[[Document], object]]


def columns(kind: str, *, namespaces: bool) -> tuple[Column, ...]:
    """Columns for one kind; NAMESPACE first if objects of several namespaces are listed, AGE last."""
    first: tuple[Column, ...] = (
        (("NAMESPACE", lambda d: d.get("metadata", {}).get("namespace", "")),) if namespaces else ()
    )
    shown = [column for column in columns_of(kind) if not column.priority or column.name == "Accepted"]
    shown.sort(key=lambda column: (column.name != NAME.name, column.name == "Age"))
    return (*first, *((column.name.upper(), column.cell) for column in shown))
