"""Finds and reads RouteTests in files and directories."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from propylon.explain.model import Place
from propylon.store.files import FileProblem, Severity
from propylon.store.files.reader import Manifest, Reader, manifests_of
from propylon.store.files.source import is_ignored
from propylon.testing.model import KIND, RouteTest
from propylon.testing.parsing import parse_route_test

INVALID = "invalid_test"
"""Code of what is wrong with a RouteTest itself."""
_SUFFIXES = (".yaml", ".yml", ".json")


class Found(msgspec.Struct, frozen=True):
    """The RouteTests of some files, and what is wrong with them."""

    tests: tuple[RouteTest, ...]
    problems: tuple[FileProblem, ...]
    files: tuple[str, ...]
    """Every file and directory that was looked at."""


def files_of(paths: Sequence[str]) -> Iterator[str]:
    """Some files, and of directories all that may hold RouteTests; the directories themselves and those below them."""
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112
            yield os.path.normpath(path)
            continue
        for directory, directories, files in os.walk(path):
            yield os.path.normpath(directory)
            directories[:] = sorted(name for name in directories if not is_ignored(name))
            for name in sorted(files):
                if name.endswith(_SUFFIXES) and not is_ignored(name):
                    yield os.path.normpath(os.path.join(directory, name))  # noqa: PTH118


def find_tests(paths: Sequence[str]) -> Found:
    """Read the RouteTests of some files and directories. Raises FileNotFoundError for a path that is not there."""
    missing = next((path for path in paths if not Path(path).exists()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing} does not exist")
    tests: list[RouteTest] = []
    problems: list[FileProblem] = []
    reader = Reader()
    given = {os.path.normpath(path) for path in paths}
    files = tuple(dict.fromkeys(files_of(paths)))
    for file in files:
        if os.path.isdir(file):  # noqa: PTH112
            continue
        try:
            if file not in given and KIND not in Path(file).read_text(encoding="utf-8", errors="replace"):
                continue  # most files are manifests, and large
            parsed = reader.parse(file)
        except OSError as error:
            problems.append(_problem(file, f"cannot be read: {error.strerror}"))
            continue
        if parsed.error is not None:
            problems.append(msgspec.structs.replace(parsed.error, code=INVALID))
            continue
        for manifest in manifests_of(parsed)[0]:
            if manifest.value["kind"] == KIND:
                _take(manifest, reader, tests, problems)
    return Found(tuple(tests), tuple(problems), files)


def _problem(file: str, message: str) -> FileProblem:
    return FileProblem(file, 0, 0, Severity.ERROR, message, code=INVALID)


def _take(manifest: Manifest, reader: Reader, tests: list[RouteTest], problems: list[FileProblem]) -> None:
    file = manifest.origin.file

    def locate(field: str) -> Place:
        position = reader.locate(manifest.origin, field)
        return Place(file, position.line, position.column)

    test, wrongs = parse_route_test(manifest.value, os.path.dirname(file), locate)  # noqa: PTH120
    if test is not None:
        tests.append(test)
    metadata = manifest.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    for wrong in wrongs:
        place = locate(wrong.field)
        problems.append(
            FileProblem(
                file,
                place.line,
                place.column,
                Severity.ERROR,
                wrong.message,
                wrong.remedy,
                f"{KIND} {name}" if name else KIND,
                wrong.field,
                INVALID,
            )
        )
