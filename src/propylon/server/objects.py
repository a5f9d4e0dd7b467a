"""Reading and writing single objects: what create, update, patch, apply and delete requests do to the store.

Everything a write reads and writes happens in one transaction of the store; a dry run is one that is undone.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from propylon.api.defaults import apply_defaults
from propylon.api.meta import ObjectRef, group_of
from propylon.server import errors, ownership
from propylon.server.core_defaults import default_core, quality_of_service
from propylon.server.core_rules import check_change, check_core
from propylon.server.custom import (
    check_definition,
    complete_definition,
    established,
    resource_of,
    rules_not_evaluated,
    scale_causes,
)
from propylon.server.custom_rules import rule_causes
from propylon.server.custom_schema import default_custom, prune_custom, validate_custom
from propylon.server.events import from_core, to_core
from propylon.server.fields import leaves
from propylon.server.list_keys import list_keys_of
from propylon.server.prune import prune
from propylon.server.resources import BUILT_IN, CRD_GROUP, EVENTS_GROUP, Resource, takes_strategic_patches
from propylon.store import LocalStore, NotFound, Propagation, StoreError
from propylon.store.local import utc_now
from propylon.store.patches import PatchError, json_patch, merge_patch, strategic_merge_patch

FILES = "files"
"""The manager of what comes from manifest files."""
KUBECTL = "kubectl"
"""The manager of `kubectl apply --server-side`, which may go back to applying on its own side."""

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PATCH_FORMS = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)

Document = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Document] = msgspec.json.Decoder(dict[str, Any]).decode


class Target(msgspec.Struct, frozen=True):
    """What a request is about: a resource in a version, an object or none ("" for the collection), a subresource."""

    resource: Resource
    version: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def api_version(self) -> str:
        """The apiVersion of the request's URL."""
        return self.resource.api_version(self.version)

    @property
    def ref(self) -> ObjectRef:
        """The object, as the store knows it."""
        return self.resource.ref(self.namespace, self.name)


class Writing(msgspec.Struct, frozen=True):
    """How a write is to be done."""

    manager: str
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False


class Written(msgspec.Struct):
    """What came of a write."""

    document: Document
    created: bool = False
    warnings: tuple[str, ...] = ()


class _UndoError(Exception):
    """Ends the transaction of a dry run."""


def present(target: Target, stored: Mapping[str, Any]) -> Document:
    """A stored object as it is shown: in the version of the request."""
    metadata = dict(stored["metadata"])
    if not target.resource.namespaced:
        metadata.pop("namespace", None)
    shown = {**stored, "apiVersion": target.api_version, "metadata": metadata}
    if target.resource.group == EVENTS_GROUP:
        shown = from_core(shown)
    return default_core(target.resource.group, target.resource.kind, shown)


def has_core_defaults(target: Target) -> bool:
    """Whether objects of this kind are shown with more than is stored."""
    resource = target.resource
    return takes_strategic_patches(resource) and (resource.group, resource.kind) != ("", "ConfigMap")


