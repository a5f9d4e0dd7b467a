"""Replicas compare versions, so whatever order objects came in, and whatever was there before, all must agree."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from propylon import api
from propylon.app.controller import Controller
from propylon.envoy import EnvoySettings
from propylon.graph import GatewayAddresses, Settings
from propylon.xds import version_of

GOLDENS = Path(__file__).parents[1] / "graph" / "goldens"
CONTROLLER = "example.com/controller"
Document = dict[str, Any]


def documents_of(path: Path) -> list[Document]:
    manifests = path.read_text(encoding="utf-8").partition("\n---\nexpected:")[0]
    # The manifests may update an object that came before in the same file: the last word counts for all replicas.
    found = {ref_of(each): each for each in yaml.safe_load_all(manifests) if each and "metadata" in each}
    return list(found.values())


def ref_of(document: Document) -> api.ObjectRef:
    group, _, _ = document["apiVersion"].rpartition("/")
    metadata = document["metadata"]
    return api.ObjectRef(group, document["kind"], metadata.get("namespace", ""), metadata["name"])


class Replica:
    """One controller's computation of some objects, in an order and with detours of its own."""

    def __init__(self, documents: list[Document], order: random.Random, scopes_from: int) -> None:
        settings = Settings(controllers=frozenset({CONTROLLER}), our_name=CONTROLLER)
        self.controller = Controller(settings, EnvoySettings(scopes_from=scopes_from))
        waiting = [*documents, *order.sample(documents, len(documents) // 3)]
        order.shuffle(waiting)
        for document in waiting:
            self._put(ref_of(document), document)
            if order.random() < 0.3:
                self.controller.commit()
            if order.random() < 0.2:
                self._put(ref_of(document), None)
                self.controller.commit()
                self._put(ref_of(document), document)
        self.controller.commit()

    def _put(self, ref: api.ObjectRef, document: Document | None) -> None:
        try:
            self.controller.set_document(ref, json.dumps(document).encode() if document is not None else None)
        except api.DecodeError:
            return
        if ref.kind == "Gateway":
            address = api.GatewayStatusAddress("10.0.0.1", type="IPAddress")
            addresses = self.controller.sources.addresses
            if document is None:
                addresses.remove(ref.key)
            else:
                addresses.set(ref.key, GatewayAddresses((address,), ("0.0.0.0",)))

    @property
    def versions(self) -> dict[str, str]:
        return {
            f"{gateway} {resource.type_url.rpartition('.')[2]} {resource.name}": version_of(resource.body)
            for part in self.controller.translation
            for (gateway, _), resource in part.items()
        }


def all_versions(seed: int) -> dict[str, dict[str, str]]:
    order = random.Random(seed)
    return {
        f"{path.stem}, scopes from {scopes_from}": Replica(documents_of(path), order, scopes_from).versions
        for path in sorted(GOLDENS.glob("*.yaml"))
        for scopes_from in (2, 200)
    }


def test_replicas_that_were_told_in_different_orders_make_the_same_versions() -> None:
    found = []
    for seed in (1, 2, 3):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run(
            [sys.executable, __file__, str(seed)], capture_output=True, text=True, check=True, env=environment
        )
        found.append(json.loads(done.stdout))
    first, *others = found
    assert sum(len(versions) for versions in first.values()) > 400
    for other in others:
        assert first.keys() == other.keys()
        for case in first:
            assert first[case] == other[case], case


if __name__ == "__main__":
    print(json.dumps(all_versions(int(sys.argv[1]))))
