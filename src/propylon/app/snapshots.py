"""Where the objects of one moment come from, beside manifests: a cluster, a running instance, a git revision.

Each is read once, and is a `Snapshot` that can be asked and compared like manifests.
"""

import asyncio
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from propylon import api
from propylon.app.configuration import UpOptions, default_data_dir
from propylon.app.offline import Manifests, Snapshot, options_of
from propylon.graph.sources import FIELD_OF_KIND
from propylon.store import GroupKind, LocalStore, StoreError
from propylon.store.files import FileProblem, Severity

KINDS = tuple(info for info in api.KINDS if (info.group, info.kind) in FIELD_OF_KIND)
"""What the Graph is made of."""
_GIT_SECONDS = 60


class SnapshotError(Exception):
    """Objects that cannot be read from where they are said to be; the message says what to change."""


class Taken(Snapshot):
    """Objects that were read from a cluster or an instance."""

    def __init__(
        self, documents: Mapping[api.ObjectRef, Mapping[str, Any]], options: UpOptions, problems: tuple[str, ...] = ()
    ) -> None:
        super().__init__(documents, options)
        unread = [f"{ref}: {error}" for ref, error in self.undecodable]
        self.problems = [FileProblem("", 0, 0, Severity.WARNING, text) for text in (*problems, *unread)]

    @property
    def errors(self) -> list[FileProblem]:
        """What could not be read, and counts as not there."""
        return self.problems


def _options(controllers: tuple[str, ...]) -> UpOptions:
    return UpOptions(data_dir=default_data_dir(), controllers=controllers or None)


def from_cluster(
    kubeconfig: str | None = None, context: str | None = None, *, controllers: tuple[str, ...] = ()
) -> Taken:
    """The objects of a cluster at this moment. Raises SnapshotError."""
    # An HTTP client and its libraries: whoever asks manifests waits for none of it.
    from propylon.store.cluster import CredentialsError, load_credentials  # noqa: PLC0415
    from propylon.store.cluster.listing import list_cluster  # noqa: PLC0415

    try:
        contents = asyncio.run(list_cluster(load_credentials(kubeconfig, context), KINDS))
    except (CredentialsError, StoreError) as error:
        raise SnapshotError(str(error)) from error
    problems = tuple(
        f"these credentials may not list objects of kind {kind}: they count as not there" for kind in contents.forbidden
    )
    return Taken(contents.documents, _options(controllers), problems)


def from_instance(data_dir: Path | None = None, *, controllers: tuple[str, ...] = ()) -> Taken:
    """The objects in the store of an instance, whether or not it runs. Raises SnapshotError."""
    directory = data_dir or default_data_dir()
    if not directory.is_dir():
        raise SnapshotError(f"{directory} does not exist: no instance has run there")
    try:
        with LocalStore(directory, read_only=True) as store:
            documents = store.list(tuple(GroupKind(info.group, info.kind) for info in KINDS)).documents
    except StoreError as error:
        raise SnapshotError(str(error)) from error
    found = {}
    for document in documents:
        metadata = document["metadata"]
        group = api.meta.group_of(document["apiVersion"])
        found[api.ObjectRef(group, document["kind"], metadata.get("namespace", ""), metadata["name"])] = document
    return Taken(found, _options(controllers))


class Revision(Manifests):
    """Manifests as a git revision has them: places begin with `REV:`."""

    def __init__(self, options: UpOptions, revision: str, directory: tempfile.TemporaryDirectory[str]) -> None:
        self._directory = directory  # there as long as somebody may ask for a place
        super().__init__(options, (f"{Path(directory.name).resolve()}/", f"{revision}:"))


def from_revision(revision: str, path: str = "", **options: Any) -> Revision:
    """The manifests at a path as a git revision has them, the path as git reads it: from the top of the repository, or
    with `./` from the working directory.

    The whole tree is read, so that kustomizations find what lies beside them. `options` are those of `load`. Raises
    SnapshotError, ConfigurationError.
    """
    if revision.startswith("-") or not _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", ok=False):
        raise SnapshotError(f"{revision!r} is neither a path nor a git revision that is known here")
    top = _git("rev-parse", "--show-toplevel").decode().strip()
    archive = _git("-C", top, "archive", "--format=tar", revision)
    directory = tempfile.TemporaryDirectory(prefix="propylon-git-")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory.name, filter="data")
    root = Path(directory.name).resolve()
    prefix = _git("rev-parse", "--show-prefix").decode().strip() if path.startswith(("./", "../")) else ""
    wanted = (root / prefix / path).resolve()
    if not wanted.is_relative_to(root) or not wanted.exists():
        raise SnapshotError(f"{path} is not in revision {revision}")
    return Revision(options_of(wanted, **options), revision, directory)


def _git(*arguments: str, ok: bool = True) -> bytes:
    """What git prints; with `ok` false b"" where it fails. Raises SnapshotError."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotError(f"git cannot be run: {error}") from error
    if done.returncode:
        if not ok:
            return b""
        raise SnapshotError(f"git: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
