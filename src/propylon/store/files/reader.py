"""Files read and parsed once: again only when they changed, and with their last good content while they are broken."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from propylon.store.files.parsing import ParsedDocument, ParseError, parse_documents
from propylon.store.files.problems import FileProblem, Severity
from propylon.store.files.yaml_positions import Position, Positions, Step

STDIN = "-"

KUSTOMIZATION_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")


_RACY_NANOSECONDS = 100_000_000
"""File systems count time in steps of some milliseconds: a file changed this recently may change again unseen by its
times."""

_UNSURE = (0, 0, 0)

POSITIONS_BYTES = 1 << 20
"""Finding positions means reading a file once more, into many times its size of memory. Those of a few files are
kept, so that problems in several files are not each found anew; one file alone may be larger."""


class Origin(msgspec.Struct, frozen=True):
    """Where an object was written: the file, its document number there (from 0), and the steps to it inside that
    document."""

    file: str
    document: int
    inside: tuple[Step, ...]
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Manifest(msgspec.Struct, frozen=True):
    """One object as written, and where."""

    value: dict[str, Any]
    origin: Origin


class ParsedFile(msgspec.Struct, frozen=True):
    """A file's documents. With an `error` they are those of its last good content (`stale`), or none."""

    path: str
    documents: tuple[ParsedDocument, ...]
    digest: bytes
    error: FileProblem | None = None
    stale: bool = False


class _Entry(msgspec.Struct):
    signature: tuple[int, int, int]
    parsed: ParsedFile


class Reader:
    """Reads files for one source of manifests. `touched` collects every path looked at since it was last cleared."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._good: dict[str, ParsedFile] = {}
        self._positions: dict[str, tuple[bytes, Positions]] = {}
        """Of the files that were asked about last, up to POSITIONS_BYTES; the loop and the reading thread both ask."""
        self._positions_lock = threading.Lock()
        self._missing: set[str] = set()
        self.touched: set[str] = set()

    def parse(self, path: str) -> ParsedFile:
        """The documents of a file, from memory if it did not change. Raises OSError when it cannot be read."""
        self.touched.add(path)
        if path == STDIN:
            if STDIN not in self._entries:
                self._entries[STDIN] = _Entry((0, 0, 0), self._parse(STDIN, sys.stdin.buffer.read()))
            return self._entries[STDIN].parsed
        self._missing.add(path)
        status = os.stat(path)  # noqa: PTH116 - on the path of every file of every pass
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        entry = self._entries.get(path)
        if entry is not None and entry.signature == signature:
            self._missing.discard(path)
            return entry.parsed
        if time.time_ns() - status.st_mtime_ns < _RACY_NANOSECONDS:
            signature = _UNSURE
        data = self.read_bytes(path)
        self._missing.discard(path)
        digest = hashlib.sha256(data).digest()
        if entry is not None and entry.parsed.digest == digest:
            entry.signature = signature
            return entry.parsed
        parsed = self._parse(path, data)
        self._entries[path] = _Entry(signature, parsed)
        return parsed

    def _parse(self, path: str, data: bytes) -> ParsedFile:
        digest = hashlib.sha256(data).digest()
        try:
            documents = parse_documents(_decoded(data), is_json=path.endswith(".json"))
        except ParseError as error:
            good = self._good.get(path)
            message = f"cannot be read: {error.message}"
            if good is not None:
                message += "; its last good content stays in use"
            problem = FileProblem(
                path, error.line, error.column, Severity.ERROR, message, "mend the file", code="malformed_file"
            )
            return ParsedFile(path, good.documents if good is not None else (), digest, problem, good is not None)
        parsed = ParsedFile(path, tuple(documents), digest)
        self._good[path] = parsed
        return parsed

    def read_bytes(self, path: str) -> bytes:
        """The content of a file that is data, not manifests. Raises OSError."""
        self.touched.add(path)
        return Path(path).read_bytes()

    def state(self, path: str) -> Any:
        """Something that differs once the path was changed: the parsed content for manifests, times for the rest."""
        if path in self._entries:
            try:
                return self.parse(path).digest
            except OSError:
                return None
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def is_unread(self, path: str) -> bool:
        """Whether a manifest cannot be read, or is broken and has no last good content here."""
        if path in self._missing:
            return True
        entry = self._entries.get(path)
        return entry is not None and entry.parsed.error is not None and not entry.parsed.stale

    def forget(self, gone: set[str]) -> None:
        """Drop what is remembered of files that are no longer there."""
        for path in gone:
            self._entries.pop(path, None)
            self._good.pop(path, None)

    def locate(self, origin: Origin, field: str) -> Position:
        """The place of an object's field; of the object when that cannot be told."""
        entry = self._entries.get(origin.file)
        if origin.file == STDIN or (entry is not None and entry.parsed.stale):
            return Position(origin.line, 1)
        try:
            with self._positions_lock:
                positions = self._positions_of(origin.file)
        except (OSError, ParseError):
            return Position(origin.line, 1)
        return positions.locate(origin.document, origin.inside, field)

    def _positions_of(self, path: str) -> Positions:
        data = Path(path).read_bytes()
        known = self._positions.pop(path, None)
        if known is None or known[0] != data:
            known = (data, Positions(_decoded(data)))
        size = len(data) + sum(len(other) for other, _ in self._positions.values())
        while self._positions and size > POSITIONS_BYTES:
            oldest = next(iter(self._positions))
            size -= len(self._positions.pop(oldest)[0])
        self._positions[path] = known
        return known[1]


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16")
        line = data.count(b"\n", 0, error.start) + 1
        raise ParseError("the file is not UTF-8 text", line, 1) from error


def manifests_of(parsed: ParsedFile) -> tuple[list[Manifest], list[FileProblem]]:
    """The objects of a file, members of `kind: List` one by one, and a warning for each document that is no object."""
    manifests: list[Manifest] = []
    problems: list[FileProblem] = []
    for number, document in enumerate(parsed.documents):
        _collect(document.value, Origin(parsed.path, number, (), document.line), manifests, problems)
    return manifests, problems


def _collect(value: Any, origin: Origin, manifests: list[Manifest], problems: list[FileProblem]) -> None:
    if isinstance(value, list) and all(is_object(entry) for entry in value) and value:
        for index, entry in enumerate(value):
            _collect(entry, _member(origin, index), manifests, problems)
        return
    if not is_object(value):
        problems.append(_not_an_object(value, origin))
        return
    if isinstance(value.get("items"), list) and value["kind"].endswith("List"):
        for index, entry in enumerate(value["items"]):
            _collect(entry, _member(origin, "items", index), manifests, problems)
        return
    manifests.append(Manifest(value, origin))


def _member(origin: Origin, *steps: Step) -> Origin:
    return Origin(origin.file, origin.document, (*origin.inside, *steps), origin.line)


def is_object(value: Any) -> bool:
    """Whether a value says which kind of object it is."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("apiVersion"), str)
        and isinstance(value.get("kind"), str)
        and bool(value["apiVersion"] and value["kind"])
    )


def _not_an_object(value: Any, origin: Origin) -> FileProblem:
    if isinstance(value, Mapping):
        missing = [name for name in ("apiVersion", "kind") if not value.get(name)]
        message = f"not a Kubernetes object: it has no {' and no '.join(missing)}"
    else:
        message = "not a Kubernetes object: it is no mapping"
    return FileProblem(
        origin.file,
        origin.line,
        1,
        Severity.WARNING,
        message,
        "skipped; move it out of the directory if it is not meant to be a manifest",
        code="not_an_object",
    )
