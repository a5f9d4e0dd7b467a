"""kustomize's ConfigMap and Secret generators, and the hash that ends their names. Pure but for reading the named
files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

ReadFile = Callable[[str], bytes]

_KNOWN = frozenset(
    {"name", "namespace", "literals", "files", "envs", "env", "behavior", "options", "type", "disableNameSuffixHash"}
)


class GeneratorError(Exception):
    """A generator cannot be run; the message says why."""


def generate(kind: str, spec: Mapping[str, Any], options: Mapping[str, Any], read: ReadFile) -> dict[str, Any]:
    """The ConfigMap or Secret that a generator describes. `read` reads a file named relative to the kustomization.

    Raises GeneratorError, OSError.
    """
    name = spec.get("name")
    if not isinstance(name, str) or not name:
        raise GeneratorError("name is missing")
    unknown = [field for field in spec if field not in _KNOWN]
    if unknown:
        raise GeneratorError(f"field {unknown[0]} is not known")
    data = _collect(spec, read)
    metadata: dict[str, Any] = {"name": name}
    if spec.get("namespace"):
        metadata["namespace"] = spec["namespace"]
    merged = {**options, **(spec.get("options") or {})}
    for field in ("labels", "annotations"):
        both = {**(options.get(field) or {}), **((spec.get("options") or {}).get(field) or {})}
        if both:
            metadata[field] = both
    result: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    if kind == "Secret":
        result["type"] = spec.get("type") or "Opaque"
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        if encoded:
            result["data"] = encoded
    else:
        text, binary = _split(data)
        if text:
            result["data"] = text
        if binary:
            result["binaryData"] = binary
    if merged.get("immutable"):
        result["immutable"] = True
    return result


def wants_hash(spec: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether the generated object's name ends in a hash of its content."""
    merged = {**options, **(spec.get("options") or {})}
    return not merged.get("disableNameSuffixHash")


def _collect(spec: Mapping[str, Any], read: ReadFile) -> dict[str, bytes]:
    data: dict[str, bytes] = {}

    def add(key: str, value: bytes) -> None:
        if key in data:
            raise GeneratorError(f"key {key} appears twice")
        data[key] = value

    for source in spec.get("envs") or ([spec["env"]] if spec.get("env") else []):
        for line in read(str(source)).decode("utf-8-sig").splitlines():
            line = line.lstrip()  # noqa: PLW2901
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                add(key.strip(), value.encode())
    for entry in spec.get("files") or []:
        key, equals, path = str(entry).partition("=")
        add(key if equals else PurePath(key).name, read(path if equals else key))
    for literal in spec.get("literals") or []:
        key, equals, value = str(literal).partition("=")
        if not equals:
            raise GeneratorError(f"literal {literal!r} is not KEY=VALUE")
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        add(key, value.encode())
    return data


def _split(data: Mapping[str, bytes]) -> tuple[dict[str, str], dict[str, str]]:
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, value in data.items():
        try:
            text[key] = value.decode()
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(value).decode()
    return text, binary


def combine(behavior: str, held: Mapping[str, Any], generated: Mapping[str, Any]) -> dict[str, Any]:
    """What `behavior: merge` or `replace` makes of an object that is there already."""
    result = {**held, **generated}
    result["metadata"] = {**held["metadata"], **generated["metadata"]}
    for field in ("labels", "annotations"):
        both = {**(held["metadata"].get(field) or {}), **(generated["metadata"].get(field) or {})}
        if both:
            result["metadata"][field] = both
    for field in ("data", "binaryData"):
        if behavior == "merge":
            both = {**(held.get(field) or {}), **(generated.get(field) or {})}
            if both:
                result[field] = both
        elif field not in generated:
            result.pop(field, None)
    return result


_HASH_LETTERS = str.maketrans({"0": "g", "1": "h", "3": "k", "a": "m", "e": "t"})


def name_hash(value: Mapping[str, Any]) -> str:
    """kustomize's content hash of a ConfigMap or Secret: ten letters of a SHA-256, none that could spell a word."""
    content: dict[str, Any] = {
        "kind": value["kind"],
        "name": value["metadata"]["name"],
        "data": value.get("data") or "",
    }
    if value["kind"] == "Secret":
        content["type"] = value.get("type") or ""
        if value.get("stringData"):
            content["stringData"] = value["stringData"]
    elif value.get("binaryData"):
        content["binaryData"] = value["binaryData"]
    text = msgspec.json.encode(content, order="sorted").decode()
    # Go's encoder escapes these; the hash is over its bytes.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(_HASH_LETTERS)
