"""Somebody else writes to the same statuses all the time: their entries stay, ours get there."""

import itertools
import threading
from typing import Any

from cluster_plane import Plane, RefusedError
from cluster_site import GROUP, Site, await_answers

from support.instance import eventually

FOREIGN = "foreign.example/controller"
TIME = "2026-01-01T00:00:00Z"
WRITES = 100


class Storm:
    """Writes statuses as fast as it can: entries of its own are made anew, what others wrote is kept, or not."""

    def __init__(self, site: Site, *, keeps: bool) -> None:
        """`keeps`: whether entries of others are kept, as they ought to be."""
        self._site = site
        self._keeps = keeps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.written = 0
        self.conflicts = 0
        self.last = ""
        """The message of the last write that was accepted."""

    def __enter__(self) -> "Storm":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        for number in itertools.count(1):
            if self._stop.is_set():
                return
            try:
                self._write("httproutes", "shop", f"number {number}")
                self._write("gateways", "web", f"number {number}")
            except RefusedError as error:
                assert error.status == 409, error
                self.conflicts += 1

    def _write(self, plural: str, name: str, message: str) -> None:
        path = self._site.path(plural, name)
        document = self._site.plane.get(path)
        status = document.setdefault("status", {})
        condition = {
            "type": "foreign.example/Seen",
            "status": "True",
            "reason": "Seen",
            "message": message,
            "lastTransitionTime": TIME,
            "observedGeneration": 1,
        }
        if plural == "gateways":
            others = [c for c in status.get("conditions", []) if c["type"] != condition["type"]]
            status["conditions"] = [*(others if self._keeps else ()), condition]
        else:
            entry = {"controllerName": FOREIGN, "parentRef": {"name": "elsewhere"}, "conditions": [condition]}
            others = [p for p in status.get("parents", []) if p["controllerName"] != FOREIGN]
            status["parents"] = [entry, *(others if self._keeps else ())]
        plane = self._site.plane
        plane.loop.run(plane.api.request("PUT", f"{path}/status", document))
        self.written += 1
        if plural == "gateways":
            self.last = message

    def final(self) -> None:
        """One last write, that nobody may lose."""
        for plural, name in (("httproutes", "shop"), ("gateways", "web")):
            eventually(lambda plural=plural, name=name: self._write(plural, name, "final") is None, "a last write")


def foreign_entries(site: Site) -> list[dict[str, Any]]:
    route, gateway = (site.plane.get(site.path(*what)) for what in (("httproutes", "shop"), ("gateways", "web")))
    entries = [c for p in route["status"]["parents"] if p["controllerName"] == FOREIGN for c in p["conditions"]]
    return entries + [c for c in gateway["status"]["conditions"] if c["type"] == "foreign.example/Seen"]


def weather(site: Site, *, keeps: bool) -> None:
    """A storm over a serving Gateway whose route changes meanwhile."""
    site.publish()
    with site.controller() as controller:
        site.await_served("a")
        site.await_statuses()
        with site.load() as load:
            before, memory = len(controller.lines()), controller.read_memory()
            with Storm(site, keeps=keeps) as storm:
                changes = 0
                while storm.written < WRITES:
                    backend = "ba"[changes % 2]
                    site.lead_to(backend)
                    site.await_served(backend)
                    if keeps:
                        site.await_statuses()
                    changes += 1
            storm.final()
            site.await_statuses()
            await_answers(load, 20)
            assert [entry["message"] for entry in foreign_entries(site)] == ["final", "final"]
        assert load.result.failures == []
        assert len(controller.lines(before)) <= 5, controller.lines(before)
        assert controller.read_memory() <= memory + 20


def test_a_foreign_writer_that_keeps_our_entries(site: Site) -> None:
    weather(site, keeps=True)


def test_a_foreign_writer_that_drops_our_entries(site: Site, plane: Plane) -> None:
    weather(site, keeps=False)
    route = plane.get(site.path("httproutes", "shop"))
    assert [p["controllerName"] for p in route["status"]["parents"]].count(site.controller_name) == 1
    assert plane.get(f"/apis/{GROUP}/v1/gatewayclasses/{site.name}")["status"]["conditions"]
