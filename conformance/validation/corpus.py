"""The objects that are sent: examples, cases of the rules, generated ones, and mutations of all of them."""

from __future__ import annotations

import copy
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from propylon import api
from propylon.api.kinds import KINDS, KindInfo
from propylon.api.schema import Channel

from .generation import Generator, Object
from .mutation import METADATA_CHANGES, Mutator, sweep
from .ours import Part

MODULE = "sigs.k8s.io/gateway-api"
_API_TESTS = Path(__file__).resolve().parents[2] / "tests" / "unit" / "api"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_GROUPS = (api.GATEWAY_GROUP, api.EXPERIMENTAL_GROUP)
GATEWAY_KINDS: tuple[KindInfo, ...] = tuple(info for info in KINDS if info.group in _GROUPS)
_UNSERVED = ("v1alpha1", "v1alpha2", "v1alpha3", "v1beta1", "v2")


class Case(NamedTuple):
    """One object to send: how it came about, and which part of it is written."""

    origin: str
    part: Part
    document: Object


def official_examples(version: str) -> list[tuple[str, Object]]:
    """(file, object) of the examples of the Gateway API module, good and bad, fetched by `go mod download`."""
    go = Path(sys.executable).parent / "go"
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [str(go) if go.exists() else "go", "mod", "download", "-json", f"{MODULE}@{version}"],
            cwd=empty,
            env=os.environ | {"GOFLAGS": "-mod=mod"},
            capture_output=True,
            text=True,
            check=True,
        )
    found = []
    with zipfile.ZipFile(json.loads(done.stdout)["Zip"]) as archive:
        prefix = f"{MODULE}@{version}/"
        for name in sorted(archive.namelist()):
            file = name.removeprefix(prefix)
            if file.startswith(("examples/", "hack/invalid-examples/")) and file.endswith(".yaml"):
                documents = yaml.load_all(archive.read(name), Loader=_LOADER)
                found += [(file, document) for document in documents if document and _interpreted(document)]
    return found


def _interpreted(document: Object) -> bool:
    info = api.by_kind(api.group_of(document["apiVersion"]), document["kind"])
    return info in GATEWAY_KINDS


def rule_cases() -> list[tuple[str, Object]]:
    """(name, object) of the unit tests' cases: for each CEL rule of the CRDs one object that breaks it."""
    sys.path.insert(0, str(_API_TESTS))
    try:
        cases = importlib.import_module("api_rule_cases")
    finally:
        sys.path.pop(0)
    found = [(f"valid {kind}", document) for kind, document in cases.VALID.items()]
    for code, kind, path, value in (*cases.CASES, *cases.STANDARD_ONLY):
        found.append((f"case {code}", cases.changed(cases.VALID[kind], path, value)))
    return found


def regressions(channel: Channel) -> Iterator[Case]:
    """The objects that were once judged differently, as they are kept for the unit tests."""
    for file in sorted((_API_TESTS / "regressions").glob("*.yaml")):
        kept = yaml.load(file.read_text(), Loader=_LOADER)
        if kept["channel"] == channel:
            yield Case(f"regression {file.stem}", kept["part"], kept["document"])


def kinds_and_versions(channel: Channel) -> list[tuple[KindInfo, str]]:
    """Every kind at every version that a channel serves."""
    return [(info, version) for info in GATEWAY_KINDS for version in info.served_in(channel)]


def placed(document: Object) -> Object:
    """The object in a namespace that exists, with its status left out unless it is what matters."""
    info = api.by_kind(api.group_of(document["apiVersion"]), document["kind"])
    assert info is not None
    metadata = {key: item for key, item in document["metadata"].items() if key != "namespace"}
    if info.namespaced:
        metadata["namespace"] = "default"
    return {**document, "metadata": metadata}


