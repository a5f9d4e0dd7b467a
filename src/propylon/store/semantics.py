"""What Kubernetes does to an object on its way into storage. Pure: documents in, new documents out, inputs untouched.

Sources: the API conventions (metadata, generation, spec and status, finalizers, garbage collection) of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from propylon.api.meta import group_of
from propylon.store.errors import Conflict
from propylon.store.protocol import Document, ref_of_document

FOREGROUND_FINALIZER = "foregroundDeletion"
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"

_OWNED_BY_STORE = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_NEVER_STORED = ("selfLink",)
_NOT_GIVEN = frozenset({*_OWNED_BY_STORE, *_NEVER_STORED})
"""Metadata that is never taken from a writer."""
NOT_APPLICABLE = frozenset({*_NOT_GIVEN, "managedFields"})
"""Metadata that no manager can want: that of the store, and who owns which field, which the API server keeps."""

_WITHOUT_GENERATION = frozenset(
    {"", "rbac.authorization.k8s.io", "coordination.k8s.io", "events.k8s.io", "storage.k8s.io", "authentication.k8s.io"}
)
"""Groups whose built-in kinds carry no metadata.generation."""


def has_generation(group: str) -> bool:
    """Whether objects of this group count the changes of their desired state."""
    return group not in _WITHOUT_GENERATION


def prepare_create(document: Mapping[str, Any], *, now: str, uid: str) -> Document:
    """A new object: identity given, whatever else only the store may set taken out. Status must be out already."""
    given = document["metadata"]
    metadata = dict(given)
    for name in _NOT_GIVEN:
        metadata.pop(name, None)
    if not metadata.get("managedFields"):
        metadata.pop("managedFields", None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = now
    prepared = {**document, "metadata": metadata}
    if is_namespace(prepared):
        prepared["status"] = {"phase": "Active"}
    if has_generation(group_of(prepared["apiVersion"])):
        metadata["generation"] = 1
    return _with_namespace_label(prepared)


def prepare_update(stored: Document, wanted: Mapping[str, Any], *, keep_status: bool) -> Document:
    """The stored object with everything but identity, bookkeeping and (with `keep_status`) status replaced.

    Returns `stored` itself when nothing differs. A deleted object accepts no new finalizers, as in Kubernetes.
    """
    had = stored["metadata"]
    metadata = dict(wanted["metadata"])
    for name in _NOT_GIVEN:
        metadata.pop(name, None)
    for name in _OWNED_BY_STORE:
        if name in had:
            metadata[name] = had[name]
    if "managedFields" not in metadata and "managedFields" in had:
        metadata["managedFields"] = had["managedFields"]  # the writer knows nothing of them
    elif not metadata.get("managedFields"):
        metadata.pop("managedFields", None)
    if had.get("deletionTimestamp"):
        held = finalizers(stored)
        kept = [finalizer for finalizer in metadata.get("finalizers") or [] if finalizer in held]
        metadata["finalizers"] = kept
        if not kept:
            del metadata["finalizers"]
    prepared = {**wanted, "metadata": metadata}
    if keep_status:
        prepared.pop("status", None)
        if "status" in stored:
            prepared["status"] = stored["status"]
    if prepared["kind"] == "Namespace":
        prepared = _with_namespace_label(prepared)
    if prepared == stored:
        return stored
    if has_generation(group_of(stored["apiVersion"])) and _desired_differs(prepared, stored):
        prepared["metadata"] = {**prepared["metadata"], "generation": had.get("generation", 0) + 1}
    return prepared


def prepare_status(
    stored: Document, status: Mapping[str, Any] | None, managed_fields: list[Any] | None = None
) -> Document:
    """The stored object with another status (and managedFields, if given); `stored` itself when that is the same."""
    metadata = stored["metadata"]
    if managed_fields is not None and managed_fields != metadata.get("managedFields", []):
        metadata = {name: value for name, value in metadata.items() if name != "managedFields"}
        if managed_fields:
            metadata["managedFields"] = managed_fields
    elif stored.get("status") == status:
        return stored
    prepared = {**stored, "metadata": metadata}
    prepared.pop("status", None)
    if status is not None:
        prepared["status"] = status
    return prepared


def without_status(document: Mapping[str, Any]) -> Document:
    """The document as its writer may give it, where status is a subresource."""
    rest = dict(document)
    rest.pop("status", None)
    return rest


def prepare_delete(stored: Document, *, now: str, foreground: bool) -> Document:
    """The stored object marked as being deleted; `stored` itself when it is already so marked."""
    held = finalizers(stored)
    wanted = [*held, FOREGROUND_FINALIZER] if foreground and FOREGROUND_FINALIZER not in held else held
    if is_deleting(stored) and wanted == held:
        return stored
    metadata = dict(stored["metadata"])
    if not is_deleting(stored):
        metadata["deletionTimestamp"] = now
        metadata["deletionGracePeriodSeconds"] = 0
        if "generation" in metadata:
            metadata["generation"] += 1
    if wanted:
        metadata["finalizers"] = wanted
    return {**stored, "metadata": metadata}


def without_finalizer(stored: Document, finalizer: str) -> Document:
    """The stored object without that finalizer."""
    metadata = dict(stored["metadata"])
    left = [held for held in finalizers(stored) if held != finalizer]
    if left:
        metadata["finalizers"] = left
    else:
        metadata.pop("finalizers", None)
    return {**stored, "metadata": metadata}


def without_owners(stored: Document, uids: frozenset[str]) -> Document:
    """The stored object without its references to these owners."""
    metadata = dict(stored["metadata"])
    left = [reference for reference in owner_references(stored) if reference.get("uid") not in uids]
    if left:
        metadata["ownerReferences"] = left
    else:
        metadata.pop("ownerReferences", None)
    return {**stored, "metadata": metadata}


def check_preconditions(stored: Document, *, uid: str, resource_version: str) -> None:
    """Raise Conflict unless the stored object is the one the writer meant ("" stands for any)."""
    metadata = stored["metadata"]
    if uid and uid != metadata["uid"]:
        raise Conflict(
            ref_of_document(stored), f"its uid is {metadata['uid']}, not {uid}: it was deleted and made anew"
        )
    if resource_version and resource_version != metadata["resourceVersion"]:
        raise Conflict(
            ref_of_document(stored),
            f"it was changed since: it is at resourceVersion {metadata['resourceVersion']}, not {resource_version}",
        )


def is_namespace(document: Mapping[str, Any]) -> bool:
    """Whether the object is a Namespace."""
    return bool(document["kind"] == "Namespace" and document["apiVersion"] == "v1")


def is_deleting(document: Mapping[str, Any]) -> bool:
    """Whether the object is only held by its finalizers."""
    return bool(document["metadata"].get("deletionTimestamp"))


def finalizers(document: Mapping[str, Any]) -> list[str]:
    """The names of those who must act before the object may go."""
    return list(document["metadata"].get("finalizers") or [])


def owner_references(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The object's owners, as written."""
    written = document["metadata"].get("ownerReferences")
    return [reference for reference in written if isinstance(reference, Mapping)] if written else []


