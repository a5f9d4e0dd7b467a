"""Names, labels, annotations and owners, as the API server demands them of every object beyond the fields' types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from propylon.api.kinds import KindInfo
from propylon.api.schema import LABEL_PATTERN, QUALIFIED_NAME_PATTERN, SUBDOMAIN_PATTERN
from propylon.api.validation.finding import type_name
from propylon.api.validation.scalars import Pattern

_SUBDOMAIN = Pattern(f"^{SUBDOMAIN_PATTERN}$")
_LABEL = Pattern(f"^{LABEL_PATTERN}$")
_SERVICE_NAME = Pattern("^[a-z]([-a-z0-9]*[a-z0-9])?$")
_KEY = Pattern(f"^{QUALIFIED_NAME_PATTERN}$")
_VALUE = Pattern("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_EXCLUSIVE_FINALIZERS = {"orphan", "foregroundDeletion"}
_ANNOTATIONS_LIMIT = 256 * 1024

Add = Callable[[str, str, Any, str, str], None]
"""Reports an error: code, field, found, message, remedy."""


def check_metadata(metadata: Any, info: KindInfo | None, add: Add) -> None:
    """Reports what is wrong with an object's metadata; `info` is None for kinds nobody interprets."""
    if metadata is None:
        add("missing_name", "metadata.name", None, "the object has no name", "Add metadata with a name.")
        return
    if not isinstance(metadata, Mapping):
        remedy = "Write metadata as a mapping with a name."
        add("wrong_type", "metadata", metadata, f"expected a mapping, found {type_name(metadata)}", remedy)
        return
    _check_name(metadata, info, add)
    namespace = metadata.get("namespace")
    if namespace is not None and _is_text(namespace, "metadata.namespace", add):
        if info is not None and not info.namespaced and namespace:
            remedy = "Remove namespace."
            add("namespace_of_cluster_kind", "metadata.namespace", namespace, f"a {info.kind} has no namespace", remedy)
        elif namespace and (len(namespace) > 63 or not _LABEL.search(namespace)):
            remedy = 'Use up to 63 lower-case letters, digits and "-".'
            add("invalid_namespace", "metadata.namespace", namespace, "a namespace must be a DNS label", remedy)
    _check_labels(metadata.get("labels"), add)
    _check_annotations(metadata.get("annotations"), add)
    _check_lifecycle(metadata, add)


def _is_text(value: Any, field: str, add: Add) -> bool:
    if isinstance(value, str):
        return True
    add("wrong_type", field, value, f"expected a string, found {type_name(value)}", "Put quotes around it.")
    return False


def _check_name(metadata: Mapping[str, Any], info: KindInfo | None, add: Add) -> None:
    name, prefix = metadata.get("name"), metadata.get("generateName")
    if prefix and isinstance(prefix, str):
        # As the API server looks at it: of a dash at the end and the character before it only a letter remains.
        masked = f"{prefix[:-2]}a" if len(prefix) > 1 and prefix.endswith("-") else prefix
        _check_name_as(masked, "metadata.generateName", info, add)
    if name in (None, ""):
        if not prefix:
            add("missing_name", "metadata.name", name, "the object has no name", "Add metadata.name.")
    elif _is_text(name, "metadata.name", add):
        _check_name_as(name, "metadata.name", info, add)


def _check_name_as(name: str, field: str, info: KindInfo | None, add: Add) -> None:
    kind = info.kind if info is not None and info.group == "" else ""
    if kind == "Service":
        fits, demand = len(name) <= 63 and bool(_SERVICE_NAME.search(name)), "a DNS label that starts with a letter"
    elif kind == "Namespace":
        fits, demand = len(name) <= 63 and bool(_LABEL.search(name)), "a DNS label"
    elif info is None:
        fits, demand = "/" not in name and "%" not in name, 'without "/" and "%"'
    else:
        fits, demand = len(name) <= 253 and bool(_SUBDOMAIN.search(name)), "a DNS subdomain"
    if not fits:
        remedy = 'Use lower-case letters, digits, "-"' + (' and ".".' if demand == "a DNS subdomain" else ".")
        add("invalid_name", field, name, f"the name must be {demand}", remedy)


def _is_text_map(value: Any, field: str, add: Add) -> bool:
    if value is None:
        return False
    if not isinstance(value, Mapping):
        add("wrong_type", field, value, f"expected a mapping, found {type_name(value)}", "Write it as `key: value`.")
        return False
    return True


def _check_labels(labels: Any, add: Add) -> None:
    if not _is_text_map(labels, "metadata.labels", add):
        return
    for key, value in labels.items():
        field = f'metadata.labels["{key}"]'
        _check_key(key, field, "label", add)
        if value is not None and _is_text(value, field, add) and (len(value) > 63 or not _VALUE.search(value)):
            remedy = 'Use up to 63 letters, digits, "-", "_" and ".", a letter or digit at both ends.'
            add("invalid_label_value", field, value, "this is not a valid label value", remedy)


def _check_annotations(annotations: Any, add: Add) -> None:
    if not _is_text_map(annotations, "metadata.annotations", add):
        return
    size = 0
    for key, value in annotations.items():
        field = f'metadata.annotations["{key}"]'
        _check_key(str(key).lower(), field, "annotation", add)
        if value is not None and _is_text(value, field, add):
            size += len(str(key).encode()) + len(value.encode(errors="replace"))
    if size > _ANNOTATIONS_LIMIT:
        remedy = "Move large data to a ConfigMap."
        add("annotations_too_long", "metadata.annotations", size, "annotations exceed 256 KiB altogether", remedy)


def _check_lifecycle(metadata: Mapping[str, Any], add: Add) -> None:
    """What goes beyond the types of finalizers and ownerReferences."""
    finalizers, owners = metadata.get("finalizers"), metadata.get("ownerReferences")
    if isinstance(finalizers, list | tuple) and all(name in finalizers for name in _EXCLUSIVE_FINALIZERS):
        remedy = "Remove one of the two."
        add("exclusive_finalizers", "metadata.finalizers", finalizers, "these finalizers exclude each other", remedy)
    if not isinstance(owners, list | tuple):
        return
    for index, owner in enumerate(owners):
        if isinstance(owner, Mapping) and (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Event"):
            field = f"metadata.ownerReferences[{index}]"
            add("event_owns_nothing", field, owner, "an Event cannot own anything", "Remove it.")
    controller: Any = None
    for index, owner in enumerate(owners):
        if isinstance(owner, Mapping) and owner.get("controller") is True:
            if controller not in (None, owner):  # the same reference twice is kept once
                field = f"metadata.ownerReferences[{index}].controller"
                add("several_controllers", field, True, "an object has one controller at most", "Keep one of them.")
            controller = owner


def _check_key(key: Any, field: str, what: str, add: Add) -> None:
    if not isinstance(key, str) or not _KEY.search(key) or len(key.rpartition("/")[0]) > 253:
        remedy = 'Use letters, digits, "-", "_" and "." (63 at most), maybe after a DNS subdomain and "/".'
        add(f"invalid_{what}_key", field, key, f"this is not a valid {what} key", remedy)
