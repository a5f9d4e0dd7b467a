"""What is wrong with manifests, in one shape: where, which object, which field, what, and what to do about it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """error: something was not loaded; warning: loaded, but probably not as meant; notice: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


class FileProblem(msgspec.Struct, frozen=True, order=True):
    """A problem at a place. `line` and `column` count from 1; 0 where there is none to name. `object` reads
    "HTTPRoute shop/cart"."""

    file: str
    line: int
    column: int
    severity: Severity
    message: str
    remedy: str = ""
    object: str = ""
    field: str = ""
    code: str = ""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "") + (f":{self.column}" if self.column else "")
        subject = " ".join(part for part in (self.object, self.field) if part)
        text = f"{place}: {self.severity}: " + (f"{subject}: " if subject else "") + self.message
        return f"{text} ({self.remedy})" if self.remedy else text
