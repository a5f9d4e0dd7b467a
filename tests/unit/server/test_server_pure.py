"""The parts that decide without a server."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from propylon.server import ownership
from propylon.server.columns import human_duration
from propylon.server.credentials import Credentials
from propylon.server.errors import ApiError
from propylon.server.fields import decode_fields, encode_fields, leaves
from propylon.server.identity import issue_token, read_token
from propylon.server.json_path import find_all
from propylon.server.paths import Place, form_of, parse_path
from propylon.server.protobuf import read_protobuf
from propylon.server.selectors import parse_label_selector


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (330, "5m30s"),
        (3600, "60m"),
        (4 * 3600, "4h"),
        (90000, "25h"),
        (5 * 86400 + 7200, "5d2h"),
        (100 * 86400, "100d"),
        (3 * 365 * 86400, "3y"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ("a=b", {"a": "b"}, True),
        ("a==b,c", {"a": "b"}, False),
        ("a!=b", {}, True),
        ("a in (x, b)", {"a": "b"}, True),
        ("a notin (x,b)", {"a": "b"}, False),
        ("!a", {}, True),
        ("example.com/a", {"example.com/a": ""}, True),
        ("a>3", {"a": "4"}, True),
        ("a=", {"a": ""}, True),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], selected: bool) -> None:
    matcher = parse_label_selector(selector)
    assert matcher is not None
    assert matcher({"metadata": {"labels": labels}}) is selected


@pytest.mark.parametrize("selector", ["a in", "=b", "a=b,", "a in (b", "a,,b", "-"])
def test_bad_label_selectors(selector: str) -> None:
    with pytest.raises(ApiError):
        parse_label_selector(selector)


def test_paths() -> None:
    assert parse_path("/api/v1/pods") == Place("", "v1", plural="pods")
    assert parse_path("/apis/a.b/v1/namespaces/n/things/x/status") == Place("a.b", "v1", "n", "things", "x", "status")
    assert parse_path("/api/v1/namespaces/n") == Place("", "v1", "n", "namespaces", "n")
    assert parse_path("/version") is None


def test_accepted_forms() -> None:
    assert form_of("application/vnd.kubernetes.protobuf,application/json").kind == ""
    assert form_of("application/json;as=Table;v=v9;g=meta.k8s.io,application/json").kind == ""
    with pytest.raises(ApiError):
        form_of("application/cbor")


def test_json_paths() -> None:
    document = {"a": [{"type": "X", "v": 1}, {"type": "Y", "v": 2}], "b": {"c.d": 3}}
    assert find_all(document, '.a[?(@.type=="Y")].v') == [2]
    assert find_all(document, ".a[*].v") == [1, 2]
    assert find_all(document, ".b['c.d']") == [3]
    assert find_all(document, ".b.c\\.d") == [3]
    assert find_all(document, ".nothing[3].x") == []


_NAMES = st.sampled_from("abc")
_OBJECTS = st.dictionaries(
    _NAMES,
    st.integers(0, 2)
    | st.dictionaries(_NAMES, st.integers(0, 2), max_size=3)
    | st.lists(
        st.fixed_dictionaries({"name": _NAMES, "v": st.integers(0, 2)}), max_size=3, unique_by=lambda e: e["name"]
    ),
    max_size=3,
)


def _keys(path: tuple[str, ...]) -> tuple[str, ...]:
    return ("name",) if path else ()


def _document(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec}


@given(_OBJECTS)
def test_field_sets_are_written_and_read(spec: dict[str, Any]) -> None:
    fields = frozenset(leaves(_document(spec), _keys))
    assert decode_fields(json.loads(json.dumps(encode_fields(fields)))) == fields


@given(st.lists(_OBJECTS, min_size=1, max_size=4), _OBJECTS)
def test_what_one_manager_applies_is_there_and_what_it_drops_goes(
    specs: list[dict[str, Any]], other: dict[str, Any]
) -> None:
    live: dict[str, Any] = {"metadata": {}}
    entries: ownership.Entries = ()

    def apply(manager: str, spec: dict[str, Any]) -> None:
        nonlocal live, entries
        live, entries = ownership.apply(
            live, _document(spec), entries, _keys, manager=manager, force=True, time="", defaulted=None
        )

    apply("other", other)
    for spec in specs:
        apply("mine", spec)
    held = leaves(live, _keys)
    mine = leaves(_document(specs[-1]), _keys)
    assert all(held.get(path) == value for path, value in mine.items() if value not in ({}, []))
    owned = {entry.manager: entry.fields for entry in entries}
    others = owned.get("other", frozenset())
    empty = {path for path, value in held.items() if value in ({}, [])}
    assert held.keys() - empty <= mine.keys() | others, "nothing is left that nobody owns"


@given(_OBJECTS, _OBJECTS)
def test_plain_writes_take_what_they_change(first: dict[str, Any], second: dict[str, Any]) -> None:
    options: dict[str, Any] = {"api_version": "v1", "time": ""}
    entries = ownership.after_write((), {}, _document(first), _keys, manager="a", **options)
    entries = ownership.after_write(entries, _document(first), _document(second), _keys, manager="b", **options)
    held = leaves(_document(second), _keys)
    owned = [path for entry in entries for path in entry.fields]
    assert sorted(owned) == sorted(held), "every field has one owner"
    assert len(set(owned)) == len(owned)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def test_protobuf_bodies() -> None:
    entry = _field(1, b"x") + _field(2, b"y")
    inner = _field(1, _field(1, b"name") + _field(3, b"")) + _field(2, entry)
    raw = b"k8s\x00" + _field(1, _field(1, b"v1") + _field(2, b"ConfigMap")) + _field(2, inner)
    assert read_protobuf(raw) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "name"},
        "data": {"x": "y"},
    }
    for end in range(len(raw)):
        with pytest.raises(ApiError) if end < 20 else _nothing():
            read_protobuf(raw[:end])


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, *_: object) -> bool:
        return kind is None or issubclass(kind, ApiError)


def test_tokens_end_and_cannot_be_forged() -> None:
    token, _ = issue_token(b"secret", "n", "a", "u", 600)
    claims = read_token(b"secret", token)
    assert claims is not None
    assert claims.kubernetes.serviceaccount.name == "a"
    assert read_token(b"other", token) is None
    assert read_token(b"secret", token[:-2]) is None
    assert read_token(b"secret", issue_token(b"secret", "n", "a", "u", -1)[0]) is None


def test_credentials_are_private_and_last(tmp_path: Path) -> None:
    first = Credentials(tmp_path / "api")
    first.ensure_server_certificate(["localhost", "127.0.0.1"])
    certificate = first.server_certificate.read_bytes()
    first.write_admin_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1")
    again = Credentials(tmp_path / "api")
    again.ensure_server_certificate(["localhost", "127.0.0.1"])
    assert again.ca_pem == first.ca_pem
    assert again.server_certificate.read_bytes() == certificate
    secret = [*(tmp_path / "api").glob("*.key"), tmp_path / "kubeconfig"]
    assert len(secret) == 4
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in secret)
