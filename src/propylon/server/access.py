"""Role-based access control: what a user may do, from the RBAC objects in the store.

Semantics are those of rbac.authorization.k8s.io/v1: rules only allow, ClusterRoles are also found by aggregation, and
members of `system:masters` may do everything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from propylon.api.meta import LabelSelector
from propylon.server.credentials import ADMINS
from propylon.server.identity import User
from propylon.server.kept_schemas import check_kept
from propylon.store import Gone, GroupKind, LocalStore

RBAC_GROUP = "rbac.authorization.k8s.io"
KINDS = tuple(GroupKind(RBAC_GROUP, kind) for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"))


class Attributes(msgspec.Struct, frozen=True):
    """What is asked for: a verb on a resource, or on a path if `path` is set."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    def sentence(self, user: User) -> str:
        """Why not, in Kubernetes' words."""
        if self.path:
            return f'User "{user.name}" cannot {self.verb} path "{self.path}"'
        below = f"/{self.subresource}" if self.subresource else ""
        where = f' in the namespace "{self.namespace}"' if self.namespace else " at the cluster scope"
        return (
            f'User "{user.name}" cannot {self.verb} resource "{self.resource}{below}" '
            f'in API group "{self.group}"{where}'
        )


Rule = Mapping[str, Any]

_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_USERS_KINDS: list[dict[str, Any]] = [
    {
        "apiGroups": [""],
        "resources": ["configmaps", "endpoints", "persistentvolumeclaims", "pods", "services", "serviceaccounts"],
    },
    {"apiGroups": ["apps"], "resources": ["*"]},
    {"apiGroups": ["batch"], "resources": ["*"]},
    {"apiGroups": ["autoscaling"], "resources": ["*"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "networkpolicies"]},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
]
_VIEW = [
    *({**rule, "verbs": _READ} for rule in _USERS_KINDS),
    {"apiGroups": [""], "resources": ["events", "namespaces", "pods/log"], "verbs": _READ},
]
_EDIT = [
    *({**rule, "verbs": [*_READ, *_WRITE]} for rule in _USERS_KINDS),
    {"apiGroups": [""], "resources": ["secrets"], "verbs": [*_READ, *_WRITE]},
    {"apiGroups": [""], "resources": ["events", "namespaces", "pods/log"], "verbs": _READ},
]
_ADMIN = [
    *_EDIT,
    {"apiGroups": [RBAC_GROUP], "resources": ["roles", "rolebindings"], "verbs": [*_READ, *_WRITE]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]},
]
_REVIEWS = [
    {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        "verbs": ["create"],
    },
    {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
]
_PUBLIC = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *_PUBLIC]


def _aggregate(name: str) -> dict[str, Any]:
    labels = {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}
    return {"clusterRoleSelectors": [{"matchLabels": labels}]}


DEFAULT_ROLES: Mapping[str, dict[str, Any]] = {
    "cluster-admin": {
        "rules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ]
    },
    "admin": {"rules": _ADMIN, "aggregationRule": _aggregate("admin")},
    "edit": {"rules": _EDIT, "aggregationRule": _aggregate("edit")},
    "view": {"rules": _VIEW, "aggregationRule": _aggregate("view")},
    "system:basic-user": {"rules": _REVIEWS},
    "system:discovery": {"rules": [{"nonResourceURLs": _DISCOVERY, "verbs": ["get"]}]},
    "system:public-info-viewer": {"rules": [{"nonResourceURLs": _PUBLIC, "verbs": ["get"]}]},
}
"""ClusterRoles that exist whether or not the store has them; one of the same name in the store takes their place."""

DEFAULT_BINDINGS: Mapping[str, tuple[str, ...]] = {
    "cluster-admin": (ADMINS,),
    "system:basic-user": ("system:authenticated",),
    "system:discovery": ("system:authenticated",),
    "system:public-info-viewer": ("system:authenticated", "system:unauthenticated"),
}
"""Which groups have which of them everywhere, unless the store has a binding of that name."""