class Shape:
    """How stored bytes are shown: as they are, wherever they are in the version of the request."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.api_version = target.api_version
        self._beginning = f'{{"apiVersion":"{target.api_version}","kind":'.encode()
        self._as_stored = not has_core_defaults(target) and (
            target.resource.namespaced or not target.resource.stored_namespace("")
        )

    def shown(self, raw: bytes) -> bytes:
        """The bytes of a stored object (see `Listing`) as the request wants them."""
        if self._as_stored and raw.startswith(self._beginning):
            return raw
        return _encode(present(self._target, _decode(raw)))


class Objects:
    """The verbs on single objects."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def get(self, target: Target) -> Document:
        """The object. Raises ApiError (404)."""
        return present(target, self._stored(target))

    def _stored(self, target: Target) -> Document:
        try:
            return self.store.get(target.ref)
        except NotFound as error:
            raise errors.not_found(target.resource, target.name) from error

    # -- writes ------------------------------------------------------------------------------------------------------

    def creation(self, target: Target, body: Document, how: Writing) -> Callable[[], Written]:
        """What stores a new object: all that needs nothing of the store is done when this returns. Both raise
        ApiError."""
        self._check_identity(target, body, needs_name=False)
        body, warnings = self._admit(target, body, how)
        metadata = body["metadata"]
        if not metadata.get("name") and not metadata.get("generateName"):
            message = "Required value: name or generateName is required"
            raise errors.invalid(target.resource, "", [("FieldValueRequired", message, "metadata.name")])
        entries = ownership.after_write(
            (),
            {},
            body,
            list_keys_of(target.resource, target.version),
            manager=how.manager,
            api_version=target.api_version,
            time=utc_now(),
        )
        try:
            admitted = self.store.admitted(ownership.with_entries(_absorbed(target, body), entries))
        except StoreError as error:
            raise errors.of_store(error, target.resource, metadata.get("name") or "") from error
        status = body.get("status")
        return lambda: self._in_transaction(target, how, lambda: self._store_new(target, admitted, status, warnings))

    def update(self, target: Target, body: Document, how: Writing) -> Written:
        """Replace an object, or its status. Raises ApiError."""

        def write() -> Written:
            self._check_identity(target, body, needs_name=True)
            return self._replace(target, body, how)

        return self._in_transaction(target, how, write)

    def patch(self, target: Target, form: str, patch: Any, how: Writing) -> Written:
        """Change an object, or its status, by one of PATCH_FORMS. Raises ApiError."""
        if form == APPLY_PATCH:
            return self._in_transaction(target, how, lambda: self._apply(target, patch, how))
        try:
            return self._in_transaction(target, how, lambda: self._patch(target, form, patch, how))
        except errors.UndecodableError as error:
            raise error.of_patch() from error

    def delete(
        self, target: Target, propagation: Propagation, *, uid: str = "", resource_version: str = "", dry_run: bool
    ) -> tuple[Document, bool]:
        """Delete an object; its last state, and whether it is gone already. Raises ApiError."""

        def write() -> Written:
            if target.resource.group == CRD_GROUP:
                self._delete_custom_objects(self._stored(target))
            last = self.store.delete(target.ref, propagation=propagation, uid=uid, resource_version=resource_version)
            try:
                self.store.get(target.ref)
            except NotFound:
                return Written(present(target, last), created=True)
            return Written(present(target, last))

        done = self._in_transaction(target, Writing("", dry_run=dry_run), write)
        return done.document, done.created

    def _delete_custom_objects(self, definition: Document) -> None:
        """The objects of a kind go with its definition."""
        defined = resource_of(definition)
        if defined is None or any(defined.group_kind == known.group_kind for known in BUILT_IN):
            return
        for ref in self.store.list([defined.group_kind]).refs:
            self.store.delete(ref)

    def _in_transaction(self, target: Target, how: Writing, write: Callable[[], Written]) -> Written:
        done: Written | None = None
        before = ""
        try:
            with self.store.transaction():
                if how.dry_run:
                    before = self._version(target)
                done = write()
                if how.dry_run:
                    raise _UndoError
        except _UndoError:
            pass
        except StoreError as error:
            raise errors.of_store(error, target.resource, target.name) from error
        assert done is not None
        if how.dry_run:  # no version was taken
            done.document = _at_version(done.document, before)
        return done

    def _version(self, target: Target) -> str:
        """The object's resourceVersion, "" if there is none yet."""
        try:
            return str(self.store.get(target.ref)["metadata"]["resourceVersion"]) if target.name else ""
        except NotFound:
            return ""

    # -- create and replace ------------------------------------------------------------------------------------------

    def _store_new(self, target: Target, body: Document, status: Any, warnings: tuple[str, ...]) -> Written:
        resource = target.resource
        try:
            stored = self.store.create(body)
        except StoreError as error:
            raise errors.of_store(error, resource, body["metadata"].get("name") or "") from error
        ref = resource.ref(target.namespace, stored["metadata"]["name"])
        if status is not None and resource.custom and not resource.has_status(target.version):
            stored = self.store.patch_status(ref, lambda _stored: status)
        new_status = _status_of_new(resource, stored)
        if new_status is not None:
            stored = self.store.patch_status(ref, lambda _stored: new_status)
        return Written(present(target, stored), created=True, warnings=warnings)

    def _replace(
        self, target: Target, body: Document, how: Writing, entries: ownership.Entries | None = None
    ) -> Written:
        """Put the body in the object's place; `entries` are given where the writer computed them."""
        stored = self._stored(target)
        before = present(target, stored)
        if target.subresource == "status":
            return self._replace_status(target, body, before, stored, how, entries)
        body, warnings = self._admit(target, body, how, before)
        if causes := check_change(target.resource.group, target.resource.kind, before, body):
            raise errors.invalid(target.resource, target.name, causes)
        given = body["metadata"].get("managedFields")
        if entries is None:
            held = ownership.stored_entries(stored)
            if isinstance(given, list) and given != before["metadata"].get("managedFields", []):
                held = ownership.read_entries(given)
            entries = self._after(target, held, before, body, how)
        updated = self.store.update(ownership.with_entries(_absorbed(target, body), entries))
        if target.resource.custom and not target.resource.has_status(target.version) and "status" in body:
            status = body["status"]
            updated = self.store.patch_status(target.ref, lambda _stored: status)
        if target.resource.group == CRD_GROUP:
            status = established(updated, utc_now())
            updated = self.store.patch_status(target.ref, lambda _stored: status)
        return Written(present(target, updated), warnings=warnings)

    def _replace_status(
        self,
        target: Target,
        body: Document,
        before: Document,
        stored: Document,
        how: Writing,
        entries: ownership.Entries | None,
    ) -> Written:
        pruned, _ = self._pruned(target, {**before, "status": body.get("status")})
        status = pruned.get("status")
        wanted = {**before, "status": status} if status is not None else {**before}
        if status is None:
            wanted.pop("status", None)
        self._check_custom(target, wanted, before)
        held = ownership.stored_entries(stored)
        after = self._after(target, held, before, wanted, how) if entries is None else entries
        version = body["metadata"].get("resourceVersion") or ""
        owners = ownership.write_entries(after)
        updated = self.store.patch_status(target.ref, lambda _stored: status, version, owners)
        return Written(present(target, updated))

    def _after(
        self, target: Target, held: ownership.Entries, before: Document, body: Document, how: Writing
    ) -> ownership.Entries:
        part = "status" if target.subresource == "status" else ""
        if part:
            old, new = {"status": before.get("status")}, {"status": body.get("status")}
        else:
            old = {name: value for name, value in before.items() if name != "status"}
            new = {name: value for name, value in body.items() if name != "status"}
        keys = list_keys_of(target.resource, target.version)
        return ownership.after_write(
            held,
            old,
            new,
            keys,
            manager=how.manager,
            api_version=target.api_version,
            time=utc_now(),
            subresource=part,
        )

    # -- patches -----------------------------------------------------------------------------------------------------

    def _patch(self, target: Target, form: str, patch: Any, how: Writing) -> Written:
        before = self.get(target)
        try:
            patched = self.patched(target, form, before, patch)
        except PatchError as error:
            if form == JSON_PATCH:
                raise errors.ApiError(
                    422, "Invalid", f"the server rejected our request due to an error in our request: {error}", {}
                ) from error
            raise errors.bad_request(str(error)) from error
        if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
            raise errors.bad_request("the patch leaves no object")
        _check_same(target, before, patched)
        return self._replace(target, patched, how)

    @staticmethod
    def patched(target: Target, form: str, before: Document, patch: Any) -> Any:
        """The document after a patch. Raises ApiError, PatchError."""
        if form == JSON_PATCH:
            if not isinstance(patch, list):
                raise errors.bad_request("a JSON patch is a list of operations")
            return json_patch(before, patch)
        if not isinstance(patch, dict):
            raise errors.bad_request("a merge patch is an object")
        if form == MERGE_PATCH:
            return merge_patch(before, patch)
        if not takes_strategic_patches(target.resource):
            raise errors.unsupported_media_type(", ".join((JSON_PATCH, MERGE_PATCH, APPLY_PATCH)))
        return strategic_merge_patch(before, patch)

    def _apply(self, target: Target, applied: Any, how: Writing) -> Written:
        if not isinstance(applied, dict) or not isinstance(applied.get("metadata", {}), dict):
            raise errors.bad_request("the body of an apply patch is an object")
        applied = {**applied, "metadata": dict(applied.get("metadata", {}))}
        applied["metadata"].setdefault("name", target.name)
        if applied["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        self._check_identity(target, applied, needs_name=True)
        applied, warnings = self._pruned_for(target, applied, how)
        if target.subresource != "status" and target.resource.has_status(target.version):
            applied.pop("status", None)
        keys = list_keys_of(target.resource, target.version)
        try:
            stored = self.store.get(target.ref)
        except NotFound:
            stored = None
        live = present(target, stored) if stored is not None else {"metadata": {}}
        entries = self._entries_with_files(target, stored, live) if stored is not None else ()
        part = target.subresource if target.subresource == "status" else ""
        merged, after = ownership.apply(
            live,
            applied,
            entries,
            keys,
            manager=how.manager,
            force=how.force,
            time=utc_now(),
            subresource=part,
            defaulted=_with_defaults(target, applied),
            last_applied=how.manager == KUBECTL,
        )
        if stored is None:
            if part:
                raise errors.not_found(target.resource, target.name)
            if applied["metadata"].get("uid"):
                raise errors.conflict(target.resource, target.name, "uid mismatch: the object does not exist")
            body, more = self._admit(target, merged, how)
            whole = ownership.with_entries(_absorbed(target, body), after)
            return self._store_new(target, whole, body.get("status"), (*warnings, *more))
        if merged == live and after == entries:
            return Written(live, warnings=warnings)
        written = self._replace(target, merged, how, tuple(entry for entry in after if entry.manager != FILES))
        written.warnings = tuple(dict.fromkeys((*warnings, *written.warnings)))
        return written

    def _entries_with_files(self, target: Target, stored: Document, live: Document) -> ownership.Entries:
        """The object's entries, and that of the manifest file which it comes from, if any."""
        entries = ownership.stored_entries(stored)
        applied = self.store.applied_by(FILES).get(target.ref)
        if applied is None:
            return entries
        keys = list_keys_of(target.resource, target.version)
        held = leaves(live, keys)
        missing = object()
        # What somebody took over since is no longer the file's.
        own = {path for path, value in leaves(applied.document, keys).items() if held.get(path, missing) == value}
        created = live["metadata"].get("creationTimestamp", "")
        entry = ownership.Entry(FILES, "Apply", target.api_version, created, frozenset(own))
        return (*entries, entry)

    # -- admission ---------------------------------------------------------------------------------------------------

    def _check_identity(self, target: Target, body: Document, *, needs_name: bool) -> None:
        """Whether the body is about what the URL says. Raises ApiError (400)."""
        if takes_strategic_patches(target.resource):  # typed clients leave out what the URL says
            body.setdefault("apiVersion", target.api_version)
            body.setdefault("kind", target.resource.kind)
        api_version, kind = body.get("apiVersion"), body.get("kind")
        if not isinstance(api_version, str) or not isinstance(kind, str) or not kind:
            raise errors.bad_request("Object 'Kind' is missing in the body of the request")
        wanted = target.api_version
        if kind != target.resource.kind or group_of(api_version) != target.resource.group:
            raise errors.bad_request(
                f"the object provided is unrecognized (must be of type {target.resource.kind}): "
                f"found {kind} of {api_version!r}"
            )
        if api_version != wanted:
            raise errors.bad_request(
                f"the API version in the data ({api_version}) does not match the expected API version ({wanted})"
            )
        metadata = body.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise errors.bad_request("metadata must be an object")
        for field in ("name", "namespace", "generateName", "uid", "resourceVersion"):
            if not isinstance(metadata.get(field), str | None):
                raise errors.bad_request(f"metadata.{field} must be a string")
        namespace = metadata.get("namespace") or ""
        if target.resource.namespaced and namespace and namespace != target.namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        name = metadata.get("name") or ""
        if needs_name and name != target.name:
            raise errors.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({target.name})"
            )

    def _admit(
        self, target: Target, body: Document, how: Writing, before: Document | None = None
    ) -> tuple[Document, tuple[str, ...]]:
        """The body as it may be stored in place of `before`, and what to warn of. Raises ApiError."""
        body, warnings = self._pruned_for(target, body, how)
        resource = target.resource
        metadata = {name: value for name, value in body["metadata"].items() if value is not None}
        if resource.namespaced:
            metadata["namespace"] = target.namespace
        body = {**body, "metadata": metadata}
        if (resource.group, resource.kind) == ("", "Secret"):
            body = _with_encoded_strings(body)
        if resource.group == CRD_GROUP:
            body = complete_definition(body)
            if causes := check_definition(body):
                raise errors.invalid(resource, metadata.get("name") or "", causes)
            warnings = (*warnings, *rules_not_evaluated(body))
        if target.version in resource.custom:
            return self._check_custom(target, body, before), warnings
        if causes := check_core(resource.group, resource.kind, body):
            raise errors.invalid(resource, metadata.get("name") or "", causes)
        if not takes_strategic_patches(resource):
            return body, warnings  # the store fills in the defaults of Gateway API's kinds
        return default_core(resource.group, resource.kind, apply_defaults(body)), warnings

    @staticmethod
    def _check_custom(target: Target, body: Document, before: Document | None) -> Document:
        custom = target.resource.custom.get(target.version)
        if custom is None:
            return body
        body = default_custom(custom.schema, body)
        causes = validate_custom(custom.schema, body)
        causes += scale_causes(custom.scale, body)
        causes += rule_causes(custom.schema, body, before, causes)
        if causes:
            raise errors.invalid(target.resource, body["metadata"].get("name") or "", causes)
        return body

    def _pruned_for(self, target: Target, body: Document, how: Writing) -> tuple[Document, tuple[str, ...]]:
        body, unknown = self._pruned(target, body)
        if not unknown or how.validation == "Ignore":
            return body, ()
        said = [f'unknown field "{path}"' for path in unknown]
        if how.validation == "Strict":
            kind, version = target.resource.kind, target.version
            text = f"strict decoding error: {', '.join(said)}"
            raise errors.bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {text}')
        return body, tuple(said)

    @staticmethod
    def _pruned(target: Target, body: Document) -> tuple[Document, list[str]]:
        custom = target.resource.custom.get(target.version)
        if custom is not None:
            return prune_custom(custom.schema, body)
        return prune(target.resource, target.version, body)


