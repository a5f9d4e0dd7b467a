"""What a kustomization changes of its resources, in kustomize's order: patches, namespace, names, labels, annotations,
replicas, images; then the references that renaming broke.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from propylon.api.meta import group_of
from propylon.store.files.parsing import ParseError, parse_documents
from propylon.store.files.problems import Severity
from propylon.store.files.reader import Origin, is_object
from propylon.store.files.references import map_path, rewrite_references
from propylon.store.kindinfo import is_namespaced
from propylon.store.patches import PatchError, json_patch, strategic_merge_patch


class Context(Protocol):
    """How a transformer reads files of its kustomization and complains."""

    def report(self, field: str, message: str, remedy: str, severity: Severity = Severity.ERROR) -> None:
        """Complain about a field of the kustomization."""

    def read_documents(self, field: str, name: str) -> list[Any]:
        """The documents of a file named in the kustomization."""


class Resource:
    """An object on its way through a build, under its present name and those it had before."""

    def __init__(self, value: dict[str, Any], origin: Origin) -> None:
        metadata = value.get("metadata")
        self.value = {**value, "metadata": dict(metadata) if isinstance(metadata, dict) else {}}
        self.origin = origin
        self.original_names: list[str] = []
        self.needs_hash = False

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.value["kind"])

    @property
    def group(self) -> str:
        """The group of its kind."""
        return group_of(self.value["apiVersion"])

    @property
    def name(self) -> str:
        """Its present name."""
        return str(self.value["metadata"].get("name") or "")

    @property
    def namespace(self) -> str:
        """Its namespace as written; "" when none is."""
        return str(self.value["metadata"].get("namespace") or "")

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What two objects may not share."""
        return (self.group, self.kind, self.namespace, self.name)

    def rename(self, name: str) -> None:
        """Give it another name and remember the old one."""
        if name != self.name:
            self.original_names.append(self.name)
            self.value = {**self.value, "metadata": {**self.value["metadata"], "name": name}}

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def listed(spec: Mapping[str, Any], field: str) -> list[Any]:
    """A field that should be a list; a single value counts as one entry."""
    value = spec.get(field)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def apply_transformers(spec: Mapping[str, Any], resources: list[Resource], context: Context) -> None:
    """Change the resources as the kustomization says. A transformer that fails is reported and changes nothing."""
    _patches(spec, resources, context)
    if spec.get("namespace"):
        _set_namespace(str(spec["namespace"]), resources)
    _rename(spec, resources)
    _label(spec, resources, context)
    _annotate(spec, resources)
    _scale(spec, resources, context)
    _images(spec, resources, context)


def fix_references(resources: Sequence[Resource], names: Sequence[str]) -> None:
    """Follow renamed objects: `names` are those the resources had before; new ones at the end count as not renamed."""
    renamed: dict[tuple[str, str, str], str] = {}
    for resource, before in zip(resources, names, strict=False):
        if before != resource.name:
            renamed[resource.kind, resource.namespace, before] = resource.name
            if not is_namespaced(resource.group, resource.kind):
                renamed[resource.kind, "*", before] = resource.name
    if not renamed:
        return

    def rename(kind: str, namespace: str, name: str) -> str:
        return renamed.get((kind, namespace, name)) or renamed.get((kind, "*", name)) or name

    for resource in resources:
        resource.value = rewrite_references(resource.value, rename)


# Patches


