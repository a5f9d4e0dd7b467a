"""Turns of the controller in a cluster, without a cluster and without proxies: what is published, and when."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from propylon import api
from propylon.app.cluster import ClusterOptions, ClusterRuntime
from propylon.app.cluster_addresses import parse_pool
from propylon.proxies.kubernetes import PARAMETERS_INFO
from propylon.proxies.settings import ProxySettings
from propylon.store.cluster import Change, Credentials
from propylon.store.cluster.credentials import BearerAuth, FixedToken
from propylon.xds import LDS, Acknowledged

OURS = "example.com/ours"
NODE = "shop/web"


class Cluster:
    """A runtime whose watches say what the test says, and whose proxies are never started."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        credentials = Credentials("http://127.0.0.1:1", None, BearerAuth(FixedToken(None)), "default")
        options = ClusterOptions(data_dir=directory, controller_name=OURS, address_pools=(parse_pool("127.9.0.0/24"),))
        self.said: list[str] = []
        self.runtime = ClusterRuntime(options, credentials, self.said.append)
        monkeypatch.setattr(self.runtime.data_plane.proxies, "ensure", _nothing)
        monkeypatch.setattr(self.runtime.data_plane.proxies, "remove", _nothing)
        # Ports of tests are taken by nobody, and need no rights.
        monkeypatch.setattr(self.runtime.data_plane.guard, "_probe", lambda *_: None)
        self.version = 0

    def complete(self) -> None:
        """Every kind was listed."""
        for reflector in self.runtime.watch._reflectors.values():
            reflector.synced = True
        self.runtime.surroundings.known = True

    def put(self, document: dict[str, Any]) -> None:
        """The object is so now."""
        self.version += 1
        metadata = {"namespace": "shop", "generation": 1, "uid": "u", "resourceVersion": str(self.version)}
        metadata["creationTimestamp"] = "2030-01-01T00:00:00Z"
        document = {**document, "metadata": {**metadata, **document["metadata"]}}
        raw = json.dumps(document).encode()
        found = api.decode(raw)
        self.runtime.watch._queue.append(Change(api.ref_of(found), found, raw))

    def delete(self, kind: str, name: str) -> None:
        self.runtime.watch._queue.append(Change(api.ObjectRef(api.GATEWAY_GROUP, kind, "shop", name), None, b""))

    def turn(self) -> None:
        self.runtime._turn()

    def conditions(self, kind: str, name: str, namespace: str = "shop") -> dict[str, tuple[str, str]]:
        """Status and reason by type, as they are wanted."""
        status = self.runtime.statuses.get(api.ObjectRef(api.GATEWAY_GROUP, kind, namespace, name), {})
        return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", ())}

    def addresses(self, name: str) -> list[str]:
        status = self.runtime.statuses.get(api.ObjectRef(api.GATEWAY_GROUP, "Gateway", "shop", name), {})
        return [address["value"] for address in status.get("addresses", ())]

    def acknowledge(self) -> None:
        """The proxy has everything that is desired now."""
        versions = {name: v for name, v in self.runtime.data_plane.xds.desired(NODE).items() if name[0] == LDS}
        self.runtime.data_plane._xds_event(Acknowledged(NODE, 1, versions, True))


async def _nothing(*_arguments: Any) -> None:
    pass


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Cluster], None]], None]:
    """Run a function with a cluster inside an event loop."""

    def run(scenario: Callable[[Cluster], None]) -> None:
        async def inside() -> None:
            scenario(Cluster(tmp_path, monkeypatch))

        asyncio.run(inside())

    return run


def gateway_class(name: str = "ours", controller: str = OURS) -> dict[str, Any]:
    return {
        "apiVersion": f"{api.GATEWAY_GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name, "namespace": ""},
        "spec": {"controllerName": controller},
    }


