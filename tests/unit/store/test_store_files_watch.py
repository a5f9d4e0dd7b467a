"""Notices of what happens to files: when a change is told, and what is not told before it is whole."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from propylon.store.files import inotify
from propylon.store.files.source import is_temporary
from propylon.store.files.watch import Watcher


def names(paths: frozenset[str]) -> set[str]:
    return {os.path.basename(path) for path in paths}  # noqa: PTH119


def told_of(directory: Path, act: Callable[[], None]) -> set[str]:
    """What is told first after something was done."""

    async def run() -> set[str]:
        woken = asyncio.Event()
        watcher = Watcher(woken.set, is_temporary)
        assert watcher.watch([str(directory)]) and watcher.is_told
        try:
            act()
            await asyncio.wait_for(woken.wait(), 10)
            return names(watcher.take())
        finally:
            watcher.close()

    return asyncio.run(run())


def test_a_file_that_is_closed_or_put_in_place_is_told(tmp_path):
    def write() -> None:
        (tmp_path / "a.yaml").write_text("a")

    assert told_of(tmp_path, write) == {"a.yaml"}

    def replace() -> None:
        (tmp_path / "new.tmp").write_text("b")
        (tmp_path / "new.tmp").rename(tmp_path / "a.yaml")

    assert told_of(tmp_path, replace) == {"a.yaml"}  # and not the temporary name


def test_a_removed_file_and_a_new_directory_are_told(tmp_path):
    (tmp_path / "a.yaml").write_text("a")
    assert told_of(tmp_path, (tmp_path / "a.yaml").unlink) == {"a.yaml"}
    assert told_of(tmp_path, (tmp_path / "below").mkdir) == {"below"}


def test_a_file_that_is_being_written_is_not_told_with_one_that_is_whole(tmp_path):
    """Whoever truncates a file and then fills it, slowly, has nothing of it told before it is closed or rests."""
    file = tmp_path / "slow.yaml"
    file.write_text("old")

    async def run() -> None:
        woken = asyncio.Event()
        watcher = Watcher(woken.set, is_temporary)
        watcher.watch([str(tmp_path)])
        with file.open("w") as writing:
            writing.write("half of ")
            writing.flush()
            (tmp_path / "other.yaml").write_text("whole")
            await asyncio.wait_for(woken.wait(), 10)
            assert names(watcher.take()) == {"other.yaml"}
            woken.clear()
            writing.write("it")
        await asyncio.wait_for(woken.wait(), 10)
        assert names(watcher.take()) == {"slow.yaml"} and file.read_text() == "half of it"
        watcher.close()

    asyncio.run(run())


def test_a_file_that_stays_open_is_told_when_it_rests(tmp_path):
    async def run() -> None:
        woken = asyncio.Event()
        watcher = Watcher(woken.set)
        watcher.watch([str(tmp_path)])
        with (tmp_path / "open.yaml").open("w") as writing:
            writing.write("all of it")
            writing.flush()
            await asyncio.wait_for(woken.wait(), 10)
            assert names(watcher.take()) == {"open.yaml"}
        watcher.close()

    asyncio.run(run())


def test_what_comes_while_the_first_is_looked_at_belongs_to_the_burst(tmp_path):
    async def run() -> None:
        woken = asyncio.Event()
        watcher = Watcher(woken.set)
        watcher.watch([str(tmp_path)])
        (tmp_path / "a.yaml").write_text("a")
        await asyncio.wait_for(woken.wait(), 10)
        assert names(watcher.take()) == {"a.yaml"}
        (tmp_path / "b.yaml").write_text("b")
        watcher.quiet_in()  # reads it, not the loop
        assert names(watcher.take()) == {"b.yaml"}
        watcher.close()

    asyncio.run(run())


def test_directories_that_cannot_be_watched_are_not_told_of(tmp_path):
    with pytest.raises(FileNotFoundError):
        inotify.Inotify([str(tmp_path / "none")])