def _patches(spec: Mapping[str, Any], resources: list[Resource], context: Context) -> None:
    for index, entry in enumerate(listed(spec, "patchesStrategicMerge")):
        field = f"patchesStrategicMerge[{index}]"
        text = str(entry)
        documents = _parsed(field, text, context) if "\n" in text else context.read_documents(field, text)
        _strategic(field, documents, None, resources, context)
    for name in ("patches", "patchesJson6902"):
        for index, entry in enumerate(listed(spec, name)):
            field = f"{name}[{index}]"
            if not isinstance(entry, Mapping) or not (entry.get("patch") or entry.get("path")):
                context.report(field, "has neither patch nor path", "give the patch inline or name its file")
                continue
            inline = entry.get("patch")
            documents = (
                _parsed(f"{field}.patch", str(inline), context)
                if inline
                else context.read_documents(f"{field}.path", str(entry["path"]))
            )
            target = entry.get("target") if isinstance(entry.get("target"), Mapping) else None
            if documents and isinstance(documents[0], list):
                _json6902(field, documents[0], target, resources, context)
            else:
                _strategic(field, documents, target, resources, context)


def _parsed(field: str, text: str, context: Context) -> list[Any]:
    try:
        return [document.value for document in parse_documents(text)]
    except ParseError as error:
        context.report(field, f"line {error.line} of the patch cannot be read: {error.message}", "mend the patch")
        return []


def _json6902(
    field: str, operations: list[Any], target: Mapping[str, Any] | None, resources: list[Resource], context: Context
) -> None:
    if target is None:
        context.report(field, "a JSON patch needs a target", "name the kind and name of what it changes")
        return
    chosen = [resource for resource in resources if _is_target(resource, target)]
    if not chosen:
        context.report(f"{field}.target", "matches no object", "correct the target", Severity.WARNING)
    for resource in chosen:
        try:
            value = json_patch(resource.value, operations)
        except PatchError as error:
            context.report(field, f"does not fit {resource}: {error}", "correct the patch")
            continue
        _replace(resource, value)


def _strategic(
    field: str, documents: list[Any], target: Mapping[str, Any] | None, resources: list[Resource], context: Context
) -> None:
    for patch in documents:
        if not isinstance(patch, Mapping):
            context.report(field, "is neither a mapping nor a list of operations", "mend the patch")
            continue
        if target is not None:
            chosen = [resource for resource in resources if _is_target(resource, target)]
        elif is_object(patch):
            chosen = [resource for resource in resources if _is_meant(resource, patch)]
        else:
            context.report(field, "has no target, and names no apiVersion and kind", "add a target")
            continue
        if not chosen:
            severity = Severity.ERROR if target is None else Severity.WARNING
            context.report(field, "matches no object", "correct the patch's kind and name, or its target", severity)
        for resource in chosen:
            value = strategic_merge_patch(resource.value, _without_identity(patch))
            if value is None:
                resources.remove(resource)
            else:
                _replace(resource, value)


def _without_identity(patch: Mapping[str, Any]) -> dict[str, Any]:
    """A patch never renames: kustomize needs special options for that."""
    metadata = patch.get("metadata")
    result = {name: value for name, value in patch.items() if name not in ("apiVersion", "kind")}
    if isinstance(metadata, Mapping):
        result["metadata"] = {name: value for name, value in metadata.items() if name not in ("name", "namespace")}
    return result


def _replace(resource: Resource, value: dict[str, Any]) -> None:
    name = str((value.get("metadata") or {}).get("name") or "")
    if name != resource.name:
        resource.original_names.append(resource.name)
    resource.value = value


def _is_meant(resource: Resource, patch: Mapping[str, Any]) -> bool:
    metadata = patch.get("metadata") or {}
    return (
        resource.kind == patch["kind"]
        and resource.group == group_of(patch["apiVersion"])
        and metadata.get("name") in (resource.name, *resource.original_names)
        and (not metadata.get("namespace") or metadata["namespace"] == resource.namespace)
    )


def _is_target(resource: Resource, target: Mapping[str, Any]) -> bool:
    version = str(resource.value["apiVersion"]).rpartition("/")[2]
    return (
        _fits(target.get("group"), resource.group)
        and _fits(target.get("version"), version)
        and _fits(target.get("kind"), resource.kind)
        and any(_fits(target.get("name"), name) for name in (resource.name, *resource.original_names))
        and _fits(target.get("namespace"), resource.namespace)
        and _selects(target.get("labelSelector"), resource.value["metadata"].get("labels"))
        and _selects(target.get("annotationSelector"), resource.value["metadata"].get("annotations"))
    )


