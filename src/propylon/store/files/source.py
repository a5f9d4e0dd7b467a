"""Directories, files and standard input as one set of objects, each with the place it was written at.

A directory is read with its subdirectories; one that has a kustomization is built from it, and only from it. Nothing here writes:
loading again and again tells what the manifests say now, reading only what changed. What is broken keeps what it said last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from propylon.api.meta import ObjectRef, group_of
from propylon.api.kinds import by_kind
from propylon.api.validation import Finding, validate
from propylon.api.validation.finding import placeholder_in
from propylon.store.admission import has_error, namespace_of, placed
from propylon.store.files.kustomize import build, kustomization_file
from propylon.store.files.problems import FileProblem, Severity
from propylon.store.files.reader import KUSTOMIZATION_NAMES, STDIN, Manifest, Origin, ParsedFile, Reader, manifests_of
from propylon.store.files.substitute import VARIABLES_FILE, parse_variables, substitute
from propylon.store.kindinfo import is_namespaced

_SUFFIXES = (".yaml", ".yml", ".json")
_CHART = "Chart.yaml"


class FileObject(msgspec.Struct, frozen=True):
    """An object as the manifests want it: variables filled in, in its namespace, valid."""

    ref: ObjectRef
    document: dict[str, Any]
    origin: Origin


class Loaded(msgspec.Struct, frozen=True):
    """What the manifests say. `held` names objects that are written but refused, and `held_files` files that cannot be read:
    what was applied of them before is to stay. With `complete` false something else could not be read, and nothing that seems to
    be missing may be taken away."""

    objects: Mapping[ObjectRef, FileObject]
    problems: tuple[FileProblem, ...]
    held: frozenset[ObjectRef]
    held_files: frozenset[str]
    complete: bool
    watched: frozenset[str]


class _Result(msgspec.Struct, frozen=True):
    """What became of some manifests: objects, problems, and the references of those that were refused."""

    objects: tuple[FileObject, ...]
    problems: tuple[FileProblem, ...]
    refused: tuple[ObjectRef, ...]


class _Unit(msgspec.Struct, frozen=True):
    """A file, or a directory with a kustomization, and the root it was found under."""

    path: str
    root: str
    kustomized: bool


class _Memory(msgspec.Struct):
    """What a unit gave, and what it depends on: the paths it read with their states, and its variables."""

    key: Any
    variables: Mapping[str, str]
    result: _Result
    touched: frozenset[str]


class FileSource:
    """Manifests at some paths ("-" is standard input). `variables` win over those of `variable_files`, these over vars.env files."""

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
        self._good: dict[ObjectRef, FileObject] = {}
        self._units: dict[str, tuple[_Unit, ...]] = {}

    def load(self) -> Loaded:
        """What the manifests say now. Never raises for what is in them or whether they are there."""
        run = _Run(self, self._reader)
        loaded = run.load()
        self._good = {**{ref: self._good[ref] for ref in loaded.held if ref in self._good}, **loaded.objects}
        return loaded


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
        self._outer_variables = self._read_outer_variables()

    def load(self) -> Loaded:
        units = list(self._find_units())
        results: list[_Result] = []
        included: set[str] = set()
        memory: dict[str, _Memory] = {}
        kustomized = [unit for unit in units if unit.kustomized]
        for unit in kustomized:
            memory[unit.path] = self._load_kustomization(unit)
            included |= memory[unit.path].touched - {kustomization_file(unit.path)}
        # What another kustomization includes is part of that one, and not loaded for itself a second time.
        for unit in kustomized:
            if unit.path not in included:
                results.append(memory[unit.path].result)
        for unit in units:
            if not unit.kustomized and unit.path not in included:
                memory[unit.path] = self._load_file(unit)
                results.append(memory[unit.path].result)
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
            return remembered or _Memory(None, variables, _Result((), (), ()), frozenset())
        if parsed.error is not None and not parsed.stale:
            self._held_files.add(unit.path)
        if remembered is not None and remembered.key is parsed and remembered.variables == variables:
            return remembered
        manifests, problems = manifests_of(parsed)
        if parsed.error is not None:
            problems.append(parsed.error)
        return _Memory(parsed, variables, self._process(manifests, problems, variables), frozenset({unit.path}))

    def _load_kustomization(self, unit: _Unit) -> _Memory:
        variables = self._variables_for(unit.path, unit.root)
        remembered = self._source._memory.get(unit.path)
        if remembered is not None and remembered.variables == variables and remembered.key == self._state(remembered.touched):
            self._hold_unread(remembered.touched)
            return remembered
        self._reader.touched.clear()
        manifests, problems = build(unit.path, self._reader)
        touched = frozenset(self._reader.touched)
        self._hold_unread(touched)
        return _Memory(self._state(touched), variables, self._process(manifests, problems, variables), touched)

    def _state(self, paths: Iterable[str]) -> dict[str, Any]:
        """What a kustomization was built from: parsed files by identity, others by their times."""
        return {path: self._reader.state(path) for path in paths}

    def _hold_unread(self, paths: Iterable[str]) -> None:
        for path in paths:
            if self._reader.is_unread(path):
                self._held_files.add(path)
                if os.path.basename(path) in KUSTOMIZATION_NAMES:  # noqa: PTH119
                    self._complete = False  # which files it would have named is not known

    # One object

    def _process(
        self, manifests: Sequence[Manifest], problems: Sequence[FileProblem], variables: Mapping[str, str]
    ) -> _Result:
        objects: list[FileObject] = []
        found = list(problems)
        refused: list[ObjectRef] = []
        for manifest in manifests:
            ref, accepted = self._accept(manifest, variables, found)
            if accepted is not None:
                objects.append(accepted)
            elif ref is not None:
                refused.append(ref)
        return _Result(tuple(objects), tuple(found), tuple(refused))

    def _accept(
        self, manifest: Manifest, variables: Mapping[str, str], problems: list[FileProblem]
    ) -> tuple[ObjectRef | None, FileObject | None]:
        """The object's reference, as far as it has a name, and the object unless it is refused."""
        origin = manifest.origin
        document, unset = substitute(manifest.value, variables)
        metadata = document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or not isinstance(name, str) or not name or not isinstance(namespace, str | None):
            problems.extend(self._from_finding(origin, document["kind"], finding) for finding in validate(document))
            return None, None
        group, kind = group_of(document["apiVersion"]), document["kind"]
        if namespace and not is_namespaced(group, kind):
            problems.append(
                self._problem(
                    origin,
                    f"{kind} {name}",
                    "metadata.namespace",
                    f"{kind} belongs to no namespace; {namespace} is dropped",
                    "remove the field",
                    Severity.WARNING,
                    "namespace_on_cluster_scoped_kind",
                )
            )
        ref = ObjectRef(group, kind, namespace_of(document["apiVersion"], kind, namespace or ""), name)
        document = placed(document)
        for variable in unset:
            problems.append(
                self._problem(
                    origin,
                    str(ref),
                    variable.field,
                    f"variable {variable.name} has no value",
                    f"give it by --var {variable.name}=VALUE, --vars FILE or a {VARIABLES_FILE} beside the manifests;"
                    f" write $${{{variable.name}}} for the text itself",
                    Severity.ERROR,
                    "variable_unset",
                )
            )
        findings = [
            finding
            for finding in validate(document)
            # What an unset variable leaves behind is explained already.
            if not any(finding.field.startswith(variable.field) for variable in unset)
        ]
        problems.extend(self._from_finding(origin, str(ref), finding) for finding in findings)
        if by_kind(group, kind) is None:
            problems.extend(self._placeholders(origin, ref, document))
        if group == "kustomize.toolkit.fluxcd.io" and kind == "Kustomization":
            problems.append(self._flux_notice(origin, ref, document))
        if unset or has_error(tuple(findings)):
            return ref, None
        return ref, FileObject(ref, document, origin)

    def _flux_notice(self, origin: Origin, ref: ObjectRef, document: Mapping[str, Any]) -> FileProblem:
        spec = document.get("spec")
        path = spec.get("path") if isinstance(spec, dict) else None
        return self._problem(
            origin,
            str(ref),
            "spec.path",
            "Flux Kustomizations are stored and not followed",
            f"load {path or 'its path'} by itself",
            Severity.NOTICE,
            "flux_not_followed",
        )

    def _placeholders(self, origin: Origin, ref: ObjectRef, document: Mapping[str, Any]) -> Iterator[FileProblem]:
        """Values nobody filled in, in kinds whose fields are not known well enough to refuse them."""
        for field, value in _strings("", document):
            if (placeholder := placeholder_in(value)) is not None:
                yield self._problem(
                    origin,
                    str(ref),
                    field,
                    f'"{placeholder}" is a placeholder',
                    f"replace {placeholder} with a real value",
                    Severity.WARNING,
                    "placeholder_not_filled_in",
                )

    def _from_finding(self, origin: Origin, subject: str, finding: Finding) -> FileProblem:
        message = f"{finding.message} (found {finding.found})" if finding.found else finding.message
        return self._problem(
            origin, subject, finding.field, message, finding.remedy, Severity(finding.severity), finding.code
        )

    def _problem(
        self, origin: Origin, subject: str, field: str, message: str, remedy: str, severity: Severity, code: str
    ) -> FileProblem:
        position = self._reader.locate(origin, field)
        return FileProblem(
            origin.file, position.line, position.column, severity, message, remedy, subject, field, code
        )

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
                FileProblem(path, line, 1, Severity.WARNING, f"{text!r} is not NAME=VALUE", "correct or remove the line")
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

    def _merge(self, results: Sequence[_Result]) -> Loaded:
        objects: dict[ObjectRef, FileObject] = {}
        problems = self._problems
        refused: set[ObjectRef] = set()
        for result in results:
            problems.extend(result.problems)
            refused.update(result.refused)
            for item in result.objects:
                first = objects.setdefault(item.ref, item)
                if first is item or (first.origin == item.origin and first.document == item.document):
                    continue
                problems.append(
                    self._problem(
                        item.origin,
                        str(item.ref),
                        "",
                        f"is defined twice: the definition at {first.origin} is used",
                        "remove one of them",
                        Severity.ERROR,
                        "duplicate_object",
                    )
                )
        held = refused - objects.keys()
        for ref in held:
            if (good := self._source._good.get(ref)) is not None:
                objects[ref] = good
        return Loaded(
            objects,
            tuple(dict.fromkeys(problems)),
            frozenset(held),
            frozenset(self._held_files),
            self._complete,
            frozenset(self._watched),
        )


def _strings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every string in a value, with its field path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(f"{path}.{name}" if path else name, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(f"{path}[{index}]", inner)


def is_ignored(name: str) -> bool:
    """Whether a file's or directory's name says that it is hidden, or an editor's temporary copy."""
    return name.startswith((".", "#")) or name.endswith(("~", ".swp", ".swx", ".tmp", ".bak", ".orig"))


__all__ = ["FileObject", "FileSource", "Loaded", "ParsedFile", "is_ignored"]
