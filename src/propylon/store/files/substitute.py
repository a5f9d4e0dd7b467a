"""Variables in manifests, written as Flux writes them.

- `${name}` is replaced by the variable's value; an unknown name is an error, never an empty string.
- `${name:=default}` and `${name:-default}` use the default when the variable is unknown or empty; `${name=default}` and
  `${name-default}` only when it is unknown. Defaults may hold variables themselves.
- `$${name}` stands for the text `${name}`.
- What cannot be a variable, such as `$name`, `${a.b}` or `${1}`, is text.
- An unquoted value is read as YAML again after replacing (`port: ${port}` is a number); a quoted one stays a string.
- An object with the annotation or label `kustomize.toolkit.fluxcd.io/substitute: disabled` is left alone.
- In the data of ConfigMaps and Secrets an unknown variable is left as it is, because scripts and templates live there.
Only values are replaced, never the names of fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from propylon.store.files.parsing import Plain, resolve_plain

DISABLING = "kustomize.toolkit.fluxcd.io/substitute"
VARIABLES_FILE = "vars.env"

_NAME = re.compile(r"[_A-Za-z][_A-Za-z0-9]*")
_OPERATOR = re.compile(r":=|:-|=|-")
_DATA_FIELDS = frozenset({"data", "stringData", "binaryData"})
_MAX_NESTING = 20


class Unset(msgspec.Struct, frozen=True):
    """A variable without a value, and the field that speaks of it."""

    name: str
    field: str


class _UnsetVariable(Exception):  # noqa: N818 - carries a name, is no error by itself
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def substitute(document: Mapping[str, Any], variables: Mapping[str, str]) -> tuple[dict[str, Any], list[Unset]]:
    """The document with its variables filled in, and those that have no value (their text stays as it is)."""
    unset: list[Unset] = []
    enabled = not _is_disabled(document)
    lenient = document.get("kind") in ("ConfigMap", "Secret") and document.get("apiVersion") == "v1"

    def walk(value: Any, path: str, forgiving: bool) -> Any:
        if isinstance(value, dict):
            return {
                key: walk(inner, _join(path, key), forgiving or (lenient and not path and key in _DATA_FIELDS))
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [walk(inner, f"{path}[{index}]", forgiving) for index, inner in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        if not enabled:
            return str(value)
        try:
            text = expand(value, variables, forgiving=forgiving)
        except _UnsetVariable as error:
            unset.append(Unset(error.name, path))
            return str(value)
        return resolve_plain(text) if isinstance(value, Plain) and text != value else text

    filled: dict[str, Any] = walk(dict(document), "", False)
    return filled, unset


def _is_disabled(document: Mapping[str, Any]) -> bool:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return False
    marks = (metadata.get("annotations"), metadata.get("labels"))
    return any(isinstance(mark, dict) and mark.get(DISABLING) == "disabled" for mark in marks)


def _join(path: str, key: str) -> str:
    if "." in key or "/" in key:
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def expand(text: str, variables: Mapping[str, str], *, forgiving: bool = False, depth: int = 0) -> str:
    """The text with its variables filled in. An unknown one raises, or stays as text when `forgiving`."""
    parts = []
    position = 0
    while (start := text.find("${", position)) >= 0:
        end = _closing(text, start + 2)
        if end < 0:
            break
        if start > position and text[start - 1] == "$":
            parts.append(text[position : start - 1] + text[start : end + 1])
        else:
            parts.append(text[position:start])
            parts.append(_value(text[start : end + 1], variables, forgiving, depth))
        position = end + 1
    parts.append(text[position:])
    return "".join(parts)


def _closing(text: str, position: int) -> int:
    """Where the brace closes that opened just before `position`; -1 when nowhere."""
    level = 1
    while position < len(text):
        if text.startswith("${", position):
            level += 1
            position += 1
        elif text[position] == "}":
            level -= 1
            if level == 0:
                return position
        position += 1
    return -1


def _value(expression: str, variables: Mapping[str, str], forgiving: bool, depth: int) -> str:
    inner = expression[2:-1]
    name_match = _NAME.match(inner)
    if not name_match:
        return expression
    name, rest = name_match[0], inner[name_match.end() :]
    operator = _OPERATOR.match(rest)
    if rest and not operator:
        return expression
    value = variables.get(name)
    if operator is None:
        if value is not None:
            return value
        if forgiving:
            return expression
        raise _UnsetVariable(name)
    if value is None or (not value and operator[0].startswith(":")):
        default = rest[operator.end() :]
        return expand(default, variables, forgiving=forgiving, depth=depth + 1) if depth < _MAX_NESTING else default
    return value


def parse_variables(text: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """The variables of a `NAME=VALUE` file, and (line, text) of the lines that are none.

    Blank lines and those that start with # are skipped; `export ` before a name and quotes around a value are taken
    off.
    """
    variables: dict[str, str] = {}
    bad = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            bad.append((number, line))
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[name] = value
    return variables, bad
