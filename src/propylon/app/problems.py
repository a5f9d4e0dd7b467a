"""Everything that is wrong or doubtful, gathered from all rooms, with the place where it can be mended."""

from collections.abc import Callable, Iterable, Mapping

from propylon import api
from propylon.app.report import Problem
from propylon.graph.model import Finding

Place = tuple[str, int, int]
"""File, line, column; ("", 0, 0) where an object came from no file."""
Locate = Callable[[api.ObjectRef, str], Place]

REMEDIES: Mapping[str, str] = {
    "RefNotPermitted": "add a ReferenceGrant in the namespace that is referred to",
    "BackendNotFound": "create the Service, or mend its name, namespace and port",
    "NoMatchingParent": "mend the parentRef, or add what it names",
    "NotAllowedByListeners": "let the listener's allowedRoutes take the route's namespace and kind",
    "NoMatchingListenerHostname": "give the route a hostname within the listener's",
    "InvalidCertificateRef": "create the Secret with tls.crt and tls.key, or run with --dev-certs",
    "HostnameConflict": "give the listeners of one port different hostnames",
    "ProtocolConflict": "give listeners of different protocols different ports",
    "InvalidKind": "refer to a kind that is supported",
    "UnsupportedProtocol": "use an appProtocol that the route can speak",
    "NoValidCACertificate": "refer to a ConfigMap with ca.crt in PEM",
}
"""What to do about a reason, where its message does not say it already."""


class Problems:
    """The current set, by origin, so that each origin can be replaced alone."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._findings: dict[tuple[str, api.ObjectRef], tuple[Finding, ...]] = {}
        self._others: dict[str, tuple[Problem, ...]] = {}
        self._said: dict[str, Problem] = {}
        self._changed = False

    def set_findings(self, origin: str, ref: api.ObjectRef, findings: tuple[Finding, ...]) -> None:
        """What one origin says of one object; nothing if empty."""
        if findings == self._findings.get((origin, ref), ()):
            return
        self._changed = True
        if findings:
            self._findings[origin, ref] = findings
        else:
            self._findings.pop((origin, ref), None)

    def set_others(self, origin: str, problems: Iterable[Problem]) -> None:
        """Problems that are no findings: of files, of the store, of ports."""
        found = tuple(problems)
        if found == self._others.get(origin, ()):
            return
        self._changed = True
        if found:
            self._others[origin] = found
        else:
            del self._others[origin]

    def all(self) -> list[Problem]:
        """Every problem once, ordered by file, line and object."""
        found = {self._of_finding(ref, f): None for (_, ref), findings in self._findings.items() for f in findings}
        for problems in self._others.values():
            found.update(dict.fromkeys(problems))
        return sorted(found, key=lambda p: (p.severity, p.file, p.line, p.object, p.field, p.message))

    def news(self) -> list[str]:
        """Lines to print: what is gone since the last call, then what is new."""
        if not self._changed:
            return []
        self._changed = False
        now = {p.line_of_text(): p for p in self.all()}
        gone = [f"mended: {problem.short()}" for line, problem in self._said.items() if line not in now]
        new = [f"{problem.severity}: {line}" for line, problem in now.items() if line not in self._said]
        self._said = now
        return [*gone, *new]

    def _of_finding(self, ref: api.ObjectRef, finding: Finding) -> Problem:
        file, line, column = self._locate(ref, finding.field)
        severity = "warning" if _is_warning(finding) else "error"
        name = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
        return Problem(
            severity=severity,
            file=file,
            line=line,
            column=column,
            object=f"{ref.kind} {name}",
            field=finding.field,
            message=f"{finding.reason}: {finding.message}",
            remedy=REMEDIES.get(finding.reason, ""),
        )


def _is_warning(finding: Finding) -> bool:
    """PartiallyInvalid is True when something is wrong: part of the route is not served."""
    return finding.condition != "PartiallyInvalid" and (finding.condition == "Warning" or finding.status == "True")
