"""The connection to the API server is cut again and again, or the credentials end: what changed still arrives."""

import os
import sys
import threading
from collections.abc import Iterator

import pytest
from cluster_identity import NAMESPACE, Account
from cluster_plane import Plane
from cluster_site import Site, await_answers
from cluster_wire import Wire
from harness import netns
from harness.cluster import API_PORT

from propylon.app.cluster import LEASE_NAME
from support.instance import eventually

CUTS = int(os.environ.get("PROPYLON_CUTS", "12"))
"""How often everything is cut, once a second. Sixty make the minute of which the docs speak."""
TOKEN_SECONDS = 10.0


@pytest.fixture
def wire(node: None) -> Iterator[Wire]:
    with Wire((netns.NODE_IP, API_PORT), netns.NODE_IP) as found:
        yield found


@pytest.fixture(scope="module")
def account(plane: Plane) -> Account:
    return Account(plane)


class Cutting:
    """Cuts once a second, in the background."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0

    def __enter__(self) -> "Cutting":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self._wire.cut()
            self.rounds += 1


def test_watches_are_cut_every_second(site: Site, wire: Wire, account: Account, plane: Plane) -> None:
    kubeconfig = account.kubeconfig(site.directory / "kubeconfig", wire.port, {"token": account.token(3600)})
    site.publish()
    with site.controller(kubeconfig=kubeconfig) as controller:
        site.await_served("a")
        site.await_statuses()
        with site.load() as load:
            await_answers(load, 20)
            before, memory, files = len(controller.lines()), controller.read_memory(), controller.open_files()
            with Cutting(wire) as cutting:
                changes = 0
                while cutting.rounds < CUTS:
                    backend = "ba"[changes % 2]
                    site.lead_to(backend)
                    site.await_served(backend)
                    changes += 1
            site.await_statuses()
            await_answers(load, 20)
        assert load.result.failures == []
        assert wire.cuts >= CUTS
        assert len(controller.lines(before)) <= 10, controller.lines(before)
        # All connections are made anew at once, with buffers for TLS, before those that failed are collected.
        assert controller.read_memory() <= memory + 40
        assert controller.open_files() <= files + 10
    lease = plane.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE_NAME}")
    assert lease["spec"]["leaseTransitions"] == 0


PROGRAM = """
import json, pathlib, sys
token = pathlib.Path(sys.argv[1]).read_text()
kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
print(json.dumps(kind | {"status": {"token": token}}))
"""
"""A credentials program that does not know when its tokens end."""


@pytest.mark.parametrize("source", ["file", "program"])
def test_a_token_ends_and_another_takes_its_place(site: Site, wire: Wire, account: Account, source: str) -> None:
    file = site.directory / "token"
    file.write_text(account.token(TOKEN_SECONDS))
    program = {"command": sys.executable, "args": ["-c", PROGRAM, str(file)], "interactiveMode": "Never"}
    program["apiVersion"] = "client.authentication.k8s.io/v1"
    user = {"tokenFile": str(file)} if source == "file" else {"exec": program}
    kubeconfig = account.kubeconfig(site.directory / "kubeconfig", wire.port, user)
    site.publish()
    with site.controller(kubeconfig=kubeconfig) as controller:
        site.await_served("a")
        with site.load() as load:
            await_answers(load, 20)
            before = len(controller.lines())
            eventually(
                lambda: controller.said("401 Unauthorized", before), "the token has ended, and the log says so", 60
            )
            wire.cut()  # what was allowed once goes on until it breaks
            site.lead_to("b")
            await_answers(load, 100)
            assert site.answered_by() == "a"
            file.write_text(account.token(3600))
            site.await_served("b")
            site.await_statuses()
            await_answers(load, 20)
        assert load.result.failures == []
        assert controller.said("401 Unauthorized", before) == 1, controller.lines(before)
        assert controller.said("answers again", before) == 1, controller.lines(before)
        assert len(controller.lines(before)) <= 10, controller.lines(before)
