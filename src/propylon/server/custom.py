"""CustomResourceDefinitions: what makes one acceptable, the resource it defines, and the registry that follows them."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from propylon.server.custom_rules import check_rules
from propylon.server.json_path import find_all
from propylon.server.kept_schemas import check_kept, check_schema
from propylon.server.resources import CRD_KIND, CUSTOM_VERBS, CustomVersion, Registry, Resource, Scale, version_rank
from propylon.store import Gone, LocalStore, StoreError, ref_of_document
from propylon.store.local import utc_now

Cause = tuple[str, str, str]
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_GROUP = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$")


def complete_definition(document: dict[str, Any]) -> dict[str, Any]:
    """The definition with its defaults: singular and list names, conversion."""
    spec = document.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("names"), dict):
        return document
    if check_kept("CustomResourceDefinition", document):
        return document
    names = dict(spec["names"])
    kind = names.get("kind")
    if isinstance(kind, str):
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    return {**document, "spec": {"conversion": {"strategy": "None"}, **spec, "names": names}}


def check_definition(document: Mapping[str, Any]) -> list[Cause]:
    """What is wrong with a CustomResourceDefinition, as (reason, message, field)."""
    if wrong := check_kept("CustomResourceDefinition", document):
        return wrong
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return [("FieldValueRequired", "Required value", "spec")]
    names = spec.get("names")
    names = names if isinstance(names, Mapping) else {}
    causes: list[Cause] = []
    for field, value in (
        ("spec.group", spec.get("group")),
        ("spec.scope", spec.get("scope")),
        ("spec.names.plural", names.get("plural")),
        ("spec.names.kind", names.get("kind")),
        ("spec.versions", spec.get("versions")),
    ):
        if not value:
            causes.append(("FieldValueRequired", "Required value", field))
    if causes:
        return causes
    group, plural = str(spec["group"]), str(names["plural"])
    if not _GROUP.match(group):
        causes.append(_bad("spec.group", group, "should be a domain with at least one dot"))
    if not _LABEL.match(plural):
        causes.append(_bad("spec.names.plural", plural, "must be a lower-case DNS label"))
    if document["metadata"].get("name") != f"{plural}.{group}":
        message = 'must be spec.names.plural+"."+spec.group'
        causes.append(_bad("metadata.name", str(document["metadata"].get("name")), message))
    if spec["scope"] not in ("Namespaced", "Cluster"):
        message = f'Unsupported value: "{spec["scope"]}": supported values: "Cluster", "Namespaced"'
        causes.append(("FieldValueNotSupported", message, "spec.scope"))
    causes += _check_versions(spec["versions"])
    strategy = (spec.get("conversion") or {}).get("strategy", "None")
    if strategy != "None":
        causes.append(_bad("spec.conversion.strategy", str(strategy), "only None is supported"))
    return causes


def _check_versions(versions: Any) -> list[Cause]:
    if not isinstance(versions, list) or not all(isinstance(version, Mapping) for version in versions):
        return [_bad("spec.versions", "", "must be a list of versions")]
    causes: list[Cause] = []
    if sum(version.get("storage") is True for version in versions) != 1:
        causes.append(_bad("spec.versions", "", "must have exactly one version marked as storage version"))
    for index, version in enumerate(versions):
        if not _LABEL.match(str(version.get("name") or "")):
            causes.append(_bad(f"spec.versions[{index}].name", str(version.get("name")), "must be a DNS label"))
        schema = version.get("schema")
        if not isinstance(schema, Mapping) or not isinstance(schema.get("openAPIV3Schema"), Mapping):
            causes.append(("FieldValueRequired", "Required value", f"spec.versions[{index}].schema.openAPIV3Schema"))
        else:
            where = f"spec.versions[{index}].schema.openAPIV3Schema"
            wrong = check_schema(schema["openAPIV3Schema"], where)
            causes += wrong or check_rules(schema["openAPIV3Schema"], where)[0]
    return causes


def rules_not_evaluated(document: Mapping[str, Any]) -> tuple[str, ...]:
    """What to warn of when a definition that is in order is applied: rules that need what is not known here."""
    found: list[str] = []
    for index, version in enumerate(document["spec"]["versions"]):
        found += check_rules(version["schema"]["openAPIV3Schema"], f"spec.versions[{index}].schema.openAPIV3Schema")[1]
    return tuple(found)


def _bad(field: str, found: str, message: str) -> Cause:
    return "FieldValueInvalid", f'Invalid value: "{found}": {message}', field


def established(document: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status of a definition that is served."""
    spec = document["spec"]
    said = {
        "NamesAccepted": ("NoConflicts", "no conflicts found"),
        "Established": ("InitialNamesAccepted", "the initial names have been accepted"),
    }
    held = document.get("status") or {}
    times = {entry.get("type"): entry.get("lastTransitionTime") for entry in held.get("conditions") or ()}
    stored = held.get("storedVersions") or []
    current = [version["name"] for version in spec["versions"] if version.get("storage")]
    return {
        "acceptedNames": spec["names"],
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": times.get(kind) or now,
            }
            for kind, (reason, message) in said.items()
        ],
        "storedVersions": list(dict.fromkeys([*stored, *current])),
    }


