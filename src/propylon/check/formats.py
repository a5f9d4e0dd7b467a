"""How findings are told: for people, and for what reads them."""

import json
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from propylon.check.finding import CODES, SEVERITIES, Finding

FORMATS = ("text", "json", "sarif", "github", "junit")


def render(findings: Sequence[Finding], form: str, version: str) -> str:
    """The findings in one of `FORMATS`."""
    match form:
        case "json":
            return json.dumps({"version": 1, "findings": [as_document(f) for f in findings]}, indent=2)
        case "sarif":
            return json.dumps(_sarif(findings, version), indent=2)
        case "github":
            return "\n".join(_github(f) for f in findings)
        case "junit":
            return _junit(findings)
    return _text(findings)


def as_document(finding: Finding) -> dict[str, Any]:
    """One finding as it stands in the JSON form."""
    return {
        "file": finding.file,
        "line": finding.line or None,
        "column": finding.column or None,
        "severity": finding.severity,
        "code": finding.code,
        "object": finding.object,
        "field": finding.field,
        "message": finding.message,
        "remedy": finding.remedy,
        "page": finding.page,
        "fingerprint": finding.fingerprint,
    }


def place(finding: Finding) -> str:
    """`file:line:column`, as far as known."""
    parts = [finding.file or "(no file)"]
    parts += [str(number) for number in (finding.line, finding.column) if number]
    return ":".join(parts)


def summary(findings: Sequence[Finding]) -> str:
    """`2 errors, 1 warning`."""
    counts = {each: sum(1 for f in findings if f.severity == each) for each in SEVERITIES}
    parts = [f"{n} {each}{'s' if n != 1 else ''}" for each, n in counts.items() if n]
    return ", ".join(parts) or "nothing found"


def _text(findings: Sequence[Finding]) -> str:
    lines = []
    for f in findings:
        subject = " ".join(part for part in (f.object, f.field) if part)
        lines.append(f"{place(f)}: {f.severity}: {f.message} [{f.code}]")
        if subject:
            lines.append(f"    {subject}")
        if f.remedy:
            first, *rest = f.remedy.rstrip().split("\n")
            lines.append(f"    remedy: {first}")
            lines += [f"      {line}" for line in rest]
    return "\n".join([*lines, summary(findings)])


_GITHUB = {"error": "error", "warning": "warning", "notice": "notice"}


def _github(f: Finding) -> str:
    """A workflow command of GitHub Actions."""

    def value(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def attribute(text: str) -> str:
        return value(text).replace(":", "%3A").replace(",", "%2C")

    attributes = [f"title={attribute(f.code)}"]
    if f.file:
        attributes.append(f"file={attribute(f.file)}")
    attributes += [f"{name}={number}" for name, number in (("line", f.line), ("col", f.column)) if number]
    text = f"{f.object}: {f.message}" if f.object else f.message
    return f"::{_GITHUB[f.severity]} {','.join(attributes)}::{value(text + (f' ({f.remedy})' if f.remedy else ''))}"


_LEVELS = {"error": "error", "warning": "warning", "notice": "note"}


def _sarif(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """SARIF 2.1.0 (OASIS)."""
    codes = sorted({f.code for f in findings})
    rules = [{"id": code, "shortDescription": {"text": CODES.get(code, code.replace("_", " "))}} for code in codes]
    results = []
    for f in findings:
        result: dict[str, Any] = {
            "ruleId": f.code,
            "ruleIndex": codes.index(f.code),
            "level": _LEVELS[f.severity],
            "message": {"text": ": ".join(p for p in (f.object, f.field, f.message) if p)},
            "partialFingerprints": {"propylon/v1": f.fingerprint},
        }
        if f.file:
            location: dict[str, Any] = {"artifactLocation": {"uri": f.file}}
            if f.line:
                location["region"] = {"startLine": f.line, "startColumn": max(1, f.column)}
            result["locations"] = [{"physicalLocation": location}]
        results.append(result)
    driver = {"name": "propylon", "version": version, "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _junit(findings: Sequence[Finding]) -> str:
    """One test case a finding; warnings and notices count as passed and say so in their output."""
    failures = sum(1 for f in findings if f.severity == "error")
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(f'<testsuite name="propylon check" tests="{max(1, len(findings))}" failures="{failures}">')
    for f in findings:
        lines.append(f"  <testcase classname={quoteattr(f.code)} name={quoteattr(f'{place(f)} {f.object}'.strip())}>")
        text = f"{f.severity}: {f.message}" + (f"\n{f.remedy}" if f.remedy else "")
        if f.severity == "error":
            lines.append(f"    <failure message={quoteattr(f.message)}>{escape(text)}</failure>")
        else:
            lines.append(f"    <system-out>{escape(text)}</system-out>")
        lines.append("  </testcase>")
    if not findings:
        lines.append('  <testcase classname="propylon" name="nothing found"/>')
    lines.append("</testsuite>")
    return "\n".join(lines)
