"""Points in time as text: what the API server's two parsers accept."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping

# kube-openapi's "date-time": the separator of a fraction may be anything, and an offset is not looked at closely.
_DATE_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})T(\d{2}):(\d{2}):(\d{2})(?:.\d+)?(?:Z|[+-]\d{2}:\d{2})", re.IGNORECASE | re.ASCII
)
# Go's time.RFC3339, as it parses: upper case, a fraction after a point or comma.
_RFC3339 = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}):(\d{2}):(\d{2})(?:[.,]\d+)?(?:Z|[+-](\d{2}):(\d{2}))", re.ASCII)


def is_date_time(text: str) -> bool:
    """Whether a value of format "date-time" passes the validation of a CRD."""
    match = _DATE_TIME.fullmatch(text)
    return match is not None and _is_date(match[1]) and _is_clock(match[2], match[3], match[4])


def is_time(text: str) -> bool:
    """Whether a timestamp of metadata can be read."""
    match = _RFC3339.fullmatch(text)
    if match is None or not _is_date(match[1]) or not _is_clock(match[2], match[3], match[4]):
        return False
    return match[5] is None or (int(match[5]) <= 24 and int(match[6]) <= 60)


def _is_date(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return text.startswith("0000-") and _is_date(f"2000{text[4:]}")  # a leap year that Python does not have
    return True


def _is_clock(hours: str, minutes: str, seconds: str) -> bool:
    return hours <= "23" and minutes <= "59" and seconds <= "59"


TIME_FORMATS: Mapping[str, Callable[[str], bool]] = {"date-time": is_date_time, "time": is_time}
"""The check of each format that is about time."""
