"""Objects about which `api` and a real kube-apiserver once disagreed, with the API server's answer: now they agree.

Each file was written by `conformance/validation/run.py --results`, which also asks the API server about them again.
"""

import sys
from pathlib import Path

import pytest
import yaml
from api_rule_cases import CASES, STANDARD_ONLY, VALID, changed
from hypothesis import given
from hypothesis import strategies as st

from propylon import api
from propylon.api.introspect import struct_spec
from propylon.api.schema import (
    HEADER_VALUE,
    LABEL_PATTERN,
    LABEL_VALUE_PATTERN,
    PATH_PATTERN,
    QUALIFIED_NAME_PATTERN,
    SUBDOMAIN_PATTERN,
)
from propylon.api.validation.clean import compiled
from propylon.api.validation.scalars import matches
from propylon.api.validation.structure import Walk
from propylon.api.validation.times import is_date_time, is_time

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[2] / "conformance"))

from validation.ours import Answer, differences, our_answer  # noqa: E402
from validation.zoo import STRINGS  # noqa: E402

FILES = sorted((HERE / "regressions").glob("*.yaml"))


def load(file: Path) -> dict:
    loaded: dict = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_we_answer_as_the_api_server_does(file: Path) -> None:
    case = load(file)
    theirs = Answer(case["accepted"], case.get("stored"), tuple(case.get("dropped", ())), (case.get("reason", ""),))
    assert differences(our_answer(case["document"], case["channel"], case["part"]), theirs) == []


def test_there_are_regressions() -> None:
    assert len(FILES) > 20
    assert {load(file)["accepted"] for file in FILES} == {True, False}


def documents() -> list[dict]:
    broken = [changed(VALID[kind], path, value) for _, kind, path, value in (*CASES, *STANDARD_ONLY)]
    return [*VALID.values(), *broken, *(load(file)["document"] for file in FILES)]


@pytest.mark.parametrize("channel", ["experimental", "standard"])
def test_the_quick_answer_is_the_walks(channel: str) -> None:
    answers = []
    for document in documents():
        info = api.by_kind(api.group_of(document["apiVersion"]), document["kind"])
        assert info is not None
        spec = struct_spec(info.schema(document["apiVersion"].rpartition("/")[2]), channel)
        complete = {**api.apply_defaults(document, channel=channel), "metadata": {}}
        walk = Walk(channel)
        walk.visit(spec, complete, "")
        answers.append((compiled(spec, channel)(complete), walk.findings == []))
    assert (True, False) not in answers
    # Numbers with a point are left to the walk, which is slow but right.
    assert answers.count((False, True)) < 5
    assert answers.count((True, True)) > 30
    assert answers.count((False, False)) > 100


PATTERNS = (
    f"^{LABEL_PATTERN}$",
    f"^{SUBDOMAIN_PATTERN}$",
    f"^$|^{SUBDOMAIN_PATTERN}$",
    rf"^(\*\.)?{SUBDOMAIN_PATTERN}$",
    f"^{QUALIFIED_NAME_PATTERN}$",
    "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
    "^[a-z]([-a-z0-9]*[a-z0-9])?$",
    f"^{LABEL_VALUE_PATTERN}$",
    PATH_PATTERN,
    str(HEADER_VALUE.pattern),
)


@given(
    pattern=st.sampled_from(PATTERNS),
    text=st.one_of(st.sampled_from(STRINGS), st.text(alphabet="aZ0-._/*% \nü", max_size=12)),
)
def test_patterns_match_as_in_re2(pattern: str, text: str) -> None:
    import re2  # the rest of this file speaks of documents

    assert matches(pattern, text) == bool(re2.search(pattern, text))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_take_long_texts(pattern: str) -> None:
    # Quadratic matching would take minutes here, and the test would time out.
    for text in ("a" * 500_000 + "\n", "a." * 250_000 + "\n", "/a" * 250_000 + "\n"):
        assert matches(pattern, text) is False


@pytest.mark.parametrize(
    ("text", "date_time", "time"),
    [
        ("2026-01-02T03:04:05Z", True, True),
        ("2024-02-29T03:04:05.123+02:00", True, True),
        ("2026-02-29T03:04:05Z", False, False),
        ("2026-01-02t03:04:05z", True, False),
        ("2026-01-02T24:00:00Z", False, False),
        ("2026-01-02T03:04:05,5Z", True, True),
        ("2026-01-02T03:04:05:5Z", True, False),
        ("2026-01-02T03:04:05+24:60", True, True),
        ("2026-01-02T03:04:05+25:00", True, False),
        ("0000-02-29T03:04:05Z", True, True),
        ("2026-01-02", False, False),
        ("", False, False),
    ],
)
def test_times(text: str, date_time: bool, time: bool) -> None:
    assert is_date_time(text) is date_time
    assert is_time(text) is time