def _absorbed(target: Target, body: Document) -> Document:
    """A presented object as it is stored."""
    metadata = body["metadata"]
    if not target.resource.namespaced and (kept_in := target.resource.stored_namespace("")):
        body = {**body, "metadata": {**metadata, "namespace": kept_in}}
    return to_core(body) if target.resource.group == EVENTS_GROUP else body


def _check_same(target: Target, before: Document, after: Document) -> None:
    """A patch changes neither which object it is nor what kind it has."""
    name, other = before["metadata"].get("name"), after["metadata"].get("name")
    if name != other:
        raise errors.bad_request(f"the name of the object ({other}) does not match the name on the URL ({name})")
    if (before["metadata"].get("namespace") or "") != (after["metadata"].get("namespace") or ""):
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    uid = after["metadata"].get("uid")
    if uid and uid != before["metadata"]["uid"]:
        message = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {before['metadata']['uid']}"
        raise errors.conflict(target.resource, target.name, message)
    if (before["apiVersion"], before["kind"]) != (after.get("apiVersion"), after.get("kind")):
        raise errors.bad_request("apiVersion and kind must not be changed")


def _with_defaults(target: Target, body: Document) -> Document:
    """What is applied, with the defaults of Kubernetes' own kinds. Those of custom kinds, Gateway API's among them, an
    API server fills in only afterwards: a list that is one value differs from what is stored by its defaults."""
    if not takes_strategic_patches(target.resource):
        return body
    return default_core(target.resource.group, target.resource.kind, apply_defaults(body))


