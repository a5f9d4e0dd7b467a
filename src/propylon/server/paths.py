"""Request paths into targets, and Accept headers into the form of the answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from propylon.server.errors import not_acceptable

LEGACY_WATCH = "watch"


class Place(msgspec.Struct, frozen=True):
    """What a path below /api or /apis names; `plural` is "" for the group and version themselves."""

    group: str
    version: str
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""


def parse_path(path: str) -> Place | None:
    """Read /api/V/... and /apis/G/V/...; None for every other path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *more = [*rest, "", "", ""][: max(3, len(rest))]
    if plural == "namespaces" and not group:
        namespace = name
    return Place(group, version, namespace, plural, name, subresource, "/".join(more))


class Form(msgspec.Struct, frozen=True):
    """How the answer is to look: `kind` is "", "Table", "PartialObjectMetadata"...; `version` its API version."""

    kind: str = ""
    group: str = ""
    version: str = ""

    @property
    def api_version(self) -> str:
        """The apiVersion of the answer's envelope."""
        return f"{self.group}/{self.version}"


JSON = "application/json"
_ANY = ("*/*", "application/*", JSON)
_TRANSFORMED = {
    ("Table", "meta.k8s.io"): ("v1", "v1beta1"),
    ("PartialObjectMetadata", "meta.k8s.io"): ("v1", "v1beta1"),
    ("PartialObjectMetadataList", "meta.k8s.io"): ("v1", "v1beta1"),
    ("APIGroupDiscoveryList", "apidiscovery.k8s.io"): ("v2",),
}


def form_of(accept: str, *, discovery: bool = False) -> Form:
    """The first form that the client accepts and that we have. Raises ApiError (406)."""
    if not accept.strip():
        return Form()
    for part in accept.split(","):
        media, *parameters = [piece.strip() for piece in part.split(";")]
        if media.lower() not in _ANY and not (media.lower() == "application/yaml" and discovery):
            continue
        said: Mapping[str, str] = {
            name.strip(): value.strip() for name, _, value in (text.partition("=") for text in parameters)
        }
        kind = said.get("as", "")
        if not kind:
            return Form()
        versions = _TRANSFORMED.get((kind, said.get("g", "")), ())
        if said.get("v") in versions and (kind == "APIGroupDiscoveryList") is discovery:
            return Form(kind.removesuffix("List") if kind.startswith("Partial") else kind, said["g"], said["v"])
    raise not_acceptable(JSON)
