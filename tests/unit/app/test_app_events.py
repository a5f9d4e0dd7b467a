"""Events: what is told, counted, combined and forgotten."""

import asyncio
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from propylon import api
from propylon.app.event_sources import notes_of_files, notes_of_proxy
from propylon.app.events import DIFFERENT, EVENT, MOST, RETENTION, EventRecorder
from propylon.proxies.settings import BackingOff, Drained, Exited, Refused, Started
from propylon.server.events import Note, event_ref, from_core, outdated, rfc3339, tell, to_core
from propylon.store import LocalStore
from propylon.store.files import FileProblem, Severity

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
GATEWAY = api.ObjectRef(api.GATEWAY_GROUP, "Gateway", "default", "web")
POD = api.ObjectRef("", "Pod", "default", "web-any")
DOCUMENT = {
    "apiVersion": f"{api.GATEWAY_GROUP}/v1",
    "kind": "Gateway",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"gatewayClassName": "any", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
}


def note(message: str = "no such Service", ref: api.ObjectRef = GATEWAY, reason: str = "BackendNotFound") -> Note:
    return Note(ref, "Warning", reason, message, "spec.listeners[0]")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(tmp_path) as store:
        store.create(DOCUMENT)
        yield store


def record(store: LocalStore, *notes: Note, again: bool = True) -> list[dict[str, Any]]:
    """Have the notes told by a recorder of their own, and return every Event there is."""

    async def run() -> None:
        recorder = EventRecorder(store, "here")
        recorder.start()
        for each in notes:
            recorder.note(each, again=again)
        await recorder.stop()

    asyncio.run(run())
    return store.list([EVENT]).documents


def test_an_event_says_who_what_and_where(store: LocalStore) -> None:
    (event,) = record(store, note())
    uid = store.get(GATEWAY)["metadata"]["uid"]
    assert event["metadata"]["name"].startswith("web.")
    assert event["metadata"]["namespace"] == "default"
    involved = event["involvedObject"]
    assert (involved["kind"], involved["name"], involved["uid"]) == ("Gateway", "web", uid)
    assert (involved["apiVersion"], involved["fieldPath"]) == (DOCUMENT["apiVersion"], "spec.listeners[0]")
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "BackendNotFound", "no such Service")
    assert (event["count"], event["source"]) == (1, {"component": "propylon", "host": "here"})


def test_repetitions_are_counted(store: LocalStore) -> None:
    record(store, note())
    (event,) = record(store, note())
    assert event["count"] == 2
    assert event["series"]["count"] == 2
    assert event["firstTimestamp"] <= event["lastTimestamp"]
    (event,) = record(store, note(), again=False)
    assert event["count"] == 2, "what was told before the start and still stands is no repetition"
    assert len(record(store, note("another"))) == 2


def test_many_messages_of_one_reason_share_an_event(store: LocalStore) -> None:
    events = record(store, *(note(f"message {number}") for number in range(3 * DIFFERENT)))
    assert len(events) == DIFFERENT + 1
    assert [e["message"] for e in events].count("(combined from similar events)") == 1


def test_cluster_scoped_objects_and_namespaces_that_are_gone(store: LocalStore) -> None:
    of_class = note(ref=api.ObjectRef(api.GATEWAY_GROUP, "GatewayClass", "", "any"))
    nowhere = note(ref=api.ObjectRef(api.GATEWAY_GROUP, "Gateway", "nowhere", "web"))
    (event,) = record(store, nowhere, of_class)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


def test_old_events_are_forgotten(store: LocalStore) -> None:
    record(store, note())
    recorder = EventRecorder(store, "here")
    now = dt.datetime.now(dt.UTC)
    recorder.prune(now + RETENTION - dt.timedelta(minutes=1))
    assert len(store.list([EVENT])) == 1
    recorder.prune(now + RETENTION + dt.timedelta(minutes=1))
    assert len(store.list([EVENT])) == 0


def test_the_oldest_go_first() -> None:
    def event(minutes: int) -> tuple[api.ObjectRef, dict[str, Any]]:
        time = rfc3339(NOW - dt.timedelta(minutes=minutes))
        document = {"metadata": {"creationTimestamp": "2026-05-01T00:00:00Z"}, "lastTimestamp": time}
        return api.ObjectRef("", "Event", "default", f"e{minutes}"), document

    gone = outdated([event(1), event(3), event(2), event(90)], NOW, keep=RETENTION, most=2)
    assert [ref.name for ref in gone] == ["e3", "e90"]
    assert outdated([event(1)], NOW, keep=RETENTION, most=MOST) == []


def test_both_forms() -> None:
    core = tell(note(), DOCUMENT, None, "here", NOW)
    other = from_core(core)
    assert other["apiVersion"] == "events.k8s.io/v1"
    assert (other["regarding"]["name"], other["note"], other["deprecatedCount"]) == ("web", "no such Service", 1)
    assert (other["reportingController"], other["eventTime"]) == ("propylon", None)
    assert {name: value for name, value in to_core(other).items() if name != "eventTime"} == core


def test_proxies() -> None:
    def told(event: Any) -> set[tuple[str, str]]:
        return {(each.ref.kind, each.reason) for each in notes_of_proxy(event, GATEWAY, POD)}

    assert told(Started("default/web", 1, 0)) == {("Pod", "Started")}
    assert told(Exited("default/web", 1, expected=True)) == set()
    assert told(Exited("default/web", 1, expected=False)) == {("Gateway", "ProxyExited"), ("Pod", "ProxyExited")}
    assert told(Drained("default/web", 0)) == set()
    assert told(Drained("default/web", 1)) == {("Gateway", "NotDrained"), ("Pod", "NotDrained")}
    assert told(Refused("default/web", "no")) == {("Gateway", "SettingsRefused"), ("Pod", "SettingsRefused")}
    crashes = [
        BackingOff("default/web", seconds, f"Envoy ended: [2026-05-01 12:00:0{seconds}.1][{seconds}][critical] x")
        for seconds in (1, 2)
    ]
    first, second = (notes_of_proxy(crash, GATEWAY, None) for crash in crashes)
    assert [event_ref(each) for each in first] == [event_ref(each) for each in second], "one Event, counted twice"


def test_files() -> None:
    problems = [
        FileProblem("a.yaml", 3, 1, Severity.ERROR, "no", object="HTTPRoute shop/cart", field="spec"),
        FileProblem("b.yaml", 0, 0, Severity.NOTICE, "overrode", object="GatewayClass any"),
        FileProblem("c.yaml", 1, 1, Severity.ERROR, "not YAML"),
        FileProblem("d.yaml", 1, 1, Severity.ERROR, "what", object="Unknown shop/x"),
    ]
    refused, notice = notes_of_files(problems)
    route = api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "shop", "cart")
    assert refused == Note(route, "Warning", "ManifestRefused", "a.yaml:3: no", "spec")
    assert (notice.ref.kind, notice.ref.namespace, notice.type) == ("GatewayClass", "", "Normal")
