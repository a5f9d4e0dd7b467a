"""Watches: what a client is sent, from where, and when it must list again."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from server_world import CONFIG_MAPS, World, config_map, within


async def events(world: World, path: str = CONFIG_MAPS, **parameters: str) -> AsyncIterator[dict[str, Any]]:
    answered = await world.send("GET", path, watch="true", **parameters)
    assert answered.stream is not None
    async for piece in answered.stream:
        for line in piece.splitlines():
            yield json.loads(line)


async def take(stream: AsyncIterator[dict[str, Any]], count: int) -> list[tuple[str, str]]:
    found = []
    for _ in range(count):
        event = await asyncio.wait_for(anext(stream), 10)
        found.append((event["type"], event["object"]["metadata"].get("name", "")))
    return found


def test_initial_events_a_bookmark_and_changes(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.json("POST", CONFIG_MAPS, config_map("a"), 201)
        stream = events(
            world, sendInitialEvents="true", allowWatchBookmarks="true", resourceVersionMatch="NotOlderThan"
        )
        assert await take(stream, 1) == [("ADDED", "a")]
        bookmark = await anext(stream)
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await world.json("POST", CONFIG_MAPS, config_map("b"), 201)
        await world.json("DELETE", f"{CONFIG_MAPS}/a")
        assert await take(stream, 2) == [("ADDED", "b"), ("DELETED", "a")]

    within(tmp_path, story)


def test_a_watch_goes_on_from_a_list(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        version = (await world.json("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]
        await world.json("POST", CONFIG_MAPS, config_map("a"), 201)
        stream = events(world, resourceVersion=version)
        assert await take(stream, 1) == [("ADDED", "a")]
        await world.json("PUT", f"{CONFIG_MAPS}/a", config_map("a", x="y"))
        assert await take(stream, 1) == [("MODIFIED", "a")]

    within(tmp_path, story)


def test_what_is_no_longer_selected_is_deleted(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        stream = events(world, labelSelector="on=yes")
        await world.json("POST", CONFIG_MAPS, config_map("a"), 201)
        form = "application/merge-patch+json"

        async def label(value: str | None) -> None:
            patch = {"metadata": {"labels": {"on": value}}}
            await world.json("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=form)

        first = asyncio.ensure_future(take(stream, 1))
        await asyncio.sleep(0)
        await label("yes")
        assert await first == [("ADDED", "a")]
        await world.json(
            "PUT", f"{CONFIG_MAPS}/a", {**config_map("a", x="y"), "metadata": {"name": "a", "labels": {"on": "yes"}}}
        )
        await label(None)
        assert await take(stream, 2) == [("MODIFIED", "a"), ("DELETED", "a")]

    within(tmp_path, story)


def test_too_old_a_version_is_expired(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(30):
            await world.json("POST", CONFIG_MAPS, config_map(f"c{number}"), 201)
        event = await anext(events(world, resourceVersion="1"))
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")

    within(tmp_path, story, retained_changes=5)


def test_a_watch_ends_when_its_time_is_over(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        assert [event async for event in events(world, timeoutSeconds="1")] == []

    within(tmp_path, story)