def _fits(pattern: Any, value: str) -> bool:
    """kustomize's selectors are anchored regular expressions; absent ones fit all."""
    if not pattern:
        return True
    try:
        return re.fullmatch(str(pattern), value) is not None
    except re.error:
        return bool(pattern == value)


_REQUIREMENT = re.compile(r"\s*(!)?\s*([^\s!=,()]+)\s*(?:(==|=|!=)\s*([^\s,]*)|(in|notin)\s*\(([^)]*)\))?\s*(?:,|\Z)")


def _selects(selector: Any, labels: Any) -> bool:
    """Whether a selector in its text form (`a=b,c!=d,e in (f,g),!h`) fits."""
    if not selector:
        return True
    labels = labels if isinstance(labels, Mapping) else {}
    for negated, key, operator, wanted, membership, members in _REQUIREMENT.findall(str(selector)):
        value = labels.get(key)
        if membership:
            inside = value in [member.strip() for member in members.split(",")]
            fits = inside if membership == "in" else not inside
        elif operator:
            fits = (value == wanted) is (operator != "!=")
        else:
            fits = (key in labels) is not bool(negated)
        if not fits:
            return False
    return True


# Namespace and names


def _set_namespace(namespace: str, resources: list[Resource]) -> None:
    accounts = {resource.name for resource in resources if resource.kind == "ServiceAccount"} | {"default"}
    for resource in resources:
        if resource.kind == "Namespace" and resource.group == "":
            resource.rename(namespace)
        elif is_namespaced(resource.group, resource.kind):
            resource.value = {**resource.value, "metadata": {**resource.value["metadata"], "namespace": namespace}}
        if resource.kind in ("RoleBinding", "ClusterRoleBinding"):

            def moved(subject: Any, _: Mapping[str, Any]) -> Any:
                if (
                    isinstance(subject, Mapping)
                    and subject.get("kind") == "ServiceAccount"
                    and subject.get("name") in accounts
                ):
                    return {**subject, "namespace": namespace}
                return subject

            resource.value = map_path(resource.value, ("subjects",), moved)


_NEVER_RENAMED = frozenset({"Namespace", "CustomResourceDefinition", "APIService"})


def _rename(spec: Mapping[str, Any], resources: list[Resource]) -> None:
    prefix, suffix = str(spec.get("namePrefix") or ""), str(spec.get("nameSuffix") or "")
    if prefix or suffix:
        for resource in resources:
            if resource.kind not in _NEVER_RENAMED:
                resource.rename(f"{prefix}{resource.name}{suffix}")


# Labels and annotations

