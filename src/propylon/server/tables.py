"""Lists and objects as `Table`s: what kubectl asks for when it prints columns. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from propylon.server.columns import NAME, Column, columns_of, since
from propylon.server.json_path import find_all
from propylon.server.resources import Resource


def columns_for(resource: Resource, version: str) -> tuple[Column, ...]:
    """The columns of a resource in one of its versions."""
    custom = resource.custom.get(version)
    if custom is None:
        return columns_of(resource.kind)
    if not custom.columns:
        return columns_of("")
    return (NAME, *map(_custom_column, custom.columns))


def _custom_column(said: Mapping[str, Any]) -> Column:
    path, kind = str(said.get("jsonPath", "")), str(said.get("type", "string"))

    def cell(document: Mapping[str, Any]) -> Any:
        found = find_all(document, path)
        if not found:
            return None if kind != "string" else ""
        if kind == "date":
            return since(found[0])
        return _text(found[0]) if kind == "string" else found[0]

    priority = said.get("priority", 0)
    return Column(
        str(said.get("name", "")),
        cell,
        priority if isinstance(priority, int) else 0,
        kind,
        str(said.get("description", "")),
        str(said.get("format", "")),
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def table(
    columns: Iterable[Column],
    documents: Iterable[Mapping[str, Any]],
    *,
    metadata: Mapping[str, Any],
    include: str,
    api_version: str = "meta.k8s.io/v1",
    definitions: bool = True,
) -> dict[str, Any]:
    """A Table of these objects. `include` is None, Metadata or Object, as the request's includeObject says."""
    columns = tuple(columns)
    shown = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or column.name,
            "priority": column.priority,
        }
        for column in columns
    ]
    body: dict[str, Any] = {"kind": "Table", "apiVersion": api_version, "metadata": dict(metadata)}
    body["columnDefinitions"] = shown if definitions else None
    rows = []
    for document in documents:
        row: dict[str, Any] = {"cells": [column.cell(document) for column in columns]}
        if include != "None":
            row["object"] = document if include == "Object" else partial(document)
        rows.append(row)
    body["rows"] = rows
    return body


def partial(document: Mapping[str, Any], api_version: str = "meta.k8s.io/v1") -> dict[str, Any]:
    """The object's metadata alone, as PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": document.get("metadata", {})}
