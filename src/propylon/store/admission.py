"""What every written object passes: its place (namespace or none), defaults, validation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from propylon.api.defaults import apply_defaults
from propylon.api.meta import group_of
from propylon.store.errors import Invalid
from propylon.store.kindinfo import is_namespaced
from propylon.store.protocol import Document, ref_of_document

if TYPE_CHECKING:
    from propylon.api.validation import Finding

DEFAULT_NAMESPACE = "default"


def placed(document: Mapping[str, Any]) -> Document:
    """The document in a namespace if its kind has one ("default" when none is named), and in none otherwise."""
    metadata = document["metadata"]
    namespace = metadata.get("namespace") or ""
    if is_namespaced(group_of(document["apiVersion"]), document["kind"]):
        wanted = namespace or DEFAULT_NAMESPACE
    else:
        wanted = ""
    if wanted == namespace and (wanted or "namespace" not in metadata):
        return dict(document)
    metadata = {name: value for name, value in metadata.items() if name != "namespace"}
    if wanted:
        metadata["namespace"] = wanted
    return {**document, "metadata": metadata}


def admit(document: Mapping[str, Any]) -> Document:
    """The document placed and defaulted. Raises Invalid when validation finds an error in it."""
    from propylon.api.validation import validate  # noqa: PLC0415

    complete = apply_defaults(placed(document))
    findings = validate(complete)
    if has_error(findings):
        raise Invalid(ref_of_document(complete), findings)
    return complete


def has_error(findings: tuple[Finding, ...]) -> bool:
    """Whether any finding refuses the object."""
    return any(finding.severity == "error" for finding in findings)
