"""Text to values: YAML and JSON as the Kubernetes tools read them, quickly.

Most text is read by `quick_parsing`. For the rest libyaml composes the nodes; values are built here rather than by
PyYAML's constructor, which is several times slower and would make dates, sexagesimal integers and silently merged
duplicate keys out of what the Kubernetes tools read as strings and errors. A plain (unquoted) scalar with a
`${variable}` in it becomes a `Plain` string: once its variables are filled in, it is read again, so that
`port: ${port}` is a number.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import yaml
from yaml._yaml import CParser

from propylon.store.files.quick_parsing import SAFE_NESTING, may_be_deep, parse_quickly

_json_decode = msgspec.json.Decoder().decode

MAX_NESTING = 200
"""Deeper documents are refused: no manifest is so deep, and the depth of recursion stays bounded."""

MAX_EXPANSION = 20
"""How many mappings and lists a file with aliases may hold per line (10,000 are always allowed); stops endless
expansion."""


class Plain(str):
    """An unquoted scalar that holds a `${...}`."""

    __slots__ = ()


class ParseError(Exception):
    """The text is no YAML or JSON. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class ParsedDocument(msgspec.Struct, frozen=True):
    """A value and the line (from 1) on which it starts."""

    value: Any
    line: int


class Composer(CParser):
    """libyaml without tag resolution by PyYAML: scalars are resolved in this module."""

    def resolve(self, kind: type, value: Any, implicit: Any) -> str | None:  # noqa: D102
        return None

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:  # noqa: D102
        pass

    def ascend_resolver(self) -> None:  # noqa: D102
        pass


def parse_documents(text: str, *, is_json: bool = False) -> list[ParsedDocument]:
    """Every document of a file; empty ones are left out. Raises ParseError."""
    if is_json or text[:1] in "{[":
        try:
            value = _json_decode(text)
        except (msgspec.DecodeError, RecursionError):
            pass  # JSON that is not quite JSON: YAML reads more, and says where it fails
        else:
            if _is_deeper_than(value, MAX_NESTING):
                raise ParseError("nested too deeply", 1, 1)
            return [ParsedDocument(value, 1)]
    with _nothing_collected():
        quickly = parse_quickly(text)
        if quickly is not None:
            return [ParsedDocument(value, line) for value, line in quickly]
    return parse_thoroughly(text)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Without garbage collection, which is a sixth of the time and finds nothing: what is read here has no cycles.

    Where several threads do this at a time, the first to end ends it for the others.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def parse_thoroughly(text: str) -> list[ParsedDocument]:
    """The same by libyaml, which reads everything and says where it cannot. Raises ParseError."""
    builder = _Builder(text)
    documents = []
    for node in compose_nodes(text):
        value = builder.build(node)
        if value is not None:
            documents.append(ParsedDocument(value, node.start_mark.line + 1))
    return documents


def _is_deeper_than(value: Any, levels: int) -> bool:
    if levels < 0:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_is_deeper_than(each, levels - 1) for each in inner)


def compose_nodes(text: str) -> Iterator[Any]:
    """The root node of one document after another, so that a large file's nodes never exist at once. Raises
    ParseError."""
    try:
        _refuse_depth(text)
        composer = Composer(text)
        while composer.check_node():
            yield composer.get_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part) or "malformed YAML"
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise ParseError(_explain(message), line, column) from error
    except yaml.YAMLError as error:
        position = getattr(error, "position", None) or 0
        line = text.count("\n", 0, position) + 1
        raise ParseError(_explain(str(error).splitlines()[0]), line, 1) from error
    except RecursionError as error:
        raise ParseError("nested too deeply", 1, 1) from error


def _refuse_depth(text: str) -> None:
    """Refuse text that nests so deeply that libyaml would run out of stack while it composes, and the process with it.

    Reading events needs no stack. It is done only where such depth is possible. Raises ParseError, yaml.YAMLError.
    """
    if not may_be_deep(text):
        return
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > SAFE_NESTING:
                line, column = (event.start_mark.line, event.start_mark.column) if event.start_mark else (0, 0)
                raise ParseError("nested too deeply", line + 1, column + 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _explain(message: str) -> str:
    if "cannot start any token" in message:
        return f"{message} (a tab in the indentation, or a value that needs quotes)"
    return message


class _Builder:
    """Values from the nodes of one file."""

    def __init__(self, text: str) -> None:
        has_aliases = "&" in text and "*" in text
        self._left = max(10_000, MAX_EXPANSION * text.count("\n")) if has_aliases else len(text)

    def build(self, node: Any, depth: int = 0) -> Any:
        kind = type(node)
        if kind is yaml.ScalarNode:
            return _scalar(node)
        if depth > MAX_NESTING:
            raise _error("nested too deeply", node)
        self._left -= 1
        if self._left < 0:
            raise _error("aliases expand to too much", node)
        if kind is yaml.SequenceNode:
            return [
                _scalar(item) if type(item) is yaml.ScalarNode else self.build(item, depth + 1) for item in node.value
            ]
        return self._mapping(node, depth)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        for key_node, value_node in node.value:
            if type(key_node) is not yaml.ScalarNode:
                raise _error("a mapping's key must be a word, not a mapping or list", key_node)
            key = key_node.value
            if key == "<<" and not key_node.style:
                merged.extend(self._merged(value_node, depth))
                continue
            if key in result:
                raise _error(f"key {key!r} appears twice in one mapping", key_node)
            result[key] = (
                _scalar(value_node) if type(value_node) is yaml.ScalarNode else self.build(value_node, depth + 1)
            )
        for source in merged:
            for key, value in source.items():
                result.setdefault(key, value)
        return result

    def _merged(self, node: Any, depth: int) -> list[dict[str, Any]]:
        sources = node.value if type(node) is yaml.SequenceNode else [node]
        if any(type(source) is not yaml.MappingNode for source in sources):
            raise _error("`<<` takes a mapping or a list of mappings", node)
        return [self._mapping(source, depth + 1) for source in sources]


def _error(message: str, node: Any) -> ParseError:
    return ParseError(message, node.start_mark.line + 1, node.start_mark.column + 1)


_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_NUMBER_STARTS = frozenset("0123456789+-.")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_OTHER_INTEGER = re.compile(r"([-+]?)(0b[01]+|0o?[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


def _scalar(node: Any) -> Any:
    tag = node.tag
    if tag is not None and tag != "!":
        return _tagged(node, tag)
    value = node.value
    if node.style:
        return value
    return resolve_plain(value)


def resolve_plain(value: str) -> Any:
    """What an unquoted scalar means."""
    if value in _WORDS:
        return _WORDS[value]
    if value[0] in _NUMBER_STARTS:
        return _number(value)
    if "${" in value:
        return Plain(value)
    return value


def _number(value: str) -> Any:
    if _INTEGER.match(value):
        return int(value)
    if _FLOAT.match(value) and not (value[:1] == "0" and value.isdigit()):
        return float(value)
    found = _OTHER_INTEGER.match(value)
    if found:
        digits = found[2]
        base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2], 8)
        return int(found[1] + digits.lstrip("0box" if base != 16 else "0x").rjust(1, "0"), base)
    return Plain(value) if "${" in value else value


def _tagged(node: Any, tag: str) -> Any:
    value = node.value
    match tag:
        case "tag:yaml.org,2002:str" | "tag:yaml.org,2002:binary":
            return value
        case "tag:yaml.org,2002:null":
            return None
        case "tag:yaml.org,2002:bool" | "tag:yaml.org,2002:int" | "tag:yaml.org,2002:float":
            return resolve_plain(value)
    raise _error(f"tag {tag} is not understood", node)
