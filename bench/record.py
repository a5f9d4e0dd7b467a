"""Figures: what was measured, beside its floor and its goal; written as JSON, Markdown and SVG."""

import json
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures: written by a run -->", "<!-- end of figures -->"
ASCENDING = "at most"
DESCENDING = "at least"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured number. `floor` is the same measure of what cannot be beaten, in the same run."""

    scenario: str
    size: int
    figure: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    """Where the ratio was measured many times: bounds of its median's 95 % interval."""
    ratio_high: float | None = None
    goal: str = ""
    met: bool | None = None


class Goal(msgspec.Struct, frozen=True):
    """A bound on a figure's value, or (`of_floor`) on its ratio to the floor."""

    bound: float
    kind: str = ASCENDING
    of_floor: bool = False

    def __str__(self) -> str:
        sign = "<=" if self.kind == ASCENDING else ">="
        return f"{sign} {self.bound:g}{' x floor' if self.of_floor else ''}"

    def met_by(self, value: float) -> bool:
        return value <= self.bound if self.kind == ASCENDING else value >= self.bound


def figure(
    scenario: str,
    size: int,
    name: str,
    values: Iterable[float],
    unit: str,
    *,
    floor: float | None = None,
    ratios: Sequence[float] = (),
    goal: Goal | None = None,
) -> Figure:
    """The median of several measurements, with its extremes; ratio and goal where there are any.

    `ratios` are those of neighbours, each measured right beside its floor. Their median is the ratio then, and not that
    of the medians: what disturbed one of a pair disturbed the other.
    """
    several = list(values)
    middle = median(several)
    ratio = median(ratios) if ratios else middle / floor if floor else None
    low, high = interval(ratios) if len(ratios) > 1 else (None, None)
    judged = None
    if goal is not None:
        subject = ratio if goal.of_floor else middle
        judged = goal.met_by(subject) if subject is not None else None
    return Figure(
        scenario=scenario,
        size=size,
        figure=name,
        value=round(middle, 3),
        unit=unit,
        low=round(min(several), 3) if len(several) > 1 else None,
        high=round(max(several), 3) if len(several) > 1 else None,
        floor=round(floor, 3) if floor is not None else None,
        ratio=round(ratio, 2) if ratio is not None else None,
        ratio_low=round(low, 2) if low is not None else None,
        ratio_high=round(high, 2) if high is not None else None,
        goal=str(goal) if goal is not None else "",
        met=judged,
    )


def interval(values: Sequence[float], resamples: int = 2000) -> tuple[float, float]:
    """Bounds of the 95 % interval of the median, by bootstrap; the same for the same values."""
    draw = random.Random(0)
    medians = [median(draw.choices(values, k=len(values))) for _ in range(resamples)]
    return percentile(medians, 0.025), percentile(medians, 0.975)


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which that share of the measurements lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def write(figures: list[Figure], machine: dict[str, Any], noise: dict[str, Any], versions: dict[str, str]) -> None:
    """Write bench/results: latest.json, latest.md and a plot per figure. Other scenarios' last figures are kept."""
    RESULTS.mkdir(exist_ok=True)
    scenarios = {f.scenario for f in figures}
    file = RESULTS / "latest.json"
    kept: list[Figure] = []
    noises: dict[str, Any] = {}
    if file.exists():
        before = json.loads(file.read_bytes())
        kept = [f for f in msgspec.convert(before["figures"], list[Figure]) if f.scenario not in scenarios]
        noises = before.get("noise", {})
    noises = {**noises, **dict.fromkeys(sorted(scenarios), noise)}
    every = sorted([*kept, *figures], key=lambda f: (f.scenario, f.figure, f.size))
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {
        "machine": machine,
        "versions": versions,
        "date": date,
        "noise": noises,
        "figures": msgspec.to_builtins(every),
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "latest.md").write_text(table(every, noises, date), encoding="utf-8")
    several = _series(every)
    for name, series in several.items():
        (RESULTS / f"{name}.svg").write_text(plot(series), encoding="utf-8")
    for stale in RESULTS.glob("*.svg"):
        if stale.stem not in several:
            stale.unlink()
    judged = [f for f in every if f.goal]
    README.write_text(with_table(README.read_text(encoding="utf-8"), table(judged, noises, date)), encoding="utf-8")


def with_table(text: str, figures: str) -> str:
    """The text with what stands between its two marks replaced. Raises ValueError without marks."""
    before, found, rest = text.partition(BEGIN)
    _, also_found, after = rest.partition(END)
    if not found or not also_found:
        raise ValueError(f"no {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{figures}\n{END}{after}"


def table(figures: list[Figure], noises: dict[str, Any], date: str) -> str:
    """The figures as Markdown."""
    lines = [f"Measured {date}.", ""]
    loud = [scenario for scenario, noise in noises.items() if noise.get("noisy")]
    if loud:
        lines += [f"**Noisy: others used the machine during {', '.join(loud)}; only ratios mean something.**", ""]
    head = ("scenario", "figure", "size", "value", "min to max", "floor", "ratio", "goal", "met")
    lines += [_row(head), "|---|---|--:|--:|--:|--:|--:|---|---|"]
    for f in figures:
        spread = f"{f.low:g} to {f.high:g}" if f.low is not None and f.high is not None else ""
        met = "" if f.met is None else "yes" if f.met else "**no**"
        floor, ratio = (f"{x:g}" if x is not None else "" for x in (f.floor, f.ratio))
        if f.ratio_low is not None and f.ratio_high is not None:
            ratio += f" ({f.ratio_low:g} to {f.ratio_high:g})"
        value = f"{f.value:g} {f.unit}"
        lines.append(_row((f.scenario, f.figure, f"{f.size:,}", value, spread, floor, ratio, f.goal, met)))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _series(figures: list[Figure]) -> dict[str, list[Figure]]:
    found: dict[str, list[Figure]] = {}
    for f in figures:
        name = "".join(c if c.isalnum() else "-" for c in f"{f.scenario}-{f.figure}".lower())
        found.setdefault(name, []).append(f)
    return {name: series for name, series in found.items() if len(series) > 1}


def plot(series: list[Figure]) -> str:
    """A figure over its sizes, and its floor, as SVG."""
    width, height, left, bottom = 480, 260, 70, 220
    top = max(max(f.value, f.floor or 0) for f in series) * 1.1 or 1
    step = (width - left - 30) / max(1, len(series) - 1)

    def point(index: int, value: float) -> str:
        return f"{left + index * step:.0f},{bottom - value / top * (bottom - 40):.0f}"

    def line(values: list[float], colour: str, dash: str = "") -> str:
        points = " ".join(point(i, v) for i, v in enumerate(values))
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dash} points="{points}"/>'

    first = series[0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="20">{first.scenario}: {first.figure} ({first.unit})</text>',
        f'<path d="M{left} 40V{bottom}H{width - 20}" fill="none" stroke="#888"/>',
        f'<text x="{left - 6}" y="46" text-anchor="end">{top:.3g}</text>',
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">0</text>',
        *(
            f'<text x="{left + i * step:.0f}" y="{bottom + 18}" text-anchor="middle">{f.size:,}</text>'
            for i, f in enumerate(series)
        ),
        line([f.value for f in series], "#2563eb"),
    ]
    floors = [f.floor for f in series if f.floor is not None]
    if len(floors) == len(series):
        parts.append(line(floors, "#888", ' stroke-dasharray="5 4"'))
        parts.append(f'<text x="{width - 20}" y="20" text-anchor="end" fill="#666">dashed: floor</text>')
    return "\n".join([*parts, "</svg>", ""])
