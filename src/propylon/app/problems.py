"""Everything that is wrong or doubtful, gathered from all rooms, with the place where it can be mended."""

from collections import Counter
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


Origin = str | tuple[str, api.ObjectRef]
"""Who says it: one of the findings' origins with the object, or the name of another."""


class Problems:
    """The current set, by origin, so that each origin can be replaced alone.

    What is printed costs as much as what changed: thousands of problems that stay are not looked at again.
    """

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._findings: dict[tuple[str, api.ObjectRef], tuple[Finding, ...]] = {}
        self._others: dict[str, tuple[Problem, ...]] = {}
        self._changed: set[Origin] = set()
        """Origins that say something else than at the last `news`."""
        self._said: dict[Origin, dict[str, Problem]] = {}
        """What was printed, by line. Several origins may say the same."""
        self._speakers: Counter[str] = Counter()
        """How many origins said a line."""

    def set_findings(self, origin: str, ref: api.ObjectRef, findings: tuple[Finding, ...]) -> None:
        """What one origin says of one object; nothing if empty."""
        if findings == self._findings.get((origin, ref), ()):
            return
        self._changed.add((origin, ref))
        if findings:
            self._findings[origin, ref] = findings
        else:
            self._findings.pop((origin, ref), None)

    def set_others(self, origin: str, problems: Iterable[Problem]) -> None:
        """Problems that are no findings: of files, of the store, of ports."""
        found = tuple(problems)
        if found == self._others.get(origin, ()):
            return
        self._changed.add(origin)
        if found:
            self._others[origin] = found
        else:
            del self._others[origin]

    def all(self) -> list[Problem]:
        """Every problem once, ordered by file, line and object."""
        origins: tuple[Origin, ...] = (*self._findings, *self._others)
        return sorted({problem for origin in origins for problem in self._now(origin)}, key=_order)

    def news(self) -> list[str]:
        """Lines to print: what is gone since the last call, then what is new. What stays is not told again, also where
        its place moved."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, set()
        stood: dict[str, bool] = {}
        of_line: dict[str, Problem] = {}
        for origin in changed:
            before = self._said.pop(origin, {})
            now = {problem.line_of_text(): problem for problem in self._now(origin)}
            of_line |= before | now
            for line in before.keys() | now.keys():
                stood.setdefault(line, self._speakers[line] > 0)
            self._speakers.subtract(before.keys())
            self._speakers.update(now.keys())
            if now:
                self._said[origin] = now
        ordered = sorted(of_line, key=lambda line: _order(of_line[line]))
        stands = {line: self._speakers[line] > 0 for line in ordered}
        for line in ordered:
            if not stands[line]:
                del self._speakers[line]
        return [
            *(f"mended: {of_line[line].short()}" for line in ordered if stood[line] and not stands[line]),
            *(f"{of_line[line].severity}: {line}" for line in ordered if stands[line] and not stood[line]),
        ]

    def _now(self, origin: Origin) -> Iterable[Problem]:
        """What an origin says."""
        if isinstance(origin, str):
            return self._others.get(origin, ())
        return [self._of_finding(origin[1], finding) for finding in self._findings.get(origin, ())]

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


def _order(problem: Problem) -> tuple[object, ...]:
    return (problem.severity, problem.file, problem.line, problem.object, problem.field, problem.message)


def _is_warning(finding: Finding) -> bool:
    """PartiallyInvalid is True when something is wrong: part of the route is not served."""
    return finding.condition != "PartiallyInvalid" and (finding.condition == "Warning" or finding.status == "True")
