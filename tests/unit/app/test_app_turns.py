"""Turns: how long the loop waits for others, what several batches are together, and what is no news."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from propylon import api
from propylon.app.bell import Bell
from propylon.app.configuration import UpOptions
from propylon.app.controller import Outcome, merged
from propylon.app.runtime import ANSWER_SECONDS, BREATH_SECONDS, MANY_ANSWERS_SECONDS, Runtime, breath, patience
from propylon.app.workspace import Workspace


def test_half_of_the_time_at_most_is_waited_and_never_long() -> None:
    assert breath(0.002) == 0.002
    assert breath(BREATH_SECONDS * 100) == BREATH_SECONDS


def test_statuses_wait_as_long_as_it_took_to_compute_within_limits() -> None:
    assert patience(0.001) == ANSWER_SECONDS
    assert patience(1.5) == 1.5
    assert patience(60) == MANY_ANSWERS_SECONDS


KEY = ("findings", api.ObjectRef("", "Service", "shop", "cart"))
RDS = ("rds", "all")


def outcome(**changed: Any) -> Outcome:
    nothing: dict[str, Any] = {
        "resources": {},
        "statuses": {},
        "findings": {},
        "gateways": frozenset(),
        "unserved_changed": False,
        "failures": (),
        "explanation": "",
    }
    return Outcome(**{**nothing, **changed})


def test_batches_that_are_told_together_end_as_the_last_one_does() -> None:
    web, api_ = api.ObjectKey("shop", "web"), api.ObjectKey("shop", "api")
    first = outcome(resources={web: {RDS: b"1", ("cds", "a"): b"a"}}, gateways=frozenset({web}), explanation="one")
    then = outcome(resources={web: {RDS: None}, api_: {RDS: b"2"}}, unserved_changed=True, findings={KEY: ()})
    both = merged([first, then])
    assert both.resources == {web: {RDS: None, ("cds", "a"): b"a"}, api_: {RDS: b"2"}}
    assert (both.gateways, both.unserved_changed, both.findings) == (frozenset({web}), True, {KEY: ()})
    assert both.explanation == "one"
    assert first.resources[web][RDS] == b"1"  # what was published stays as it was
    assert merged([first]) is first


def test_our_own_status_writes_are_no_news_but_what_others_wrote_besides_is(tmp_path: Path) -> None:
    workspace = Workspace(UpOptions(data_dir=tmp_path, paths=(), api=False), tmp_path, lambda _line: None)
    store = workspace.store
    ref = api.ObjectRef(api.GATEWAY_GROUP, "Gateway", "default", "web")
    listeners = [{"name": "http", "protocol": "HTTP", "port": 80}]
    gateway = {
        "apiVersion": f"{api.GATEWAY_GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"gatewayClassName": "ours", "listeners": listeners},
    }
    try:
        store.create(gateway)
        workspace.turn()

        def write(address: str) -> int:
            written = store.patch_status(ref, lambda _: {"addresses": [{"value": address}]})
            return int(written["metadata"]["resourceVersion"])

        assert workspace.note_written([write("10.0.0.1")])

        changed = {**gateway, "spec": {"gatewayClassName": "theirs", "listeners": listeners}}
        store.update(changed)
        assert not workspace.note_written([write("10.0.0.2")])
        workspace.turn()
        known = workspace.controller.sources.gateways.get(ref.key)
        assert known is not None and known.spec.gateway_class_name == "theirs"
    finally:
        store.close()


@pytest.mark.parametrize(
    ("seconds", "awaited", "rings", "goes_on"),
    [
        (60, True, True, True),  # an answer, or another change
        (60, False, True, False),  # nobody is there, or all was answered
        (-1, True, True, False),  # something happens all the time
        (0.001, True, False, False),  # no answer comes
    ],
)
def test_statuses_wait_for_proxies_and_not_for_ever(seconds: float, awaited: bool, rings: bool, goes_on: bool) -> None:
    async def run() -> bool:
        bell = Bell()
        if rings:
            bell.set()
        xds = SimpleNamespace(is_awaited=lambda _node: awaited)
        runtime: Any = SimpleNamespace(
            _stopping=asyncio.Event(), _bell=bell, _others_wrote=False, plane=SimpleNamespace(xds=xds)
        )
        sent = outcome(resources={api.ObjectKey("shop", "web"): {RDS: b"1"}})
        now = time.monotonic()
        return await asyncio.wait_for(Runtime._answers(runtime, [sent], now, now + seconds), 10)

    assert asyncio.run(run()) is goes_on
