"""What every written object passes: its place (namespace or none), defaults, validation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from propylon.api.defaults import apply_defaults, complete_status
from propylon.api.meta import group_of
from propylon.api.validation import Finding, validate
from propylon.store.errors import Invalid
from propylon.store.kindinfo import is_namespaced
from propylon.store.protocol import Document, ref_of_document

DEFAULT_NAMESPACE = "default"


def placed(document: Mapping[str, Any]) -> Document:
    """The document in a namespace if its kind has one ("default" when none is named), and in none otherwise."""
    metadata = document["metadata"]
    namespace = metadata.get("namespace") or ""
    wanted = namespace_of(document["apiVersion"], document["kind"], namespace)
    if wanted == namespace and (wanted or "namespace" not in metadata):
        return dict(document)
    metadata = {name: value for name, value in metadata.items() if name != "namespace"}
    if wanted:
        metadata["namespace"] = wanted
    return {**document, "metadata": metadata}


def namespace_of(api_version: str, kind: str, written: str) -> str:
    """The namespace an object goes to: "" for cluster-scoped kinds, "default" where none is written."""
    return (written or DEFAULT_NAMESPACE) if is_namespaced(group_of(api_version), kind) else ""


def complete(document: Mapping[str, Any]) -> Document:
    """The document in its place, with defaults filled in."""
    return apply_defaults(placed(document))


def check(document: Mapping[str, Any], stored: Mapping[str, Any] | None) -> None:
    """Raise Invalid when validation finds an error in a complete document, or in how it differs from the stored one."""
    findings = validate(document, old=stored, complete=True)
    if findings and has_error(findings):
        raise Invalid(ref_of_document(document), findings)


def with_complete_status(document: Mapping[str, Any]) -> Document:
    """The document with the defaults of its status filled in."""
    if document.get("status") is not None:
        return {**document, "status": complete_status(document)}
    identity = {name: document[name] for name in ("apiVersion", "kind", "metadata")}
    status = apply_defaults({**identity, "status": None}).get("status")
    rest = {name: value for name, value in document.items() if name != "status"}
    return rest if status is None else {**rest, "status": status}


def has_error(findings: tuple[Finding, ...]) -> bool:
    """Whether any finding refuses the object."""
    return any(finding.severity == "error" for finding in findings)
