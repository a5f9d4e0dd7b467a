"""A small interpreter of CEL, as far as the official CRDs use it: the oracle for the rules written in Python.

Absent fields raise `NoSuchKeyError`, which `&&` and `||` absorb when the other side decides, as CEL demands; the API
server takes a rule that ends in an error as broken.
"""

import ipaddress
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import re2

TOKEN = re.compile(
    r'\s*(?:(?P<raw>r"""(?:.|\n)*?""")|(?P<string>\'(?:[^\'\\]|\\.)*\'|"(?:[^"\\]|\\.)*")'
    r"|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)|(?P<op>&&|\|\||==|!=|<=|>=|[-+!<>?:.,()\[\]]))"
)
MACROS = ("all", "exists", "exists_one", "filter")
KEYWORDS = {"true": True, "false": False, "null": None}


class NoSuchKeyError(Exception):
    """A field that is not there was read."""


@cache
def parse(text: str) -> Any:
    """The syntax tree of an expression: tuples whose first item names the node."""
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = TOKEN.match(text, position)
        assert match, f"cannot read {text[position : position + 20]!r}"
        kind = match.lastgroup
        tokens.append((kind, match[kind]))
        position = match.end()
    parser = _Parser([*tokens, ("end", "")])
    tree = parser.ternary()
    assert parser.peek() == ("end", ""), parser.peek()
    return tree


