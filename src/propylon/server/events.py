"""Events: what happened to objects, for people. How one is worded, counted and kept, and its two forms. Pure.

core/v1 and events.k8s.io/v1 show the same objects under different field names (k8s.io/api/events/v1); they are stored
in the core form.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from propylon.api.meta import ObjectRef

Document = dict[str, Any]

COMPONENT = "propylon"
CLUSTER_SCOPED_IN = "default"
"""The namespace of Events about objects that live in none, as in Kubernetes."""
LONGEST_MESSAGE = 1024
"""What Kubernetes allows in an Event's note."""

_TO_CORE = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_FROM_CORE = {core: other for other, core in _TO_CORE.items()}


class Note(NamedTuple):
    """Something that happened to an object."""

    ref: ObjectRef
    type: Literal["Normal", "Warning"]
    reason: str
    """CamelCase, for machines."""
    message: str
    field: str = ""
    """The object's field that it is about."""


def event_ref(note: Note) -> ObjectRef:
    """The Event that tells it: the same for the same words about the same object, so that repetitions are counted."""
    text = "\0".join((*note.ref, note.type, note.reason, note.message, note.field))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return ObjectRef("", "Event", note.ref.namespace or CLUSTER_SCOPED_IN, f"{note.ref.name[:236]}.{digest}")


def tell(note: Note, about: Mapping[str, Any] | None, before: Document | None, host: str, now: dt.datetime) -> Document:
    """The Event of a note. `about` is the object as stored (None if it is not), `before` the Event that told the same
    before."""
    time = rfc3339(now)
    if before is not None:
        count = int(before.get("count") or 1) + 1
        series = {"count": count, "lastObservedTime": rfc3339_micro(now)}
        return {**before, "count": count, "lastTimestamp": time, "series": series}
    ref = event_ref(note)
    metadata = about["metadata"] if about is not None else {}
    involved: Document = {
        "apiVersion": about["apiVersion"] if about is not None else "",
        "kind": note.ref.kind,
        "namespace": note.ref.namespace,
        "name": note.ref.name,
        "uid": metadata.get("uid", ""),
        "resourceVersion": metadata.get("resourceVersion", ""),
        "fieldPath": note.field,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "involvedObject": {name: value for name, value in involved.items() if value},
        "type": note.type,
        "reason": note.reason[:128],
        "message": note.message[:LONGEST_MESSAGE],
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": {"component": COMPONENT, "host": host},
        "reportingComponent": COMPONENT,
        "reportingInstance": host,
    }


def last_seen(event: Mapping[str, Any]) -> str:
    """When an Event was last told, as RFC 3339; such times in UTC sort as text."""
    series = event.get("series")
    observed = series.get("lastObservedTime") if isinstance(series, Mapping) else None
    times = (observed, event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return max((str(time) for time in times if time), default="")


def outdated(
    events: Iterable[tuple[ObjectRef, Mapping[str, Any]]], now: dt.datetime, *, keep: dt.timedelta, most: int
) -> list[ObjectRef]:
    """The Events that are to go: older than `keep`, or more than `most`, the oldest first."""
    found = sorted(((last_seen(event), ref) for ref, event in events), reverse=True)
    oldest = rfc3339(now - keep)
    return [ref for number, (seen, ref) in enumerate(found) if number >= most or seen < oldest]


def to_core(document: Mapping[str, Any]) -> Document:
    """An events.k8s.io/v1 Event in the core form."""
    shown = {_TO_CORE.get(name, name): value for name, value in document.items()}
    if "apiVersion" in shown:
        shown["apiVersion"] = "v1"
    return shown


def from_core(document: Mapping[str, Any]) -> Document:
    """A core Event in the form of events.k8s.io/v1."""
    shown = {_FROM_CORE.get(name, name): value for name, value in document.items()}
    shown["apiVersion"] = "events.k8s.io/v1"
    shown.setdefault("eventTime", None)
    return shown


def rfc3339(time: dt.datetime) -> str:
    """A time as `metav1.Time` has it: whole seconds, UTC."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def rfc3339_micro(time: dt.datetime) -> str:
    """A time as `metav1.MicroTime` has it."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
