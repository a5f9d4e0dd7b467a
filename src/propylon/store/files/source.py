"""Directories, files and standard input as one set of objects, each with the place it was written at.

A directory is read with its subdirectories; one that has a kustomization is built from it, and only from it. Nothing
here writes: loading again and again tells what the manifests say now, reading only what changed. What is broken keeps
what it said last.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from propylon.api.meta import ObjectRef
from propylon.store.files.accept import FileObject, Result, accept_all, problem_at
from propylon.store.files.kustomize import build, kustomization_file
from propylon.store.files.problems import FileProblem, Severity
from propylon.store.files.reader import KUSTOMIZATION_NAMES, STDIN, ParsedFile, Reader, manifests_of
from propylon.store.files.substitute import VARIABLES_FILE, parse_variables

_SUFFIXES = (".yaml", ".yml", ".json")
_CHART = "Chart.yaml"


class Loaded(msgspec.Struct, frozen=True):
    """What the manifests say. `held` names objects that are written but refused, and `held_files` files that cannot
    be read:
    what was applied of them before is to stay. With `complete` false something else could not be read, and nothing
    that seems to be missing may be taken away. `changed` names all that may differ from the load before; None: it all
    may."""

    objects: Mapping[ObjectRef, FileObject]
    problems: tuple[FileProblem, ...]
    held: frozenset[ObjectRef]
    held_files: frozenset[str]
    complete: bool
    watched: frozenset[str]
    changed: frozenset[ObjectRef] | None = None


class _Merged(msgspec.Struct, frozen=True):
    """What the units gave together, if each object was written once and none refused."""

    results: list[Result]
    objects: dict[ObjectRef, FileObject]


class _Steady(msgspec.Struct, frozen=True):
    """A load that left nothing open, so that what files say that are changed alone can take the place of what they
    said: `files` are those that are units by themselves, each with the place of its result."""

    loaded: Loaded
    files: dict[str, int]


class _Unit(msgspec.Struct, frozen=True):
    """A file, or a directory with a kustomization, and the root it was found under."""

    path: str
    root: str
    kustomized: bool


class _Memory(msgspec.Struct):
    """What a unit gave, and what it depends on: the paths it read with their states, and its variables."""

    key: Any
    variables: Mapping[str, str]
    result: Result
    touched: frozenset[str]


class FileSource:
    """Manifests at some paths ("-" is standard input). `variables` win over those of `variable_files`, these over
    vars.env files."""

    def __init__(
        self,
        paths: Sequence[str],
        *,
        variables: Mapping[str, str] | None = None,
        variable_files: Sequence[str] = (),
    ) -> None:
        self.paths = tuple(os.path.normpath(path) if path != STDIN else path for path in paths)
        self._given = dict(variables or {})
        self._variable_files = tuple(variable_files)
        self._reader = Reader()
        self._memory: dict[str, _Memory] = {}
        self._good: Mapping[ObjectRef, FileObject] = {}
        self._merged: _Merged | None = None
        self._steady: _Steady | None = None
        self._units: dict[str, tuple[_Unit, ...]] = {}

    def locate(self, ref: ObjectRef, field: str) -> tuple[str, int, int]:
        """File, line and column where a field of an object stands; ("", 0, 0) for an object of no manifest here."""
        item = self._good.get(ref)
        if item is None:
            return "", 0, 0
        position = self._reader.locate(item.origin, field)
        return item.origin.file, position.line, position.column

    def load(self, told: Collection[str] | None = None) -> Loaded:
        """What the manifests say now. Never raises for what is in them or whether they are there.

        `told`: paths of all that changed since the load before, if that is known; the rest is not looked at then,
        unless it has to be.
        """
        if told is not None and (again := self.load_again(told)) is not None:
            return again
        self._steady = None
        run = _Run(self, self._reader)
        loaded = run.load()
        held = {ref: self._good[ref] for ref in loaded.held if ref in self._good}
        self._good = {**held, **loaded.objects} if held else loaded.objects
        if self._merged is not None and loaded.complete and not loaded.held_files and not run.has_problems_of_its_own:
            self._steady = _Steady(loaded, run.files)
        return loaded

    def load_again(self, told: Collection[str]) -> Loaded | None:
        """The last load with what these files say now; None if it takes more than reading them, and then nothing
        changed here: `load` does it."""
        steady, merged = self._steady, self._merged
        paths = {os.path.normpath(path) for path in told if not is_temporary(os.path.basename(path))}  # noqa: PTH119
        if steady is None or merged is None or not paths <= steady.files.keys():
            return None
        found: dict[str, _Memory] = {}
        for path in paths:
            try:
                parsed = self._reader.parse(path)
            except OSError:
                return None
            remembered = self._memory[path]
            memory = _of_file(self._reader, parsed, remembered.variables, remembered)
            if parsed.error is not None or memory.result.refused:
                return None
            found[path] = memory
        before = {item.ref for path in paths for item in self._memory[path].result.objects}
        after = [item for memory in found.values() for item in memory.result.objects]
        refs = {item.ref for item in after}
        if len(refs) < len(after) or any(ref in merged.objects for ref in refs - before):
            return None
        for ref in before - refs:
            del merged.objects[ref]
        merged.objects.update((item.ref, item) for item in after)
        for path, memory in found.items():
            self._memory[path] = memory
            merged.results[steady.files[path]] = memory.result
        problems = dict.fromkeys(problem for result in merged.results for problem in result.problems)
        loaded = msgspec.structs.replace(steady.loaded, problems=tuple(problems), changed=frozenset(before | refs))
        self._steady = msgspec.structs.replace(steady, loaded=loaded)
        return loaded


def _of_file(reader: Reader, parsed: ParsedFile, variables: Mapping[str, str], remembered: _Memory | None) -> _Memory:
    """What a file gives; the same again if neither it nor its variables changed."""
    same_variables = remembered is not None and remembered.variables == variables
    if remembered is not None and same_variables and remembered.key is parsed:
        return remembered
    manifests, problems = manifests_of(parsed)
    if parsed.error is not None:
        problems.append(parsed.error)
    known = remembered.result if remembered is not None and same_variables else Result()
    result = accept_all(reader, manifests, problems, variables, known)
    return _Memory(parsed, variables, result, frozenset({parsed.path}))


class _Run:
    """One pass over all paths."""

    def __init__(self, source: FileSource, reader: Reader) -> None:
        self._source = source
        self._reader = reader
        self._problems: list[FileProblem] = []
        self._complete = True
        self._held_files: set[str] = set()
        self._watched: set[str] = set()
        self._directory_variables: dict[str, dict[str, str]] = {}
        self.files: dict[str, int] = {}
        """Files that are units by themselves and were found once, with the places of their results."""
        self.has_problems_of_its_own = False
        """Whether anything is to be said that no unit says."""
        self._outer_variables = self._read_outer_variables()

    def load(self) -> Loaded:
        units = list(self._find_units())
        included: set[str] = set()
        memory: dict[str, _Memory] = {}
        kustomized = [unit for unit in units if unit.kustomized]
        for unit in kustomized:
            memory[unit.path] = self._load_kustomization(unit)
        # What another kustomization includes is part of that one, and not loaded for itself a second time. Of those
        # that include each other in a circle one stays.
        tops = list(kustomized)
        for unit in kustomized:
            if any(unit.path in memory[other.path].touched for other in tops if other is not unit):
                tops.remove(unit)
        for unit in tops:
            included |= memory[unit.path].touched
        results = [memory[unit.path].result for unit in tops]
        places: dict[str, list[int]] = {}
        for unit in units:
            if not unit.kustomized and unit.path not in included:
                memory[unit.path] = self._load_file(unit)
                places[unit.path] = [*places.get(unit.path, []), len(results)]
                results.append(memory[unit.path].result)
        self.files = {path: found[0] for path, found in places.items() if len(found) == 1 and path != STDIN}
        self._reader.forget(set(self._source._memory) - set(memory))
        self._source._memory = memory
        for remembered in memory.values():
            self._watched |= remembered.touched
        return self._merge(results)

    # Finding

    def _find_units(self) -> Iterator[_Unit]:
        for root in self._source.paths:
            before = self._source._units.get(root, ())
            if root == STDIN or os.path.isfile(root):  # noqa: PTH113
                units: tuple[_Unit, ...] = (_Unit(root, root, False),)
            elif os.path.isdir(root):  # noqa: PTH112
                units = tuple(self._walk(root, root, set()))
            else:
                self._complete = False
                stays = "; the objects that came from there stay" if before else ""
                self._report(root, f"there is no such file or directory{stays}", "create it, or correct the path")
                units = before
            self._source._units[root] = units
            yield from units

    def _walk(self, directory: str, root: str, seen: set[str]) -> Iterator[_Unit]:
        real = os.path.realpath(directory)
        if real in seen:  # a link to a directory above
            return
        seen.add(real)
        self._watched.add(directory)
        if kustomization_file(directory) is not None:
            yield _Unit(directory, root, True)
            return
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            self._complete = False
            self._report(directory, f"cannot be read: {error.strerror}", "check its permissions")
            return
        if any(entry.name == _CHART for entry in entries):
            message = "is a Helm chart and is skipped: charts are not rendered"
            self._report(directory, message, "run helm template and load its output", Severity.NOTICE, "helm_chart")
            return
        for entry in entries:
            if is_ignored(entry.name):
                continue
            if entry.is_dir():
                yield from self._walk(entry.path, root, seen)
            elif entry.name.endswith(_SUFFIXES) and entry.is_file():
                yield _Unit(entry.path, root, False)

    # Loading

    def _load_file(self, unit: _Unit) -> _Memory:
        remembered = self._source._memory.get(unit.path)
        variables = self._variables_for(os.path.dirname(unit.path), unit.root)  # noqa: PTH120
        try:
            parsed = self._reader.parse(unit.path)
        except OSError as error:
            self._held_files.add(unit.path)
            stays = "; its last good objects stay" if remembered is not None else ""
            self._report(unit.path, f"cannot be read: {error.strerror}{stays}", "check the file and its permissions")
            return remembered or _Memory(None, variables, Result(), frozenset())
        if parsed.error is not None and not parsed.stale:
            self._held_files.add(unit.path)
        return _of_file(self._reader, parsed, variables, remembered)

    def _load_kustomization(self, unit: _Unit) -> _Memory:
        variables = self._variables_for(unit.path, unit.root)
        remembered = self._source._memory.get(unit.path)
        if (
            remembered is not None
            and remembered.variables == variables
            and remembered.key == self._state(remembered.touched)
        ):
            self._hold_unread(remembered.touched)
            return remembered
        self._reader.touched.clear()
        manifests, problems = build(unit.path, self._reader)
        touched = frozenset(self._reader.touched)
        self._hold_unread(touched)
        known = remembered.result if remembered is not None and remembered.variables == variables else Result()
        result = accept_all(self._reader, manifests, problems, variables, known)
        return _Memory(self._state(touched), variables, result, touched)

    def _state(self, paths: Iterable[str]) -> dict[str, Any]:
        """What a kustomization was built from: parsed files by identity, others by their times."""
        return {path: self._reader.state(path) for path in paths}

    def _hold_unread(self, paths: Iterable[str]) -> None:
        for path in paths:
            if self._reader.is_unread(path):
                self._held_files.add(path)
                if os.path.basename(path) in KUSTOMIZATION_NAMES:  # noqa: PTH119
                    self._complete = False  # which files it would have named is not known

    def _report(
        self, path: str, message: str, remedy: str, severity: Severity = Severity.ERROR, code: str = "unreadable"
    ) -> None:
        self._problems.append(FileProblem(path, 0, 0, severity, message, remedy, code=code))

    # Variables

    def _read_outer_variables(self) -> dict[str, str]:
        variables: dict[str, str] = {}
        for path in self._source._variable_files:
            found = self._read_variables(path)
            if found is None:
                self._report(path, "there is no such file of variables", "correct the path given by --vars")
            variables.update(found or {})
        return {**variables, **self._source._given}

    def _read_variables(self, path: str) -> dict[str, str] | None:
        self._watched.add(path)
        try:
            variables, bad = parse_variables(self._reader.read_bytes(path).decode("utf-8-sig", "replace"))
        except OSError:
            return None
        for line, text in bad:
            self._problems.append(
                FileProblem(
                    path, line, 1, Severity.WARNING, f"{text!r} is not NAME=VALUE", "correct or remove the line"
                )
            )
        return variables

    def _variables_for(self, directory: str, root: str) -> Mapping[str, str]:
        """Those of vars.env files from the root down to a directory, the nearer winning, and those given over all."""
        return {**self._nested_variables(directory, root), **self._outer_variables}

    def _nested_variables(self, directory: str, root: str) -> dict[str, str]:
        if directory not in self._directory_variables:
            own = self._read_variables(os.path.join(directory, VARIABLES_FILE)) or {}  # noqa: PTH118
            parent = os.path.dirname(directory)  # noqa: PTH120
            inside = directory != root and len(directory) > len(root) and parent != directory
            above = self._nested_variables(parent, root) if inside else {}
            self._directory_variables[directory] = {**above, **own}
        return self._directory_variables[directory]

    # All together

    def _merge(self, results: list[Result]) -> Loaded:
        self.has_problems_of_its_own = bool(self._problems)
        for result in results:
            self._problems.extend(result.problems)
        patched = self._patched(results)
        if patched is not None:
            objects, changed = patched
            self._source._merged = _Merged(results, objects)
            return self._loaded(objects, frozenset(), changed)
        before = len(self._problems)
        objects = self._all_objects(results)
        plain = len(self._problems) == before and not any(result.refused for result in results)
        self._source._merged = _Merged(results, objects) if plain else None
        held = {ref for result in results for ref in result.refused} - objects.keys()
        good = {ref: self._source._good[ref] for ref in held if ref in self._source._good}
        return self._loaded({**objects, **good} if good else objects, frozenset(held), None)

    def _patched(self, results: Sequence[Result]) -> tuple[dict[ObjectRef, FileObject], frozenset[ObjectRef]] | None:
        """The objects of the last load with those of changed units replaced, and which these are.

        None where that does not tell all: units came or went, something was refused or is written twice.
        """
        before = self._source._merged
        if before is None or len(before.results) != len(results):
            return None
        differing = [(old, new) for old, new in zip(before.results, results, strict=True) if old is not new]
        if any(new.refused for _, new in differing):
            return None
        objects = dict(before.objects)
        changed = {item.ref for old, _ in differing for item in old.objects}
        for ref in changed:
            del objects[ref]
        for _, new in differing:
            for item in new.objects:
                if item.ref in objects:
                    return None
                objects[item.ref] = item
                changed.add(item.ref)
        return objects, frozenset(changed)

    def _all_objects(self, results: Sequence[Result]) -> dict[ObjectRef, FileObject]:
        """The objects of all units, the first definition of each, with a problem for every other one."""
        objects: dict[ObjectRef, FileObject] = {}
        for result in results:
            for item in result.objects:
                first = objects.setdefault(item.ref, item)
                if first is item or (first.origin == item.origin and first.document == item.document):
                    continue
                self._problems.append(
                    problem_at(
                        self._reader,
                        item.origin,
                        str(item.ref),
                        "",
                        f"is defined twice: the definition at {first.origin} is used",
                        "remove one of them",
                        Severity.ERROR,
                        "duplicate_object",
                    )
                )
        return objects

    def _loaded(
        self,
        objects: Mapping[ObjectRef, FileObject],
        held: frozenset[ObjectRef],
        changed: frozenset[ObjectRef] | None,
    ) -> Loaded:
        return Loaded(
            objects,
            tuple(dict.fromkeys(self._problems)),
            held,
            frozenset(self._held_files),
            self._complete,
            frozenset(self._watched),
            changed,
        )


def is_ignored(name: str) -> bool:
    """Whether a file's or directory's name says that it is hidden, or an editor's temporary copy."""
    return name.startswith(".") or is_temporary(name)


def is_temporary(name: str) -> bool:
    """Whether a name is that of an editor's temporary copy."""
    return name.startswith("#") or name.endswith(("~", ".swp", ".swx", ".tmp", ".bak", ".orig"))


__all__ = ["FileObject", "FileSource", "Loaded", "ParsedFile", "is_ignored"]
