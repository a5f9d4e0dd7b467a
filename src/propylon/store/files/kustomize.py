"""A directory with a kustomization, built as kustomize would build it. What cannot be built is a problem and stops
nothing else.

Not supported, and reported: replacements, vars, configurations, generator, transformer and validator plugins, remote
resources (those that only define kinds which are built in are skipped with a notice), Helm charts (each is skipped
with a notice).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from propylon.store.files import transform
from propylon.store.files.generators import GeneratorError, combine, generate, name_hash, wants_hash
from propylon.store.files.problems import FileProblem, Severity
from propylon.store.files.reader import KUSTOMIZATION_NAMES, Manifest, Origin, Reader, manifests_of
from propylon.store.files.references import gateway_references
from propylon.store.files.remote import built_in, is_remote
from propylon.store.files.transform import Resource

_IGNORED = frozenset(
    {
        "apiVersion",
        "kind",
        "metadata",
        "openapi",
        "crds",
        "buildMetadata",
        "sortOptions",
        "helmGlobals",
        "generatorOptions",
    }
)
_UNSUPPORTED = ("replacements", "vars", "configurations", "generators", "transformers", "validators")
_BUILT = frozenset(
    {
        "resources",
        "bases",
        "components",
        "namespace",
        "namePrefix",
        "nameSuffix",
        "commonLabels",
        "labels",
        "commonAnnotations",
        "patches",
        "patchesStrategicMerge",
        "patchesJson6902",
        "configMapGenerator",
        "secretGenerator",
        "images",
        "replicas",
        "helmCharts",
        "helmChartInflationGenerator",
    }
)
_MAX_DEPTH = 50


def kustomization_file(directory: str) -> str | None:
    """The path of a directory's kustomization, if it has one."""
    for name in KUSTOMIZATION_NAMES:
        path = os.path.join(directory, name)  # noqa: PTH118 - plain strings are the keys of the reader
        if os.path.isfile(path):  # noqa: PTH113
            return path
    return None


def build(directory: str, reader: Reader) -> tuple[list[Manifest], list[FileProblem]]:
    """The objects of a kustomization, and what was wrong on the way."""
    builder = _Build(reader)
    resources = builder.accumulate(directory, None)
    builder.finish(resources)
    problems = list(dict.fromkeys(builder.problems))
    return [Manifest(resource.value, resource.origin) for resource in resources], problems


