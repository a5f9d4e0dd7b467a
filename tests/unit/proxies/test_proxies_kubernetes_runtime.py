"""The controller of a cluster with pods, fed by hand: what it plans, which addresses it reads back, who may write."""

import asyncio
import base64
import datetime as dt
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from propylon import api
from propylon.app.acknowledgements import NodeSaid, Source
from propylon.app.cluster import ClusterOptions
from propylon.app.cluster_addresses import parse_pool
from propylon.app.cluster_authority import AUTHORITY_NAME, AuthorityStore, Identities
from propylon.app.cluster_proxies import KubernetesRuntime, build_pod_options
from propylon.proxies.kubernetes import PARAMETERS_INFO
from propylon.proxies.kubernetes.apply import Plan
from propylon.proxies.kubernetes.authority import AUTHORITY_DAYS, identity, make_authority, usable
from propylon.proxies.kubernetes.names import base_name
from propylon.status import EXPERIMENTAL_FEATURES, SUPPORTED_FEATURES
from propylon.status.features import OPTIONAL_KINDS
from propylon.store.cluster import Change, Credentials, Leader, ResourcePath
from propylon.store.cluster.credentials import BearerAuth, FixedToken
from propylon.xds import LDS, Acknowledged, Connected, Event
from support.scripted_api import Request, serving

OURS = "propylon.dev/gateway-controller"
KEY = api.ObjectKey("shop", "web")
NOW = dt.datetime.now(dt.UTC)
Document = dict[str, Any]
_versions = itertools.count(1)


