"""Everything a store can refuse, in one tree:

StoreError
├── NotFound              no such object
├── AlreadyExists         create of an object that is there
├── Conflict              the object is not at the resourceVersion (or uid) the writer believed
├── Forbidden             the object may not be written now (its namespace is being deleted)
├── Invalid               the object itself is refused; `findings` say where and why
├── Gone                  the asked resourceVersion is no longer (or not yet) in the change log: list again
├── ReadOnly              this store was opened for reading
└── StoreUnavailable      the disk, the file or its permissions: nothing was written; `remedy` says what to do
    └── StoreLocked       another process writes to the same data directory
"""

from __future__ import annotations

from collections.abc import Sequence

from propylon.api.meta import ObjectRef
from propylon.api.validation import Finding


class StoreError(Exception):
    """The root of the tree above."""


class NotFound(StoreError):  # noqa: N818 - Kubernetes' own name, as are its siblings
    """No such object."""

    def __init__(self, ref: ObjectRef) -> None:
        super().__init__(f"{ref} not found")
        self.ref = ref


class AlreadyExists(StoreError):  # noqa: N818
    """An object of that name is there already."""

    def __init__(self, ref: ObjectRef) -> None:
        super().__init__(f"{ref} already exists")
        self.ref = ref


class Conflict(StoreError):  # noqa: N818
    """The writer's view of the object is stale: read it again and repeat the change."""

    def __init__(self, ref: ObjectRef, message: str) -> None:
        super().__init__(f"{ref}: {message}")
        self.ref = ref


class Forbidden(StoreError):  # noqa: N818
    """The object may not be written now."""

    def __init__(self, ref: ObjectRef, message: str) -> None:
        super().__init__(f"{ref}: {message}")
        self.ref = ref


class Invalid(StoreError):  # noqa: N818
    """The object is refused; `findings` hold at least one error."""

    def __init__(self, ref: ObjectRef, findings: Sequence[Finding]) -> None:
        errors = [finding for finding in findings if finding.severity == "error"]
        super().__init__(f"{ref} is invalid: " + "; ".join(f"{found.field}: {found.message}" for found in errors))
        self.ref = ref
        self.findings = tuple(findings)


class Gone(StoreError):  # noqa: N818
    """Changes since that resourceVersion are not known (any more): list again."""

    def __init__(self, since: int, oldest: int, newest: int) -> None:
        super().__init__(f"changes since resourceVersion {since} are not retained (known: {oldest} to {newest})")
        self.since = since
        self.oldest = oldest
        self.newest = newest


class ReadOnly(StoreError):  # noqa: N818
    """The store was opened for reading only."""


class StoreUnavailable(StoreError):  # noqa: N818
    """Reading or writing is not possible at the moment. Nothing of the failed write was acknowledged or kept."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}: {remedy}")
        self.message = message
        self.remedy = remedy


class StoreLocked(StoreUnavailable):
    """Another process writes to this data directory; `pid` is its process id, 0 when unknown."""

    def __init__(self, message: str, remedy: str, pid: int) -> None:
        super().__init__(message, remedy)
        self.pid = pid
