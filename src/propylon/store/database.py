"""The file beneath the local store: one SQLite database in WAL mode, synchronous=FULL, so that what was committed
survives kill -9 and power loss. Knows rows, transactions and the disk's troubles; nothing of what objects mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from propylon.api.meta import ObjectRef
from propylon.store.errors import Gone, ReadOnly, StoreError, StoreLocked, StoreUnavailable
from propylon.store.protocol import Changes, Event, EventType, GroupKind, Listing

DATABASE_NAME = "store.db"
LOCK_NAME = "store.lock"
SCHEMA_VERSION = 1

_RECENT_BYTES = 4 * 1024 * 1024
"""How much of the change log is also in memory: what those read who follow it closely."""

_SCHEMA = """
CREATE TABLE objects (
    grp TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    uid TEXT NOT NULL UNIQUE, resource_version INTEGER NOT NULL, document BLOB NOT NULL,
    PRIMARY KEY (grp, kind, namespace, name)
);
CREATE INDEX objects_by_namespace ON objects (namespace);
CREATE TABLE owners (
    owner_uid TEXT NOT NULL, grp TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (owner_uid, grp, kind, namespace, name)
) WITHOUT ROWID;
CREATE INDEX owners_by_dependent ON owners (grp, kind, namespace, name);
CREATE TABLE applied (
    grp TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    manager TEXT NOT NULL, source TEXT NOT NULL, document BLOB NOT NULL,
    PRIMARY KEY (grp, kind, namespace, name, manager)
);
CREATE TABLE changes (
    resource_version INTEGER PRIMARY KEY, type TEXT NOT NULL,
    grp TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, document BLOB NOT NULL
);
CREATE TABLE counter (
    only INTEGER PRIMARY KEY CHECK (only = 1), resource_version INTEGER NOT NULL, pruned INTEGER NOT NULL
);
INSERT INTO counter VALUES (1, 0, 0);
"""

_THE = "grp = ? AND kind = ? AND namespace = ? AND name = ?"
_ORDER = "ORDER BY grp, kind, namespace, name"

# What every write says, put together once.
_DOCUMENT = f"SELECT document FROM objects WHERE {_THE}"
_DOCUMENT_AND_APPLIED = (
    "SELECT o.document, a.source, a.document FROM objects o LEFT JOIN applied a"
    " ON a.grp = o.grp AND a.kind = o.kind AND a.namespace = o.namespace AND a.name = o.name AND a.manager = ?"
    " WHERE o.grp = ? AND o.kind = ? AND o.namespace = ? AND o.name = ?"
)
_ADD = "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (grp, kind, namespace, name) DO NOTHING"
_REPLACE = f"UPDATE objects SET document = ?, resource_version = ? WHERE {_THE}"
_ADD_OWNER = "INSERT OR IGNORE INTO owners VALUES (?, ?, ?, ?, ?)"
_DROP_OWNERS = f"DELETE FROM owners WHERE {_THE}"
_LOG = "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)"
_ADD_APPLIED = "INSERT OR REPLACE INTO applied VALUES (?, ?, ?, ?, ?, ?, ?)"
_REPLACE_APPLIED = f"UPDATE applied SET source = ?, document = ? WHERE {_THE} AND manager = ?"
_COUNT = "UPDATE counter SET resource_version = ?, pruned = ?"

_REBUILD = "restore the file from a backup, or move it away and apply the manifests again"
_REMEDIES = {
    sqlite3.SQLITE_FULL: "make room on its disk; writing goes on by itself as soon as there is some",
    sqlite3.SQLITE_IOERR: "look for a full disk, a file size limit (ulimit -f) or a failing disk",
    sqlite3.SQLITE_READONLY: "make the file, its directory and its file system writable for this user",
    sqlite3.SQLITE_PERM: "make the file and its directory readable and writable for this user",
    sqlite3.SQLITE_CANTOPEN: "check that the directory exists and is writable for this user",
    sqlite3.SQLITE_BUSY: "another program holds the database; close it (sqlite3, a backup) and try again",
    sqlite3.SQLITE_LOCKED: "another program holds the database; close it (sqlite3, a backup) and try again",
    sqlite3.SQLITE_CORRUPT: _REBUILD,
    sqlite3.SQLITE_NOTADB: _REBUILD,
}


class Mark(NamedTuple):
    """Where a transaction began: how deep, with which savepoint ("" for none), and what was so far."""

    depth: int
    savepoint: str
    version: int
    pruned: int
    written: int


class Transaction:
    """All or nothing; inside another transaction, all or nothing of its own part.

    `settle` is called inside it when all else went well, `undo` when something did not, and `tell` after changes
    became durable, which is at the end of the outermost transaction. A class, as a generator would cost every write
    twice as much.
    """

    __slots__ = ("_database", "_mark", "_settle", "_tell", "_undo")

    def __init__(
        self,
        database: Database,
        settle: Callable[[], None] | None = None,
        undo: Callable[[], None] | None = None,
        tell: Callable[[], None] | None = None,
    ) -> None:
        self._database = database
        self._settle = settle
        self._undo = undo
        self._tell = tell

    def __enter__(self) -> None:
        mutex = self._database.mutex
        mutex.acquire()
        try:
            self._mark = self._database._begin()
        except BaseException:
            mutex.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        database, changed = self._database, False
        try:
            try:
                if kind is None:
                    if self._settle is not None:
                        self._settle()
                    changed = database._commit(self._mark)
                    return
            except BaseException:
                self._take_back()
                raise
            self._take_back()
        finally:
            database._depth = self._mark.depth
            database.mutex.release()
            if changed and self._tell is not None:
                self._tell()

    def _take_back(self) -> None:
        self._database._roll_back(self._mark)
        if self._undo is not None:
            self._undo()


class Database:
    """The rows. Methods that write must run inside `transaction`; all may raise StoreUnavailable."""

    def __init__(self, directory: Path, *, read_only: bool = False, retained_changes: int = 20_000) -> None:
        self.path = directory / DATABASE_NAME
        self.read_only = read_only
        self.mutex = threading.RLock()
        self._retained = retained_changes
        self._depth = 0
        self._dirty = False
        """Whether the outermost transaction has written anything."""
        self._lock_file: int | None = None
        if not read_only:
            self._lock_file = _lock(directory)
        try:
            with self._troubles():
                self._connection = self._open()
                self._execute = self._connection.cursor().execute  # under the mutex, one statement after the other
                self._version, self._pruned = self._counter()
        except StoreError:
            self._unlock()
            raise
        self._committed = self._version
        # The end of the change log: every change after `_recent_from`. Written in transactions, told when committed.
        self._recent: deque[Event] = deque()
        self._recent_from = self._version
        self._recent_bytes = 0
        self._uncommitted: list[Event] = []
        self._recent_lock = threading.Lock()
        """For what was committed last: held for moments, so that who follows it never waits for a writer's disk."""

    def _open(self) -> sqlite3.Connection:
        mode = "ro" if self.read_only else "rwc"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=1.0,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION or (self.read_only and version != SCHEMA_VERSION):
            raise StoreUnavailable(
                f"{self.path} has schema {version}, this propylon knows {SCHEMA_VERSION}",
                "use the propylon that wrote it, or another data directory",
            )
        if self.read_only:
            return
        self.path.chmod(0o600)  # Secrets are inside
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")  # a large commit leaves no large log behind
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Close the file and let other writers in."""
        with self.mutex:
            self._connection.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _counter(self) -> tuple[int, int]:
        version, pruned = self._connection.execute("SELECT resource_version, pruned FROM counter").fetchone()
        return version, pruned

    @property
    def committed(self) -> int:
        """The resourceVersion of the latest durable change."""
        if self.read_only:
            with self.mutex, self._troubles():
                return self._counter()[0]
        return self._committed

    def data_version_reader(self) -> Callable[[], bool]:
        """A function that tells whether another process committed since it was last asked."""
        last = -1

        def committed_since() -> bool:
            nonlocal last
            with self.mutex, self._troubles():
                now: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            changed, last = now != last, now
            return changed

        return committed_since

    # Transactions

    def transaction(self) -> Transaction:
        """All or nothing; inside another transaction, all or nothing of its own part."""
        return Transaction(self)

    def _begin(self) -> Mark:
        if self.read_only:
            raise ReadOnly(f"{self.path} is open for reading only")
        depth, savepoint = self._depth, ""
        try:
            if depth == 0:
                self._execute("BEGIN IMMEDIATE")
                self._dirty = False
            else:
                self._check_open()
                # As long as nothing was written anywhere, going back is beginning anew, and needs no savepoint.
                if self._dirty:
                    savepoint = f"level_{depth}"
                    self._execute(f"SAVEPOINT {savepoint}")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        self._depth = depth + 1
        return Mark(depth, savepoint, self._version, self._pruned, len(self._uncommitted))

    def _commit(self, mark: Mark) -> bool:
        """Whether anything became durable."""
        self._check_open()
        try:
            if mark.depth:
                if mark.savepoint:
                    self._execute(f"RELEASE {mark.savepoint}")
                return False
            self._finish(mark)
            self._execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        if self._version == mark.version:
            return False
        self._remember()
        return True

    def _roll_back(self, mark: Mark) -> None:
        self._version, self._pruned = mark.version, mark.pruned
        del self._uncommitted[mark.written :]
        # SQLite has rolled back by itself after some errors (a full disk); a second time is an error to ignore.
        with contextlib.suppress(sqlite3.Error):
            if mark.savepoint:
                self._execute(f"ROLLBACK TO {mark.savepoint}")
                self._execute(f"RELEASE {mark.savepoint}")
            elif self._connection.in_transaction:
                self._execute("ROLLBACK")
                self._dirty = False
                if mark.depth:
                    self._execute("BEGIN IMMEDIATE")

    def _check_open(self) -> None:
        """Raise StoreUnavailable where SQLite undid the transaction by itself (a full disk): what is written from then
        on would stand alone."""
        if not self._connection.in_transaction:
            raise StoreUnavailable(f"{self.path}: the transaction was undone", "look at its disk, and try again")

    def _remember(self) -> None:
        """Keep what was committed at hand for those who follow the change log."""
        with self._recent_lock:
            for event in self._uncommitted:
                self._recent.append(event)
                self._recent_bytes += len(event.raw)
            self._uncommitted.clear()
            while self._recent and (
                self._recent_bytes > _RECENT_BYTES or self._recent[0].resource_version <= self._pruned
            ):
                oldest = self._recent.popleft()
                self._recent_from = oldest.resource_version
                self._recent_bytes -= len(oldest.raw)
            self._committed = self._version

    def _finish(self, mark: Mark) -> None:
        if self._version == mark.version:
            return
        if self._version - self._pruned > self._retained + self._retained // 10:
            self._pruned = self._version - self._retained
            self._execute("DELETE FROM changes WHERE resource_version <= ?", (self._pruned,))
        self._execute(_COUNT, (self._version, self._pruned))

    @contextlib.contextmanager
    def _troubles(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: {error.strerror}", "check the directory's permissions") from error

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return StoreUnavailable(
            f"{self.path}: {error}", _REMEDIES.get(code, "check the file, its directory and its disk")
        )

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self.mutex:
                return self._execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _write(self, statement: str, values: Sequence[Any]) -> int:
        """How many rows that changed."""
        if not self._connection.in_transaction:
            self._check_open()
        self._dirty = True
        try:
            return self._execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    # Objects

    def next_version(self) -> int:
        """A resourceVersion nobody had before; given back if the transaction fails."""
        self._version += 1
        return self._version

    def document(self, ref: ObjectRef) -> bytes | None:
        """The object's JSON."""
        rows = self._rows(_DOCUMENT, ref)
        return rows[0][0] if rows else None

    def document_and_applied(self, ref: ObjectRef, manager: str) -> tuple[bytes, str | None, bytes | None] | None:
        """The object's JSON, and what this manager applied to it last after where it had it from (None if nothing)."""
        rows = self._rows(_DOCUMENT_AND_APPLIED, (manager, *ref))
        return rows[0] if rows else None

    def listing(self, kinds: Sequence[GroupKind], namespace: str | None) -> Listing:
        """Objects of these kinds (all if none), in that namespace (any if None)."""
        conditions, values = _kinds_condition(kinds)
        if namespace is not None:
            conditions.append("namespace = ?")
            values.append(namespace)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        with self.mutex:
            # The version first: a reader that is overtaken by a commit sees it again as a change, and misses none.
            version = self.committed
            rows = self._rows(f"SELECT grp, kind, namespace, name, document FROM objects {where} {_ORDER}", values)
            return Listing(version, tuple(ObjectRef(*row[:4]) for row in rows), tuple(row[4] for row in rows))

    def page(self, kind: GroupKind, namespace: str | None, after: tuple[str, str], limit: int) -> tuple[Listing, int]:
        """The next `limit` objects of a kind after that namespace and name, and how many there are beyond them."""
        conditions, values = _kinds_condition([kind])
        if namespace is not None:
            conditions.append("namespace = ?")
            values.append(namespace)
        conditions.append("(namespace, name) > (?, ?)")
        values += after
        where = f"WHERE {' AND '.join(conditions)}"
        with self.mutex:
            version = self.committed  # first, as in `listing`
            columns = "grp, kind, namespace, name, document"
            rows = self._rows(f"SELECT {columns} FROM objects {where} {_ORDER} LIMIT ?", (*values, limit))
            left = 0
            if len(rows) == limit:
                left = self._rows(f"SELECT COUNT(*) FROM objects {where}", values)[0][0] - limit
        return Listing(version, tuple(ObjectRef(*row[:4]) for row in rows), tuple(row[4] for row in rows)), left

    def refs_in_namespace(self, namespace: str) -> list[ObjectRef]:
        """What lives in a namespace."""
        rows = self._rows(f"SELECT grp, kind, namespace, name FROM objects WHERE namespace = ? {_ORDER}", (namespace,))
        return [ObjectRef(*row) for row in rows]

    def add(self, ref: ObjectRef, uid: str, version: int, raw: bytes, owners: Sequence[str]) -> bool:
        """Store a new object and log it; False, and nothing is done, if there is one of that name."""
        if not self._write(_ADD, (*ref, uid, version, raw)):
            return False
        self._write(_LOG, (version, "ADDED", *ref, raw))
        self._uncommitted.append(Event(EventType.ADDED, version, ref, raw))
        for owner in owners:
            self._write(_ADD_OWNER, (owner, *ref))
        return True

    def replace(self, ref: ObjectRef, version: int, raw: bytes, owners: Sequence[str] | None = None) -> None:
        """Store an object in the place of the one that is there, and log the change; `owners` where others than before
        own it."""
        self._write(_REPLACE, (raw, version, *ref))
        self._write(_LOG, (version, "MODIFIED", *ref, raw))
        self._uncommitted.append(Event(EventType.MODIFIED, version, ref, raw))
        if owners is not None:
            self._write(_DROP_OWNERS, ref)
            for owner in owners:
                self._write(_ADD_OWNER, (owner, *ref))

    def remove(self, ref: ObjectRef, version: int, raw: bytes) -> None:
        """Forget an object and who applied it; log its last state."""
        for table in ("objects", "owners", "applied"):
            self._write(f"DELETE FROM {table} WHERE {_THE}", ref)
        self._write(_LOG, (version, "DELETED", *ref, raw))
        self._uncommitted.append(Event(EventType.DELETED, version, ref, raw))

    def dependents(self, owner_uid: str) -> list[ObjectRef]:
        """Objects that name this uid as an owner."""
        rows = self._rows(f"SELECT grp, kind, namespace, name FROM owners WHERE owner_uid = ? {_ORDER}", (owner_uid,))
        return [ObjectRef(*row) for row in rows]

    def ref_of_uid(self, uid: str) -> ObjectRef | None:
        """The object that has this uid."""
        rows = self._rows("SELECT grp, kind, namespace, name FROM objects WHERE uid = ?", (uid,))
        return ObjectRef(*rows[0]) if rows else None

    # What managers applied

    def applied_by(self, manager: str) -> list[tuple[ObjectRef, str, bytes]]:
        """Everything this manager applied, and where it had it from."""
        rows = self._rows(
            f"SELECT grp, kind, namespace, name, source, document FROM applied WHERE manager = ? {_ORDER}", (manager,)
        )
        return [(ObjectRef(*row[:4]), row[4], row[5]) for row in rows]

    def put_applied(self, ref: ObjectRef, manager: str, source: str, raw: bytes) -> None:
        """Remember what a manager applied, and where it had it from."""
        self._write(_ADD_APPLIED, (*ref, manager, source, raw))

    def replace_applied(self, ref: ObjectRef, manager: str, source: str, raw: bytes) -> None:
        """Remember what a manager applied in the place of what it applied before."""
        self._write(_REPLACE_APPLIED, (source, raw, *ref, manager))

    def forget_applied(self, ref: ObjectRef, manager: str) -> None:
        """Forget what a manager applied to an object."""
        self._write(f"DELETE FROM applied WHERE {_THE} AND manager = ?", (*ref, manager))

    # Changes

    def changes_since(self, version: int, kinds: Sequence[GroupKind]) -> Changes:
        """The change log after that version. Raises Gone."""
        if (recent := self._recent_changes(version, kinds)) is not None:
            return recent
        with self.mutex:
            with self._troubles():
                newest, pruned = self._counter()
            if version < pruned or version > newest:
                raise Gone(version, pruned, newest)
            if version == newest:
                return Changes(newest, ())
            conditions, values = _kinds_condition(kinds)
            where = " AND ".join(["resource_version > ? AND resource_version <= ?", *conditions])
            rows = self._rows(
                "SELECT type, resource_version, grp, kind, namespace, name, document FROM changes"
                f" WHERE {where} ORDER BY resource_version",
                [version, newest, *values],
            )
        return Changes(newest, tuple(Event(EventType(row[0]), row[1], ObjectRef(*row[2:6]), row[6]) for row in rows))

    def _recent_changes(self, version: int, kinds: Sequence[GroupKind]) -> Changes | None:
        """The committed changes after that version, if they are all in memory."""
        if self.read_only:
            return None  # others write
        with self._recent_lock:
            newest = self._committed
            if not max(self._recent_from, self._pruned) <= version <= newest:
                return None
            found: list[Event] = []
            for event in reversed(self._recent):
                if event.resource_version <= version:
                    break
                if not kinds or (event.ref.group, event.ref.kind) in kinds:
                    found.append(event)
        found.reverse()
        return Changes(newest, tuple(found))


def _kinds_condition(kinds: Sequence[GroupKind]) -> tuple[list[str], list[Any]]:
    if not kinds:
        return [], []
    if len(kinds) == 1:  # the index then gives the order too, and nothing is sorted
        return ["grp = ?", "kind = ?"], list(kinds[0])
    pairs = ", ".join(["(?, ?)"] * len(kinds))
    return [f"(grp, kind) IN (VALUES {pairs})"], [value for kind in kinds for value in kind]


def _lock(directory: Path) -> int:
    """Take the directory's writer lock. It goes with the process, however that ends."""
    path = directory / LOCK_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(
            f"{path}: {error.strerror}", "make the directory writable for this user, or choose another data directory"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        text = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        pid = int(text) if text.isdigit() else 0
        raise StoreLocked(
            f"{directory} is in use by another process" + (f" (pid {pid})" if pid else ""),
            "stop that process, or choose another data directory",
            pid,
        ) from error
    # A full disk must not keep a reader-to-be from locking: the pid is a courtesy.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
