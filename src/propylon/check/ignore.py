"""What is known and accepted: ignore comments with a reason, and baselines."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from propylon.check.finding import Finding

_COMMENT = re.compile(r"#\s*propylon-ignore:\s*([a-z_]+(?:\s*,\s*[a-z_]+)*)\s*(?:--\s*(.*\S))?\s*$")


class Ignore(NamedTuple):
    """`# propylon-ignore: CODE[, CODE] -- REASON`, at the end of a line or on the line above it."""

    line: int
    codes: tuple[str, ...]
    reason: str


class BaselineError(Exception):
    """A baseline file that cannot be read; the message says why."""


def ignores_in(text: str) -> list[Ignore]:
    """The ignore comments of a file."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if "propylon-ignore" in line and (match := _COMMENT.search(line)):
            codes = tuple(code.strip() for code in match[1].split(","))
            found.append(Ignore(number, codes, match[2] or ""))
    return found


def apply_ignores(findings: Sequence[Finding], files: Iterable[str], read: Callable[[str], str]) -> list[Finding]:
    """Leave out what is ignored; add what is wrong with the ignore comments themselves.

    A comment counts for its own line and for the next. `read` returns the text of a file, "" if it has none.
    """
    kept = list(findings)
    for file in dict.fromkeys(files):
        for ignore in ignores_in(read(file)):
            lines = (ignore.line, ignore.line + 1)
            hit = [f for f in kept if f.file == file and f.line in lines and f.code in ignore.codes]
            if not ignore.reason:
                message, remedy = "the ignore comment has no reason and counts for nothing", "write -- REASON after it"
                kept.append(Finding(file, ignore.line, 1, "error", "ignore_without_reason", "", "", message, remedy))
            elif not hit:
                message = f"nothing is found here that {', '.join(ignore.codes)} would ignore"
                finding = Finding(
                    file, ignore.line, 1, "notice", "ignore_unused", "", "", message, "remove the comment"
                )
                kept.append(finding)
            else:
                kept = [f for f in kept if f not in hit]
    return sorted(kept)


def baseline_text(findings: Iterable[Finding]) -> str:
    """A baseline file of what is found now."""
    entries = [
        {"fingerprint": f.fingerprint, "code": f.code, "object": f.object, "message": f.message} for f in findings
    ]
    return json.dumps({"version": 1, "findings": entries}, indent=1) + "\n"


def apply_baseline(findings: Iterable[Finding], text: str) -> list[Finding]:
    """Leave out what a baseline file has. Raises BaselineError."""
    try:
        known = {entry["fingerprint"] for entry in json.loads(text)["findings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BaselineError(f"not a baseline: {error}") from error
    return [finding for finding in findings if finding.fingerprint not in known]
