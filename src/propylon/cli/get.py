"""`propylon get`: objects straight from the store, whether or not propylon runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from propylon import api
from propylon.cli.output import emit, table
from propylon.cli.tables import columns
from propylon.store import GroupKind, LocalStore, Store, StoreError


class Wanted(NamedTuple):
    """What a word on the command line stands for."""

    kinds: tuple[GroupKind, ...]
    kind: str
    plural: str
    namespaced: bool


def get_objects(kind: str, name: str | None, namespace: str | None, data_dir: Path, output: str) -> int:
    """Print what was asked for and return the exit code: 1 if a named object does not exist, 2 for an unknown kind."""
    try:
        with LocalStore(data_dir, read_only=True) as store:
            wanted = find_kind(kind, store)
            if wanted is None:
                known = ", ".join(sorted(k.plural for k in api.KINDS))
                click.echo(f"propylon get: {kind!r} is not a kind that is served or stored: {known}", err=True)
                return 2
            documents = store.list(wanted.kinds, namespace).documents
    except StoreError as error:
        click.echo(f"propylon get: {error}", err=True)
        return 3
    if name is not None:
        documents = [d for d in documents if d["metadata"]["name"] == name]
        if not documents:
            click.echo(f'propylon get: {wanted.plural} "{name}" not found', err=True)
            return 1
    _print(documents, wanted, name is not None, namespace, output)
    return 0


def find_kind(text: str, store: Store) -> Wanted | None:
    """By kind, plural, singular or short name, letter case ignored; a `.group` may follow.

    Kinds that are only kept are known by what the store holds of them.
    """
    for info in api.by_name(text):
        return Wanted((GroupKind(info.group, info.kind),), info.kind, info.plural, info.scope == "Namespaced")
    word, _, group = text.lower().partition(".")
    found = {
        (ref.group, ref.kind): bool(ref.namespace)
        for ref in store.list().refs
        if word in _names(ref.kind) and (not group or group == ref.group)
    }
    if not found:
        return None
    kind = next(iter(found))[1]
    return Wanted(tuple(GroupKind(*key) for key in found), kind, _names(kind)[1], any(found.values()))


def _names(kind: str) -> Sequence[str]:
    """A kind in lower case, and its plural as Kubernetes forms it."""
    word = kind.lower()
    if word.endswith("y") and word[-2] not in "aeiou":
        return word, f"{word[:-1]}ies"
    return word, f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


def _print(documents: list[dict[str, Any]], wanted: Wanted, single: bool, namespace: str | None, output: str) -> None:
    if output == "name":
        for document in documents:
            click.echo(f"{wanted.kind.lower()}/{document['metadata']['name']}")
    elif output in {"json", "yaml"}:
        listing = {"apiVersion": "v1", "kind": "List", "items": documents}
        emit(documents[0] if single and len(documents) == 1 else listing, output)
    elif not documents:
        where = f" in namespace {namespace}" if namespace else ""
        click.echo(f"No {wanted.plural} found{where}.", err=True)
    else:
        shown = columns(wanted.kind, namespaces=wanted.namespaced)
        click.echo(table([c[0] for c in shown], [[c[1](d) for c in shown] for d in documents]))
