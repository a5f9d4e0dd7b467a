"""What can be said of an object by itself: versions that go, annotations in the wrong place."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from propylon import api
from propylon.api.kinds import by_kind

_FOR_WHAT_IS_MADE = (
    "service.beta.kubernetes.io/",
    "service.kubernetes.io/",
    "cloud.google.com/",
    "lbipam.cilium.io/",
    "io.cilium/lb-ipam",
    "metallb.io/",
    "metallb.universe.tf/",
    "networking.gke.io/",
)
"""Annotations that controllers read on Services. A Gateway's Service gets those of spec.infrastructure."""


class Doubt(NamedTuple):
    """Something about one field of an object."""

    code: str
    field: str
    message: str
    remedy: str


def manifest_doubts(ref: api.ObjectRef, document: Mapping[str, Any]) -> Iterator[Doubt]:
    """Look at one document as it is written."""
    yield from _version(ref, str(document.get("apiVersion", "")))
    if ref.kind == "Gateway" and ref.group == api.GATEWAY_GROUP:
        for name in sorted((document.get("metadata") or {}).get("annotations") or {}):
            if name.startswith(_FOR_WHAT_IS_MADE):
                yield Doubt(
                    "annotation_misplaced",
                    f"metadata.annotations[{name}]",
                    f"annotation {name} on a Gateway is not passed on to the Service that is made for it",
                    f"move it to spec.infrastructure.annotations[{name}]",
                )


def _version(ref: api.ObjectRef, written: str) -> Iterator[Doubt]:
    info = by_kind(ref.group, ref.kind)
    group, _, version = written.rpartition("/")
    if info is None or group != api.GATEWAY_GROUP or version == "v1" or "v1" not in info.served_versions:
        return
    yield Doubt(
        "version_deprecated",
        "apiVersion",
        f"{ref.kind} has become v1; {version} is kept for old manifests only",
        f"write apiVersion: {group}/v1",
    )
