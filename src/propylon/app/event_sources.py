"""What is worth an Event: findings that stay, Gateways that are programmed, proxies that come and go, files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any

from propylon import api
from propylon.api.kinds import KINDS
from propylon.app.controller import Outcome
from propylon.app.events import EventRecorder
from propylon.graph.model import Finding
from propylon.proxies.settings import Adopted, BackingOff, Drained, Exited, ProxyEvent, Refused, Started
from propylon.server.events import Note
from propylon.store.files import FileProblem, Severity

SETTLE_SECONDS = 1.0
"""How long a finding must stand to be told: most are mended by the next object of the same `kubectl apply`."""


class EventSources:
    """Turns what the control plane learns into notes. Belongs to the event loop."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder
        self._findings: dict[tuple[str, api.ObjectRef], tuple[Finding, ...]] = {}
        """What changed and was not looked at since, by origin and object."""
        self._told: dict[tuple[str, api.ObjectRef], frozenset[Note]] = {}
        self._programmed: dict[api.ObjectRef, bool] = {}
        self._files: tuple[FileProblem, ...] = ()
        self._files_told: frozenset[Note] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._first = True

    def take(self, outcome: Outcome, files: tuple[FileProblem, ...]) -> None:
        """One batch's outcome, and what is known of the manifest files."""
        self._findings.update(outcome.findings)
        for key, findings in outcome.findings.items():
            if key in self._told:  # what is mended is told again when it comes back
                self._told[key] &= {note_of_finding(key[1], finding) for finding in findings}
        for ref, status in outcome.statuses.items():
            if ref.kind == "Gateway":
                self._take_gateway(ref, status)
        if (self._findings or files is not self._files) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._tell)
        self._files = files

    def stop(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        """Tell what has been so for a while. What stood when the process began may have been told by the last one."""
        self._timer = None
        again, self._first = not self._first, False
        changed, self._findings = self._findings, {}
        for key, findings in changed.items():
            notes = frozenset(note_of_finding(key[1], finding) for finding in findings)
            before = self._told.pop(key, frozenset())
            if notes:
                self._told[key] = notes
            for note in sorted(notes - before):
                self._recorder.note(note, again=again)
        files = frozenset(notes_of_files(self._files))
        for note in sorted(files - self._files_told):
            self._recorder.note(note, again=again)
        self._files_told = files

    def _take_gateway(self, ref: api.ObjectRef, status: Any) -> None:
        if status is None:
            self._programmed.pop(ref, None)
            return
        holds = _condition(status, "Programmed") == "True"
        if holds and not self._programmed.get(ref):
            addresses = ", ".join(str(address.get("value")) for address in status.get("addresses", ()))
            message = f"The proxy serves the Gateway at {addresses}" if addresses else "The proxy serves the Gateway"
            self._recorder.note(Note(ref, "Normal", "Programmed", message))
        self._programmed[ref] = holds

    def proxy_event(self, event: ProxyEvent, pod: api.ObjectRef | None) -> None:
        """Something happened to a proxy, which is shown as `pod` if at all."""
        gateway = api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *event.node.split("/", 1))
        for note in notes_of_proxy(event, gateway, pod):
            self._recorder.note(note)


_LINE_HEAD = re.compile(r"\[\d{4}-\d\d-\d\d [\d:.]+\]\[\d+\]")
"""Time and pid of a line that Envoy logged."""


def note_of_finding(ref: api.ObjectRef, finding: Finding) -> Note:
    """A finding as a note."""
    return Note(ref, "Warning", finding.reason, finding.message, finding.field)


def notes_of_proxy(event: ProxyEvent, gateway: api.ObjectRef, pod: api.ObjectRef | None) -> list[Note]:
    """What to tell of a proxy: to its Gateway what disturbs traffic, to its Pod everything."""
    refs = [ref for ref in (gateway, pod) if ref is not None]
    match event:
        case Started():
            how = "hot restart, so that no connection is lost" if event.epoch else "a new process"
            notes = [Note(ref, "Normal", "Started", f"Started Envoy: {how}") for ref in refs[1:]]
        case Adopted():
            message = "Took over the Envoy that a former process left running"
            notes = [Note(ref, "Normal", "Adopted", message) for ref in refs[1:]]
        case Exited(expected=False):
            notes = [Note(ref, "Warning", "ProxyExited", "The Envoy process ended unexpectedly") for ref in refs]
        case BackingOff():
            # Without seconds, times and pids, which differ each time and would make each time an Event of its own.
            message = f"Back-off restarting the Envoy process: {_LINE_HEAD.sub('', event.reason)}"
            notes = [Note(ref, "Warning", "BackOff", message) for ref in refs]
        case Refused():
            notes = [Note(ref, "Warning", "SettingsRefused", f"Keeps its old settings: {event.reason}") for ref in refs]
        case Drained() if event.connections:
            message = "Connections were still open when the proxy had to end"
            notes = [Note(ref, "Warning", "NotDrained", message) for ref in refs]
        case _:
            notes = []
    return notes


def notes_of_files(problems: Iterable[FileProblem]) -> list[Note]:
    """What is wrong with, or worth knowing of, objects that manifest files define."""
    notes = []
    for problem in problems:
        ref = _ref_of(problem.object)
        if ref is not None:
            place = f"{problem.file}:{problem.line}" if problem.line else problem.file
            normal = problem.severity is Severity.NOTICE
            reason = (
                "ManifestNotice" if normal else "ManifestRefused" if problem.severity is Severity.ERROR else "Manifest"
            )
            message = f"{place}: {problem.message}"
            notes.append(Note(ref, "Normal" if normal else "Warning", reason, message, problem.field))
    return notes


_GROUPS: Mapping[str, str] = {info.kind: info.group for info in KINDS}


def _ref_of(text: str) -> api.ObjectRef | None:
    """The object that a problem names ("HTTPRoute shop/cart"), if it is of a kind that is known here."""
    kind, _, place = text.partition(" ")
    namespace, slash, name = place.rpartition("/")
    if kind not in _GROUPS or not name or (slash and not namespace):
        return None
    return api.ObjectRef(_GROUPS[kind], kind, namespace, name)


def _condition(status: Mapping[str, Any], kind: str) -> str:
    return next((str(entry["status"]) for entry in status.get("conditions", ()) if entry["type"] == kind), "")
