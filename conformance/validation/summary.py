"""The numbers of a run, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """What a line is about."""

    kind: str
    version: str
    channel: str
    part: str


@dataclass
class Count:
    """How often the API server was asked, what it said, and how often we said something else."""

    sent: int = 0
    accepted: int = 0
    disagreed: int = 0


@dataclass
class Summary:
    """All counts of a run."""

    rows: dict[Row, Count] = field(default_factory=dict)

    def add(self, row: Row, *, accepted: bool, disagreed: bool) -> None:
        """Counts one object."""
        count = self.rows.setdefault(row, Count())
        count.sent += 1
        count.accepted += accepted
        count.disagreed += disagreed

    @property
    def total(self) -> Count:
        """The sums."""
        counts = self.rows.values()
        return Count(sum(c.sent for c in counts), sum(c.accepted for c in counts), sum(c.disagreed for c in counts))

    def table(self) -> str:
        """A Markdown table, a line per kind, version, channel and part, and the sums."""
        lines = [_line(["kind", "version", "channel", "written", "sent", "accepted", "refused", "agreed", "disagreed"])]
        lines.append("|---|---|---|---|--:|--:|--:|--:|--:|")
        for row, count in sorted(self.rows.items()):
            lines.append(_line([*row, *_numbers(count)]))
        lines.append(_line(["all", "", "", "", *_numbers(self.total)]))
        return "\n".join(lines)


def _numbers(count: Count) -> list[str]:
    agreed, refused = count.sent - count.disagreed, count.sent - count.accepted
    return [str(number) for number in (count.sent, count.accepted, refused, agreed, count.disagreed)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