class Cluster:
    """A runtime that knows its whole world and leads, but for what a test takes back."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.runtime = KubernetesRuntime(
            ClusterOptions(data_dir=tmp_path / "data", controller_name=OURS),
            build_pod_options("propylon-system", **options),
            Credentials("http://127.0.0.1:1", None, BearerAuth(FixedToken(None)), "propylon-system"),
            lambda _line: None,
        )
        for reflector in self.runtime.watch._reflectors.values():
            reflector.synced = True
        self.runtime.surroundings.known = True
        self.runtime.surroundings.channel = "experimental"
        self.runtime._published = True
        self.runtime.identities.renew((make_authority(NOW),))
        self.runtime._lead(True)
        self.put(gateway_class())

    def put(self, document: Document) -> None:
        """An object comes or changes; what follows from it is computed."""
        group, _, version = document["apiVersion"].rpartition("/")
        metadata = document["metadata"]
        ref = api.ObjectRef(group, document["kind"], metadata.get("namespace", ""), metadata["name"])
        info = PARAMETERS_INFO if ref.kind == "GatewayParameters" else api.by_kind(group, ref.kind)
        assert info is not None
        raw = json.dumps({**document, "metadata": {**metadata, "resourceVersion": str(next(_versions))}}).encode()
        try:
            self.feed(Change(ref, api.decode_as(info, raw, version), raw))
        except api.DecodeError as error:
            self.feed(Change(ref, None, raw, error))

    def delete(self, group: str, kind: str, namespace: str, name: str) -> None:
        self.feed(Change(api.ObjectRef(group, kind, namespace, name), None, b""))

    def feed(self, change: Change) -> None:
        self.runtime.watch._emit([change])
        self.turn()

    def turn(self) -> None:
        async def turns() -> None:
            self.runtime._turn()
            self.runtime._turn()  # what was read back is planned with

        asyncio.run(turns())

    @property
    def plan(self) -> Plan | None:
        return self.runtime.applier._plans.get(KEY)

    def planned(self, kind: str) -> Document:
        assert self.plan is not None
        assert self.plan.documents is not None
        (found,) = [document for document in self.plan.documents if document["kind"] == kind]
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        status = self.runtime.statuses[api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *KEY)]
        (found,) = [condition for condition in status["conditions"] if condition["type"] == kind]
        return found["status"], found["reason"]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def gateway_class(**spec: Any) -> Document:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "propylon"},
        "spec": {"controllerName": OURS, **spec},
    }


def gateway(*ports: int, **spec: Any) -> Document:
    listeners = [{"name": f"p{port}", "port": port, "protocol": "HTTP"} for port in ports or (80,)]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"gatewayClassName": "propylon", "listeners": listeners, **spec},
    }


def service(planned: Document, *addresses: str, owner: str = "u-1") -> Document:
    metadata = planned["metadata"]
    owners = [{**metadata["ownerReferences"][0], "uid": owner}]
    ingress = [{"ip": address} for address in addresses]
    return {
        **planned,
        "metadata": {**metadata, "ownerReferences": owners},
        "spec": {**planned["spec"], "ipFamilies": ["IPv4"]},
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def endpoint_slice(planned: Document, name: str = "one", *, ready: bool) -> Document:
    service_name = planned["metadata"]["name"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {**planned["metadata"]["labels"], "kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.7"], "conditions": {"ready": ready}}],
    }


def parameters(name: str = "p", namespace: str = "shop", **spec: Any) -> Document:
    return {
        "apiVersion": PARAMETERS_INFO.api_version,
        "kind": "GatewayParameters",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


REF = {"group": "propylon.dev", "kind": "GatewayParameters", "name": "p"}


def test_a_gateway_becomes_objects_and_its_services_address_becomes_its_own(cluster: Cluster) -> None:
    cluster.put(gateway(80, 8080))
    assert [port["port"] for port in cluster.planned("Service")["spec"]["ports"]] == [80, 8080]
    assert cluster.condition("Programmed") == ("False", "AddressNotAssigned")
    cluster.put(service(cluster.planned("Service"), "192.0.2.5"))
    status = cluster.runtime.statuses[api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *KEY)]
    assert status["addresses"] == [{"type": "IPAddress", "value": "192.0.2.5", "routability": ""}]
    assert cluster.condition("Programmed") == ("False", "Pending")
    cluster.put(endpoint_slice(cluster.planned("Service"), ready=True))
    assert cluster.condition("Programmed") == ("Unknown", "Pending")
    ports = cluster.runtime.controller.graph.ports
    assert {(key.port, port.bound_port, port.addresses) for key, port in ports.items()} == {
        (80, 80, ("0.0.0.0",)),
        (8080, 8080, ("0.0.0.0",)),
    }


def test_a_gateway_without_a_ready_proxy_is_not_programmed(cluster: Cluster) -> None:
    cluster.put(gateway())
    cluster.put(service(cluster.planned("Service"), "192.0.2.5"))
    cluster.put(endpoint_slice(cluster.planned("Service"), ready=True))
    assert cluster.condition("Programmed")[0] == "Unknown"
    cluster.put(endpoint_slice(cluster.planned("Service"), ready=False))
    assert cluster.condition("Programmed") == ("False", "Pending")
    cluster.put(endpoint_slice(cluster.planned("Service"), "two", ready=True))
    assert cluster.condition("Programmed")[0] == "Unknown"
    cluster.delete("discovery.k8s.io", "EndpointSlice", "shop", "two")
    assert cluster.condition("Programmed") == ("False", "Pending")


def test_a_service_that_belongs_to_somebody_else_is_not_believed(cluster: Cluster) -> None:
    cluster.put(gateway())
    cluster.put(service(cluster.planned("Service"), "192.0.2.5", owner="another"))
    assert cluster.condition("Programmed") == ("False", "AddressNotAssigned")


def test_what_cannot_be_applied_is_said_in_the_status(cluster: Cluster) -> None:
    cluster.put(gateway())
    cluster.runtime.objects.obstructed(KEY, "Service shop/web-propylon exists")
    cluster.turn()
    assert cluster.condition("Programmed") == ("False", "NoResources")
    cluster.runtime.objects.obstructed(KEY, "")
    cluster.turn()
    assert cluster.condition("Programmed") == ("False", "AddressNotAssigned")


def test_parameters_of_gateway_and_class(cluster: Cluster) -> None:
    cluster.put(parameters("of-class", "propylon-system", replicas=2, logLevel="info"))
    cluster.put(gateway_class(parametersRef={**REF, "name": "of-class", "namespace": "propylon-system"}))
    cluster.put(gateway(infrastructure={"parametersRef": REF}))
    assert cluster.condition("Accepted") == ("False", "InvalidParameters")
    assert cluster.plan == Plan("u-1", None)
    cluster.put(parameters(replicas=3))
    assert cluster.condition("Accepted") == ("True", "Accepted")
    deployment = cluster.planned("Deployment")["spec"]
    arguments = deployment["template"]["spec"]["containers"][0]["args"]
    assert (deployment["replicas"], arguments[arguments.index("--log-level") + 1]) == (3, "info")
    cluster.put(parameters(logLevel="chatty"))
    assert cluster.condition("Accepted") == ("False", "InvalidParameters")
    assert cluster.plan == Plan("u-1", None)  # what runs goes on
    cluster.put(parameters(replicas="many"))
    assert cluster.condition("Accepted") == ("False", "InvalidParameters")
    cluster.put(parameters())
    assert cluster.planned("Deployment")["spec"]["replicas"] == 2


def test_a_class_with_parameters_that_do_not_exist(cluster: Cluster) -> None:
    cluster.put(gateway())
    assert cluster.plan is not None
    assert cluster.plan.documents is not None
    cluster.put(gateway_class(parametersRef={**REF, "namespace": "nowhere"}))
    assert cluster.plan == Plan("u-1", None)
    status = cluster.runtime.statuses[api.ObjectRef(api.GATEWAY_GROUP, "GatewayClass", "", "propylon")]
    assert (status["conditions"][0]["status"], status["conditions"][0]["reason"]) == ("False", "InvalidParameters")


def test_what_happens_to_the_objects_of_a_gateway_that_goes(cluster: Cluster) -> None:
    cluster.put(gateway())
    cluster.delete(api.GATEWAY_GROUP, "GatewayClass", "", "propylon")
    assert cluster.plan == Plan("u-1", None)  # it may come back
    foreign = gateway_class()
    foreign["spec"]["controllerName"] = "example.com/other"
    cluster.put(foreign)
    assert cluster.plan is None
    cluster.put(gateway_class())
    assert cluster.plan is not None
    cluster.delete(api.GATEWAY_GROUP, "Gateway", *KEY)
    assert cluster.plan is None


def test_only_who_leads_plans_and_writes(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.runtime._lead(False)
    cluster.put(gateway())
    assert cluster.plan is None
    assert not cluster.runtime.applier.enabled
    cluster.runtime._lead(True)
    cluster.turn()
    assert cluster.plan is not None
    assert cluster.runtime.applier.enabled


def test_a_new_leader_waits_for_proxies_before_it_writes_statuses_about_them(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    runtime = cluster.runtime
    runtime._lead(False)
    programmed = {"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""}
    stamped = {**programmed, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    cluster.put({**gateway(), "status": {"conditions": [stamped]}})
    runtime._lead(True)
    cluster.turn()
    assert runtime.applier.enabled
    assert not runtime._writing
    pod_event(runtime, Connected("shop/web", 1, first=True))
    cluster.turn()
    assert not runtime._writing, "it may still have what was wanted before"
    pod_event(runtime, Acknowledged("shop/web", 1, {(LDS, "tcp/80"): "v"}, True))
    cluster.turn()
    assert runtime._writing


def pod_event(runtime: KubernetesRuntime, event: Event) -> None:
    runtime.data_plane._pod_event(event)


def test_proxies_that_another_replica_has_are_not_waited_for(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    runtime = cluster.runtime
    runtime._lead(False)
    programmed = {"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""}
    cluster.put({**gateway(), "status": {"conditions": [{**programmed, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    runtime._lead(True)
    cluster.turn()
    assert not runtime._writing
    other = Source()
    other.take(NodeSaid("shop/web", True, ((LDS, "tcp/80", "v"),)))
    runtime.data_plane.acknowledgements.replace("other", other)
    cluster.turn()
    assert runtime._writing


def serve(secrets: dict[str, Document], tmp_path: Path, name: str, steps: Callable[[KubernetesRuntime], Any]) -> None:
    """Let a replica whose world is known serve, with this API server."""

    runtime = Cluster(tmp_path / name, xds_listen="127.0.0.1:0", pod_ip="127.0.0.1").runtime
    runtime._lead(False)

    async def main() -> None:
        async with serving(authority_api(secrets)) as client:
            runtime.authority_store = AuthorityStore(client, "propylon-system")
            runtime._turn()
            try:
                await steps(runtime)
            finally:
                await runtime.data_plane.stop()

    asyncio.run(main())


def test_a_follower_serves_when_there_is_an_authority_and_never_makes_one(tmp_path: Path) -> None:
    secrets: dict[str, Document] = {}

    async def follows(runtime: KubernetesRuntime) -> None:
        runtime.data_plane.reporter.is_introduced = True
        assert not await runtime._keep_serving()
        assert secrets == {}
        assert runtime._unready() == "not serving proxies yet"

    async def leads(runtime: KubernetesRuntime) -> None:
        runtime._lead(True)
        runtime._tidied = True
        assert await runtime._keep_serving()

    async def follows_nobody(runtime: KubernetesRuntime) -> None:
        runtime.election.leader = Leader("the process before this one", runtime.pods.own_address)
        runtime._follow(runtime.election.leader)
        assert await runtime._keep_serving()

    async def follows_then(runtime: KubernetesRuntime) -> None:
        assert not await runtime._keep_serving(), "the leader has not said yet what is large"
        runtime.data_plane.reporter.is_introduced = True
        assert await runtime._keep_serving()
        assert runtime.data_plane.serving
        assert runtime._unready() == ""
        runtime._lead(True)
        runtime._lead(False)
        assert runtime.data_plane.serving

    serve(secrets, tmp_path, "one", follows)
    serve(secrets, tmp_path, "two", leads)
    before = json.dumps(secrets)
    serve(secrets, tmp_path, "three", follows_then)
    serve(secrets, tmp_path, "four", follows_nobody)
    assert json.dumps(secrets) == before


def test_a_replica_that_nobody_could_hear_of_serves_only_while_it_leads(tmp_path: Path) -> None:
    runtime = Cluster(tmp_path).runtime
    runtime._turn()
    assert runtime._serves
    runtime._lead(False)
    assert not runtime._serves
    assert runtime._unready() == ""


def claimed(cluster: Cluster) -> list[str]:
    status = cluster.runtime.statuses[api.ObjectRef(api.GATEWAY_GROUP, "GatewayClass", "", "propylon")]
    return [feature["name"] for feature in status["supportedFeatures"]]


def test_what_the_surroundings_rule_out_is_not_claimed(cluster: Cluster) -> None:
    served = ResourcePath("/apis/certificates.k8s.io/v1beta1", "v1beta1", "clustertrustbundles")
    optional = {name for name in SUPPORTED_FEATURES if name.startswith(OPTIONAL_KINDS)}
    assert {"TLSRoute", "TLSRouteModeMixed", "ListenerSet", "ClusterTrustBundle"} < optional
    assert set(SUPPORTED_FEATURES) - set(claimed(cluster)) == optional
    reflectors = cluster.runtime.watch._reflectors
    for group, kind in reflectors:
        if kind in OPTIONAL_KINDS and kind != "ClusterTrustBundle":
            reflectors[group, kind].path = ResourcePath(f"/apis/{group}/v1", "v1", kind.lower())
    cluster.turn()
    assert set(SUPPORTED_FEATURES) - set(claimed(cluster)) == {"ClusterTrustBundle"}
    reflectors["certificates.k8s.io", "ClusterTrustBundle"].path = served
    cluster.turn()
    assert claimed(cluster) == list(SUPPORTED_FEATURES)
    cluster.runtime.surroundings.channel = "standard"
    cluster.turn()
    assert set(SUPPORTED_FEATURES) - set(claimed(cluster)) == EXPERIMENTAL_FEATURES
    # A CRD that does not say: the kinds of the experimental channel tell.
    cluster.runtime.surroundings.channel = None
    cluster.turn()
    assert set(SUPPORTED_FEATURES) - set(claimed(cluster)) == EXPERIMENTAL_FEATURES
    reflectors[api.EXPERIMENTAL_GROUP, "XBackend"].path = ResourcePath("/apis/x", "v1alpha1", "xbackends")
    cluster.turn()
    assert claimed(cluster) == list(SUPPORTED_FEATURES)


CLUSTER_REQUEST = {"type": "IPAddress", "routability": "Cluster"}


def addresses(cluster: Cluster) -> list[tuple[str, str]]:
    status = cluster.runtime.statuses[api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *KEY)]
    return [(address["value"], address["routability"]) for address in status["addresses"]]


def test_who_asks_for_cluster_ips_alone_is_not_shown_to_the_world(cluster: Cluster) -> None:
    cluster.put(gateway(addresses=[CLUSTER_REQUEST]))
    planned = cluster.planned("Service")
    assert planned["spec"]["type"] == "ClusterIP"
    cluster.put({**planned, "spec": {**planned["spec"], "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"]}})
    assert addresses(cluster) == [("10.96.0.9", "Cluster")]
    assert cluster.condition("AddressesAssigned") == ("True", "AddressesAssigned")


def test_a_cluster_ip_beside_the_load_balancers_address(cluster: Cluster) -> None:
    cluster.runtime.surroundings.service_ranges = (parse_pool("10.96.0.0/16"),)
    cluster.put(gateway(addresses=[{**CLUSTER_REQUEST, "value": "10.96.0.9"}, {"type": "IPAddress"}]))
    planned = cluster.planned("Service")
    assert (planned["spec"]["type"], planned["spec"]["clusterIP"]) == ("LoadBalancer", "10.96.0.9")
    assert "loadBalancerIP" not in planned["spec"]
    found = service(planned, "192.0.2.5")
    cluster.put({**found, "spec": {**found["spec"], "clusterIPs": ["10.96.0.9"]}})
    assert addresses(cluster) == [("10.96.0.9", "Cluster"), ("192.0.2.5", "")]


def test_a_cluster_ip_that_is_none_is_not_asked_for(cluster: Cluster) -> None:
    cluster.runtime.surroundings.service_ranges = (parse_pool("10.96.0.0/16"),)
    cluster.put(gateway(addresses=[{**CLUSTER_REQUEST, "value": "198.51.100.1"}, {"type": "IPAddress"}]))
    planned = cluster.planned("Service")
    assert "clusterIP" not in planned["spec"]
    found = service(planned, "192.0.2.5")
    cluster.put({**found, "spec": {**found["spec"], "clusterIPs": ["10.96.0.9"]}})
    assert addresses(cluster) == [("192.0.2.5", "")]
    assert cluster.condition("AddressesAssigned") == ("False", "PartiallyAssigned")


def test_options() -> None:
    plain = build_pod_options("ns")
    assert plain.control_plane.host == "propylon-xds.ns.svc.cluster.local"
    assert plain.control_plane.server_name == "propylon-xds.ns.svc"
    assert plain.xds_listen == "0.0.0.0:18000"
    six = build_pod_options("ns", pod_ip="fd00::1", xds_address="[fd00::2]:1234")
    assert six.xds_listen == "[::]:18000"
    assert (six.control_plane.host, six.control_plane.port) == ("fd00::2", 1234)
    with pytest.raises(ValueError, match="HOST:PORT"):
        build_pod_options("ns", xds_address="somewhere")


def test_where_other_replicas_reach_one() -> None:
    assert build_pod_options("ns").own_address == ""
    assert build_pod_options("ns", pod_ip="10.0.0.1").own_address == "10.0.0.1:18000"
    assert build_pod_options("ns", pod_ip="fd00::1").own_address == "[fd00::1]:18000"
    assert build_pod_options("ns", xds_listen="10.0.0.2:7").own_address == "10.0.0.2:7"
    assert build_pod_options("ns", xds_listen="0.0.0.0:7", pod_ip="10.0.0.1").own_address == "10.0.0.1:7"


# --- certificates -----------------------------------------------------------------------------------------------------


def test_a_certificate_that_proxies_have_is_kept_over_a_restart() -> None:
    document: api.Gateway = api.decode(gateway())
    authority = make_authority(NOW)
    first, second = Identities("x"), Identities("x")
    first.renew((authority,))
    files = dict(first.files(KEY, document, OURS))
    data = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
    name = f"{base_name('web', 'propylon', OURS)}-xds"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "data": data}
    second.seen(api.ObjectKey("shop", name), api.decode(secret))
    second.renew((authority,))
    assert dict(second.files(KEY, document, OURS)) == files
    second.renew((make_authority(NOW),))
    assert dict(second.files(KEY, document, OURS)) != files


def test_certificates_are_due_in_time() -> None:
    now = [NOW]
    identities = Identities("x", now=lambda: now[0])
    authority = make_authority(NOW)
    identities.renew((authority,))
    before = identities.files(KEY, api.decode(gateway()), OURS)
    assert identities.due() == set()
    now[0] = NOW + dt.timedelta(days=61)
    assert identities.due() == {KEY}
    after = identities.files(KEY, api.decode(gateway()), OURS)
    assert after != before
    assert identities.due() == set()
    leaf = identities._issued[KEY]
    assert usable(leaf, [authority], identity(KEY), now[0])


def authority_api(secrets: dict[str, Document]) -> Callable[[Request], Any]:
    """One Secret, with conflicts for who is late."""

    async def answer(request: Request) -> None:
        found = secrets.get(AUTHORITY_NAME)
        if request.method == "GET":
            await (request.answer(found) if found else request.refuse(404, "NotFound"))
            return
        document = json.loads(request.body)
        version = document["metadata"].get("resourceVersion")
        if version != (found["metadata"]["resourceVersion"] if found else None):
            await request.refuse(409, "Conflict")
            return
        document["metadata"]["resourceVersion"] = str(int(version or 0) + 1)
        secrets[AUTHORITY_NAME] = document
        await request.answer(document)

    return answer


def test_the_authority_is_made_once_and_succeeded_in_time() -> None:
    async def main() -> None:
        secrets: dict[str, Document] = {}
        async with serving(authority_api(secrets)) as client:
            now = [NOW]
            store = AuthorityStore(client, "propylon-system", now=lambda: now[0])
            both = await asyncio.gather(store.keep(), AuthorityStore(client, "propylon-system").keep())
            assert both[0] == both[1]
            assert len(both[0]) == 1
            now[0] += dt.timedelta(days=AUTHORITY_DAYS * 0.7)
            kept = await store.keep()
            assert kept[0] == both[0][0]
            assert len(kept) == 2
            assert await store.keep() == kept
            for spoilt in ({}, {"authorities.json": "garbage"}, {"authorities.json": "e30="}):
                secrets[AUTHORITY_NAME]["data"] = spoilt
                with pytest.raises(ValueError, match="delete it"):
                    await store.keep()

    asyncio.run(main())
