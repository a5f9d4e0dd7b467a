"""Texts that a regular expression matches: a few that differ from each other, found without search.

The syntax is RE2's (https://github.com/google/re2/wiki/Syntax), as far as routes are written with it. What is not
understood gives fewer samples, never wrong ones: every sample is tried with RE2 itself.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from propylon.explain.predicates import expression

_CLASSES = {"d": "059", "w": "aZ0_", "s": " ", "D": "a/", "W": "-/", "S": "a0/"}
_POSIX = {
    "lower": [("a", "z")],
    "upper": [("A", "Z")],
    "digit": [("0", "9")],
    "alpha": [("a", "z"), ("A", "Z")],
    "alnum": [("a", "z"), ("A", "Z"), ("0", "9")],
    "xdigit": [("a", "f"), ("A", "F"), ("0", "9")],
}
_OTHERS = "azAZ09-_./~ %"
_ANY = ("x", "/", "0", "-")
_MOST = 24
"""So many samples of every part are carried on at most."""


@lru_cache(maxsize=4096)
def samples(pattern: str) -> tuple[str, ...]:
    """Texts that the whole pattern matches, the plainest first; none if no sample could be made."""
    try:
        found = _Parser(pattern).whole()
    except (IndexError, KeyError, ValueError, RecursionError):
        return ()
    compiled = expression(pattern)
    return tuple(text for text in dict.fromkeys(found) if compiled.fullmatch(text) is not None)


@lru_cache(maxsize=4096)
def language(pattern: str) -> tuple[str, ...] | None:
    """Every text that the whole pattern matches, if these are few; None if they are not, or that cannot be told."""
    try:
        found = tuple(dict.fromkeys(_Exact(pattern).whole()))
    except (IndexError, KeyError, ValueError, RecursionError):
        return None
    compiled = expression(pattern)
    return found if all(compiled.fullmatch(text) is not None for text in found) else None


class _Parser:
    """Reads a pattern and has each part's samples at once: there is no tree."""

    any_character: Sequence[str] = _ANY
    classes: Mapping[str, str] = _CLASSES

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0

    def whole(self) -> Sequence[str]:
        found = self._alternatives()
        if self.at != len(self.text):
            raise ValueError(self.text)
        return found

    def _peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def _next(self) -> str:
        character = self.text[self.at]
        self.at += 1
        return character

    def _alternatives(self) -> Sequence[str]:
        found = list(self._sequence())
        while self._peek() == "|":
            self.at += 1
            found += self._sequence()
        return self._some(found)

    def _some(self, found: Sequence[str]) -> Sequence[str]:
        return found[:_MOST]

    def _joined(self, parts: Sequence[Sequence[str]]) -> Sequence[str]:
        """The first of each part, then one part varied at a time."""
        if not all(parts):
            return ()
        base = [part[0] for part in parts]
        found = ["".join(base)]
        for number, part in enumerate(parts):
            found += ["".join([*base[:number], other, *base[number + 1 :]]) for other in part[1:]]
        return self._some(list(dict.fromkeys(found)))

    def _flags(self) -> Sequence[str]:
        """After `(?i)` and its like."""
        return ("",)

    def _assertion(self) -> Sequence[str]:
        return ("",)

    def _sequence(self) -> Sequence[str]:
        parts: list[Sequence[str]] = []
        while self._peek() not in {"", "|", ")"}:
            part = self._atom()
            while self._peek() in {"*", "+", "?", "{"}:
                before = self.at
                part = self._repeated(part)
                if self.at == before:
                    break
            parts.append(part)
        return self._joined(parts)

    def _atom(self) -> Sequence[str]:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._set()
        if character == ".":
            return self.any_character
        if character in {"^", "$"}:
            return self._assertion()
        if character == "\\":
            return self._escape()
        return (character,)

    def _group(self) -> Sequence[str]:
        if self.text.startswith("?", self.at):
            end = next(i for i in range(self.at, len(self.text)) if self.text[i] in ":>)")
            self.at = end
            if self.text[self.at - 1 if self.at else 0 : self.at].isalpha() and self.text[self.at] != ">":
                self._flags()
            if self._next() == ")":
                return ("",)
        found = self._alternatives()
        if self._next() != ")":
            raise ValueError(self.text)
        return found

    def _escape(self) -> Sequence[str]:
        character = self._next()
        if character in self.classes:
            return tuple(self.classes[character])
        if character in {"b", "B", "A", "z"}:
            return self._assertion()
        if character == "x":
            digits = self.text[self.at : self.at + 2]
            self.at += 2
            return (chr(int(digits, 16)),)
        if character.isalnum():
            plain = {"n": "\n", "t": "\t", "r": "\r"}.get(character)
            if plain is None:
                raise ValueError(self.text)
            return (plain,)
        return (character,)

    def _set(self) -> Sequence[str]:
        negated = self._peek() == "^"
        self.at += negated
        ranges: list[tuple[str, str]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            if self.text.startswith("[:", self.at):
                end = self.text.index(":]", self.at)
                name = self.text[self.at + 2 : end]
                self.at = end + 2
                ranges += _POSIX[name]
                continue
            low = self._member()
            if len(low) == 1 and self._peek() == "-" and self.text[self.at + 1] != "]":
                self.at += 1
                ranges.append((low[0], self._member()[0]))
            else:
                ranges += [(each, each) for each in low]
        self.at += 1
        return self._members(ranges, negated=negated)

    def _members(self, ranges: Sequence[tuple[str, str]], *, negated: bool) -> Sequence[str]:
        if not negated:
            return self._some(tuple(dict.fromkeys(end for each in ranges for end in each)))
        return tuple(c for c in _OTHERS if not any(low <= c <= high for low, high in ranges))[:4]

    def _member(self) -> Sequence[str]:
        character = self._next()
        return self._escape() if character == "\\" else (character,)

    def _repeated(self, part: Sequence[str]) -> Sequence[str]:
        low, high = self._bounds()
        if self._peek() in {"?", "+"}:  # lazy, or not of RE2
            self.at += 1
        return self._times(part, low, high)

    def _times(self, part: Sequence[str], low: int, high: int | None) -> Sequence[str]:
        counts = [low, low + 1, high if high is not None else low + 2]
        found: list[str] = []
        # Something rather than nothing first: what a human would write.
        for count in sorted({c for c in counts if high is None or c <= high}, key=lambda c: (c == 0, c)):
            found += [each * count for each in part] if count <= 1 else [_mixed(part, count)]
        return self._some(list(dict.fromkeys(found)))

    def _bounds(self) -> tuple[int, int | None]:
        character = self._next()
        if character != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[character]
        end = self.text.index("}", self.at)
        low, comma, high = self.text[self.at : end].partition(",")
        self.at = end + 1
        if int(low) > 200:
            raise ValueError(self.text)
        return int(low), (int(high) if high else None) if comma else int(low)


def _mixed(part: Sequence[str], count: int) -> str:
    return "".join(part[i % len(part)] for i in range(count)) if part else ""


_FEW = 64


class _Exact(_Parser):
    """Has all texts instead of samples. Raises ValueError where these are many, or cannot be told."""

    any_character = ()
    classes: Mapping[str, str] = {"d": "0123456789"}

    def _some(self, found: Sequence[str]) -> Sequence[str]:
        if len(found) > _FEW:
            raise ValueError(self.text)
        return found

    def _joined(self, parts: Sequence[Sequence[str]]) -> Sequence[str]:
        found: Sequence[str] = ("",)
        for part in parts:
            if not part:
                raise ValueError(self.text)
            found = self._some([begin + end for begin in found for end in part])
        return found

    def _flags(self) -> Sequence[str]:
        raise ValueError(self.text)

    def _assertion(self) -> Sequence[str]:
        raise ValueError(self.text)

    def _members(self, ranges: Sequence[tuple[str, str]], *, negated: bool) -> Sequence[str]:
        if negated or sum(ord(high) - ord(low) + 1 for low, high in ranges) > _FEW:
            raise ValueError(self.text)
        return tuple(dict.fromkeys(chr(n) for low, high in ranges for n in range(ord(low), ord(high) + 1)))

    def _times(self, part: Sequence[str], low: int, high: int | None) -> Sequence[str]:
        if high is None or high > _FEW:
            raise ValueError(self.text)
        found = [self._joined([part] * count) for count in range(low, high + 1)]
        return self._some([text for each in found for text in each])