def gateway(name: str = "web", class_name: str = "ours", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{api.GATEWAY_GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": name, **metadata},
        "spec": {"gatewayClassName": class_name, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    }


Play = Callable[[Callable[[Cluster], None]], None]


def test_nothing_is_published_before_every_kind_was_listed(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.put(gateway_class())
        cluster.put(gateway())
        cluster.turn()
        assert cluster.runtime.statuses == {}
        assert cluster.runtime.data_plane.xds.nodes == ()
        cluster.complete()
        cluster.turn()
        assert cluster.conditions("GatewayClass", "ours", "")["Accepted"] == ("True", "Accepted")
        assert cluster.conditions("Gateway", "web")["Accepted"] == ("True", "Accepted")
        assert cluster.runtime.data_plane.xds.nodes == (NODE,)

    play(scenario)


def test_programmed_is_said_when_acknowledged_and_never_for_a_listener_that_just_changed(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.complete()
        cluster.put(gateway_class())
        cluster.put(gateway())
        cluster.turn()
        assert cluster.conditions("Gateway", "web")["Programmed"][0] != "True"
        cluster.acknowledge()
        cluster.turn()
        assert cluster.conditions("Gateway", "web")["Programmed"] == ("True", "Programmed")
        wanted: list[Any] = []
        cluster.runtime.writer.want = lambda ref, status: wanted.append((ref, status))  # type: ignore[method-assign]
        moved = gateway(generation=2)
        moved["spec"]["addresses"] = [{"type": "IPAddress", "value": "127.9.0.55"}]
        cluster.put(moved)
        cluster.turn()
        programmed = [
            (condition["observedGeneration"], condition["status"])
            for _, status in wanted
            for condition in status["conditions"]
            if condition["type"] == "Programmed"
        ]
        assert programmed
        assert (2, "True") not in programmed

    play(scenario)


def test_only_gateways_of_our_classes_get_addresses_and_lose_them_with_the_class(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.complete()
        cluster.put(gateway_class())
        cluster.put(gateway_class("theirs", "example.com/theirs"))
        cluster.put(gateway("another", "theirs"))
        cluster.put(gateway())
        cluster.turn()
        assert cluster.addresses("web") == ["127.9.0.1"]
        assert cluster.conditions("Gateway", "another") == {}
        cluster.put(gateway_class("theirs", OURS))
        cluster.turn()
        assert cluster.addresses("another") == ["127.9.0.2"]
        assert cluster.addresses("web") == ["127.9.0.1"]
        cluster.put(gateway_class("theirs", "example.com/theirs"))
        cluster.turn()
        assert cluster.addresses("another") == []

    play(scenario)


def test_a_restart_gives_a_gateway_the_address_its_status_tells(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.complete()
        cluster.put(gateway_class())
        cluster.put({**gateway(), "status": {"addresses": [{"type": "IPAddress", "value": "127.9.0.77"}]}})
        cluster.turn()
        assert cluster.addresses("web") == ["127.9.0.77"]

    play(scenario)


def test_our_own_writes_start_no_computation(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.complete()
        cluster.put(gateway_class())
        cluster.put(gateway())
        cluster.turn()
        commits: list[bool] = []
        commit = cluster.runtime.controller.commit

        def observed() -> Any:
            outcome = commit()
            commits.append(bool(outcome.resources or outcome.statuses or outcome.gateways))
            return outcome

        cluster.runtime.controller.commit = observed  # type: ignore[method-assign]
        status = cluster.runtime.statuses[api.ObjectRef(api.GATEWAY_GROUP, "Gateway", "shop", "web")]
        written = [{**c, "lastTransitionTime": "2030-01-01T00:00:00Z"} for c in status["conditions"]]
        cluster.put({**gateway(), "status": {"conditions": written}})
        cluster.turn()
        assert commits
        assert not any(commits)

    play(scenario)


def test_an_unreadable_object_keeps_its_last_state_and_is_told(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.complete()
        cluster.put(gateway_class())
        cluster.put(gateway())
        cluster.turn()
        error = api.DecodeError("Expected 'array', got 'str'", "spec.listeners")
        ref = api.ObjectRef(api.GATEWAY_GROUP, "Gateway", "shop", "web")
        cluster.runtime.watch._queue.append(Change(ref, None, b'{"metadata":{"name":"web"}}', error))
        cluster.turn()
        assert cluster.addresses("web") == ["127.9.0.1"]
        assert any("Gateway shop/web" in line and "spec.listeners" in line for line in cluster.said)

    play(scenario)


def test_a_gateway_that_is_gone_takes_its_proxy_with_it(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.complete()
        cluster.put(gateway_class())
        cluster.put(gateway())
        cluster.turn()
        cluster.delete("Gateway", "web")
        cluster.turn()
        assert cluster.runtime.data_plane.xds.nodes == ()
        assert cluster.conditions("Gateway", "web") == {}

    play(scenario)


# --- objects in the cluster -------------------------------------------------------------------------------------------

KEY = api.ObjectKey("shop", "web")
CLUSTER_IP = {"type": "IPAddress", "routability": "Cluster"}


def lead(cluster: Cluster) -> None:
    cluster.complete()
    cluster.runtime.surroundings.channel = "experimental"
    cluster.runtime.surroundings.service_ranges = (parse_pool("10.96.0.0/16"),)
    cluster.runtime._lead(True)
    cluster.put(gateway_class())


def planned(cluster: Cluster, kind: str) -> dict[str, Any]:
    plan = cluster.runtime.applier._plans[KEY]
    (found,) = [document for document in plan.documents or () if document["kind"] == kind]
    return found


def requesting(*requests: dict[str, str]) -> dict[str, Any]:
    document = gateway()
    return {**document, "spec": {**document["spec"], "addresses": list(requests)}}


def routability(cluster: Cluster) -> list[tuple[str, str]]:
    status = cluster.runtime.statuses[api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *KEY)]
    return [(address["value"], address["routability"]) for address in status["addresses"]]


def test_who_leads_makes_a_service_of_every_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path, monkeypatch)
        lead(cluster)
        cluster.runtime._lead(False)
        cluster.put(gateway())
        cluster.turn()
        assert not cluster.runtime.applier._plans
        assert not cluster.runtime.applier.enabled
        cluster.runtime._lead(True)
        cluster.turn()
        assert cluster.runtime.applier.enabled
        service = planned(cluster, "Service")
        assert [port["port"] for port in service["spec"]["ports"]] == [80]
        # 127.9.0.1 is of this machine alone: nobody in the cluster is led there.
        assert [d["kind"] for d in cluster.runtime.applier._plans[KEY].documents or ()] == ["Service"]
        cluster.delete("Gateway", "web")
        cluster.turn()
        assert not cluster.runtime.applier._plans

    asyncio.run(scenario())


def test_a_cluster_ip_is_an_address_for_who_asks_for_one(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        lead(cluster)
        cluster.put(requesting(CLUSTER_IP))
        cluster.turn()
        assert cluster.conditions("Gateway", "web")["Programmed"] == ("False", "AddressNotAssigned")
        assert cluster.conditions("Gateway", "web")["AddressesAssigned"] == ("False", "NotAssigned")
        service = planned(cluster, "Service")
        cluster.put({**service, "spec": {**service["spec"], "clusterIPs": ["10.96.0.9"]}})
        cluster.turn()
        assert routability(cluster) == [("10.96.0.9", "Cluster")]
        assert cluster.conditions("Gateway", "web")["AddressesAssigned"] == ("True", "AddressesAssigned")
        cluster.put(requesting({"type": "IPAddress"}, CLUSTER_IP))
        cluster.turn()
        assert routability(cluster) == [("127.9.0.1", ""), ("10.96.0.9", "Cluster")]
        cluster.put(gateway())
        cluster.turn()
        assert routability(cluster) == [("127.9.0.1", "")], "who asks for nothing is not told of it"

    play(scenario)


def test_a_cluster_ip_of_ones_own_choice(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        lead(cluster)
        cluster.put(requesting({**CLUSTER_IP, "value": "10.96.0.5"}))
        cluster.turn()
        service = planned(cluster, "Service")
        assert service["spec"]["clusterIP"] == "10.96.0.5"
        cluster.put({**service, "spec": {**service["spec"], "clusterIPs": ["10.96.0.5"]}})
        cluster.turn()
        assert routability(cluster) == [("10.96.0.5", "Cluster")]

    play(scenario)


def test_no_address_outside_the_services_range_counts_as_a_cluster_ip(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        lead(cluster)
        cluster.put(requesting({**CLUSTER_IP, "value": "198.51.100.1"}, {"type": "IPAddress"}))
        cluster.turn()
        service = planned(cluster, "Service")
        assert "clusterIP" not in service["spec"]
        cluster.put({**service, "spec": {**service["spec"], "clusterIPs": ["10.96.0.7"]}})
        cluster.turn()
        assert routability(cluster) == [("127.9.0.1", "")]
        assert cluster.conditions("Gateway", "web")["AddressesAssigned"] == ("False", "PartiallyAssigned")
        cluster.put(requesting({**CLUSTER_IP, "value": "198.51.100.1"}))
        cluster.turn()
        assert routability(cluster) == []
        assert cluster.conditions("Gateway", "web")["AddressesAssigned"] == ("False", "NotAssigned")
        assert cluster.conditions("Gateway", "web")["Programmed"][0] == "False"

    play(scenario)


def test_an_object_that_somebody_deletes_is_applied_again(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        lead(cluster)
        cluster.put(gateway())
        cluster.turn()
        cluster.put(planned(cluster, "Service"))
        cluster.turn()
        cluster.runtime.applier._queue.clear()
        name = planned(cluster, "Service")["metadata"]["name"]
        cluster.runtime.watch._queue.append(Change(api.ObjectRef("", "Service", "shop", name), None, b""))
        cluster.turn()
        assert KEY in cluster.runtime.applier._queue

    play(scenario)


def test_parameters_are_what_the_process_runs_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ProxySettings] = []

    async def ensure(_node: str, settings: ProxySettings) -> None:
        started.append(settings)

    def parameters(**spec: Any) -> Change:
        document = {
            "apiVersion": PARAMETERS_INFO.api_version,
            "kind": "GatewayParameters",
            "metadata": {"name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
            "spec": spec,
        }
        raw = json.dumps(document).encode()
        found = api.decode_as(PARAMETERS_INFO, raw, PARAMETERS_INFO.version)
        ref = api.ObjectRef(PARAMETERS_INFO.group, "GatewayParameters", "shop", "p")
        return Change(ref, found, raw)

    async def scenario() -> None:
        cluster = Cluster(tmp_path, monkeypatch)
        monkeypatch.setattr(cluster.runtime.data_plane.proxies, "ensure", ensure)
        lead(cluster)
        document = gateway()
        reference = {"group": PARAMETERS_INFO.group, "kind": "GatewayParameters", "name": "p"}
        document["spec"]["infrastructure"] = {"parametersRef": reference}
        cluster.put(document)
        cluster.turn()
        assert cluster.conditions("Gateway", "web")["Accepted"] == ("False", "InvalidParameters")
        cluster.runtime.watch._queue.append(parameters(concurrency=3))
        cluster.turn()
        assert cluster.conditions("Gateway", "web")["Accepted"] == ("True", "Accepted")
        await asyncio.sleep(0)
        assert [(s.concurrency, s.log_level) for s in started] == [(3, "warning")]
        cluster.turn()
        cluster.runtime.watch._queue.append(parameters(concurrency=3, logLevel="debug"))
        cluster.turn()
        await asyncio.sleep(0)
        assert [(s.concurrency, s.log_level) for s in started[1:]] == [(3, "debug")]
        cluster.runtime.watch._queue.append(parameters(concurrency=300))
        cluster.turn()
        assert cluster.conditions("Gateway", "web")["Accepted"] == ("False", "InvalidParameters")

    asyncio.run(scenario())


def test_readiness_is_having_published(play: Play) -> None:
    def scenario(cluster: Cluster) -> None:
        cluster.turn()
        assert "Gateway" in cluster.runtime._unready()
        cluster.complete()
        cluster.runtime._published = True
        assert cluster.runtime._unready() == ""
        cluster.runtime._stopping.set()
        assert cluster.runtime._unready() == "stopping"

    play(scenario)