def owner_uids(document: Mapping[str, Any]) -> Iterator[str]:
    """The uids of the object's owners."""
    for reference in owner_references(document):
        uid = reference.get("uid")
        if isinstance(uid, str) and uid:
            yield uid


def blocks_owner(document: Mapping[str, Any], uid: str) -> bool:
    """Whether foreground deletion of that owner waits for this object."""
    return any(
        reference.get("uid") == uid and reference.get("blockOwnerDeletion") for reference in owner_references(document)
    )


_NOT_DESIRED = frozenset({"metadata", "status", "apiVersion"})


def _desired_differs(one: Document, other: Document) -> bool:
    for name, value in one.items():
        if name not in _NOT_DESIRED and (name not in other or value != other[name]):
            return True
    return not other.keys() <= one.keys() | _NOT_DESIRED


def _with_namespace_label(document: Document) -> Document:
    """Namespaces carry their own name as a label, so that selectors can name them."""
    if document["kind"] != "Namespace" or not is_namespace(document):
        return document
    metadata = document["metadata"]
    labels = metadata.get("labels") or {}
    if labels.get(NAMESPACE_NAME_LABEL) == metadata["name"]:
        return document
    return {**document, "metadata": {**metadata, "labels": {**labels, NAMESPACE_NAME_LABEL: metadata["name"]}}}
