"""What was acknowledged is there, whatever happens to the process or its disk."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from propylon.api.meta import ObjectRef
from propylon.store import GroupKind, LocalStore, StoreLocked, StoreUnavailable


def write_forever(directory, number, output):
    """Apply objects n0 to n6 in turn, and tell of each only once the store has acknowledged it."""
    store = LocalStore(directory)
    while True:
        name = f"n{number % 7}"
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default"},
            "data": {"number": str(number)},
        }
        applied = store.apply(document, "test")
        os.write(output, f"{name} {number} {applied.resource_version}\n".encode())
        number += 1


def forked(run, *arguments):
    """A child process that runs until it is killed, and the file it writes to."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(readable)
            run(*arguments, writable)
        finally:
            os._exit(1)
    os.close(writable)
    return pid, os.fdopen(readable)


def config_map(name, size=1):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"key": "x" * size},
    }


def test_acknowledged_writes_survive_kill_9(tmp_path):
    generator = random.Random(7)
    number, highest = 0, 0
    expected = {}
    for _ in range(20):
        pid, output = forked(write_forever, tmp_path, number)
        with output:
            try:
                for _ in range(generator.randrange(1, 40)):
                    name, value, version = output.readline().split()
                    assert int(version) > highest
                    highest = int(version)
                    expected[name] = int(value)
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            rest = output.read()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                name, value, version = line.split()
                expected[name], highest = int(value), int(version)
        with LocalStore(tmp_path) as store:
            held = {
                document["metadata"]["name"]: int(document["data"]["number"])
                for document in store.list([GroupKind("", "ConfigMap")]).documents
            }
            # One write may have become durable without being acknowledged, never the other way round.
            assert all(held[name] >= value for name, value in expected.items())
            assert store.resource_version >= highest
            assert store.resource_version - highest <= 1
            highest = store.resource_version
            number = max(held.values()) + 1


def test_a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room(tmp_path):
    with LocalStore(tmp_path) as store:
        limit = store._database._connection.execute("PRAGMA max_page_count").fetchone()[0]
        pages = store._database._connection.execute("PRAGMA page_count").fetchone()[0]
        store._database._connection.execute(f"PRAGMA max_page_count = {pages + 20}")
        written = []
        with pytest.raises(StoreUnavailable, match="room"):
            for number in range(1000):
                store.create(config_map(f"n{number}", 5000))
                written.append(f"n{number}")
        assert written
        version = store.resource_version
        assert [found.name for found in store.list([GroupKind("", "ConfigMap")]).refs] == sorted(written)
        assert len(store.changes_since(version - 1).events) == 1
        with pytest.raises(StoreUnavailable):
            store.create(config_map("more", 50_000))
        store._database._connection.execute(f"PRAGMA max_page_count = {limit}")
        assert store.create(config_map("after"))["metadata"]["resourceVersion"] == str(version + 1)


LIMITED = textwrap.dedent(
    """
    import resource, sys
    from pathlib import Path
    from propylon.store import LocalStore, StoreUnavailable
    store = LocalStore(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    written = 0
    try:
        for written in range(1000):
            store.create({"apiVersion": "v1", "kind": "ConfigMap",
                          "metadata": {"name": f"n{written}", "namespace": "default"}, "data": {"key": "x" * 9000}})
    except StoreUnavailable as error:
        assert error.remedy
    before = store.resource_version
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "after", "namespace": "default"}})
    assert store.resource_version == before + 1
    print(written)
    """
)


def test_the_disk_refusing_to_grow_a_file_is_survived(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    written = int(done.stdout)
    assert 0 < written < 999
    with LocalStore(tmp_path) as store:
        names = {found.name for found in store.list([GroupKind("", "ConfigMap")]).refs}
    assert names == {f"n{number}" for number in range(written)} | {"after"}


def test_a_second_writer_is_turned_away_with_the_firsts_pid(tmp_path):
    with LocalStore(tmp_path), pytest.raises(StoreLocked, match=str(os.getpid())) as caught:
        LocalStore(tmp_path)
    assert caught.value.pid == os.getpid()
    LocalStore(tmp_path).close()


def test_a_database_held_by_another_program_is_said(tmp_path):
    with LocalStore(tmp_path) as store:
        store._database._connection.execute("PRAGMA busy_timeout = 10")
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another program"):
            store.create(config_map("a"))
        other.execute("ROLLBACK")
        other.close()
        store.create(config_map("a"))


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "store.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreUnavailable, match="backup"):
        LocalStore(tmp_path)


def test_a_place_that_cannot_be_a_directory_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        LocalStore(tmp_path / "file" / "data")
    with pytest.raises(StoreUnavailable):
        LocalStore(tmp_path / "nothing", read_only=True)


def test_secrets_are_readable_for_the_owner_only(tmp_path):
    with LocalStore(tmp_path / "data"):
        assert Path(tmp_path / "data" / "store.db").stat().st_mode & 0o077 == 0


def test_many_documents_are_one_commit(tmp_path):
    with LocalStore(tmp_path, check=lambda document, stored: None) as store:
        commits = []
        store.subscribe(lambda: commits.append(1))
        start = store.resource_version
        store.apply_many([config_map(f"n{number}") for number in range(2_000)], "files")
        assert len(commits) == 1
        assert len(store.changes_since(start).events) == 2_000
        assert store.get(ObjectRef("", "ConfigMap", "default", "n1999"))["data"] == {"key": "x"}


def test_a_reader_may_open_what_a_killed_writer_left(tmp_path):
    pid, output = forked(write_forever, tmp_path, 0)
    with output:
        name, value, _ = output.readline().split()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with LocalStore(tmp_path, read_only=True) as reader:
        held = reader.get(ObjectRef("", "ConfigMap", "default", name))
    assert int(held["data"]["number"]) >= int(value)