class _Parser:
    def __init__(self, tokens: list) -> None:
        self.tokens, self.position = tokens, 0

    def peek(self) -> tuple:
        return self.tokens[self.position]

    def next(self) -> tuple:
        self.position += 1
        return self.tokens[self.position - 1]

    def take(self, text: str) -> bool:
        if self.peek() == ("op", text):
            self.position += 1
            return True
        return False

    def need(self, text: str) -> None:
        assert self.take(text), (text, self.peek())

    def ternary(self) -> Any:
        condition = self.binary(0)
        if not self.take("?"):
            return condition
        yes = self.ternary()
        self.need(":")
        return ("if", condition, yes, self.ternary())

    LEVELS = (("||",), ("&&",), ("==", "!=", "<=", ">=", "<", ">", "in"), ("+", "-"))

    def binary(self, level: int) -> Any:
        if level == len(self.LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek()[1] in self.LEVELS[level] and self.peek()[0] in ("op", "name"):
            operator = self.next()[1]
            left = (operator, left, self.binary(level + 1))
        return left

    def unary(self) -> Any:
        return ("!", self.unary()) if self.take("!") else self.postfix()

    def postfix(self) -> Any:
        value = self.primary()
        while True:
            if self.take("."):
                name = self.next()[1]
                value = ("call", value, name, self.arguments()) if self.take("(") else ("field", value, name)
            elif self.take("["):
                value = ("index", value, self.ternary())
                self.need("]")
            else:
                return value

    def arguments(self, end: str = ")") -> tuple:
        found = []
        while not self.take(end):
            found.append(self.ternary())
            self.take(",")
        return tuple(found)

    def primary(self) -> Any:
        kind, text = self.next()
        match kind:
            case "number":
                return ("constant", int(text))
            case "raw":
                return ("constant", text[4:-3])
            case "string":
                return ("constant", re.sub(r"\\(.)", r"\1", text[1:-1]))
            case "name" if text in KEYWORDS:
                return ("constant", KEYWORDS[text])
            case "name":
                return ("function", text, self.arguments()) if self.take("(") else ("name", text)
        if text == "[":
            return ("list", self.arguments("]"))
        assert text == "(", text
        inner = self.ternary()
        self.need(")")
        return inner


def evaluate(rule: str, value: Any, old: Any = None) -> bool:
    """Whether a value keeps a rule."""
    try:
        return _evaluate(parse(rule), {"self": value, "oldSelf": old}) is True
    except NoSuchKeyError:
        return False


def _evaluate(tree: tuple, names: Mapping[str, Any]) -> Any:
    match tree:
        case ("constant", value):
            return value
        case ("name", name):
            return names[name]
        case ("list", items):
            return [_evaluate(item, names) for item in items]
        case ("field", of, name):
            return _field(_evaluate(of, names), name)
        case ("index", of, index):
            return _evaluate(of, names)[_evaluate(index, names)]
        case ("if", condition, yes, no):
            return _evaluate(yes if _evaluate(condition, names) else no, names)
        case ("!", operand):
            return not _evaluate(operand, names)
        case ("&&" | "||" as operator, left, right):
            return _logic(operator == "||", left, right, names)
        case ("function", name, arguments):
            return _function(name, arguments, names)
        case ("call", of, name, arguments) if name in MACROS:
            return _macro(name, _evaluate(of, names), arguments, names)
        case ("call", ("name", "format"), name, ()):
            return name
        case ("call", of, name, arguments):
            return _method(_evaluate(of, names), name, [_evaluate(argument, names) for argument in arguments])
        case (operator, left, right):
            return _compare(operator, _evaluate(left, names), _evaluate(right, names))
    raise AssertionError(tree)


def _field(value: Any, name: str) -> Any:
    name = name.removeprefix("__").removesuffix("__")
    if name not in value:
        raise NoSuchKeyError(name)
    return value[name]


def _logic(deciding: bool, left: tuple, right: tuple, names: Mapping[str, Any]) -> bool:
    try:
        if _evaluate(left, names) is deciding:
            return deciding
    except NoSuchKeyError:
        if _evaluate(right, names) is deciding:
            return deciding
        raise
    return _evaluate(right, names)


def _compare(operator: str, left: Any, right: Any) -> Any:
    return {
        "==": lambda: left == right,
        "!=": lambda: left != right,
        "<=": lambda: left <= right,
        ">=": lambda: left >= right,
        "<": lambda: left < right,
        ">": lambda: left > right,
        "+": lambda: left + right,
        "-": lambda: left - right,
        "in": lambda: left in right,
    }[operator]()


def _function(name: str, arguments: tuple, names: Mapping[str, Any]) -> Any:
    if name == "has":
        _, of, field = arguments[0]
        return field.removeprefix("__").removesuffix("__") in _evaluate(of, names)
    value = _evaluate(arguments[0], names)
    match name:
        case "size":
            return len(value)
        case "duration":
            units = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
            return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", value))
        case "isIP":
            try:
                return bool(ipaddress.ip_address(value))
            except ValueError:
                return False
    raise AssertionError(name)


def _macro(name: str, values: Any, arguments: tuple, names: Mapping[str, Any]) -> Any:
    (_, variable), body = arguments
    if name == "filter":
        return [value for value in values if _evaluate(body, {**names, variable: value})]
    kept, errors = 0, 0
    for value in values:
        try:
            kept += bool(_evaluate(body, {**names, variable: value}))
        except NoSuchKeyError:
            errors += 1
    if name == "exists" and kept:
        return True
    if name == "all" and kept + errors < len(values):
        return False
    if errors:
        raise NoSuchKeyError(name)
    return {"all": kept == len(values), "exists": kept > 0, "exists_one": kept == 1}[name]


LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
FORMATS = {
    "dns1123Subdomain": rf"^{LABEL}(\.{LABEL})*$",
    "qualifiedName": rf"^({LABEL}(\.{LABEL})*/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]$",
}


def _method(value: Any, name: str, arguments: list) -> Any:
    match name:
        case "size":
            return len(value)
        case "matches":
            # RE2 in Python takes flags at the front only; Go takes them after the anchor too.
            pattern = arguments[0]
            return bool(re2.search("(?i)^" + pattern[5:] if pattern.startswith("^(?i)") else pattern, value))
        case "startsWith":
            return value.startswith(*arguments)
        case "endsWith":
            return value.endswith(*arguments)
        case "contains":
            return arguments[0] in value
        case "split":
            return value.split(*arguments)
        case "substring":
            return value[arguments[0] :]
        case "validate":
            text = arguments[0]
            return bool(re2.search(FORMATS[value], text)) and len(text.rpartition("/")[0]) <= 253
        case "hasValue":  # of an optional error: `validate` above answers whether the text is valid
            return not value
    raise AssertionError(name)
