from pathlib import Path

import pytest

from propylon.app.configuration import (
    BackendOverride,
    ConfigurationError,
    FileOptions,
    merge_options,
    parse_backend,
    read_file_options,
)

HEAD = "apiVersion: config.propylon.dev/v1alpha1\nkind: UpConfiguration\nmetadata: {name: x}\n"


def test_backends_are_read() -> None:
    assert parse_backend("shop/cart=127.0.0.1:5000") == BackendOverride("shop", "cart", 0, "127.0.0.1", 5000)
    assert parse_backend("shop/cart:80=[::1]:5000") == BackendOverride("shop", "cart", 80, "::1", 5000)


@pytest.mark.parametrize(
    "text", ["", "shop/cart", "cart=127.0.0.1:1", "shop/cart=127.0.0.1", "a/b=h:0", "a/b:x=h:1", "a/b=h:70000"]
)
def test_bad_backends_are_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--backend"):
        parse_backend(text)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "propylon.yaml").write_text(HEAD + "echo: true\nportOffset: 8000\nvariables: {a: file, b: file}\n")
    file = read_file_options([str(tmp_path)])
    merged = merge_options(
        {"data_dir": tmp_path, "echo": False, "port_offset": None, "variables": {"a": "typed"}}, file
    )
    assert (merged.echo, merged.port_offset) == (False, 8000)
    assert merged.variables == {"a": "typed", "b": "file"}


def test_no_file_changes_nothing(tmp_path: Path) -> None:
    assert read_file_options([str(tmp_path), "-"]) == FileOptions()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo: [", "cannot be read"),
        ("kind: Service\n", "UpConfiguration"),
        (HEAD + "eco: true\n", "eco"),
        (HEAD + "echo: 3\n", "echo"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "propylon.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_file_options([str(tmp_path)])
    assert "propylon.yaml" in str(caught.value)


def test_answers_are_counted_by_backend_only_where_it_is_asked_for(tmp_path: Path) -> None:
    assert merge_options({"data_dir": tmp_path}, FileOptions()).backend_statistics is False
    (tmp_path / "propylon.yaml").write_text(HEAD + "backendStatistics: true\n")
    file = read_file_options([str(tmp_path)])
    assert merge_options({"data_dir": tmp_path}, file).backend_statistics is True
    assert merge_options({"data_dir": tmp_path, "backend_statistics": False}, file).backend_statistics is False
