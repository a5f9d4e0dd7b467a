"""`propylon export`: the store as manifests, from which `propylon up` or `kubectl apply` make the same objects again.

Left out is what the store made: identities, versions, times, status, owners by uid, objects that something else keeps,
and what is there from the beginning. `manifests` decides, the command reads and writes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from propylon.app.configuration import default_data_dir
from propylon.store import LocalStore, StoreError
from propylon.store.semantics import NAMESPACE_NAME_LABEL, NOT_APPLICABLE

NOT_READABLE, USAGE = 3, 2
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_SUBSTITUTE = "kustomize.toolkit.fluxcd.io/substitute"
_VARIABLE = re.compile(r"\$\{\w")
_OWN_NAMESPACES = frozenset({"default", "kube-node-lease", "kube-public", "kube-system"})
_BOOTSTRAPPING = "kubernetes.io/bootstrapping"
_PASSING = frozenset({("v1", "Event"), ("coordination.k8s.io/v1", "Lease")})
# Strings that YAML 1.1 readers other than PyYAML take for numbers or truth values.
_AMBIGUOUS = re.compile(
    r"[yYnN]|[-+]?\.?\d[\d_.]*([eE][-+]?\d+)?|0[xob][\da-fA-F_]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)

Document = dict[str, Any]


def manifests(
    documents: Iterable[Document], *, kinds: Collection[str] = (), secrets: bool = False
) -> Iterator[Document]:
    """The objects as somebody would have written them, in an order in which they can be applied.

    `kinds` are names of kinds, letter case ignored; without any all but Secrets, which are there with `secrets` or when
    they are named.
    """
    documents = list(documents)
    wanted = {kind.lower() for kind in kinds}
    kept = [
        document
        for document in documents
        if (document["kind"].lower() in wanted if wanted else secrets or document["kind"] != "Secret")
        and not _is_made(document)
    ]
    cluster_scoped = {
        (document["spec"]["group"], document["spec"]["names"]["kind"])
        for document in documents
        if document["kind"] == "CustomResourceDefinition" and document.get("spec", {}).get("scope") == "Cluster"
    }
    for document in sorted(kept, key=_order):
        manifest = _as_written(document)
        if (manifest["apiVersion"].rpartition("/")[0], manifest["kind"]) in cluster_scoped:
            manifest["metadata"].pop("namespace", None)
        yield manifest


def _is_made(document: Mapping[str, Any]) -> bool:
    """Whether the object is there, or passes, whatever anybody writes."""
    metadata = document["metadata"]
    if metadata.get("deletionTimestamp") or (document["apiVersion"], document["kind"]) in _PASSING:
        return True
    if any(isinstance(owner, Mapping) and owner.get("controller") for owner in metadata.get("ownerReferences") or ()):
        return True
    labels = metadata.get("labels") or {}
    if (document["apiVersion"], document["kind"]) == ("v1", "Namespace") and metadata["name"] in _OWN_NAMESPACES:
        return labels.keys() <= {NAMESPACE_NAME_LABEL} and not metadata.get("annotations")
    return labels.get(_BOOTSTRAPPING) == "rbac-defaults"


def _order(document: Mapping[str, Any]) -> tuple[Any, ...]:
    first = {"CustomResourceDefinition": 0, "Namespace": 1}.get(document["kind"], 2)
    metadata = document["metadata"]
    return first, metadata.get("namespace") or "", document["kind"], document["apiVersion"], metadata["name"]


def _as_written(document: Mapping[str, Any]) -> Document:
    given = document["metadata"]
    metadata = {
        name: value for name, value in given.items() if name not in NOT_APPLICABLE and name != "ownerReferences"
    }
    annotations = {name: value for name, value in (given.get("annotations") or {}).items() if name != _LAST_APPLIED}
    body = {name: value for name, value in document.items() if name not in ("apiVersion", "kind", "metadata", "status")}
    if document["apiVersion"] == "v1" and document["kind"] == "Namespace":
        labels = {name: value for name, value in (given.get("labels") or {}).items() if name != NAMESPACE_NAME_LABEL}
        metadata["labels"] = labels
        body.pop("spec", None)
    if _VARIABLE.search(json.dumps(body)) or _VARIABLE.search(json.dumps(metadata)):
        annotations.setdefault(_SUBSTITUTE, "disabled")  # `${name}` stands for itself
    metadata["annotations"] = annotations
    ordered = {
        "name": metadata.pop("name"),
        **({"namespace": metadata.pop("namespace")} if metadata.get("namespace") else {}),
    }
    rest = {name: value for name, value in sorted(metadata.items()) if value not in ({}, [], "", None)}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": {**ordered, **rest}, **body}


class _Dumper(yaml.SafeDumper):
    """YAML that every reader understands alike."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: values that happen to be equal are written twice."""
        del data
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text and "\t" not in text and not re.search(r"[ ]+\n|[^\x20-\x7e\n]", text):
        style = "|"
    elif _AMBIGUOUS.fullmatch(text):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def as_yaml(documents: Iterable[Document]) -> str:
    """All of them in one text, a `---` before each."""
    return "".join(
        "---\n" + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        for document in documents
    )


@click.command()
@click.argument("path", default="-", type=click.Path(path_type=Path, allow_dash=True))
@click.option("-n", "--namespace", "namespaces", multiple=True, help="Only this namespace. Repeatable.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only this kind (HTTPRoute). Repeatable.")
@click.option("--secrets", is_flag=True, help="Secrets too, unencrypted.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    show_default="$PROPYLON_DATA_DIR, else ~/.local/share/propylon",
    help="Where the store lives; propylon may be running or not.",
)
def export(
    path: Path, namespaces: tuple[str, ...], kinds: tuple[str, ...], secrets: bool, force: bool, data_dir: Path
) -> None:
    """Write the store as manifests to PATH: a directory, a file (.yaml), or - for standard output."""
    try:
        with LocalStore(data_dir, read_only=True) as store:
            documents = store.list().documents
    except StoreError as error:
        click.echo(f"propylon export: {error}", err=True)
        sys.exit(NOT_READABLE)
    found = [
        manifest
        for manifest in manifests(documents, kinds=kinds, secrets=secrets)
        if not namespaces or manifest["metadata"].get("namespace") in namespaces
    ]
    if str(path) == "-":
        click.echo(as_yaml(found), nl=False)
    else:
        _write(path, found, force)
    left = sum(document["kind"] == "Secret" for document in documents)
    if left and not secrets and not kinds:
        click.echo(f"propylon export: {left} Secrets are left out; --secrets writes them, unencrypted", err=True)


def _write(path: Path, found: list[Document], force: bool) -> None:
    files: dict[Path, list[Document]] = {}
    for manifest in found:
        single = path.suffix in (".yaml", ".yml")
        file = path if single else path / f"{manifest['metadata'].get('namespace') or '_cluster'}.yaml"
        files.setdefault(file, []).append(manifest)
    if (taken := [str(file) for file in files if file.exists()]) and not force:
        click.echo(f"propylon export: {', '.join(taken)} exists already; --force writes over it", err=True)
        sys.exit(USAGE)
    try:
        for file, documents in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            private = any(document["kind"] == "Secret" for document in documents)
            file.touch(mode=0o600 if private else 0o666)
            if private:
                file.chmod(0o600)
            file.write_text(as_yaml(documents), encoding="utf-8")
            click.echo(f"{file}: {len(documents)} objects", err=True)
    except OSError as error:
        click.echo(f"propylon export: cannot write {error.filename}: {error.strerror}", err=True)
        sys.exit(1)