def cases(
    channel: Channel, number: int, swept: int, seed: int, written: Iterable[tuple[str, Object]]
) -> Iterator[Case]:
    """What is sent to one channel.

    What was judged differently before; the written objects as they are and at every version; `swept` of those with one
    scalar replaced; `number` with some random changes.
    """
    yield from regressions(channel)
    source = random.Random(f"{seed}-{channel}")
    bases: dict[tuple[str, str], list[Object]] = {}
    for origin, raw in written:
        document = placed(copy.deepcopy(raw))
        info = api.by_kind(api.group_of(document["apiVersion"]), document["kind"])
        assert info is not None
        for version in info.served_in(channel):
            versioned = {**document, "apiVersion": info.api_version_of(version)}
            base = {key: item for key, item in versioned.items() if key != "status"}
            yield Case(origin, "spec", base)
            bases.setdefault((info.kind, version), []).append(base)
            if "status" in document:
                yield Case(origin, "status", {**minimal(info, version), "status": document["status"]})
    for info in GATEWAY_KINDS:
        base = Generator(source).document(info, info.version)
        for version in sorted({*_UNSERVED, *info.served_versions}):
            yield Case("some version", "spec", {**base, "apiVersion": info.api_version_of(version)})
    for key, value in METADATA_CHANGES:
        info, version = source.choice(kinds_and_versions(channel))
        base = Generator(source).document(info, version)
        yield Case(f"metadata.{key}", "spec", {**base, "metadata": {**base["metadata"], key: value}})
    every = list(_swept(channel, source, bases))
    yield from source.sample(every, min(swept, len(every)))
    yield from _made(channel, number, source, bases)


def _swept(channel: Channel, source: random.Random, bases: dict[tuple[str, str], list[Object]]) -> Iterator[Case]:
    """Each scalar field of each kind with every telling value, at the first version that a channel serves."""
    generator = Generator(source)
    for info in GATEWAY_KINDS:
        for version in info.served_in(channel)[:1]:
            done: set[str] = set()
            rich = [generator.document(info, version, density=0.7) for _ in range(6)]
            for base in (*bases.get((info.kind, version), ())[:12], *rich):
                for change in sweep(base, "spec", done):
                    yield Case(change.told, "spec", change.document)
            if info.status_subresource:
                for _ in range(3):
                    full = {**minimal(info, version), "status": generator.status(info, version)}
                    for change in sweep(full, "status", done):
                        yield Case(change.told, "status", change.document)


def _made(
    channel: Channel, number: int, source: random.Random, bases: dict[tuple[str, str], list[Object]]
) -> Iterator[Case]:
    generator = Generator(source)
    choices = kinds_and_versions(channel)
    # Routes and Gateways have most of the rules.
    weights = [{"HTTPRoute": 5, "Gateway": 3}.get(info.kind, 2) for info, _ in choices]
    for _ in range(number):
        info, version = source.choices(choices, weights)[0]
        if info.status_subresource and source.random() < 0.15:
            yield _status_case(info, version, generator, source)
            continue
        known = bases.get((info.kind, version), [])
        base = source.choice(known) if known and source.random() < 0.5 else generator.document(info, version)
        if source.random() < 0.15:
            yield Case("generated", "spec", base)
            continue
        change = Mutator(source, "spec").mutate(base, source.choices((1, 2, 3), (6, 3, 1))[0])
        yield Case(change.told, "spec", change.document)


def _status_case(info: KindInfo, version: str, generator: Generator, source: random.Random) -> Case:
    document: Object = {**minimal(info, version), "status": generator.status(info, version)}
    change = Mutator(source, "status").mutate(document, source.choices((0, 1, 2), (2, 6, 2))[0])
    return Case(change.told or "generated", "status", change.document)


def minimal(info: KindInfo, version: str) -> Object:
    """The smallest valid object of a kind, for statuses to be written to."""
    backend = {"name": "s", "port": 80}
    rules: list[Any] = [{"backendRefs": [backend]}]
    specs: dict[str, Any] = {
        "GatewayClass": {"controllerName": "example.com/controller"},
        "Gateway": {"gatewayClassName": "c", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        "ListenerSet": {"parentRef": {"name": "g"}, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        "TLSRoute": {"hostnames": ["a.example.com"], "rules": rules},
        "BackendTLSPolicy": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "s"}],
            "validation": {"hostname": "a.example.com", "wellKnownCACertificates": "System"},
        },
        "XBackend": {
            "type": "ExternalHostname",
            "externalHostname": {"hostname": "a.example.com"},
            "port": {"number": 80},
        },
    }
    metadata = {"name": f"minimal-{version}"}
    if info.namespaced:
        metadata["namespace"] = "default"
    return {
        "apiVersion": info.api_version_of(version),
        "kind": info.kind,
        "metadata": metadata,
        "spec": specs.get(info.kind, {"rules": rules}),
    }
