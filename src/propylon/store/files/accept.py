"""From manifests as written to objects as wanted: variables filled in, in their namespace, validated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from propylon.api.kinds import by_kind
from propylon.api.meta import ObjectRef, group_of
from propylon.api.validation import Finding, validate
from propylon.api.validation.finding import placeholder_in
from propylon.store.admission import has_error, namespace_of, placed
from propylon.store.files.problems import FileProblem, Severity
from propylon.store.files.reader import Manifest, Origin, Reader
from propylon.store.files.substitute import VARIABLES_FILE, Unset, substitute
from propylon.store.kindinfo import is_namespaced


class FileObject(msgspec.Struct, frozen=True):
    """An object as the manifests want it: variables filled in, in its namespace, valid."""

    ref: ObjectRef
    document: dict[str, Any]
    origin: Origin


class Result(msgspec.Struct, frozen=True):
    """What became of some manifests: objects, problems, and the references of those that were refused.

    `clean` remembers the objects nothing was wrong with by what was written, so that they need no second look.
    """

    objects: tuple[FileObject, ...] = ()
    problems: tuple[FileProblem, ...] = ()
    refused: tuple[ObjectRef, ...] = ()
    clean: Mapping[tuple[str, ...], tuple[dict[str, Any], FileObject]] = {}


def accept_all(
    reader: Reader,
    manifests: Sequence[Manifest],
    problems: Sequence[FileProblem],
    variables: Mapping[str, str],
    known: Result,
) -> Result:
    """Look at every manifest; `known` is an earlier result with the same variables. `problems` come first again."""
    objects: list[FileObject] = []
    found = list(problems)
    refused: list[ObjectRef] = []
    clean: dict[tuple[str, ...], tuple[dict[str, Any], FileObject]] = {}
    for manifest in manifests:
        written = _written_as(manifest.value)
        before = known.clean.get(written)
        if before is not None and before[0] == manifest.value:
            accepted: FileObject | None = FileObject(before[1].ref, before[1].document, manifest.origin)
        else:
            wrong = len(found)
            ref, accepted = _accept(reader, manifest, variables, found)
            if accepted is None:
                if ref is not None:
                    refused.append(ref)
                continue
            if len(found) > wrong:
                objects.append(accepted)
                continue
        assert accepted is not None
        objects.append(accepted)
        clean[written] = (manifest.value, accepted)
    return Result(tuple(objects), tuple(found), tuple(refused), clean)


def _written_as(value: Mapping[str, Any]) -> tuple[str, ...]:
    metadata = value.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    return (value["apiVersion"], value["kind"], str(named.get("namespace")), str(named.get("name")))


def _accept(
    reader: Reader, manifest: Manifest, variables: Mapping[str, str], problems: list[FileProblem]
) -> tuple[ObjectRef | None, FileObject | None]:
    """The object's reference, as far as it has a name, and the object unless it is refused."""
    origin = manifest.origin
    document, unset = substitute(manifest.value, variables)
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name or not isinstance(namespace, str | None):
        problems.extend(_from_finding(reader, origin, document["kind"], finding) for finding in validate(document))
        return None, None
    group, kind = group_of(document["apiVersion"]), document["kind"]
    if namespace and not is_namespaced(group, kind):
        problems.append(
            problem_at(
                reader,
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
    problems.extend(_unset_variable(reader, origin, ref, variable) for variable in unset)
    findings = [
        finding
        for finding in validate(document)
        # What an unset variable leaves behind is explained already.
        if not any(finding.field.startswith(variable.field) for variable in unset)
    ]
    problems.extend(_from_finding(reader, origin, str(ref), finding) for finding in findings)
    known = by_kind(group, kind) is not None
    problems.extend(_placeholders(reader, origin, ref, _free_text(document) if known else document))
    if group == "kustomize.toolkit.fluxcd.io" and kind == "Kustomization":
        problems.append(_flux_notice(reader, origin, ref, document))
    if unset or has_error(tuple(findings)):
        return ref, None
    return ref, FileObject(ref, document, origin)


def _unset_variable(reader: Reader, origin: Origin, ref: ObjectRef, variable: Unset) -> FileProblem:
    name = variable.name
    return problem_at(
        reader,
        origin,
        str(ref),
        variable.field,
        f"variable {name} has no value",
        f"give it by --var {name}=VALUE, --vars FILE or a {VARIABLES_FILE} beside the manifests;"
        f" write $${{{name}}} for the text itself",
        Severity.ERROR,
        "variable_unset",
    )


def _flux_notice(reader: Reader, origin: Origin, ref: ObjectRef, document: Mapping[str, Any]) -> FileProblem:
    spec = document.get("spec")
    path = spec.get("path") if isinstance(spec, dict) else None
    return problem_at(
        reader,
        origin,
        str(ref),
        "spec.path",
        "Flux Kustomizations are stored and not followed",
        f"load {path or 'its path'} by itself",
        Severity.NOTICE,
        "flux_not_followed",
    )


def _free_text(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a known kind that may hold any text: validation has no reason to refuse a placeholder there."""
    metadata, spec = document.get("metadata") or {}, document.get("spec")
    infrastructure = spec.get("infrastructure") if isinstance(spec, Mapping) else None
    return {
        "metadata": {"annotations": metadata.get("annotations")},
        "spec": {"infrastructure": infrastructure if isinstance(infrastructure, Mapping) else None},
    }


def _placeholders(reader: Reader, origin: Origin, ref: ObjectRef, document: Mapping[str, Any]) -> Iterator[FileProblem]:
    """Values nobody filled in, in fields that are not known well enough to refuse them."""
    for field, value in _strings("", document):
        placeholder = placeholder_in(value)
        if placeholder is not None and not placeholder.startswith("${"):  # variables have words of their own
            yield problem_at(
                reader,
                origin,
                str(ref),
                field,
                f'"{placeholder}" is a placeholder',
                f"replace {placeholder} with a real value",
                Severity.WARNING,
                "placeholder_not_filled_in",
            )


def _from_finding(reader: Reader, origin: Origin, subject: str, finding: Finding) -> FileProblem:
    message = f"{finding.message} (found {finding.found})" if finding.found else finding.message
    return problem_at(
        reader, origin, subject, finding.field, message, finding.remedy, Severity(finding.severity), finding.code
    )


def problem_at(
    reader: Reader,
    origin: Origin,
    subject: str,
    field: str,
    message: str,
    remedy: str,
    severity: Severity,
    code: str,
) -> FileProblem:
    """A problem with a field of an object, at its line and column."""
    position = reader.locate(origin, field)
    return FileProblem(origin.file, position.line, position.column, severity, message, remedy, subject, field, code)


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
