"""kill -9 under a writing load: 8 HTTP clients write, the process is killed at a random moment and started again.

Afterwards every acknowledged write is there, what was not acknowledged is there whole or not at all, versions never
went back, none was given twice for different things, and watches that go on from where they were miss nothing.

PROPYLON_KILLS is how often (default 4, `make kill` 200), PROPYLON_KILL_SEED repeats what a failure printed.
"""

import http.client
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from support.api_client import ApiClient
from support.instance import Instance, eventually

pytestmark = pytest.mark.feature

CLIENTS = 8
NAMES = 6
KILLS = int(os.environ.get("PROPYLON_KILLS", "4"))
SEED = int(os.environ.get("PROPYLON_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
COUNTER = "counter"
GONE = None
"""What an object that does not exist holds."""

Held = str | None


class History:
    """What was said by the server, by whatever means: which version held what. Shared by all threads of a test."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.said: dict[int, tuple[str, Held]] = {}
        self.newest = 0
        self.wrong: list[str] = []
        self.failed = threading.Event()

    def note(self, version: int, name: str, held: Held) -> None:
        """A version that the server gave to a state of an object."""
        with self._lock:
            before = self.said.setdefault(version, (name, held))
            self.newest = max(self.newest, version)
        if before != (name, held):
            self.complain(f"version {version} is {before} and {(name, held)}")

    def complain(self, text: str) -> None:
        with self._lock:
            self.wrong.append(text)
            self.failed.set()


def state(document: dict[str, Any]) -> str:
    return json.dumps(document.get("data", {}), sort_keys=True)


def version_of(document: dict[str, Any]) -> int:
    return int(document["metadata"]["resourceVersion"])


class Writer(threading.Thread):
    """A client that writes objects of its own, and counts in one that all share, until the server goes away.

    `held` is what its objects hold by what was acknowledged; `pending` what one of them may hold instead.
    """

    def __init__(self, number: int, client: ApiClient, chance: random.Random, history: History) -> None:
        super().__init__(daemon=True)
        self.number, self.client, self.chance, self.history = number, client, chance, history
        self.held: dict[str, Held] = {f"c{number}-{index}": GONE for index in range(NAMES)}
        self.pending: tuple[str, Held] | None = None
        self.acknowledged = 0
        self.serial = 0
        self.counted = 0

    def run(self) -> None:
        try:
            while True:
                if self.chance.random() < 0.15:
                    self._count()
                else:
                    self._write()
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            self.client.close()  # killed, perhaps in the middle of an answer

    def _write(self) -> None:
        self.serial += 1
        name = self.chance.choice(sorted(self.held))
        data = {"n": f"{self.number}.{self.serial}", "filling": "x" * self.chance.randrange(3000)}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        path = f"{CONFIG_MAPS}/{name}"
        wanted: Held = json.dumps(data, sort_keys=True)
        if self.held[name] is GONE:
            way = self.chance.choice(("create", "apply"))
        else:
            way = self.chance.choice(("update", "merge", "apply", "delete"))
        self.pending = (name, GONE if way == "delete" else wanted)
        match way:
            case "create":
                code, answered = self.client.ask("POST", CONFIG_MAPS, body)
            case "update":
                code, answered = self.client.ask("PUT", path, body)
            case "merge":
                code, answered = self.client.ask("PATCH", path, {"data": data}, MERGE)
            case "apply":
                code, answered = self.client.ask("PATCH", f"{path}?fieldManager=me&force=true", body, APPLY)
            case _:
                code, answered = self.client.ask("DELETE", path)
        if code not in (200, 201):
            self.history.complain(f"{way} {name}: {code} {answered}")
            return
        if way != "delete":
            if state(answered) != wanted:
                self.history.complain(f"{way} {name} answered {state(answered)[:200]}")
            self.history.note(version_of(answered), name, state(answered))
        self.held[name] = self.pending[1]
        self.pending = None
        self.acknowledged += 1

    def _count(self) -> None:
        """Add one to the shared counter, if nobody else did since it was read."""
        _, document = self.client.ask("GET", f"{CONFIG_MAPS}/{COUNTER}")
        count = int(document["data"]["count"])
        document["data"] = {"count": str(count + 1)}
        code, answered = self.client.ask("PUT", f"{CONFIG_MAPS}/{COUNTER}", document)
        if code == 200:
            self.history.note(version_of(answered), COUNTER, state(answered))
            self.counted += 1
            self.acknowledged += 1
        elif code != 409:
            self.history.complain(f"counting: {code} {answered}")


class Watcher(threading.Thread):
    """A client that watches from a version on until the server goes away."""

    def __init__(self, client: ApiClient, since: int, history: History) -> None:
        super().__init__(daemon=True)
        self.client, self.history = client, history
        self.newest = since
        self.since = since
        self.seen: list[tuple[int, str, str, Held]] = []
        self.until: int | None = None

    def run(self) -> None:
        path = f"{CONFIG_MAPS}?watch=1&resourceVersion={self.since}&timeoutSeconds=600"
        try:
            for event in self.client.events(path):
                if event["type"] == "ERROR":
                    self.history.complain(f"the watch from {self.since} was refused: {event['object']}")
                    return
                self._take(event["type"], event["object"])
                if self.until is not None and self.newest >= self.until:
                    return
        except (OSError, http.client.HTTPException, json.JSONDecodeError, ValueError):
            pass  # killed

    def _take(self, kind: str, document: dict[str, Any]) -> None:
        version, name = version_of(document), document["metadata"]["name"]
        if version <= self.newest:
            self.history.complain(f"the watch went from {self.newest} to {version}")
        held = GONE if kind == "DELETED" else state(document)
        self.newest = version
        self.history.note(version, name, held)
        self.seen.append((version, kind, name, held))


def replay(client: ApiClient, since: int, until: int, history: History) -> list[tuple[int, str, str, Held]]:
    """What a watch from `since` tells, up to `until`."""
    watcher = Watcher(client, since, history)
    watcher.until = until
    if until > since:
        watcher.start()
        watcher.join(30)
        assert not watcher.is_alive(), f"the watch from {since} says nothing of {until}"
    return watcher.seen


class Story:
    """Kill after kill of one instance, and what was found each time it came back."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance, self.directory = instance, directory
        self.kubeconfig = directory / "data" / "kubeconfig"
        self.history = History()
        self.chance = random.Random(SEED)
        self.writers: list[Writer] = []
        self.watcher: Watcher | None = None
        self.since = 0
        self.acknowledged = self.kept = self.counted = self.clients = 0

    def client(self) -> ApiClient:
        self.clients += 1
        return ApiClient(self.kubeconfig, self.directory / f"keys-{self.clients % 32}")

    def answering(self) -> ApiClient:
        """A client of the server, once that answers."""

        def probe() -> ApiClient:
            found = self.client()
            assert found.ask("GET", "/version")[0] == 200
            return found

        try:
            return eventually(probe, "the Kubernetes API answers", 90)
        except AssertionError as error:
            assert self.instance.process is not None
            ended = self.instance.process.poll()
            raise AssertionError(f"{error}\nexit code {ended}; it said: {self.instance.output()[-3000:]}") from error

    def begin(self) -> None:
        counter = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": COUNTER}, "data": {"count": "0"}}
        code, made = self.answering().ask("POST", CONFIG_MAPS, counter)
        assert code == 201
        self.since = version_of(made)
        self.history.note(self.since, COUNTER, state(made))
        self.writers = [Writer(index, self.client(), self.chance, self.history) for index in range(CLIENTS)]

    def kill_under_load(self) -> None:
        former = self.writers
        self.writers = [
            Writer(index, self.client(), random.Random(self.chance.random()), self.history) for index in range(CLIENTS)
        ]
        for writer, before in zip(self.writers, former, strict=True):
            writer.held, writer.serial = before.held, before.serial
        self.watcher = Watcher(self.client(), self.since, self.history)
        for client in (self.watcher, *self.writers):
            client.start()
        self.history.failed.wait(self.chance.uniform(0.02, 0.8))  # the moment is what is random here
        self.instance.kill()
        for client in (self.watcher, *self.writers):
            client.join(30)
            assert not client.is_alive()
        self.instance.start()

    def check(self, said: str) -> None:
        reader = self.answering()
        assert not self.history.wrong, f"{said}: {self.history.wrong[:3]}"
        _, listed = reader.ask("GET", CONFIG_MAPS)
        found = {item["metadata"]["name"]: item for item in listed["items"]}
        for item in listed["items"]:
            self.history.note(version_of(item), item["metadata"]["name"], state(item))
        self._check_objects({name: state(item) for name, item in found.items()}, said)
        # Each client may have had one more increment on its way.
        count = int(found[COUNTER]["data"]["count"])
        self.counted += sum(writer.counted for writer in self.writers)
        assert self.counted <= count <= self.counted + CLIENTS, said
        self.counted = count
        newest = version_of(listed)
        assert newest >= self.history.newest, f"{said}: versions went back from {self.history.newest} to {newest}"
        self._check_watches(reader, newest, said)
        assert not self.history.wrong, f"{said}: {self.history.wrong[:3]}"
        self.since = newest
        reader.close()

    def _check_objects(self, present: dict[str, Held], said: str) -> None:
        """What was acknowledged is there; what was pending is there whole or not at all."""
        for writer in self.writers:
            for name, expected in writer.held.items():
                actual = present.get(name, GONE)
                if actual != expected and writer.pending == (name, actual):
                    self.kept += 1
                else:
                    assert actual == expected, f"{said}: {name}"
            writer.held = {name: present.get(name, GONE) for name in writer.held}
            self.acknowledged += writer.acknowledged

    def _check_watches(self, reader: ApiClient, newest: int, said: str) -> None:
        """From the beginning of the round, and from where the watcher was: the same, and without a gap."""
        assert self.watcher is not None
        seen = self.watcher.seen
        whole = replay(reader, self.since, self.history.newest, self.history)
        assert whole[: len(seen)] == seen, said
        assert replay(reader, self.watcher.newest, self.history.newest, self.history) == whole[len(seen) :], said
        told = {version: (name, held) for version, _, name, held in whole}
        given = {version: what for version, what in self.history.said.items() if self.since < version <= newest}
        missing = {version: what for version, what in given.items() if told.get(version) != what}
        assert not missing, f"{said}: the watch left out {missing}"


def test_kill_9_under_a_writing_load_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Instance(tmp_path, "--api-port", "0") as instance:
        story = Story(instance, tmp_path)
        story.begin()
        for number in range(1, KILLS + 1):
            story.kill_under_load()
            story.check(f"seed {SEED}, kill {number}")
    told = f"{story.acknowledged} acknowledged writes, of the pending ones {story.kept} were kept"
    with capsys.disabled():
        print(f"\n{KILLS} kills, seed {SEED}: {told}")
    assert story.acknowledged > KILLS