_TEMPLATES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job"), ("spec", "template")),
    "ReplicationController": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_SELECTORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Service": (("spec", "selector"),),
    "ReplicationController": (("spec", "selector"),),
    **dict.fromkeys(("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"), (("spec", "selector", "matchLabels"),)),
    "PodDisruptionBudget": (("spec", "selector", "matchLabels"),),
    "NetworkPolicy": (("spec", "podSelector", "matchLabels"),),
}
_CREATED_SELECTORS = frozenset(
    {"Service", "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "ReplicationController"}
)


def _label(spec: Mapping[str, Any], resources: list[Resource], context: Context) -> None:
    common = spec.get("commonLabels")
    if isinstance(common, Mapping):
        for resource in resources:
            _add_labels(resource, common, selectors=True, templates=True)
    for index, entry in enumerate(listed(spec, "labels")):
        pairs = entry.get("pairs") if isinstance(entry, Mapping) else None
        if not isinstance(pairs, Mapping):
            context.report(f"labels[{index}]", "has no pairs", "list the labels under pairs")
            continue
        if entry.get("fields"):
            context.report(
                f"labels[{index}].fields", "is not supported", "name the labels in the objects", Severity.WARNING
            )
        selectors = bool(entry.get("includeSelectors"))
        for resource in resources:
            _add_labels(
                resource, pairs, selectors=selectors, templates=selectors or bool(entry.get("includeTemplates"))
            )


def _add_labels(resource: Resource, labels: Mapping[str, Any], *, selectors: bool, templates: bool) -> None:
    value = _merged(resource.value, ("metadata", "labels"), labels, create=True)
    template = _TEMPLATES.get(resource.kind)
    if templates and template:
        value = _merged(value, (*template, "metadata", "labels"), labels, create=True)
    if selectors:
        for path in _SELECTORS.get(resource.kind, ()):
            value = _merged(value, path, labels, create=resource.kind in _CREATED_SELECTORS)
    resource.value = value


def _annotate(spec: Mapping[str, Any], resources: list[Resource]) -> None:
    annotations = spec.get("commonAnnotations")
    if not isinstance(annotations, Mapping):
        return
    for resource in resources:
        value = _merged(resource.value, ("metadata", "annotations"), annotations, create=True)
        template = _TEMPLATES.get(resource.kind)
        if template:
            value = _merged(value, (*template, "metadata", "annotations"), annotations, create=True)
        resource.value = value


def _merged(value: dict[str, Any], path: tuple[str, ...], added: Mapping[str, Any], *, create: bool) -> dict[str, Any]:
    """The value with a mapping at a path extended; unless `create`, only where there is one."""
    inner = value.get(path[0])
    if not isinstance(inner, Mapping):
        if not create:
            return value
        inner = {}
    inner = dict(inner)
    return {**value, path[0]: {**inner, **added} if len(path) == 1 else _merged(inner, path[1:], added, create=create)}


# Replicas and images


def _scale(spec: Mapping[str, Any], resources: list[Resource], context: Context) -> None:
    for index, entry in enumerate(listed(spec, "replicas")):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        chosen = [
            resource
            for resource in resources
            if name in (resource.name, *resource.original_names)
            and resource.kind in ("Deployment", "ReplicaSet", "StatefulSet", "ReplicationController")
        ]
        if not chosen:
            context.report(f"replicas[{index}]", f"there is no workload {name}", "correct the name", Severity.WARNING)
        for resource in chosen:
            resource.value = _merged(resource.value, ("spec",), {"replicas": entry.get("count")}, create=True)


def _images(spec: Mapping[str, Any], resources: list[Resource], context: Context) -> None:
    for index, entry in enumerate(listed(spec, "images")):
        if not isinstance(entry, Mapping) or not entry.get("name"):
            context.report(f"images[{index}]", "has no name", "name the image to change")
            continue
        for resource in resources:
            resource.value = _map_images(resource.value, functools.partial(_changed_image, entry))


def _map_images(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_map_images(entry, change) for entry in value]
    if not isinstance(value, dict):
        return value
    result = {name: _map_images(inner, change) for name, inner in value.items()}
    for name in ("containers", "initContainers"):
        if isinstance(result.get(name), list):
            result[name] = [
                {**container, "image": change(container["image"])}
                if isinstance(container, dict) and isinstance(container.get("image"), str)
                else container
                for container in result[name]
            ]
    return result


def _changed_image(entry: Mapping[str, Any], image: str) -> str:
    name, at, digest = image.partition("@")
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    tag = ""
    if colon >= 0:
        name, tag = name[:colon], name[colon + 1 :]
    if name != entry["name"]:
        return image
    name = str(entry.get("newName") or name)
    if entry.get("digest"):
        return f"{name}@{entry['digest']}"
    if entry.get("newTag") is not None:
        tag, at, digest = str(entry["newTag"]), "", ""
    if entry.get("tagSuffix"):
        tag, at, digest = f"{tag}{entry['tagSuffix']}", "", ""
    return name + (f":{tag}" if tag else "") + at + digest
