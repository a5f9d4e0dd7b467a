"""Discovery: which groups, versions and resources there are, in the old form and the aggregated one. Pure."""

from __future__ import annotations

from typing import Any

from propylon.server.resources import Registry, Resource

VIRTUAL: dict[tuple[str, str], tuple[tuple[str, str, bool], ...]] = {
    ("authentication.k8s.io", "v1"): (
        ("selfsubjectreviews", "SelfSubjectReview", False),
        ("tokenreviews", "TokenReview", False),
    ),
    ("authorization.k8s.io", "v1"): (
        ("localsubjectaccessreviews", "LocalSubjectAccessReview", True),
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
        ("subjectaccessreviews", "SubjectAccessReview", False),
    ),
}
"""What can only be created, and is answered at once: (plural, kind, namespaced) by group and version."""


def groups(registry: Registry) -> dict[str, tuple[str, ...]]:
    """Versions by group, the core group left out."""
    found = {group: versions for group, versions in registry.groups.items() if group}
    for group, version in VIRTUAL:
        found.setdefault(group, (version,))
    return dict(sorted(found.items()))


def api_versions(server: str) -> dict[str, Any]:
    """What /api answers."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def group_list(registry: Registry) -> dict[str, Any]:
    """What /apis answers."""
    found = [_group(name, versions) for name, versions in groups(registry).items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(registry: Registry, name: str) -> dict[str, Any] | None:
    """What /apis/GROUP answers; None if there is no such group."""
    versions = groups(registry).get(name)
    return None if versions is None else {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def _group(name: str, versions: tuple[str, ...]) -> dict[str, Any]:
    shown = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": shown, "preferredVersion": shown[0]}


def resource_list(registry: Registry, group_name: str, version: str) -> dict[str, Any] | None:
    """What /apis/GROUP/VERSION answers; None if it is not served."""
    resources = registry.in_version(group_name, version)
    virtual = VIRTUAL.get((group_name, version), ())
    if not resources and not virtual:
        return None
    found: list[dict[str, Any]] = [
        {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["create"]}
        for plural, kind, namespaced in virtual
    ]
    for resource in resources:
        entry: dict[str, Any] = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        found.append(entry)
        for name, kind, verbs, foreign in subresources(resource, version):
            below: dict[str, Any] = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": list(verbs),
            }
            if foreign is not None:
                below["group"], below["version"] = foreign
            found.append(below)
    group_version = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}


Subresource = tuple[str, str, tuple[str, ...], tuple[str, str] | None]


def subresources(resource: Resource, version: str) -> list[Subresource]:
    """(name, kind, verbs, foreign group and version) of what is below a resource."""
    found: list[Subresource] = []
    if resource.has_status(version):
        found.append(("status", resource.kind, ("get", "patch", "update"), None))
    if resource.scale_of(version) is not None:
        found.append(("scale", "Scale", ("get", "patch", "update"), ("autoscaling", "v1")))
    if (resource.group, resource.kind) == ("", "ServiceAccount"):
        found.append(("token", "TokenRequest", ("create",), ("authentication.k8s.io", "v1")))
    if (resource.group, resource.kind) == ("", "Pod"):
        found.append(("log", "Pod", ("get",), None))
    return found


def aggregated(registry: Registry, *, core: bool) -> dict[str, Any]:
    """APIGroupDiscoveryList (apidiscovery.k8s.io/v2): the core group, or all others."""
    wanted = {"": registry.groups[""]} if core else groups(registry)
    items = []
    for name, versions in wanted.items():
        entry: dict[str, Any] = {"metadata": {"name": name} if name else {"creationTimestamp": None}}
        entry["versions"] = [_aggregated_version(registry, name, version) for version in versions]
        items.append(entry)
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_version(registry: Registry, group_name: str, version: str) -> dict[str, Any]:
    def kind_of(kind: str, foreign: tuple[str, str] | None = None) -> dict[str, str]:
        where = foreign or (group_name, version)
        return {"group": where[0], "version": where[1], "kind": kind}

    found: list[dict[str, Any]] = [
        {
            "resource": plural,
            "responseKind": kind_of(kind),
            "scope": "Namespaced" if namespaced else "Cluster",
            "singularResource": kind.lower(),
            "verbs": ["create"],
        }
        for plural, kind, namespaced in VIRTUAL.get((group_name, version), ())
    ]
    for resource in registry.in_version(group_name, version):
        entry: dict[str, Any] = {
            "resource": resource.plural,
            "responseKind": kind_of(resource.kind),
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        below = [
            {"subresource": name, "responseKind": kind_of(kind, foreign), "verbs": list(verbs)}
            for name, kind, verbs, foreign in subresources(resource, version)
        ]
        if below:
            entry["subresources"] = below
        found.append(entry)
    return {"version": version, "resources": found, "freshness": "Current"}
