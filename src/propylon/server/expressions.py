"""CEL expressions of CustomResourceDefinitions: compiled once, evaluated over plain values. Pure.

The language is Google's own library's (cel-expr-python), which counts iterations and gives up after ten thousand, so
that no rule can hold the server up. The functions below are those of Kubernetes' libraries that CRDs use most.
Source: https://kubernetes.io/docs/reference/using-api/cel/
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

import re2

_KEYWORDS = frozenset(
    {
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    }
)
_PREVIOUS = "previous_self"


class ExpressionError(Exception):
    """An expression that cannot be used. `malformed` tells a mistake from a function that is not known here."""

    def __init__(self, message: str, *, malformed: bool) -> None:
        super().__init__(message)
        self.malformed = malformed


class Result(NamedTuple):
    """What an expression came to: a plain value, or what went wrong."""

    value: Any
    error: str = ""


class Expression:
    """A compiled expression over `self` and, where given, `oldSelf`."""

    def __init__(self, present: Any, absent: Any) -> None:
        self._present = present
        self._absent = absent

    def evaluate(self, value: Any, old: Any = None, *, has_old: bool = False) -> Result:
        """Its value for these; `has_old` says whether there is an old one."""
        program = self._present if has_old or self._absent is None else self._absent
        try:
            found = program.eval(data={"self": value, "oldSelf": old, _PREVIOUS: old})
        except Exception as error:  # noqa: BLE001 - the library raises what it likes, RuntimeError for its budget
            return Result(None, _told(error))
        if found.type() == _error_type():
            return Result(None, _told(found.value()))
        return Result(found.plain_value())


@lru_cache(maxsize=4096)
def compiled(text: str, *, optional_old: bool = False) -> Expression:
    """The expression; with `optional_old`, `oldSelf` is an optional. Raises ExpressionError."""
    if not optional_old:
        return Expression(_program(text), None)
    return Expression(
        _program(f"cel.bind(oldSelf, optional.of({_PREVIOUS}), ({text}))"),
        _program(f"cel.bind(oldSelf, optional.none(), ({text}))"),
    )


def _program(text: str) -> Any:
    try:
        return _environment().compile(text)
    except ImportError as error:
        raise ExpressionError(f"the CEL library cannot be loaded: {error}", malformed=False) from error
    except RuntimeError as error:
        said = _told(error)
        raise ExpressionError(said, malformed="undeclared reference" not in said) from error


def _told(error: Any) -> str:
    first = str(error).partition("\n")[0]
    return first.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ").removesuffix(" [INTERNAL]").strip()


def escaped(name: str) -> str:
    """A property's name as expressions write it: `__namespace__`, `a__dash__b`."""
    if name in _KEYWORDS:
        return f"__{name}__"
    if not any(mark in name for mark in ("__", ".", "-", "/")):
        return name
    escaped_name = name.replace("__", "__underscores__")
    for mark, word in ((".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")):
        escaped_name = escaped_name.replace(mark, word)
    return escaped_name


@cache
def _error_type() -> Any:
    from cel_expr_python import cel  # noqa: PLC0415

    return cel.Type.ERROR


@cache
def _environment() -> Any:
    from cel_expr_python import cel  # noqa: PLC0415 - only those who apply such definitions wait for it
    from cel_expr_python.ext import (  # noqa: PLC0415
        ext_bindings,
        ext_encoders,
        ext_math,
        ext_optional,
        ext_strings,
    )

    extensions = [
        ext_strings.ExtStrings(),
        ext_math.ExtMath(),
        ext_optional.ExtOptional(),
        ext_encoders.ExtEncoders(),
        ext_bindings.ExtBindings(),
        cel.CelExtension("kubernetes", list(_functions(cel))),
    ]
    kinds = dict.fromkeys(("self", "oldSelf", _PREVIOUS), cel.Type.DYN)
    return cel.NewEnv(variables=kinds, extensions=extensions)


def _functions(cel: Any) -> Iterable[Any]:
    """Kubernetes' functions: of lists, regular expressions, addresses and URLs."""
    kind = cel.Type
    members: Mapping[str, list[tuple[Any, tuple[Any, ...], Callable[..., Any]]]] = {
        "isSorted": [(kind.BOOL, (kind.LIST,), lambda items: items == sorted(items))],
        "sum": [(kind.DYN, (kind.LIST,), sum)],
        "min": [(kind.DYN, (kind.LIST,), min)],
        "max": [(kind.DYN, (kind.LIST,), max)],
        "indexOf": [(kind.INT, (kind.LIST, kind.DYN), _index)],
        "lastIndexOf": [(kind.INT, (kind.LIST, kind.DYN), lambda items, item: _index(items, item, last=True))],
        "find": [(kind.STRING, (kind.STRING, kind.STRING), lambda text, pattern: _find_all(text, pattern, 1)[0])],
        "findAll": [
            (
                kind.LIST,
                (kind.STRING, kind.STRING),
                lambda text, pattern: [found for found in _find_all(text, pattern) if found],
            ),
            (kind.LIST, (kind.STRING, kind.STRING, kind.INT), _find_all),
        ],
    }
    tests: Mapping[str, Callable[[str], bool]] = {
        "isIP": _is_ip,
        "isCIDR": _is_cidr,
        "isURL": _is_url,
    }
    for name, overloads in members.items():
        yield cel.FunctionDecl(
            name,
            [
                cel.Overload(f"kubernetes_{name}_{len(parameters)}", returned, list(parameters), True, call)
                for returned, parameters, call in overloads
            ],
        )
    for name, test in tests.items():
        yield cel.FunctionDecl(name, [cel.Overload(f"kubernetes_{name}", kind.BOOL, [kind.STRING], False, test)])


def _index(items: list[Any], item: Any, *, last: bool = False) -> int:
    places = [place for place, held in enumerate(items) if held == item]
    return (places[-1] if last else places[0]) if places else -1


def _find_all(text: str, pattern: str, count: int = -1) -> list[str]:
    found = [match.group(0) for match in re2.finditer(pattern, text)]
    return found[:count] if found and count >= 0 else found or [""]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _is_url(text: str) -> bool:
    try:
        found = urllib.parse.urlsplit(text)
    except ValueError:
        return False
    return bool(found.scheme) or text.startswith("/")
