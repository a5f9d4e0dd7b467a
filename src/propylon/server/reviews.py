"""Reviews: questions that are created and answered at once. Who am I, what may I, is this token good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from propylon.server import errors
from propylon.server.access import Access, Attributes
from propylon.server.identity import User
from propylon.server.paths import Place
from propylon.store.local import utc_now

Document = dict[str, Any]
Authenticate = Callable[[str], User | None]


def review(place: Place, body: Mapping[str, Any], user: User, access: Access, authenticate: Authenticate) -> Document:
    """Answer a review. Raises ApiError (400) for one that asks nothing."""
    spec = body.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    status: Document
    match place.plural:
        case "selfsubjectreviews":
            status = {"userInfo": _user_info(user)}
        case "selfsubjectaccessreviews":
            status = _access_status(access, user, _attributes(spec))
        case "subjectaccessreviews" | "localsubjectaccessreviews":
            asked_for = User(str(spec.get("user") or ""), _texts(spec.get("groups")))
            status = _access_status(access, asked_for, _attributes(spec))
        case "selfsubjectrulesreviews":
            status = _rules_status(access, user, str(spec.get("namespace") or ""))
        case "tokenreviews":
            found = authenticate(str(spec.get("token") or ""))
            status = {"authenticated": found is not None}
            if found is not None:
                status["user"] = _user_info(found)
        case _:
            raise errors.no_such_path()
    given = body.get("metadata")
    metadata = dict(given) if isinstance(given, Mapping) else {}
    if place.plural == "selfsubjectreviews":
        metadata["creationTimestamp"] = utc_now()
    return {**body, "metadata": metadata, "status": status}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _user_info(user: User) -> Document:
    info: Document = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.credential:
        info["extra"] = {"authentication.kubernetes.io/credential-id": [user.credential]}
    return info


def _attributes(spec: Mapping[str, Any]) -> Attributes:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(resource, Mapping):
        text = {name: str(value) for name, value in resource.items() if value is not None}
        return Attributes(
            text.get("verb", ""),
            text.get("group", ""),
            text.get("resource", ""),
            text.get("subresource", ""),
            text.get("namespace", ""),
            text.get("name", ""),
        )
    if isinstance(other, Mapping):
        return Attributes(str(other.get("verb") or ""), path=str(other.get("path") or ""))
    raise errors.bad_request("spec.resourceAttributes or spec.nonResourceAttributes is required")


def _access_status(access: Access, user: User, asked: Attributes) -> Document:
    allowed, reason = access.decide(user, asked)
    return {"allowed": allowed, "reason": reason} if reason else {"allowed": allowed}


def _rules_status(access: Access, user: User, namespace: str) -> Document:
    if access.allows(user, Attributes("*", "*", "*", namespace=namespace)):
        resources = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        others = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
        return {"resourceRules": resources, "nonResourceRules": others, "incomplete": False}
    resources, others = [], []
    for rule in access.rules(user, namespace):
        kept = {name: rule[name] for name in ("verbs", "apiGroups", "resources", "resourceNames") if rule.get(name)}
        if rule.get("nonResourceURLs"):
            others.append({"verbs": rule.get("verbs") or [], "nonResourceURLs": rule["nonResourceURLs"]})
        else:
            resources.append(kept)
    return {"resourceRules": resources, "nonResourceRules": others, "incomplete": False}
