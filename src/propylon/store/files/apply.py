"""Keeps a store in step with manifests: applies what they say, prunes what they no longer say, holds on to what broke.

`plan` decides, `FilesController` does. Objects are applied as the manager "files", so fields of others survive, and
the store remembers which objects came from which file, so pruning works across restarts. An object that somebody
deleted from the store comes back when its manifest changes or at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum

import msgspec

from propylon.api.meta import ObjectRef
from propylon.store.errors import Invalid, NotFound, StoreError, StoreUnavailable
from propylon.store.files.problems import FileProblem, Severity
from propylon.store.files.source import FileObject, FileSource, Loaded, is_temporary
from propylon.store.files.watch import BURST_MILLISECONDS, Watcher
from propylon.store.protocol import Applied, AppliedDocument, Outcome, Store

MANAGER = "files"

LOOK_SECONDS = 5.0
"""How often to look without having been notified: for file systems that notify of nothing."""

UNTOLD_SECONDS = 1.0
"""How often to look when the system has no notifications left to give."""

RETRY_SECONDS = 0.5
"""How soon to look again while something is missing, or the store did not take everything."""

PRUNE_SECONDS = 0.2
"""How long an object must be missing before it is pruned: editors remove or empty a file for a moment while they save
it."""


QUICK_FILES = 8
QUICK_BYTES = 64 * 1024
"""So many files of so many bytes together are read without changing the thread: some 2 ms."""


class Action(StrEnum):
    """What was done with an object because of its manifest."""

    CREATED = "created"
    CHANGED = "changed"
    PRUNED = "pruned"
    RELEASED = "released"


class FileChange(msgspec.Struct, frozen=True):
    """One object that was written. `place` is the file and line of its manifest, for a pruned object its last one."""

    action: Action
    ref: ObjectRef
    place: str

    def __str__(self) -> str:
        return f"{self.action:<9}{self.ref}  {self.place}"


class Plan(msgspec.Struct, frozen=True):
    """What to write. Pruning leaves out what is held back: refused objects, and those of files that cannot be read."""

    apply: tuple[FileObject, ...]
    prune: tuple[ObjectRef, ...]


class Outcomes(msgspec.Struct, frozen=True):
    """What one pass did and found. `settled` is false when something is to be tried again soon."""

    changes: tuple[FileChange, ...]
    problems: tuple[FileProblem, ...]
    objects: int
    settled: bool


def plan(applied: Mapping[ObjectRef, AppliedDocument], loaded: Loaded, *, everything: bool, in_step: bool) -> Plan:
    """What to write so that the store says what the manifests say.

    With `everything`, also what seems to be there already. `in_step` says that nothing was left to do after the load
    before, so that only what changed since has to be looked at.
    """
    looked_at = loaded.changed if in_step and not everything else None
    apply = tuple(
        item
        for ref in (loaded.objects if looked_at is None else sorted(looked_at))
        if (item := loaded.objects.get(ref)) is not None
        and (everything or ref not in applied or applied[ref].document != item.document)
    )
    if not loaded.complete:
        return Plan(apply, ())
    prune = tuple(
        ref
        for ref in (applied if looked_at is None else sorted(looked_at))
        if ref in applied
        and ref not in loaded.objects
        and ref not in loaded.held
        and _file_of(applied[ref].source) not in loaded.held_files
    )
    return Plan(apply, prune)


def _file_of(source: str) -> str:
    return source.rpartition(":")[0]


class FilesController:
    """Applies a source to a store, once (`sync`) or for as long as `run` runs.

    `on_change` hears of every written object, `on_problems` of all problems whenever they differ from those before;
    both in the thread that does the pass, which under `run` is the event loop's only where little changed.
    """

    def __init__(
        self,
        store: Store,
        source: FileSource,
        *,
        on_change: Callable[[FileChange], None] = lambda change: None,
        on_problems: Callable[[tuple[FileProblem, ...]], None] = lambda problems: None,
    ) -> None:
        self._store = store
        self._source = source
        self._on_change = on_change
        self._on_problems = on_problems
        self._applied: dict[ObjectRef, AppliedDocument] | None = None
        self._in_step = False
        """Whether the last pass left nothing to be done."""
        self._missing_since: dict[ObjectRef, float] = {}
        self._problems: tuple[FileProblem, ...] | None = None
        self._notices: dict[ObjectRef, FileProblem] = {}
        self._watched: frozenset[str] = frozenset()
        self.first_pass = asyncio.Event()

    def sync(self, told: Collection[str] | None = None) -> Outcomes:
        """One pass: load, apply, prune. Raises nothing for broken manifests or an unavailable store: these are
        problems. `told`: all paths that changed since the pass before, if that is known."""
        return self._follow(self._source.load(told))

    def _follow(self, loaded: Loaded) -> Outcomes:
        """Have the store say what the manifests say."""
        self._watched = loaded.watched
        problems = list(loaded.problems)
        changes: list[FileChange] = []
        settled = loaded.complete and not loaded.held_files
        in_step, self._in_step = self._in_step, False
        try:
            first = self._applied is None
            if self._applied is None:
                self._applied = self._store.applied_by(MANAGER)
            planned = plan(self._applied, loaded, everything=first, in_step=in_step)
            settled &= self._apply(planned.apply, problems, changes)
            ripe = planned.prune if first else self._ripe(planned.prune)
            self._prune(ripe, problems, changes)
            settled &= len(ripe) == len(planned.prune)
            # What was refused is tried and told again in every pass.
            self._in_step = settled and len(problems) == len(loaded.problems)
            self._notices = {ref: notice for ref, notice in self._notices.items() if ref in loaded.objects}
            problems.extend(self._notices.values())
        except StoreUnavailable as error:
            problems.append(
                FileProblem("", 0, 0, Severity.ERROR, error.message, error.remedy, code="store_unavailable")
            )
            self._applied = None
            settled = False
        for change in changes:
            self._on_change(change)
        if tuple(problems) != self._problems:
            self._problems = tuple(problems)
            self._on_problems(self._problems)
        return Outcomes(tuple(changes), tuple(problems), len(loaded.objects), settled)

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass, each as soon as something changed, until `stop` is set."""
        woken = asyncio.Event()
        watcher = Watcher(woken.set, is_temporary)
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: woken.set())
        told: frozenset[str] | None = None
        watched: frozenset[str] | None = None
        try:
            while not stop.is_set():
                woken.clear()
                outcomes = await self._pass(told, watcher)
                self.first_pass.set()
                # A pass over what was told alone finds the same set: those over everything look at directories anew.
                if watched is not self._watched:
                    watched = self._watched
                    if watcher.watch((*self._source.paths, *watched)):
                        told = None
                        continue  # what changed before the watch began
                idle = LOOK_SECONDS if watcher.is_told else UNTOLD_SECONDS
                seconds = idle if outcomes.settled else self._seconds_to_retry()
                told = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken.wait()
                    told = watcher.take() or None
        finally:
            watcher.close()
            stopped.cancel()

    async def _pass(self, told: frozenset[str] | None, watcher: Watcher) -> Outcomes:
        """One pass, here and at once if it is about a few small files, else in a thread. What is written at about the
        same time is taken in together: files may need each other."""
        quickly = self._load_quickly(told) if told is not None and self._in_step else None
        end = time.monotonic() + BURST_MILLISECONDS / 1000
        while told is not None and (seconds := watcher.quiet_in()) > 0 and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(seconds)
        if told is not None and (more := watcher.take()):
            told |= more
            again = self._load_quickly(more) if quickly is not None else None
            if quickly is not None:
                self._in_step &= again is not None  # what the first look found changed is not told by another one
            quickly = _both(quickly, again)
        if quickly is not None:
            return self._follow(quickly)
        return await asyncio.to_thread(self.sync, told)

    def _load_quickly(self, told: Collection[str]) -> Loaded | None:
        """What the manifests say now, if that takes no more than reading a few small files."""
        if len(told) > QUICK_FILES:
            return None
        try:
            if sum(os.stat(path).st_size for path in told) > QUICK_BYTES:  # noqa: PTH116
                return None
        except OSError:
            return None
        return self._source.load_again(told)

    def _seconds_to_retry(self) -> float:
        if not self._missing_since:
            return RETRY_SECONDS
        return min(RETRY_SECONDS, max(0.0, min(self._missing_since.values()) + PRUNE_SECONDS - time.monotonic()))

    def _ripe(self, missing: Collection[ObjectRef]) -> tuple[ObjectRef, ...]:
        """Those that have been missing for long enough."""
        now = time.monotonic()
        self._missing_since = {ref: self._missing_since.get(ref, now) for ref in missing}
        return tuple(ref for ref, since in self._missing_since.items() if now - since >= PRUNE_SECONDS)

    def _apply(self, items: Collection[FileObject], problems: list[FileProblem], changes: list[FileChange]) -> bool:
        """Write; returns whether the store took all that it may take later."""
        assert self._applied is not None
        if not items:
            return True
        results = self._store.apply_many(
            [item.document for item in items],
            MANAGER,
            create_namespace=True,
            sources=[str(item.origin) for item in items],
            checked=True,
        )
        settled = True
        item: FileObject
        result: Applied
        for item, result in zip(items, results, strict=True):
            if result.outcome is Outcome.REFUSED:
                problems.append(_refusal(item, result))
                settled &= isinstance(result.error, Invalid)
                continue
            self._applied[item.ref] = AppliedDocument(item.document, str(item.origin))
            if result.notices:
                place = (item.origin.file, item.origin.line, 1)
                message = "; ".join(result.notices)
                self._notices[item.ref] = FileProblem(*place, Severity.NOTICE, message, object=str(item.ref))
            elif result.outcome is Outcome.CHANGED:
                self._notices.pop(item.ref, None)
            if result.outcome is not Outcome.UNCHANGED:
                changes.append(FileChange(Action(result.outcome.value), item.ref, str(item.origin)))
        return settled

    def _prune(self, refs: Collection[ObjectRef], problems: list[FileProblem], changes: list[FileChange]) -> None:
        assert self._applied is not None
        # Namespaces last: by then what was in them from files is gone, and one that still holds something is kept.
        for ref in sorted(refs, key=lambda ref: (ref.kind == "Namespace" and not ref.group, ref)):
            action = Action.PRUNED
            try:
                if ref.kind == "Namespace" and not ref.group and len(self._store.list(namespace=ref.name)):
                    self._store.release(ref, MANAGER)
                    action = Action.RELEASED
                else:
                    self._store.delete(ref)
            except NotFound:
                pass
            self._missing_since.pop(ref, None)
            changes.append(FileChange(action, ref, self._applied.pop(ref).source))


def _both(first: Loaded | None, then: Loaded | None) -> Loaded | None:
    """What was loaded last, with all that changed since before the first of two loads; None if it has to be looked at
    everything."""
    if first is None or then is None or first.changed is None or then.changed is None:
        return None
    return msgspec.structs.replace(then, changed=first.changed | then.changed)


def _refusal(item: FileObject, result: Applied) -> FileProblem:
    error = result.error
    field, message, remedy = "", str(error), ""
    if isinstance(error, Invalid):
        first = next(finding for finding in error.findings if finding.severity == "error")
        field, message, remedy = first.field, first.message, first.remedy
    elif isinstance(error, StoreError):
        remedy = "it is tried again"
    return FileProblem(
        item.origin.file,
        item.origin.line,
        1,
        Severity.ERROR,
        f"the store refused it: {message}",
        remedy,
        str(item.ref),
        field,
        "refused",
    )
