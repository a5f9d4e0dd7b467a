"""How a difference is told: text for people, Markdown for a pull request. (JSON is the structs themselves.)"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from propylon.diff.model import Aspect, Change, ConditionChange, Difference, ObjectChange

Paint = Callable[[str, str], str]
"""A text and the name of a colour: the text as a terminal shows it so."""
_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_ALIKE = 3
_SHOWN = 50
"""Changes that Markdown shows at most: comments of pull requests are bounded."""


def as_document(difference: Difference) -> dict[str, Any]:
    """The JSON form (docs/reference/diff.md)."""
    return {"version": 1, "same": difference.same, **msgspec.to_builtins(difference)}


def summary(difference: Difference) -> str:
    """One line."""
    parts = [
        _count(len(difference.changes), "change of behaviour", "changes of behaviour"),
        _count(len(difference.conditions), "condition", "conditions"),
        _count(len(difference.objects), "object", "objects"),
    ]
    return ", ".join(parts)


def _count(number: int, one: str, many: str) -> str:
    return f"{number or 'no'} {one if number == 1 else many}"


def certainty(difference: Difference) -> str:
    """What was looked at, and what is not known."""
    alike = f"{_count(difference.hosts_same, 'host answers', 'hosts answer')} alike, provably"
    if not difference.hosts_same:
        alike = "no host provably answers alike"
    tried = ""
    if difference.hosts_tried:
        tried = (
            f"; {_count(difference.hosts_tried, 'host was', 'hosts were')} tried with {difference.requests} requests"
        )
    text = alike + tried
    if not difference.complete:
        text += "; there was more to try than --requests allows"
    if difference.unknown:
        text += f"; no request could be made for {', '.join(difference.unknown[:5])}"
    return text


# --- text -------------------------------------------------------------------------------------------------------------


def text(difference: Difference, paint: Paint) -> str:
    """For a terminal."""
    parts = []
    for number, change in enumerate(difference.changes, 1):
        parts.append("\n".join(_change_lines(number, change, paint)))
    if difference.conditions:
        lines = [paint("status:", "cyan"), *(f"  {_condition_line(each)}" for each in _grouped(difference.conditions))]
        parts.append("\n".join(lines))
    if difference.objects:
        lines = [paint("objects:", "cyan"), *(f"  {_object_line(each, paint)}" for each in difference.objects)]
        parts.append("\n".join(lines))
    shade = "green" if difference.same else "yellow"
    parts.append(f"=> {paint(summary(difference), shade)}\n   {certainty(difference)}")
    return "\n\n".join(parts)


def _change_lines(number: int, change: Change, paint: Paint) -> list[str]:
    lines = [f"{paint(f'{number}. {change.summary}', 'cyan')}"]
    lines.append(f"   where:  Gateway {change.gateway} port {change.port}{_hosts(change)}")
    if change.alike:
        more = f" and {len(change.alike) - _ALIKE} more" if len(change.alike) > _ALIKE else ""
        lines.append(f"   alike:  {', '.join(change.alike[:_ALIKE])}{more}")
    if change.causes:
        lines.append(f"   since:  {', '.join(change.causes)}")
    for aspect in change.aspects:
        lines += [f"   {line}" for line in _aspect_lines(aspect, paint)]
    lines.append(f"   try:    {change.example.curl or change.example.request}")
    return lines


def _hosts(change: Change) -> str:
    if not change.hosts:
        return ""
    more = change.hosts_total - len(change.hosts)
    named = ", ".join("every other host" if host == "*" else host for host in change.hosts)
    return f", {named}" + (f" and {more} more" if more > 0 else "")


def _aspect_lines(aspect: Aspect, paint: Paint) -> list[str]:
    return [
        f"{aspect.name}:",
        f"  {paint('- ' + (aspect.before or 'none'), 'red')}",
        f"  {paint('+ ' + (aspect.after or 'none'), 'green')}",
    ]


def _grouped(conditions: Sequence[ConditionChange]) -> list[list[ConditionChange]]:
    """Those that change alike, each object with its own."""
    found: dict[tuple[str, ...], list[ConditionChange]] = {}
    for each in conditions:
        kind = each.object.partition(" ")[0]
        found.setdefault((kind, each.type, each.before, each.after, each.message), []).append(each)
    return list(found.values())


def _subjects(group: Sequence[ConditionChange]) -> str:
    named = [f"{each.object} {each.of}".strip() for each in group[:_ALIKE]]
    more = f" and {len(group) - _ALIKE} more" if len(group) > _ALIKE else ""
    return ", ".join(named) + more


def _condition_line(group: Sequence[ConditionChange]) -> str:
    each = group[0]
    message = f": {each.message}" if each.message and each.after else ""
    return f"{_subjects(group)} {each.type}: {each.before or 'none'} -> {each.after or 'none'}{message}"


def _object_line(each: ObjectChange, paint: Paint) -> str:
    mark, shade = _MARKS[each.change]
    fields = f": {', '.join(each.fields)}" if each.fields else ""
    place = f"  {each.place}" if each.place else ""
    return f"{paint(f'{mark} {each.object}', shade)}{fields}{place}"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(difference: Difference) -> str:
    """For a comment on a pull request."""
    lines = [f"### Routing: {summary(difference)}", "", certainty(difference) + "."]
    for change in difference.changes[:_SHOWN]:
        lines += ["", *_change_markdown(change)]
    if len(difference.changes) > _SHOWN:
        lines += ["", f"... and {len(difference.changes) - _SHOWN} more changes of behaviour."]
    if difference.conditions:
        lines += ["", "#### Status", "", "| object | condition | before | after |", "|---|---|---|---|"]
        for group in _grouped(difference.conditions)[:_SHOWN]:
            each = group[0]
            after = f"{each.after}: {each.message}" if each.after and each.message else each.after
            lines.append(_row(f"`{_subjects(group)}`", each.type, each.before or "none", after or "none"))
    if difference.objects:
        shown = difference.objects[:_SHOWN]
        lines += ["", f"<details><summary>{_count(len(difference.objects), 'object', 'objects')}</summary>", ""]
        lines += [f"- {each.change} `{each.object}`{_fields(each.fields)}" for each in shown]
        if len(difference.objects) > _SHOWN:
            lines.append(f"- ... and {len(difference.objects) - _SHOWN} more")
        lines += ["", "</details>"]
    return "\n".join(lines)


def _change_markdown(change: Change) -> list[str]:
    lines = [f"#### {change.summary}", ""]
    lines.append(f"Gateway `{change.gateway}` port {change.port}{_hosts(change)}")
    if change.causes:
        lines[-1] += f"; since {', '.join(f'`{cause}`' for cause in change.causes)}"
    lines += ["", "| | before | after |", "|---|---|---|"]
    lines += [_row(aspect.name, aspect.before or "none", aspect.after or "none") for aspect in change.aspects]
    return [*lines, "", "```sh", change.example.curl or f"# {change.example.request}", "```"]


def _fields(fields: Sequence[str]) -> str:
    return f": {', '.join(f'`{field}`' for field in fields)}" if fields else ""


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
