"""The fast parser against the thorough one: whatever it reads, it reads alike, and manifests are what it reads."""

import gc
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from propylon.store.files.parsing import ParseError, parse_documents, parse_thoroughly
from propylon.store.files.quick_parsing import SAFE_NESTING, may_be_deep, parse_quickly

PIECES = (
    *(
        "a",
        "b: ",
        "- ",
        "\n",
        "\n\n",
        "  ",
        "--- ",
        "---\n",
        "---",
        "# c\n",
        "|\n",
        ">-\n",
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
    ),
    *(", ", ":", "x", "1", "~", "\t", "?", "-", "é", "\\n", "...", "&x ", "*x", "!!str ", "%", "<<: ", "${v}", "yes"),
)
MANIFEST = """\
# Two objects.
apiVersion: v1
kind: Service
metadata: {name: web, labels: {"app": 'web', version: v1.2.3}}
spec:
  ports:
  - port: 80
    weight: 1.5
    name: http
---

# The second.
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
  annotations:
    note: |
      one --- two
      three
spec:
  hostnames: ["*.example.com"]
---
"""


def exactly(value: Any) -> Any:
    """A form in which 1, 1.0 and True, and dicts of another order, are not equal."""
    if isinstance(value, dict):
        return [(exactly(key), exactly(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return ["list", *map(exactly, value)]
    return (type(value).__name__, repr(value))


def assert_alike(text: str) -> bool:
    """Compare, and tell whether the fast parser read the text at all."""
    quick = parse_quickly(text)
    if quick is None:
        return False
    thorough = [(document.value, document.line) for document in parse_thoroughly(text)]
    assert [(exactly(value), line) for value, line in quick] == [(exactly(value), line) for value, line in thorough]
    return True


def test_a_manifest_is_read_quickly() -> None:
    assert assert_alike(MANIFEST)
    assert [document.line for document in parse_documents(MANIFEST)] == [2, 13]


def test_short_scalars_mean_the_same() -> None:
    characters = "01ax_oeE+-.nfy~:"
    read = [assert_alike(f"a: {''.join(each)}\n") for each in itertools.product(characters, repeat=3)]
    assert sum(read) > len(read) / 2


@given(st.text(alphabet="0123456789abcdefxXoO_eE+-.~infINFyYsS: ", max_size=12))
def test_scalars_mean_the_same(scalar: str) -> None:
    assert_alike(f"a: {scalar}\n")


@given(st.lists(st.sampled_from(PIECES), max_size=20))
def test_structures_are_the_same(pieces: list[str]) -> None:
    assert_alike("".join(pieces))


@pytest.mark.parametrize(
    "text",
    [
        "a: yes\n",
        "a: 012\n",
        "a: .inf\n",
        "80: x\n",
        "true: x\n",
        "a: &x 1\nb: *x\n",
        "a: !!str 1\n",
        "b: {<<: {c: 1}}\n",
        "port: ${port}\n",
        "a: 123456789012345678901234567890\n",
        "a: 1\na: 2\n",
        "a: [\n",
        "\ta: b\n",
        "%YAML 1.1\n---\na: 1\n",
        "a: 1\n...\n",
        "a: 1\r\n",
        "[" * 300,
    ],
)
def test_what_is_read_otherwise_is_left_to_the_other_parser(text: str) -> None:
    assert parse_quickly(text) is None


@pytest.mark.parametrize("before", ["", "a: 1\n", "a: 1\n" * 400, "x" * 999 + "\n"], ids=len)
@pytest.mark.parametrize("after", ["", "\n", "\nb: 2\n"], ids=len)
def test_a_long_line_may_be_deep_structure(before: str, after: str) -> None:
    assert not may_be_deep(f"{before}{'y' * SAFE_NESTING}{after}")
    assert may_be_deep(f"{before}{'y' * (SAFE_NESTING + 1)}{after}")


def test_garbage_is_collected_again_after_reading() -> None:
    assert gc.isenabled()
    parse_documents("a: 1\n")
    assert gc.isenabled()
    gc.disable()
    try:
        parse_documents("a: 1\n")
        assert not gc.isenabled(), "whoever held collection goes on doing so"
    finally:
        gc.enable()


def test_errors_have_places() -> None:
    with pytest.raises(ParseError) as caught:
        parse_documents("a: 1\n---\nb: 1\nb: 2\n")
    assert (caught.value.line, caught.value.column) == (4, 1)