def _at_version(document: Document, version: str) -> Document:
    metadata = {name: value for name, value in document["metadata"].items() if name != "resourceVersion"}
    return {**document, "metadata": {**metadata, "resourceVersion": version} if version else metadata}


def _with_encoded_strings(body: Document) -> Document:
    """A Secret whose stringData went into data, as the API server does it."""
    plain = body.get("stringData")
    if not isinstance(plain, Mapping) or not all(isinstance(text, str) for text in plain.values()):
        return body
    data = copy.copy(body.get("data")) or {}
    data.update({name: base64.b64encode(text.encode()).decode() for name, text in plain.items()})
    rest = {name: value for name, value in body.items() if name != "stringData"}
    return {**rest, "data": data} if data else rest


def _status_of_new(resource: Resource, stored: Mapping[str, Any]) -> Document | None:
    """The status with which some kinds begin."""
    if resource.group == CRD_GROUP:
        return established(stored, utc_now())
    if (resource.group, resource.kind) == ("", "Pod"):
        spec = stored.get("spec")
        return {"phase": "Pending", "qosClass": quality_of_service(spec if isinstance(spec, Mapping) else {})}
    if (resource.group, resource.kind) == ("apps", "Deployment"):
        condition = {
            "type": "Available",
            "status": "False",
            "reason": "NothingRunsPods",
            "message": "This API stores Deployments and runs no pods.",
            "lastTransitionTime": stored["metadata"]["creationTimestamp"],
            "lastUpdateTime": stored["metadata"]["creationTimestamp"],
        }
        return {"observedGeneration": stored["metadata"].get("generation", 1), "conditions": [condition]}
    return None