class Access:
    """Decides; follows the RBAC objects of the store, whoever wrote them."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._version: int | None = None
        self._stale = threading.Event()
        self._stale.set()
        self._unsubscribe = store.subscribe(self._stale.set)
        self._roles: dict[tuple[str, str], dict[str, Any]] = {}
        self._bindings: list[dict[str, Any]] = []
        self._replaced: frozenset[str] = frozenset()
        """Default bindings that the store has one of the same name for."""

    def close(self) -> None:
        """Stop following."""
        self._unsubscribe()

    def allows(self, user: User, asked: Attributes) -> bool:
        """Whether the user may."""
        if ADMINS in user.groups:
            return True
        return any(_covers(rule, asked) for rule in self.rules(user, asked.namespace))

    def decide(self, user: User, asked: Attributes) -> tuple[bool, str]:
        """Whether the user may, and by which binding of the store ("" for what needs none)."""
        if self.allows(user, asked):
            for binding, place, subject in self._bindings_of(user, asked.namespace):
                role = binding.get("roleRef") or {}
                kind, name = str(role.get("kind", "")), str(role.get("name", ""))
                if any(_covers(rule, asked) for rule in self.rules_of(place, kind, name)):
                    return (
                        True,
                        f"RBAC: allowed by {_shown_binding(binding, place)} of {kind} {_quoted(name)} to {subject}",
                    )
            return True, ""
        return False, ""

    def rules(self, user: User, namespace: str) -> Iterator[Rule]:
        """Every rule that holds for the user, in a namespace and (always) in the whole cluster."""
        self._refresh()
        for name, groups in DEFAULT_BINDINGS.items():
            if name not in self._replaced and any(group in user.groups for group in groups):
                yield from self.rules_of("", "ClusterRole", name)
        for binding, place, _ in self._bindings_of(user, namespace):
            role = binding.get("roleRef") or {}
            yield from self.rules_of(place, str(role.get("kind", "")), str(role.get("name", "")))

    def _bindings_of(self, user: User, namespace: str) -> Iterator[tuple[Mapping[str, Any], str, str]]:
        """The bindings that name the user, each with its namespace ("" for the cluster) and as whom it names him."""
        for binding in self._bindings:
            place = binding["metadata"].get("namespace", "") if binding["kind"] == "RoleBinding" else ""
            if place in ("", namespace) and (subject := _subject(binding, user, place)):
                yield binding, place, subject

    def rules_of(self, namespace: str, kind: str, name: str) -> Iterator[Rule]:
        """The rules of a Role in that namespace or of a ClusterRole, with what it aggregates."""
        role = self._roles.get((namespace if kind == "Role" else "", name))
        if role is None and kind == "ClusterRole":
            role = DEFAULT_ROLES.get(name)
        if role is None:
            return
        yield from _mappings(role.get("rules"))
        aggregation = role.get("aggregationRule")
        if kind == "ClusterRole" and isinstance(aggregation, Mapping):
            for selector in _mappings(aggregation.get("clusterRoleSelectors")):
                yield from self._aggregated(selector, name)

    def _aggregated(self, said: Mapping[str, Any], own: str) -> Iterator[Rule]:
        selector = msgspec.convert(dict(said), LabelSelector)
        for (namespace, name), role in self._roles.items():
            if not namespace and name != own and selector.matches(role["metadata"].get("labels") or {}):
                yield from _mappings(role.get("rules"))

    def _refresh(self) -> None:
        if not self._stale.is_set():
            return
        self._stale.clear()
        if self._version is not None:
            try:
                changes = self._store.changes_since(self._version, KINDS)
            except Gone:
                pass
            else:
                self._version = changes.resource_version
                if not changes.events:
                    return
        listing = self._store.list(KINDS)
        self._version = listing.resource_version
        self._roles, self._bindings = {}, []
        for document in listing.documents:
            if check_kept(document["kind"], document):
                continue  # it allows nothing
            if document["kind"] in ("Role", "ClusterRole"):
                metadata = document["metadata"]
                place = metadata.get("namespace", "") if document["kind"] == "Role" else ""
                self._roles[(place, metadata["name"])] = document
            else:
                self._bindings.append(document)
        names = (binding["metadata"]["name"] for binding in self._bindings if binding["kind"] == "ClusterRoleBinding")
        self._replaced = frozenset(names) & DEFAULT_BINDINGS.keys()


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _subject(binding: Mapping[str, Any], user: User, namespace: str) -> str:
    """The subject of the binding that is the user, in words; "" if none is."""
    for subject in _mappings(binding.get("subjects")):
        kind, name = subject.get("kind"), str(subject.get("name", ""))
        if kind == "User" and name == user.name:
            return f"User {_quoted(name)}"
        if kind == "Group" and name in user.groups:
            return f"Group {_quoted(name)}"
        place = subject.get("namespace") or namespace
        if kind == "ServiceAccount" and user.name == f"system:serviceaccount:{place}:{name}":
            return f"ServiceAccount {_quoted(f'{name}/{place}')}"
    return ""


def _quoted(text: str) -> str:
    return f'"{text}"'


def _shown_binding(binding: Mapping[str, Any], place: str) -> str:
    name = binding["metadata"]["name"]
    return f"{binding['kind']} {_quoted(f'{name}/{place}' if place else name)}"


def _covers(rule: Rule, asked: Attributes) -> bool:
    if not _has(rule.get("verbs"), asked.verb):
        return False
    if asked.path:
        return any(_path_matches(str(path), asked.path) for path in rule.get("nonResourceURLs") or ())
    if not _has(rule.get("apiGroups"), asked.group):
        return False
    names = rule.get("resourceNames") or ()
    if names and asked.name not in names:
        return False
    wanted = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    resources = rule.get("resources") or ()
    return (
        "*" in resources or wanted in resources or (asked.subresource != "" and f"*/{asked.subresource}" in resources)
    )


def _has(values: Any, value: str) -> bool:
    return isinstance(values, list) and (value in values or "*" in values)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern == path or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def allowed_to_grant(access: Access, user: User, rules: list[Mapping[str, Any]], namespace: str) -> str:
    """Why a user may not write a role with these rules: nobody grants what he does not have; "" if he may."""
    if ADMINS in user.groups:
        return ""
    missing: list[str] = []
    for rule in rules:
        for verb in rule.get("verbs") or ():
            missing += [
                f"{{NonResourceURLs:[{_quoted(str(path))}], Verbs:[{_quoted(str(verb))}]}}"
                for path in rule.get("nonResourceURLs") or ()
                if not access.allows(user, Attributes(str(verb), path=str(path)))
            ]
            for group in rule.get("apiGroups") or ():
                for resource in rule.get("resources") or ():
                    plural, _, below = str(resource).partition("/")
                    for name in rule.get("resourceNames") or [""]:
                        asked = Attributes(str(verb), str(group), plural, below, namespace, str(name))
                        if not access.allows(user, asked):
                            names = f", ResourceNames:[{_quoted(str(name))}]" if name else ""
                            what = f"APIGroups:[{_quoted(str(group))}], Resources:[{_quoted(str(resource))}]{names}"
                            missing.append(f"{{{what}, Verbs:[{_quoted(str(verb))}]}}")
    if not missing:
        return ""
    return "attempting to grant RBAC permissions not currently held:\n" + "\n".join(dict.fromkeys(missing))


def exempt_from_grants(access: Access, user: User, kind: str, body: Mapping[str, Any], namespace: str) -> bool:
    """Whether `escalate` on roles, or `bind` on the role that a binding names, lets the user grant anything."""
    if kind in ("Role", "ClusterRole"):
        metadata = body.get("metadata")
        name = str(metadata.get("name") or "") if isinstance(metadata, Mapping) else ""
        return access.allows(user, Attributes("escalate", RBAC_GROUP, f"{kind.lower()}s", "", namespace, name))
    role = body.get("roleRef")
    role = role if isinstance(role, Mapping) else {}
    plural = f"{str(role.get('kind', '')).lower()}s"
    return access.allows(user, Attributes("bind", RBAC_GROUP, plural, "", namespace, str(role.get("name", ""))))
