"""What two servers cannot agree on is taken out of kubectl's output: times, uids, resource versions. Pure.

Columns are as wide as their widest cell, so that the spaces between them follow the ages: runs of spaces count as two.
Names that kubectl makes up for its temporary files, and the two servers' addresses, are of no server's making either.
"""

from __future__ import annotations

import re

_UID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4}( \w+)?)")
_LONG_TIME = re.compile(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}")
_VERSION = re.compile(r'(resource[vV]ersion"?(?:: |:|=)\s*"?|Resource Version:\s+)\d+')
_UNKNOWN_AGE = re.compile(
    r"(?<=\s)(<invalid>|\d+y(\d+d)?|\d+d(\d+h)?|\d+h(\d+m)?|\d+m(\d+s)?|\d+s)(?=\s|$)", re.MULTILINE
)
_TEMPORARY = re.compile(r"(/[\w./-]+)?/(LIVE|MERGED)-\d+|/[\w./-]*kubectl-edit-\w+\.(yaml|json)")
_SERVER = re.compile(r"https://[\w.\[\]:]+:\d+")
_CREDENTIAL = re.compile(r"(?<=X509SHA256=)[0-9a-f]{64}")
_TOKEN = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")
_GENERATED = re.compile(r"(?<=\bmade-)[a-z0-9]{5}\b")
_LOG_LINE = re.compile(r"^([IWEF])\d{4} [\d:.]+ +\d+ (?=[\w.]+:\d+\])", re.MULTILINE)
_SPACES = re.compile(r"(?<=\S) {2,}(?=\S)|\t+")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)


def normalised(text: str) -> str:
    """One output without what may differ."""
    text = _UID.sub("UID", text)
    text = _TIME.sub("TIME", text)
    text = _LONG_TIME.sub("TIME", text)
    text = _VERSION.sub(r"\1VERSION", text)
    text = _TEMPORARY.sub(lambda match: match[2] or "EDITED", text)
    text = _SERVER.sub("https://SERVER", text)
    text = _CREDENTIAL.sub("HASH", text)
    text = _TOKEN.sub("TOKEN", text)
    text = _GENERATED.sub("MADE", text)
    text = _LOG_LINE.sub(r"\1 ", text)
    text = _UNKNOWN_AGE.sub("AGE", text)
    return _TRAILING.sub("", _SPACES.sub("  ", text))
