"""Everything wrong or doubtful in a set of manifests, offline: findings with a code, a place and a remedy.

Contract: `check_manifests` reads what `propylon.load` made of them and says what it found; nothing is started or
written. Each module but `run` is pure. Above `app`, below `cli`.
"""

from propylon.check.finding import CODES, Finding, Severity
from propylon.check.run import check_manifests

__all__ = ["CODES", "Finding", "Severity", "check_manifests"]
