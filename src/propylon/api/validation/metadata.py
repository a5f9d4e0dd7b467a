"""Names, labels, annotations and owners, as the API server demands them of every object beyond the fields' types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from propylon.api.introspect import struct_spec
from propylon.api.kinds import KindInfo
from propylon.api.meta import ObjectMeta
from propylon.api.schema import LABEL_PATTERN, LABEL_VALUE_PATTERN, QUALIFIED_NAME_PATTERN, SUBDOMAIN_PATTERN
from propylon.api.validation.clean import compiled
from propylon.api.validation.finding import type_name
from propylon.api.validation.scalars import Pattern

_SUBDOMAIN = Pattern(f"^{SUBDOMAIN_PATTERN}$")
_LABEL = Pattern(f"^{LABEL_PATTERN}$")
_SERVICE_NAME = Pattern("^[a-z]([-a-z0-9]*[a-z0-9])?$")
_KEY = Pattern(f"^{QUALIFIED_NAME_PATTERN}$")
_VALUE = Pattern(f"^{LABEL_VALUE_PATTERN}$")
_EXCLUSIVE_FINALIZERS = {"orphan", "foregroundDeletion"}
_ANNOTATIONS_LIMIT = 256 * 1024
_PREFIX_LIMIT = 253

_FIELDS = struct_spec(ObjectMeta).fields
_FINALIZERS = compiled(_FIELDS["finalizers"].type, "experimental")
_OWNERS = compiled(_FIELDS["ownerReferences"].type, "experimental")

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
    fits, demand = _name_rule(info)
    if not fits(name):
        remedy = 'Use lower-case letters, digits, "-"' + (' and ".".' if demand == "a DNS subdomain" else ".")
        add("invalid_name", field, name, f"the name must be {demand}", remedy)


def _name_rule(info: KindInfo | None) -> tuple[Callable[[str], bool], str]:
    """What tells whether a name fits its kind, and what is demanded of it."""
    if info is None:
        return _is_path_segment, 'without "/" and "%"'
    return _OWN_NAME_RULES.get((info.group, info.kind), (_is_subdomain, "a DNS subdomain"))


def _is_path_segment(name: str) -> bool:
    return "/" not in name and "%" not in name


def _is_subdomain(name: str) -> bool:
    return len(name) <= 253 and bool(_SUBDOMAIN.search(name))


def _is_label(name: str) -> bool:
    return len(name) <= 63 and bool(_LABEL.search(name))


_OWN_NAME_RULES: dict[tuple[str, str], tuple[Callable[[str], bool], str]] = {
    ("", "Service"): (
        lambda name: len(name) <= 63 and bool(_SERVICE_NAME.search(name)),
        "a DNS label that starts with a letter",
    ),
    ("", "Namespace"): (_is_label, "a DNS label"),
}


def quick_checks(info: KindInfo | None) -> dict[str, Callable[[Any], bool]]:
    """By field of metadata, a quick look at its value: True if `check_metadata` and the walk surely have nothing to say
    about it. The fields that are not here have nothing beyond their types."""
    name_fits, _ = _name_rule(info)
    namespaced = info is None or info.namespaced
    return {
        "name": lambda value: type(value) is str and value != "" and name_fits(value),
        "generateName": lambda value: value == "",
        "namespace": lambda value: value == "" or (namespaced and type(value) is str and _is_label(value)),
        "labels": _labels_are_fine,
        "annotations": _annotations_are_fine,
        "finalizers": _finalizers_are_fine,
        "ownerReferences": _owners_are_fine,
        "managedFields": lambda value: True,
    }


def _labels_are_fine(labels: Any) -> bool:
    if type(labels) is not dict:
        return False
    for key, value in labels.items():
        if type(key) is not str or len(key) > _PREFIX_LIMIT or not _KEY.search(key):
            return False
        if type(value) is not str or len(value) > 63 or not _VALUE.search(value):
            return False
    return True


def _finalizers_are_fine(finalizers: Any) -> bool:
    return _FINALIZERS(finalizers) and not all(name in finalizers for name in _EXCLUSIVE_FINALIZERS)


def _owners_are_fine(owners: Any) -> bool:
    return (
        _OWNERS(owners)
        and sum(owner.get("controller") is True for owner in owners) < 2
        and not any(owner["kind"] == "Event" for owner in owners)
    )


def _annotations_are_fine(annotations: Any) -> bool:
    if type(annotations) is not dict:
        return False
    size = 0
    for key, value in annotations.items():
        if type(key) is not str or type(value) is not str:
            return False
        if len(key) > _PREFIX_LIMIT or not _KEY.search(key.lower()):
            return False
        size += len(key) + len(value)
    return size * 4 <= _ANNOTATIONS_LIMIT  # bytes of UTF-8 for a character


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
    if not isinstance(key, str) or not _KEY.search(key) or len(key.rpartition("/")[0]) > _PREFIX_LIMIT:
        remedy = 'Use letters, digits, "-", "_" and "." (63 at most), maybe after a DNS subdomain and "/".'
        add(f"invalid_{what}_key", field, key, f"this is not a valid {what} key", remedy)
