"""Two sets of objects, wherever they are, made ready to be compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from propylon import api
from propylon.app.offline import Manifests, Snapshot, load
from propylon.app.snapshots import Taken, from_cluster, from_instance, from_revision
from propylon.diff import REQUESTS, Difference, Side, World, compare
from propylon.graph.sources import FIELD_OF_KIND

Documents = dict[api.ObjectRef, Mapping[str, Any]]
_LAST = "9999-12-31T23:59:59Z"
"""When an object is created that a cluster does not have yet: after all others."""
CLUSTER, INSTANCE, GIT = "cluster:", "instance:", "git:"


class Wanted(NamedTuple):
    """How sets of objects are read."""

    kubeconfig: str | None = None
    controllers: tuple[str, ...] = ()
    variables: Mapping[str, str] = {}
    variable_files: tuple[str, ...] = ()


def read(text: str, wanted: Wanted) -> Manifests | Taken:
    """The objects that a word of the command line stands for: a path, `-`, `cluster:[CONTEXT]`, `instance:[DATA_DIR]`,
    `[git:]REV[:PATH]`.

    Raises SnapshotError, ConfigurationError, FileNotFoundError.
    """
    if text.startswith(CLUSTER):
        return from_cluster(wanted.kubeconfig, text.removeprefix(CLUSTER) or None, controllers=wanted.controllers)
    if text.startswith(INSTANCE):
        directory = text.removeprefix(INSTANCE)
        return from_instance(Path(directory) if directory else None, controllers=wanted.controllers)
    options = {
        "variables": dict(wanted.variables),
        "variable_files": wanted.variable_files,
        "controllers": wanted.controllers or None,
    }
    if text == "-" or (Path(text).exists() and not text.startswith(GIT)):
        return load(text, **options)
    revision, _, path = text.removeprefix(GIT).partition(":")
    return from_revision(revision, path, **options)


def compare_snapshots(
    before: Manifests | Taken, after: Manifests | Taken, *, onto: bool, limit: int = REQUESTS
) -> Difference:
    """Compare; with `onto` the second is applied onto the first, whose other objects stay."""
    documents = (_documents(before), _documents(after))
    live = tuple(isinstance(each, Taken) for each in (before, after))
    if onto:
        documents = (documents[0], {**documents[0], **_completed(documents[0], documents[1])})
    aged = (_aged(documents[0], documents[1], live[1]), _aged(documents[1], documents[0], live[0]))
    known = before.endpoints_known and after.endpoints_known
    worlds = [
        _world(snapshot, each, known, written_by_server)
        for snapshot, each, written_by_server in zip((before, after), aged, live, strict=True)
    ]
    return compare(worlds[0], worlds[1], limit=limit)


def _documents(snapshot: Snapshot) -> Documents:
    return {ref: each for ref, each in snapshot.documents.items() if (ref.group, ref.kind) in FIELD_OF_KIND}


def _completed(known: Documents, given: Documents) -> Documents:
    """Addresses that somebody assigned stay."""
    return {ref: {**each, "status": known[ref].get("status")} if ref in known else each for ref, each in given.items()}


def _aged(documents: Documents, others: Documents, live: bool) -> Documents:
    """Objects without an age get that of the other side; if that is a cluster, new ones are its youngest.

    Age decides between routes, and manifests have none.
    """
    found: Documents = {}
    for ref, document in documents.items():
        metadata = document.get("metadata") or {}
        created = ((others.get(ref) or {}).get("metadata") or {}).get("creationTimestamp") or (_LAST if live else None)
        if metadata.get("creationTimestamp") or not created:
            found[ref] = document
        else:
            found[ref] = {**document, "metadata": {**metadata, "creationTimestamp": created}}
    return found


def _world(snapshot: Snapshot, documents: Documents, endpoints_known: bool, live: bool) -> World:
    changed = any(documents.get(ref) is not each for ref, each in _documents(snapshot).items())
    if changed or len(documents) != len(_documents(snapshot)):
        built = Snapshot(documents, snapshot.options)
    else:
        built = snapshot
    issued = frozenset(
        key
        for _, key in built.graph.secrets.snapshot()
        if key.kind == "certificate" and api.ObjectRef("", "Secret", key.namespace, key.name) not in documents
    )
    side = Side(built.graph, endpoints_known=endpoints_known, issued=issued)
    return World(side, documents, built.statuses, snapshot.locate, live)