def resource_of(document: Mapping[str, Any]) -> Resource | None:
    """What a definition defines; None if it cannot be made sense of, or serves nothing."""
    if check_definition(document):
        return None
    spec = document["spec"]
    names = spec["names"]
    served = [version for version in spec["versions"] if version.get("served")]
    if not served:
        return None
    custom = {version["name"]: _version(version) for version in served}
    return Resource(
        group=spec["group"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        namespaced=spec["scope"] == "Namespaced",
        versions=tuple(sorted(custom, key=version_rank)),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        custom=MappingProxyType(custom),
        verbs=CUSTOM_VERBS,
        list_kind=names.get("listKind") or f"{names['kind']}List",
        description=next(iter(custom.values())).schema.get("description", ""),
    )


def scale_causes(scale: Scale | None, document: Mapping[str, Any]) -> list[Cause]:
    """What is wrong with the number of replicas where the scale subresource looks for it."""
    if scale is None:
        return []
    found = find_all(document, scale.spec_replicas)
    if not found or (isinstance(found[0], int) and not isinstance(found[0], bool)):
        return []
    path = scale.spec_replicas
    words = {str: "string", bool: "bool", float: "float64", list: "[]interface {}", dict: "map[string]interface {}"}
    kind = words.get(type(found[0]), "<nil>")
    message = f"Invalid value: 0: {path} accessor error: {found[0]} is of the type {kind}, expected int64"
    return [("FieldValueInvalid", message, path)]


def _version(version: Mapping[str, Any]) -> CustomVersion:
    below = version.get("subresources") or {}
    scale = below.get("scale")
    columns = version.get("additionalPrinterColumns") or ()
    warning = ""
    if version.get("deprecated"):
        warning = version.get("deprecationWarning") or f"{version['name']} is deprecated"
    return CustomVersion(
        name=version["name"],
        schema=version["schema"]["openAPIV3Schema"],
        columns=tuple(column for column in columns if isinstance(column, Mapping)),
        status="status" in below,
        scale=Scale(
            str(scale.get("specReplicasPath", ".spec.replicas")),
            str(scale.get("statusReplicasPath", ".status.replicas")),
            str(scale.get("labelSelectorPath", "")),
        )
        if isinstance(scale, Mapping)
        else None,
        deprecation=warning,
    )


class Kinds:
    """The registry that follows the store's CustomResourceDefinitions, whoever wrote them."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._version: int | None = None
        self._stale = threading.Event()
        self._stale.set()
        self._unsubscribe = store.subscribe(self._stale.set)
        self._registry = Registry()
        self.generation = 0
        """Rises with every new registry."""

    def close(self) -> None:
        """Stop following."""
        self._unsubscribe()

    @property
    def registry(self) -> Registry:
        """What is served now."""
        if self._stale.is_set():
            self._stale.clear()
            if self._changed():
                listing = self._store.list([CRD_KIND])
                self._version = listing.resource_version
                found = (resource_of(document) for document in listing.documents)
                self._registry = Registry(resource for resource in found if resource is not None)
                self.generation += 1
                self._establish(listing.documents)
        return self._registry

    def _changed(self) -> bool:
        if self._version is None:
            return True
        try:
            changes = self._store.changes_since(self._version, [CRD_KIND])
        except Gone:
            return True
        self._version = changes.resource_version
        return bool(changes.events)

    def _establish(self, documents: list[dict[str, Any]]) -> None:
        """Definitions that came from files are as established as those that came by requests."""
        for document in documents:
            if check_definition(document) or document.get("status") == established(document, utc_now()):
                continue
            with contextlib.suppress(StoreError):
                self._store.patch_status(ref_of_document(document), lambda stored: established(stored, utc_now()))
