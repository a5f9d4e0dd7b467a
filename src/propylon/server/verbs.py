"""The verbs on resources: from an authorized request to the store, and back in the form the client wants."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from propylon.server import errors
from propylon.server.access import RBAC_GROUP, Access, Attributes, allowed_to_grant, exempt_from_grants
from propylon.server.bodies import read_body, read_object
from propylon.server.core_rules import IMMORTAL_NAMESPACES
from propylon.server.grouping import GroupCommit
from propylon.server.kept_schemas import check_kept
from propylon.server.lists import Page, list_page, query_of, version_of, whole_number
from propylon.server.logs import PodLogs
from propylon.server.objects import APPLY_PATCH, PATCH_FORMS, Document, Objects, Target, Writing, Written
from propylon.server.ownership import manager_of
from propylon.server.paths import Form, Place, form_of
from propylon.server.requests import Answer, Request, answer, encode
from propylon.server.resources import Registry, Resource
from propylon.server.scale import apply_scale, scale_document
from propylon.server.tables import columns_for, partial, table
from propylon.server.watches import Hub, Render, WatchOptions, WatchStream
from propylon.store import LocalStore, Propagation, StoreError
from propylon.store.patches import PatchError

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}


class Verbs:
    """Answers requests about resources."""

    def __init__(self, store: LocalStore, hub: Hub, access: Access) -> None:
        self.objects = Objects(store)
        self._group = GroupCommit(store)
        self._store = store
        self._hub = hub
        self._access = access
        self.token_secret: bytes = b""
        self.logs: PodLogs | None = None

    async def handle(self, request: Request, place: Place, resource: Resource, registry: Registry) -> Answer:
        """Answer one request. Raises ApiError."""
        namespace = place.namespace if resource.namespaced else ""
        target = Target(resource, place.version, namespace, place.name, place.subresource)
        verb = self._verb(request, target)
        self._authorize(request, target, verb)
        if target.subresource and target.subresource not in ("status", "scale", "log", "token"):
            raise errors.no_such_path()
        try:
            found = await self._dispatch(request, target, verb)
        except StoreError as error:
            raise errors.of_store(error, resource, target.name) from error
        custom = resource.custom.get(place.version)
        deprecation = custom.deprecation if custom is not None else resource.deprecation
        if deprecation:
            found.headers = (*found.headers, *answer({}, warnings=(deprecation,)).headers)
        return found

    @staticmethod
    def _verb(request: Request, target: Target) -> str:
        verb = _VERBS.get(request.method)
        if verb is None:
            raise errors.method_not_allowed()
        if not target.name:
            if verb == "get":
                return "watch" if request.flag("watch") else "list"
            if verb == "delete":
                return "deletecollection"
            if verb != "create" or (target.resource.namespaced and not target.namespace):
                raise errors.method_not_allowed()
        elif verb == "create" and target.subresource != "token":
            raise errors.method_not_allowed()
        elif verb == "get" and request.flag("watch"):
            return "watch"
        return verb

    def _authorize(self, request: Request, target: Target, verb: str) -> None:
        namespace = target.name if target.resource.kind == "Namespace" else target.namespace
        asked = Attributes(
            verb, target.resource.group, target.resource.plural, target.subresource, namespace, target.name
        )
        if not self._access.allows(request.user, asked):
            raise errors.forbidden(target.resource, target.name, asked.sentence(request.user))

    async def _dispatch(self, request: Request, target: Target, verb: str) -> Answer:
        if target.subresource == "scale":
            return await self._scale(request, target, verb)
        if target.subresource == "token":
            return self._token(request, target)
        if target.subresource == "log":
            pod = self.objects.get(Target(target.resource, target.version, target.namespace, target.name))
            if self.logs is None or verb != "get":
                raise errors.method_not_allowed()
            return await self.logs.answer(request, pod)
        if target.subresource == "status" and not target.resource.has_status(target.version):
            raise errors.no_such_path()
        match verb:
            case "get":
                return self._shown(request, target, self.objects.get(target))
            case "list":
                return self._list(request, target)
            case "watch":
                return self._watch(request, target)
            case "create":
                body = read_object(request.body, request.headers.get("content-type", ""))
                self._check_grant(request, target, body)
                done = await self._group.run(self.objects.creation(target, body, _writing(request)))
                return self._written(request, target, done)
            case "update":
                body = read_object(request.body, request.headers.get("content-type", ""))
                self._check_grant(request, target, body)
                how = _writing(request)
                done = await self._group.run(lambda: self.objects.update(target, body, how))
                return self._written(request, target, done)
            case "patch":
                return await self._patch(request, target)
            case "delete":
                return await self._delete(request, target)
        return await self._delete_collection(request, target)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _shown(
        self, request: Request, target: Target, document: Document, code: int = 200, warnings: tuple[str, ...] = ()
    ) -> Answer:
        form = form_of(request.headers.get("accept", ""))
        if form.kind == "Table":
            metadata = {"resourceVersion": document["metadata"].get("resourceVersion", "")}
            document = self._table(request, target, form, [document], metadata)
        elif form.kind:
            document = partial(document, form.api_version)
        return answer(document, code, warnings)

    @staticmethod
    def _table(
        request: Request,
        target: Target,
        form: Form,
        documents: list[Document],
        metadata: Mapping[str, Any],
        *,
        definitions: bool = True,
    ) -> Document:
        include = request.parameters.get("includeObject", "") or "Metadata"
        columns = columns_for(target.resource, target.version)
        return table(
            columns,
            documents,
            metadata=metadata,
            include=include,
            api_version=form.api_version,
            definitions=definitions,
        )

    def _list(self, request: Request, target: Target) -> Answer:
        form = form_of(request.headers.get("accept", ""))
        page = list_page(self._store, target, query_of(request.parameters, target))
        if form.kind == "Table":
            return answer(self._table(request, target, form, page.items, page.metadata))
        if form.kind:
            items = [partial(document, form.api_version) for document in page.items]
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": form.api_version}
            return answer({**kind, "metadata": page.metadata, "items": items})
        return _list_of(target, page)

    def _watch(self, request: Request, target: Target) -> Answer:
        form = form_of(request.headers.get("accept", ""))
        parameters = dict(request.parameters)
        if target.name:
            parameters["fieldSelector"] = f"metadata.name={target.name}"
        query = query_of(parameters, target)
        if query.resource_version:
            version_of(query.resource_version)
        initial = parameters.get("sendInitialEvents")
        options = WatchOptions(
            bookmarks=request.flag("allowWatchBookmarks"),
            initial_events=None if not initial else request.flag("sendInitialEvents"),
            seconds=float(whole_number(parameters, "timeoutSeconds")),
        )

        render = self._renderer(request, target, form) if form.kind else None
        return Answer(stream=WatchStream(self._hub, target, query, options, render))

    def _renderer(self, request: Request, target: Target, form: Form) -> Render:
        """The lines of a watch as tables or as metadata alone; the first table names the columns."""
        definitions = True

        def render(kind: str, document: Document) -> bytes:
            nonlocal definitions
            if form.kind != "Table":
                shown = partial(document, form.api_version)
            elif kind == "BOOKMARK":
                shown = {"kind": "Table", "apiVersion": form.api_version, "metadata": document["metadata"]}
                shown |= {"columnDefinitions": None, "rows": []}
            else:
                metadata = {"resourceVersion": document["metadata"].get("resourceVersion", "")}
                shown = self._table(request, target, form, [document], metadata, definitions=definitions)
                definitions = False
            return encode({"type": kind, "object": shown}) + b"\n"

        return render

    # -- writing -----------------------------------------------------------------------------------------------------

    def _written(self, request: Request, target: Target, done: Written) -> Answer:
        code = 201 if done.created else 200
        return self._shown(request, target, done.document, code, done.warnings)

    async def _patch(self, request: Request, target: Target) -> Answer:
        form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if form not in PATCH_FORMS:
            raise errors.unsupported_media_type(", ".join(PATCH_FORMS))
        patch = read_body(request.body, form)
        how = _writing(request, needs_manager=form == APPLY_PATCH)
        if target.resource.group == RBAC_GROUP:
            self._check_patched_grant(request, target, form, patch)
        done = await self._group.run(lambda: self.objects.patch(target, form, patch, how))
        return self._written(request, target, done)

    async def _delete(self, request: Request, target: Target) -> Answer:
        if target.resource.kind == "Namespace" and target.name in IMMORTAL_NAMESPACES:
            raise errors.forbidden(target.resource, target.name, "this namespace may not be deleted")
        options = _delete_options(request)
        preconditions = options.get("preconditions")
        preconditions = preconditions if isinstance(preconditions, Mapping) else {}
        propagation, dry_run = _propagation(options), _dry_run(request, options)
        uid, version = (str(preconditions.get(name) or "") for name in ("uid", "resourceVersion"))
        last, gone = await self._group.run(
            lambda: self.objects.delete(target, propagation, uid=uid, resource_version=version, dry_run=dry_run)
        )
        if gone:
            return answer(errors.success(target.resource, target.name, last["metadata"]["uid"]))
        return self._shown(request, target, last)

    async def _delete_collection(self, request: Request, target: Target) -> Answer:
        options = _delete_options(request)
        page = list_page(self._store, target, query_of(request.parameters, target))
        dry_run, propagation = _dry_run(request, options), _propagation(options)

        def delete_all() -> None:
            for document in page.items:
                metadata = document["metadata"]
                one = Target(target.resource, target.version, metadata.get("namespace", ""), metadata["name"])
                try:
                    self.objects.delete(one, propagation, uid=metadata["uid"], dry_run=dry_run)
                except errors.ApiError as error:
                    if error.code not in (404, 409):  # gone, or replaced, in the meantime
                        raise

        await self._group.run(delete_all)
        return _list_of(target, page)

    # -- subresources ------------------------------------------------------------------------------------------------

    async def _scale(self, request: Request, target: Target, verb: str) -> Answer:
        scale = target.resource.scale_of(target.version)
        if scale is None:
            raise errors.no_such_path()
        whole = Target(target.resource, target.version, target.namespace, target.name)
        before = self.objects.get(whole)
        if verb == "get":
            return answer(scale_document(before, scale))
        how = _writing(request)
        if verb == "patch":
            form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if form not in PATCH_FORMS:
                raise errors.unsupported_media_type(", ".join(PATCH_FORMS))
            try:
                patch = read_body(request.body, form)
                patched = self.objects.patched(whole, form, scale_document(before, scale), patch)
            except PatchError as error:
                raise errors.bad_request(str(error)) from error
        else:
            patched = read_object(request.body, request.headers.get("content-type", ""))
        changed = apply_scale(before, scale, patched)
        done = await self._group.run(lambda: self.objects.update(whole, changed, how))
        return answer(scale_document(done.document, scale))

    def _token(self, request: Request, target: Target) -> Answer:
        from propylon.server.identity import issue_token  # noqa: PLC0415

        if request.method != "POST":
            raise errors.method_not_allowed()
        body = read_object(request.body, request.headers.get("content-type", ""))
        account = self.objects.get(Target(target.resource, target.version, target.namespace, target.name))
        given = body.get("spec")
        spec: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        seconds = spec.get("expirationSeconds") or 3600
        if not isinstance(seconds, int) or not 600 <= seconds <= 2**32:
            message = "Invalid value: may not specify a duration less than 10 minutes"
            raise errors.invalid(
                target.resource, target.name, [("FieldValueInvalid", message, "spec.expirationSeconds")]
            )
        uid = account["metadata"]["uid"]
        token, end = issue_token(self.token_secret, target.namespace, target.name, uid, seconds)
        until = dt.datetime.fromtimestamp(end, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return answer({**body, "status": {"token": token, "expirationTimestamp": until}}, 201)

    # -- nobody grants what he does not have -------------------------------------------------------------------------

    def _check_grant(self, request: Request, target: Target, body: Mapping[str, Any]) -> None:
        if target.resource.group != RBAC_GROUP:
            return
        if causes := check_kept(target.resource.kind, body):
            raise errors.invalid(target.resource, target.name or _name_of(body), causes)
        if exempt_from_grants(self._access, request.user, target.resource.kind, body, target.namespace):
            return
        rules = body.get("rules")
        if target.resource.kind in ("RoleBinding", "ClusterRoleBinding"):
            role = body.get("roleRef")
            role = role if isinstance(role, Mapping) else {}
            rules = list(self._access.rules_of(target.namespace, str(role.get("kind")), str(role.get("name"))))
        given = [rule for rule in rules if isinstance(rule, Mapping)] if isinstance(rules, list) else []
        reason = allowed_to_grant(self._access, request.user, given, target.namespace)
        if reason:
            groups = " ".join(f'"{group}"' for group in request.user.groups)
            message = f'user "{request.user.name}" (groups=[{groups}]) is {reason}'
            raise errors.forbidden(target.resource, target.name or _name_of(body), message)

    def _check_patched_grant(self, request: Request, target: Target, form: str, patch: Any) -> None:
        if form == APPLY_PATCH:
            trial = Writing("trial", dry_run=True, validation="Ignore", force=True)
            self._check_grant(request, target, self.objects.patch(target, form, patch, trial).document)
            return
        try:
            patched = self.objects.patched(target, form, self.objects.get(target), patch)
        except PatchError:
            return  # the write itself will say so
        if isinstance(patched, dict):
            self._check_grant(request, target, patched)


def _list_of(target: Target, page: Page) -> Answer:
    """A list whose objects were encoded when they were stored."""
    head = encode({"kind": target.resource.list_kind, "apiVersion": target.api_version, "metadata": page.metadata})
    return Answer(body=b"".join((head[:-1], b',"items":[', b",".join(page.raw), b"]}")))


def _name_of(body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    return str(metadata.get("name") or "") if isinstance(metadata, Mapping) else ""


def _writing(request: Request, *, needs_manager: bool = False) -> Writing:
    """How a write is to be done, from the request's parameters. Raises ApiError (400)."""
    said = request.parameters
    manager = said.get("fieldManager", "")
    if needs_manager and not manager:
        raise errors.bad_request(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )
    if len(manager) > 128 or not manager.isprintable():
        raise errors.bad_request("fieldManager: Invalid value: must be up to 128 printable characters")
    validation = said.get("fieldValidation", "") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise errors.bad_request(
            f'fieldValidation: Unsupported value: "{validation}": supported values: "", "Ignore", "Strict", "Warn"'
        )
    dry_run = _dry_run(request, {})
    return Writing(
        manager_of(manager, request.headers.get("user-agent", "")), dry_run, validation, request.flag("force")
    )


def _dry_run(request: Request, options: Mapping[str, Any]) -> bool:
    said = request.parameters.get("dryRun", "")
    values = options.get("dryRun") or ([said] if said else [])
    if values not in ([], ["All"]):
        raise errors.bad_request(f'dryRun: Unsupported value: {values}: supported values: "All"')
    return values == ["All"]


def _delete_options(request: Request) -> Mapping[str, Any]:
    if not request.body.strip():
        said = request.parameters
        return {name: said[name] for name in ("propagationPolicy", "orphanDependents") if name in said}
    return read_object(request.body, request.headers.get("content-type", ""))


def _propagation(options: Mapping[str, Any]) -> Propagation:
    policy = options.get("propagationPolicy")
    if policy is None:
        return Propagation.ORPHAN if options.get("orphanDependents") in (True, "true") else Propagation.BACKGROUND
    try:
        return Propagation(policy)
    except ValueError as error:
        raise errors.bad_request(f"propagationPolicy: Unsupported value: {policy!r}") from error
