"""Refusals in Kubernetes' own words: an exception that is a `Status` object of the API.

Codes, reasons and the shape of `details` are those of `metav1.Status` in the Kubernetes API; clients act upon them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from propylon.api.validation import Finding
from propylon.store import errors as store_errors

if TYPE_CHECKING:
    from propylon.server.resources import Resource


class ApiError(Exception):
    """A request that is refused. `status()` is the body of the answer, `code` its HTTP status."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None, *, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after

    def status(self) -> dict[str, Any]:
        """The Status object."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


class UndecodableError(ApiError):
    """400: an object of Kubernetes' own kinds with values of the wrong type."""

    def __init__(self, resource: Resource, text: str) -> None:
        what, version = resource.kind, resource.versions[0]
        super().__init__(400, "BadRequest", f'{what} in version "{version}" cannot be handled as a {what}: {text}')
        self.text = text

    def of_patch(self) -> ApiError:
        """422: the same, as the outcome of a patch."""
        message = f"Invalid value: {self.text}"
        details = {"causes": [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}]}
        return ApiError(422, "Invalid", f' "" is invalid: patch: {message}', details)


def success(resource: Resource, name: str, uid: str) -> dict[str, Any]:
    """The Status that answers a finished deletion."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {**_details(resource, name), "uid": uid},
    }


def _details(resource: Resource, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    return details


def bad_request(message: str) -> ApiError:
    """400: the request itself makes no sense."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """401: nobody we know."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: Resource | None, name: str, message: str) -> ApiError:
    """403: understood, and not allowed."""
    if resource is None:
        return ApiError(403, "Forbidden", f"forbidden: {message}", {})
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {message}", _details(resource, name))


def not_found(resource: Resource, name: str) -> ApiError:
    """404: no such object."""
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def no_such_path() -> ApiError:
    """404: no such kind, version or subresource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> ApiError:
    """405: the resource exists and cannot do this."""
    return ApiError(405, "MethodNotAllowed", message, {})


def not_acceptable(accepted: str) -> ApiError:
    """406: the client wants a form that we do not speak; clients then fall back to JSON."""
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {accepted}")


def already_exists(resource: Resource, name: str) -> ApiError:
    """409: the name is taken."""
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, message: str) -> ApiError:
    """409: the object is not as the writer believed."""
    text = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {message}'
    return ApiError(409, "Conflict", text, _details(resource, name))


def expired(message: str) -> ApiError:
    """410: list again."""
    return ApiError(410, "Expired", message)


def too_large(limit: int) -> ApiError:
    """413: a body beyond the limit."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_media_type(accepted: str) -> ApiError:
    """415: a body in a form that we do not read."""
    message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(resource: Resource, name: str, causes: Sequence[tuple[str, str, str]]) -> ApiError:
    """422: the object is refused; each cause is (reason, message, field)."""
    texts = [f"{field}: {message}" if field else message for _, message, field in causes]
    summary = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    qualified = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details: dict[str, Any] = {"name": name}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.kind
    details["causes"] = [{"reason": reason, "message": message, "field": field} for reason, message, field in causes]
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {summary}', details)


_REASONS = {
    "required_field_missing": "FieldValueRequired",
    "missing_name": "FieldValueRequired",
    "unknown_value": "FieldValueNotSupported",
    "duplicate_item": "FieldValueDuplicate",
    "wrong_type": "FieldValueTypeInvalid",
    "too_long": "FieldValueTooLong",
    "too_many_items": "FieldValueTooMany",
    "field_must_not_change": "FieldValueInvalid",
}
_WORDS = {
    "FieldValueRequired": "Required value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
}


def cause_of(finding: Finding) -> tuple[str, str, str]:
    """A finding of validation, worded as an API server words causes."""
    reason = _REASONS.get(finding.code, "FieldValueInvalid")
    words = _WORDS.get(reason, "Invalid value")
    found = f": {finding.found}" if finding.found and reason != "FieldValueRequired" else ""
    return reason, f"{words}{found}: {finding.message}. {finding.remedy}".rstrip(), finding.field


_NOT_DECODED = ("wrong_type", "data_must_be_base64")


def _not_decoded(findings: Sequence[Finding]) -> str:
    """What makes an object of Kubernetes' own kinds undecodable, which is no matter of its meaning; "" if nothing."""
    found = [
        finding for finding in findings if finding.code in _NOT_DECODED and not finding.field.startswith("metadata")
    ]
    return f"{found[0].field}: {found[0].message}" if found else ""


def of_store(error: store_errors.StoreError, resource: Resource, name: str) -> ApiError:
    """What a store refused, for whoever asked for that resource."""
    match error:
        case store_errors.NotFound():
            if error.ref.kind == "Namespace" and resource.kind != "Namespace":
                details = {"name": error.ref.name, "kind": "namespaces"}
                return ApiError(404, "NotFound", f'namespaces "{error.ref.name}" not found', details)
            return not_found(resource, name)
        case store_errors.AlreadyExists():
            return already_exists(resource, error.ref.name)
        case store_errors.Conflict():
            return conflict(
                resource,
                name,
                "the object has been modified; please apply your changes to the latest version and try again",
            )
        case store_errors.Forbidden():
            namespace = error.ref.namespace
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            refused = forbidden(resource, error.ref.name, message)
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated"}
            refused.details = {**(refused.details or {}), "causes": [{**cause, "field": "metadata.namespace"}]}
            return refused
        case store_errors.Invalid():
            found = [finding for finding in error.findings if finding.severity == "error"]
            if not resource.custom and "gateway." not in resource.group and (text := _not_decoded(found)):
                return UndecodableError(resource, text)
            return invalid(resource, name, [cause_of(finding) for finding in found])
        case store_errors.Gone():
            return expired(f"too old resource version: {error.since} ({error.oldest})")
        case store_errors.ReadOnly():
            return ApiError(403, "Forbidden", "the store is open for reading only")
        case store_errors.StoreUnavailable():
            return ApiError(503, "ServiceUnavailable", str(error), {"retryAfterSeconds": 1}, retry_after=1)
    return ApiError(500, "InternalError", str(error))
