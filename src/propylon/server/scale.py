"""The scale subresource: how many, and how many there are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from propylon.server.errors import bad_request
from propylon.server.json_path import find_all
from propylon.server.resources import Scale


def scale_document(document: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """The Scale (autoscaling/v1) of an object."""
    metadata = document["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    wanted = find_all(document, scale.spec_replicas)
    present = find_all(document, scale.status_replicas)
    selector = find_all(document, scale.selector) if scale.selector else []
    status: dict[str, Any] = {"replicas": present[0] if present else 0}
    if selector and (text := _selector_text(selector[0])):
        status["selector"] = text
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": wanted[0]} if wanted else {},
        "status": status,
    }


def _selector_text(selector: Any) -> str:
    """A label selector in its written form: as it is, or from matchLabels and matchExpressions."""
    if not isinstance(selector, Mapping):
        return selector if isinstance(selector, str) else ""
    labels = selector.get("matchLabels")
    terms = {name: f"{name}={value}" for name, value in labels.items()} if isinstance(labels, Mapping) else {}
    for expression in selector.get("matchExpressions") or ():
        if isinstance(expression, Mapping):
            key, values = str(expression.get("key")), ",".join(sorted(map(str, expression.get("values") or ())))
            written = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "DoesNotExist": f"!{key}"}
            terms[key] = written.get(str(expression.get("operator")), key)
    return ",".join(terms[key] for key in sorted(terms))


def apply_scale(document: Mapping[str, Any], scale: Scale, wanted: Any) -> dict[str, Any]:
    """The object with the replicas that a Scale asks for. Raises ApiError (400)."""
    spec = wanted.get("spec") if isinstance(wanted, Mapping) else None
    replicas = spec.get("replicas", 0) if isinstance(spec, Mapping) else None
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        raise bad_request("spec.replicas must be a whole number from 0 on")
    steps = [step for step in scale.spec_replicas.split(".") if step]
    changed: dict[str, Any] = _with(document, steps, replicas)
    metadata = wanted.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    if isinstance(version, str) and version:
        changed["metadata"] = {**changed["metadata"], "resourceVersion": version}
    return changed


def _with(value: Any, steps: list[str], replicas: int) -> Any:
    if not steps:
        return replicas
    held = value if isinstance(value, Mapping) else {}
    return {**held, steps[0]: _with(held.get(steps[0]), steps[1:], replicas)}
