"""Reports for what reads them: JSON and JUnit XML. Pure."""

import re
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import msgspec

from propylon.store.files import FileProblem
from propylon.testing.coverage import Coverage, Match
from propylon.testing.finding import INVALID
from propylon.testing.model import Result
from propylon.testing.parsing import request_text
from propylon.testing.run import Report

ENGINES = {"graph": "the Graph", "envoy": "Envoy"}
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def summary(report: Report) -> str:
    """`10 passed, 1 failed, 1 disagreement in 0.14 s, asked of the Graph`."""
    counts = dict.fromkeys(("passed", "failed", "disagreement", "error"), 0)
    for result in report.results:
        counts[result.verdict] += 1
    words = {"disagreement": "disagreements", "error": "errors"}
    parts = [f"{n} {words.get(verdict, verdict) if n != 1 else verdict}" for verdict, n in counts.items() if n]
    asked = {"graph": "the Graph", "envoy": "Envoy", "both": "the Graph and Envoy"}[report.engine]
    return f"{', '.join(parts) or 'nothing was asked'} in {report.seconds:.2f} s, asked of {asked}"


def coverage_text(coverage: Coverage) -> str:
    """`coverage: 5 of 6 matches, 83.3 %`."""
    reached = coverage.total - len(coverage.missed)
    return f"coverage: {reached} of {coverage.total} matches, {coverage.percent:.1f} %"


def match_line(match: Match) -> str:
    """`HTTPRoute shop/cart rule 0 (canary) [PathPrefix /]`."""
    name = f" ({match.rule_name})" if match.rule_name else ""
    text = f" [{match.text}]" if match.text else ""
    attached = "" if match.attached else ", of a route that is attached to nothing"
    return f"{match.object} rule {match.rule}{name}{text}{attached}"


def failure_lines(result: Result) -> Iterable[str]:
    """Why a result is not `passed`, one thing a line."""
    if result.error:
        yield result.error
    for text in result.disagreements:
        yield f"the engines disagree: {text}"
    told: dict[tuple[str, str, str], list[str]] = {}
    for each in result.unmet:
        told.setdefault((each.field, each.wanted, each.found), []).append(ENGINES[each.engine])
    for (field, wanted, found), engines in told.items():
        yield f"{field}: wanted {wanted}, found {found}  (by {' and '.join(engines)})"


# --- JSON -------------------------------------------------------------------------------------------------------------


def as_document(report: Report) -> dict[str, Any]:
    """The JSON form (docs/reference/test.md)."""
    return {
        "version": 1,
        "engine": report.engine,
        "passed": report.passed and not report.unreadable,
        "seconds": round(report.seconds, 6),
        "results": [_result(result) for result in report.results],
        "problems": [_of_file(problem) for problem in report.problems],
        "coverage": {
            "percent": round(report.coverage.percent, 2),
            "total": report.coverage.total,
            "missed": [msgspec.to_builtins(match) for match in report.coverage.missed],
        },
    }


def _result(result: Result) -> dict[str, Any]:
    explanation = result.explanation if result.verdict != "passed" else None
    return {
        "test": result.test,
        "case": result.case,
        "place": msgspec.to_builtins(result.place),
        "request": request_text(result.request),
        "verdict": result.verdict,
        "unmet": [msgspec.to_builtins(each) for each in result.unmet],
        "disagreements": list(result.disagreements),
        "error": result.error,
        "seconds": round(result.seconds, 6),
        "explanation": msgspec.to_builtins(explanation),
    }


def _of_file(problem: FileProblem) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(problem),
        "severity": problem.severity.value,
        "line": problem.line or None,
        "column": problem.column or None,
    }


# --- JUnit ------------------------------------------------------------------------------------------------------------


def junit(report: Report) -> str:
    """JUnit XML: a suite for each RouteTest, and one for files that cannot be understood."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuites name="propylon test" time="{report.seconds:.6f}">']
    suites: dict[str, list[Result]] = {}
    for result in report.results:
        suites.setdefault(result.test, []).append(result)
    for name, results in suites.items():
        failures = sum(result.verdict in {"failed", "disagreement"} for result in results)
        errors = sum(result.verdict == "error" for result in results)
        time = sum(result.seconds for result in results)
        lines.append(
            f'  <testsuite name={_attribute(name)} tests="{len(results)}" failures="{failures}" errors="{errors}" '
            f'time="{time:.6f}">'
        )
        lines += [line for result in results for line in _testcase(result)]
        lines.append("  </testsuite>")
    invalid = [problem for problem in report.problems if problem.code == INVALID]
    if invalid:
        lines.append(f'  <testsuite name="files" tests="{len(invalid)}" failures="0" errors="{len(invalid)}">')
        for problem in invalid:
            lines.append(f'    <testcase classname="files" name={_attribute(problem.file)}>')
            lines.append(f"      <error message={_attribute(problem.message)}>{_content(str(problem))}</error>")
            lines.append("    </testcase>")
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"])


def _testcase(result: Result) -> Iterable[str]:
    head = (
        f"    <testcase classname={_attribute(result.test)} name={_attribute(result.case)} "
        f'file={_attribute(result.place.file)} line="{result.place.line}" time="{result.seconds:.6f}"'
    )
    if result.verdict == "passed":
        yield head + "/>"
        return
    yield head + ">"
    element = "error" if result.verdict == "error" else "failure"
    why = list(failure_lines(result))
    if result.explanation is not None:
        why.append(f"{result.explanation.request}: {result.explanation.summary}")
    text = _content("\n".join(why))
    yield f'      <{element} type="{result.verdict}" message={_attribute(why[0])}>{text}</{element}>'
    yield "    </testcase>"


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("?", text))


def _content(text: str) -> str:
    return escape(_NOT_XML.sub("?", text))
