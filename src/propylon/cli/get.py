"""`propylon get`: objects straight from the store, whether or not propylon runs."""

from pathlib import Path
from typing import Any

import click

from propylon import api
from propylon.cli.output import emit, table
from propylon.cli.tables import columns
from propylon.store import GroupKind, LocalStore, StoreError


def get_objects(kind: str, name: str | None, namespace: str | None, data_dir: Path, output: str) -> int:
    """Print what was asked for and return the exit code: 1 if a named object does not exist, 2 for an unknown kind."""
    info = find_kind(kind)
    if info is None:
        known = ", ".join(sorted(k.plural for k in api.KINDS))
        click.echo(f"propylon get: {kind!r} is not a kind that is served: {known}", err=True)
        return 2
    try:
        with LocalStore(data_dir, read_only=True) as store:
            documents = store.list([GroupKind(info.group, info.kind)], namespace).documents
    except StoreError as error:
        click.echo(f"propylon get: {error}", err=True)
        return 3
    if name is not None:
        documents = [d for d in documents if d["metadata"]["name"] == name]
        if not documents:
            click.echo(f'propylon get: {info.plural} "{name}" not found', err=True)
            return 1
    _print(documents, info, name is not None, namespace, output)
    return 0


def find_kind(text: str) -> api.KindInfo | None:
    """By kind, plural, singular or short name, letter case ignored; a `.group` may follow."""
    wanted, _, group = text.lower().partition(".")
    for info in api.KINDS:
        names = {info.kind.lower(), info.plural, info.singular, *info.short_names}
        if wanted in names and (not group or group == info.group):
            return info
    return None


def _print(
    documents: list[dict[str, Any]], info: api.KindInfo, single: bool, namespace: str | None, output: str
) -> None:
    if output == "name":
        for document in documents:
            click.echo(f"{info.singular}/{document['metadata']['name']}")
    elif output in {"json", "yaml"}:
        emit(
            documents[0]
            if single and len(documents) == 1
            else {"apiVersion": "v1", "kind": "List", "items": documents},
            output,
        )
    elif not documents:
        where = f" in namespace {namespace}" if namespace else ""
        click.echo(f"No {info.plural} found{where}.", err=True)
    else:
        shown = columns(info.kind, namespaces=info.scope == "Namespaced")
        click.echo(table([c[0] for c in shown], [[c[1](d) for c in shown] for d in documents]))
