"""Reading a document field by field, gathering what is wrong with each under its path."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Wrong(NamedTuple):
    """One thing that is wrong, at a field path such as `tests[0].expect.status`."""

    field: str
    message: str
    remedy: str = ""


class Fields:
    """A mapping of a document. Whoever reads it says which fields there are; all others are wrong."""

    def __init__(self, value: Mapping[str, Any], path: str, wrongs: list[Wrong]) -> None:
        self._value = value
        self._path = path
        self.wrongs = wrongs
        self._known: set[str] = set()

    def path(self, name: str) -> str:
        """The path of a field of this mapping."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        self._known.add(name)
        return self._value.get(name) is not None

    def raw(self, name: str) -> Any:
        """A field as it is; None if it is not there."""
        self._known.add(name)
        return self._value.get(name)

    def wrong(self, name: str, message: str, remedy: str = "") -> None:
        """Note what is wrong with a field of this mapping; `name` "" for the mapping itself."""
        self.wrongs.append(Wrong(self.path(name) if name else self._path, message, remedy))

    def text(self, name: str) -> str | None:
        """A string that is not empty. Numbers and booleans count as what they are written like."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.wrong(name, f"must be a string, not {kind_of(value)}")
            return None
        if value == "":
            self.wrong(name, "must not be empty", "leave the field out")
            return None
        return str(value)

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """A whole number within bounds."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(name, f"must be a whole number, not {kind_of(value)}")
            return None
        if not lowest <= value <= highest:
            self.wrong(name, f"must lie between {lowest} and {highest}, and is {value}")
            return None
        return value

    def boolean(self, name: str) -> bool | None:
        """True or false."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, f"must be true or false, not {kind_of(value)}")
            return None
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """One of some words."""
        value = self.text(name)
        if value is not None and value not in choices:
            self.wrong(name, f"must be one of {', '.join(choices)}, and is {value!r}", _meant(value, choices))
            return None
        return value

    def strings(self, name: str) -> tuple[str, ...] | None:
        """A list of strings; a single one stands for a list of it."""
        value = self.raw(name)
        if value is None:
            return None
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(each, str) and each for each in values):
            self.wrong(name, f"must be a string or a list of strings, not {kind_of(value)}")
            return None
        return tuple(values)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...] | None:
        """A mapping of names to values; a list stands for several values of one name."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.wrong(name, f"must be a mapping of names to values, not {kind_of(value)}")
            return None
        out = []
        for key, several in value.items():
            for each in several if isinstance(several, list) else [several]:
                if isinstance(each, bool):
                    self.wrong(f'{name}["{key}"]', f"must be a string: write it in quotes, {str(each).lower()!r}")
                elif not isinstance(each, str | int | float):
                    self.wrong(f'{name}["{key}"]', f"must be a string, not {kind_of(each)}")
                else:
                    out.append((str(key), str(each)))
        return tuple(out)

    def mapping(self, name: str) -> "Fields | None":
        """A mapping inside this one."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.wrong(name, f"must be a mapping, not {kind_of(value)}")
            return None
        return Fields(value, self.path(name), self.wrongs)

    def items(self, name: str) -> Iterator[tuple[str, Any]]:
        """The elements of a list with their paths."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, list):
            self.wrong(name, f"must be a list, not {kind_of(value)}")
            return
        for index, each in enumerate(value):
            yield f"{self.path(name)}[{index}]", each

    def done(self) -> None:
        """Note the fields that nobody asked for."""
        for name in self._value:
            if name not in self._known:
                known = tuple(sorted(self._known))
                self.wrong(
                    str(name), "there is no such field", _meant(str(name), known) or f"one of {', '.join(known)}"
                )


def kind_of(value: Any) -> str:
    """What a value is, in YAML's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the string {value!r}" if isinstance(value, str) else f"the number {value}"


def _meant(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else ""