class _Build:
    def __init__(self, reader: Reader) -> None:
        self.problems: list[FileProblem] = []
        self._reader = reader
        self._path: list[str] = []

    def accumulate(self, directory: str, parent: list[Resource] | None) -> list[Resource]:
        """The resources of a kustomization; of a component, `parent` with its changes made to it."""
        resources: list[Resource] = [] if parent is None else parent
        path = kustomization_file(directory)
        if path is None:
            self._report(os.path.join(directory, KUSTOMIZATION_NAMES[0]), "", "the file does not exist", "create it")  # noqa: PTH118
            return resources
        if directory in self._path or len(self._path) > _MAX_DEPTH:
            self._report(path, "resources", "kustomizations include each other in a circle", "remove one of them")
            return resources
        spec = self._read(path)
        if spec is None:
            return resources
        self._path.append(directory)
        try:
            self._check_fields(spec, path)
            self._include(spec, path, directory, resources)
            self._generate(spec, path, directory, resources)
            for index, entry in enumerate(transform.listed(spec, "components")):
                self._include_component(f"components[{index}]", str(entry), path, directory, resources)
            names = [resource.name for resource in resources]
            transform.apply_transformers(spec, resources, _Context(self, path, directory))
            transform.fix_references(resources, names)
        finally:
            self._path.pop()
        return resources

    def finish(self, resources: list[Resource]) -> None:
        """What only happens once, at the top: names end in hashes; references that kustomize leaves behind are
        reported."""
        names = [resource.name for resource in resources]
        for resource in resources:
            if resource.needs_hash:
                resource.rename(f"{resource.name}-{name_hash(resource.value)}")
        transform.fix_references(resources, names)
        renamed = {
            (resource.kind, resource.namespace, original): resource.name
            for resource in resources
            for original in resource.original_names
            if original != resource.name
        }
        present = {(resource.kind, resource.namespace, resource.name) for resource in resources}
        for resource in resources if renamed else ():
            for field, kind, namespace, name in gateway_references(resource.value):
                new = renamed.get((kind, namespace, name))
                if new is not None and (kind, namespace, name) not in present:
                    self._report_origin(
                        resource.origin,
                        field,
                        f"names {kind} {name}, which is renamed to {new} here; kustomize does not rewrite this field",
                        f"write {new}, or turn the renaming off (disableNameSuffixHash)",
                        Severity.WARNING,
                        str(resource),
                    )

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            parsed = self._reader.parse(path)
        except OSError as error:
            self._report(path, "", f"cannot be read: {error.strerror}", "check its permissions")
            return None
        if parsed.error is not None:
            self.problems.append(parsed.error)
        if len(parsed.documents) != 1 or not isinstance(parsed.documents[0].value, dict):
            if parsed.error is None:
                self._report(path, "", "a kustomization is one document, a mapping", "mend the file")
            return None
        value: dict[str, Any] = parsed.documents[0].value
        return value

    def _check_fields(self, spec: Mapping[str, Any], path: str) -> None:
        for field in spec:
            if field in _UNSUPPORTED:
                if spec[field]:
                    self._report(
                        path,
                        field,
                        "is not supported; the objects load without it",
                        "run kustomize build and load its output",
                    )
            elif field not in _BUILT and field not in _IGNORED:
                self._report(path, field, "is no field of a kustomization", "remove or rename it", Severity.WARNING)
        for field in ("helmCharts", "helmChartInflationGenerator"):
            for index, chart in enumerate(transform.listed(spec, field)):
                name = chart.get("name") or chart.get("chartName") if isinstance(chart, Mapping) else chart
                self._report(
                    path,
                    f"{field}[{index}]",
                    f"Helm chart {name} is skipped: charts are not rendered",
                    "run helm template and add its output to resources, if its objects are needed here",
                    Severity.NOTICE,
                )

    def _include(self, spec: Mapping[str, Any], path: str, directory: str, resources: list[Resource]) -> None:
        for field in ("resources", "bases"):
            for index, entry in enumerate(transform.listed(spec, field)):
                place = f"{field}[{index}]"
                if not isinstance(entry, str) or not entry:
                    self._report(path, place, "is no path", "name a file or directory")
                elif is_remote(entry):
                    self._skip_remote(path, place, entry)
                else:
                    self._include_path(path, place, _join(directory, entry), entry, resources)

    def _include_path(self, path: str, place: str, target: str, entry: str, resources: list[Resource]) -> None:
        self._reader.touched.add(target)
        if os.path.isdir(target):  # noqa: PTH112
            if kustomization_file(target) is None:
                self._report(path, place, f"directory {entry} has no kustomization.yaml", "add one, or list its files")
            else:
                self._add(self.accumulate(target, None), resources)
            return
        try:
            parsed = self._reader.parse(target)
        except OSError as error:
            self._report(
                path, place, f"{entry} cannot be read: {error.strerror}", "correct the path, or create the file"
            )
            return
        if parsed.error is not None:
            self.problems.append(parsed.error)
        manifests, problems = manifests_of(parsed)
        self.problems.extend(problems)
        self._add([Resource(manifest.value, manifest.origin) for manifest in manifests], resources)

    def _add(self, found: list[Resource], resources: list[Resource]) -> None:
        held = {resource.identity: resource for resource in resources}
        for resource in found:
            other = held.get(resource.identity)
            if other is not None:
                # One base reached by two ways is one object, as long as both ways leave it the same.
                if other.origin != resource.origin or other.value != resource.value:
                    self._report_origin(
                        resource.origin,
                        "",
                        f"is defined twice in one kustomization: first at {other.origin}",
                        "remove one of them",
                        Severity.ERROR,
                        str(resource),
                    )
                continue
            held[resource.identity] = resource
            resources.append(resource)

    def _skip_remote(self, path: str, place: str, url: str) -> None:
        what = built_in(url)
        if what:
            self._report(path, place, f"{url} is built in: {what} need no installing", "", Severity.NOTICE)
        else:
            self._report(path, place, f"{url} is remote and was not fetched", "download it and list the file instead")

    def _include_component(self, place: str, entry: str, path: str, directory: str, resources: list[Resource]) -> None:
        target = _join(directory, entry)
        self._reader.touched.add(target)
        if not is_remote(entry) and os.path.isdir(target):  # noqa: PTH112
            self.accumulate(target, resources)
        else:
            self._report(path, place, f"component {entry} is no directory here", "correct the path")

    def _generate(self, spec: Mapping[str, Any], path: str, directory: str, resources: list[Resource]) -> None:
        options = spec.get("generatorOptions")
        options = options if isinstance(options, Mapping) else {}
        for field, kind in (("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")):
            for index, entry in enumerate(transform.listed(spec, field)):
                place = f"{field}[{index}]"
                if not isinstance(entry, Mapping):
                    self._report(path, place, "is no mapping", "give it a name and its data")
                    continue
                try:
                    value = generate(kind, entry, options, lambda name: self._reader.read_bytes(_join(directory, name)))
                except GeneratorError as error:
                    self._report(path, place, str(error), "correct it")
                    continue
                except OSError as error:
                    self._report(path, place, f"{error.filename} cannot be read: {error.strerror}", "correct the path")
                    continue
                line = self._reader.locate(Origin(path, 0, (), 1), place).line
                generated = Resource(value, Origin(path, 0, (field, index), line))
                generated.needs_hash = wants_hash(entry, options)
                self._place_generated(str(entry.get("behavior") or "create"), generated, resources, place)

    def _place_generated(self, behavior: str, generated: Resource, resources: list[Resource], place: str) -> None:
        same = (
            resource
            for resource in resources
            if resource.kind == generated.kind
            and generated.name in (resource.name, *resource.original_names)
            and generated.namespace in ("", resource.namespace)
        )
        held = next(same, None)
        if behavior in ("merge", "replace"):
            if held is None:
                self._report(
                    generated.origin.file, place, f"there is no {generated} to {behavior}", "use behavior: create"
                )
                return
            generated.value["metadata"]["name"] = held.name
            held.value = combine(behavior, held.value, generated.value)
        elif held is not None:
            self._report(
                generated.origin.file, place, f"{generated} is there already", "use behavior: merge or replace"
            )
        else:
            resources.append(generated)

    def _report(
        self, path: str, field: str, message: str, remedy: str, severity: Severity = Severity.ERROR, code: str = ""
    ) -> None:
        self._report_origin(Origin(path, 0, (), 0), field, message, remedy, severity, "", code)

    def _report_origin(
        self, origin: Origin, field: str, message: str, remedy: str, severity: Severity, subject: str, code: str = ""
    ) -> None:
        position = self._reader.locate(origin, field)
        self.problems.append(
            FileProblem(
                origin.file,
                position.line,
                position.column,
                severity,
                message,
                remedy,
                subject,
                field,
                code or "kustomization",
            )
        )


class _Context:
    """What the transformers need of the build: relative files, and a place for their complaints."""

    def __init__(self, build: _Build, path: str, directory: str) -> None:
        self._build = build
        self._path = path
        self._directory = directory

    def report(self, field: str, message: str, remedy: str, severity: Severity = Severity.ERROR) -> None:
        """Complain about a field of the kustomization."""
        self._build._report(self._path, field, message, remedy, severity)

    def read_documents(self, field: str, name: str) -> list[Any]:
        """The documents of a file named in the kustomization; none, after a complaint, if it cannot be read."""
        try:
            parsed = self._build._reader.parse(_join(self._directory, name))
        except OSError as error:
            self.report(field, f"{name} cannot be read: {error.strerror}", "correct the path, or create the file")
            return []
        if parsed.error is not None:
            self._build.problems.append(parsed.error)
        return [document.value for document in parsed.documents]


def _join(directory: str, name: str) -> str:
    return os.path.normpath(os.path.join(directory, name))  # noqa: PTH118
