"""Writing inside a transaction, and what follows from it: garbage collection by owner, finalizers, dying namespaces.

Consequences are worked off from a list until none is left (`settle`), so chains of owners may be as long as they like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from propylon.api.meta import ObjectRef
from propylon.store import semantics
from propylon.store.database import Database
from propylon.store.errors import AlreadyExists
from propylon.store.protocol import Document, Propagation, ref_of_document

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Document] = msgspec.json.Decoder(dict[str, Any]).decode


class Writer:
    """Writes objects and settles what their change means for others. Every method runs inside a transaction."""

    def __init__(self, database: Database, now: Callable[[], str]) -> None:
        self._database = database
        self._now = now
        self._removed: list[tuple[ObjectRef, Document]] = []
        self._to_check: list[ObjectRef] = []

    def read(self, ref: ObjectRef) -> Document | None:
        """The stored object."""
        raw = self._database.document(ref)
        return None if raw is None else _decode(raw)

    def add(self, ref: ObjectRef, document: Document) -> Document:
        """Store a new object under a new resourceVersion; returns it as stored. Raises AlreadyExists."""
        version = self._database.next_version()
        document = _numbered(document, version)
        owners = _owners(document)
        if not self._database.add(ref, document["metadata"]["uid"], version, _encode(document), owners):
            raise AlreadyExists(ref)
        if owners:
            self._to_check.append(ref)
        return document

    def replace(self, ref: ObjectRef, stored: Document, document: Document) -> Document:
        """Store a document in the place of `stored`, under a new resourceVersion; returns it as stored."""
        version = self._database.next_version()
        document = _numbered(document, version)
        owners = _owners(document)
        others = owners if owners != _owners(stored) else None
        self._database.replace(ref, version, _encode(document), others)
        if owners:
            self._to_check.append(ref)
        return document

    def remove(self, document: Document) -> Document:
        """Take out of the store; returns the last state."""
        ref = ref_of_document(document)
        version = self._database.next_version()
        document = _numbered(document, version)
        self._database.remove(ref, version, _encode(document))
        self._removed.append((ref, document))
        return document

    def delete(self, document: Document, propagation: Propagation = Propagation.BACKGROUND) -> Document:
        """Delete, or mark as being deleted while something holds it; returns the last state."""
        uid = document["metadata"]["uid"]
        if semantics.is_namespace(document):
            return self._delete_namespace(document)
        if propagation is Propagation.ORPHAN:
            for ref in self._database.dependents(uid):
                if (dependent := self.read(ref)) is not None:
                    self.replace(ref, dependent, semantics.without_owners(dependent, frozenset({uid})))
        foreground = propagation is Propagation.FOREGROUND and self._is_blocked(uid)
        if not foreground and not semantics.finalizers(document):
            return self.remove(document)
        marked = semantics.prepare_delete(document, now=self._now(), foreground=foreground)
        if marked is not document:
            marked = self.replace(ref_of_document(document), document, marked)
        if foreground:
            for ref in self._database.dependents(uid):
                if (dependent := self.read(ref)) is not None and not semantics.is_deleting(dependent):
                    self.delete(dependent, Propagation.FOREGROUND)
        return marked

    def updated(self, ref: ObjectRef, stored: Document, document: Document) -> Document:
        """Store a changed object; one that is being deleted and no longer held goes."""
        if not semantics.is_deleting(document) or semantics.finalizers(document):
            return self.replace(ref, stored, document)
        if semantics.is_namespace(document) and self._database.refs_in_namespace(document["metadata"]["name"]):
            return self.replace(ref, stored, document)
        return self.remove(document)

    def settle(self) -> None:
        """Work off everything that follows from what was written."""
        while self._removed or self._to_check:
            if self._removed:
                self._after_removal(*self._removed.pop())
            else:
                self._collect(self._to_check.pop(), frozenset())

    def forget(self) -> None:
        """Drop what is not settled, after a failed transaction."""
        self._removed.clear()
        self._to_check.clear()

    def _after_removal(self, ref: ObjectRef, document: Document) -> None:
        uid = document["metadata"]["uid"]
        for dependent in self._database.dependents(uid):
            self._collect(dependent, frozenset({uid}))
        for owner_uid in semantics.owner_uids(document):
            self._release_owner(owner_uid)
        if ref.namespace:
            self._release_namespace(ref.namespace)

    def _collect(self, ref: ObjectRef, gone: frozenset[str]) -> None:
        """Delete an object none of whose owners exists; take `gone` owners out of one that still has others."""
        document = self.read(ref)
        if document is None or semantics.is_deleting(document):
            return
        if any(self._exists(uid, ref.namespace) for uid in semantics.owner_uids(document)):
            if gone:
                self.replace(ref, document, semantics.without_owners(document, gone))
        else:
            self.delete(document)

    def _exists(self, uid: str, namespace: str) -> bool:
        """Whether an owner is there, in a place from which it may own: the same namespace or the cluster."""
        ref = self._database.ref_of_uid(uid)
        return ref is not None and ref.namespace in ("", namespace)

    def _is_blocked(self, uid: str) -> bool:
        """Whether dependents hold up the foreground deletion of this owner."""
        dependents = (self.read(ref) for ref in self._database.dependents(uid))
        return any(dependent is not None and semantics.blocks_owner(dependent, uid) for dependent in dependents)

    def _release_owner(self, uid: str) -> None:
        ref = self._database.ref_of_uid(uid)
        owner = None if ref is None else self.read(ref)
        if (
            ref is None
            or owner is None
            or semantics.FOREGROUND_FINALIZER not in semantics.finalizers(owner)
            or self._is_blocked(uid)
        ):
            return
        self.updated(ref, owner, semantics.without_finalizer(owner, semantics.FOREGROUND_FINALIZER))

    def _delete_namespace(self, document: Document) -> Document:
        if not semantics.is_deleting(document):
            marked = semantics.prepare_delete(document, now=self._now(), foreground=False)
            marked = {**marked, "status": {**marked.get("status", {}), "phase": "Terminating"}}
            document = self.replace(ref_of_document(document), document, marked)
        name = document["metadata"]["name"]
        for ref in self._database.refs_in_namespace(name):
            content = self.read(ref)
            if content is not None and not semantics.is_deleting(content):
                self.delete(content)
        self._release_namespace(name)
        return document

    def _release_namespace(self, name: str) -> None:
        document = self.read(ObjectRef("", "Namespace", "", name))
        if document is None or not semantics.is_deleting(document) or semantics.finalizers(document):
            return
        if not self._database.refs_in_namespace(name):
            self.remove(document)


def _owners(document: Document) -> tuple[str, ...]:
    return tuple(semantics.owner_uids(document)) if "ownerReferences" in document["metadata"] else ()


def _numbered(document: Document, version: int) -> Document:
    """The document as of that resourceVersion. What it is comes first, so that its bytes begin alike (see
    `protocol.Listing`)."""
    metadata = {**document["metadata"], "resourceVersion": str(version)}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], **document, "metadata": metadata}
