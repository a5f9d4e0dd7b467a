"""Features of the experimental channel that the official suite does not test: manifests in, real Envoy, statuses out."""

# ruff: noqa: E501 - one object a line reads better than YAML folded to fit
import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.api_client import ApiClient
from support.authorizers import HttpAuthorizer
from support.envoy_backends import HttpBackend
from support.envoy_certificates import Authority, Pair
from support.instance import Instance, eventually
from support.manifests import OFFSET, service, write

pytestmark = [pytest.mark.feature, pytest.mark.timeout(180)]

CA, OTHER_CA = Authority(), Authority("another authority")


def secret(name: str, pair: Pair) -> str:
    data = {"tls.crt": pair.chain, "tls.key": pair.private_key}
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "default"},
            "type": "kubernetes.io/tls",
            "data": encoded,
        }
    )


def bundle(name: str, pem: str) -> str:
    return json.dumps(
        {
            "apiVersion": "certificates.k8s.io/v1beta1",
            "kind": "ClusterTrustBundle",
            "metadata": {"name": name},
            "spec": {"trustBundle": pem},
        }
    )


def policy(name: str, target: str, *bundles: str) -> str:
    refs = [{"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": each} for each in bundles]
    return json.dumps(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "BackendTLSPolicy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": target}],
                "validation": {"hostname": "backend.test", "caCertificateRefs": refs},
            },
        }
    )


GATEWAYS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: any}
spec: {controllerName: example.net/whatever}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: any
  tls:
    frontend:
      default: {}
      perPort:
        - {port: 6443, tls: {validation: {caCertificateRefs: [{group: certificates.k8s.io, kind: ClusterTrustBundle, name: good}]}}}
        - {port: 7443, tls: {validation: {caCertificateRefs: [{group: certificates.k8s.io, kind: ClusterTrustBundle, name: gone}]}}}
  listeners:
    - {name: http, port: 80, protocol: HTTP}
    - {name: mutual, port: 6443, protocol: HTTPS, tls: {certificateRefs: [{name: server}]}}
    - {name: unfounded, port: 7443, protocol: HTTPS, tls: {certificateRefs: [{name: server}]}}
    - name: guarded
      port: 8080
      protocol: HTTP
      filters: {requests: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}, http: {path: /check}}}]}
    - name: unknown
      port: 8081
      protocol: HTTP
      filters: {requests: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Claims, name: x}}]}
    - name: broken
      port: 8082
      protocol: HTTP
      filters: {requests: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: nowhere, port: 80}, http: {}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: default}
spec:
  parentRefs: [{name: web}]
  rules:
    - {matches: [{path: {value: /trusted}}], backendRefs: [{name: trusted, port: 443}]}
    - {matches: [{path: {value: /several}}], backendRefs: [{name: several, port: 443}]}
    - {matches: [{path: {value: /other}}], backendRefs: [{name: other, port: 443}]}
    - {matches: [{path: {value: /empty}}], backendRefs: [{name: empty, port: 443}]}
    - {matches: [{path: {value: /user}, headers: [{name: x-user, value: somebody}]}], backendRefs: [{name: plain, port: 80}]}
    - {matches: [{path: {value: /plain}}], backendRefs: [{name: plain, port: 80}]}
"""


def addressed(name: str, *requests: dict[str, str]) -> str:
    return json.dumps(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "gatewayClassName": "any",
                "addresses": list(requests),
                "listeners": [{"name": "http", "port": 9000, "protocol": "HTTP"}],
            },
        }
    )


SENTINEL = {"type": "IPAddress", "routability": "testing.x-k8s.io/sentinel"}
ELSEWHERE = {"type": "IPAddress", "routability": "example.com/nowhere"}
ANY = {"type": "IPAddress"}


class World:
    def __init__(self, instance: Instance, manifests: Path, plain: HttpBackend, authorizer: HttpAuthorizer) -> None:
        self.instance, self.manifests, self.plain, self.authorizer = instance, manifests, plain, authorizer
        kubeconfig = instance.data_dir / "kubeconfig"
        eventually(kubeconfig.exists, "the Kubernetes API is there")
        self.api = ApiClient(kubeconfig, instance.data_dir.parent / "keys")

    def object(self, kind: str, name: str) -> dict[str, Any]:
        group = "/apis/gateway.networking.k8s.io/v1"
        place = group if kind == "gatewayclasses" else f"{group}/namespaces/default"
        code, found = self.api.ask("GET", f"{place}/{kind}/{name}")
        assert code == 200, found
        return found

    def conditions(self, kind: str, name: str, listener: str = "") -> dict[str, tuple[str, str]]:
        status = self.object(kind, name)["status"]
        if listener:
            status = next(entry for entry in status["listeners"] if entry["name"] == listener)
        elif "ancestors" in status:
            status = status["ancestors"][0]
        return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}

    def get(self, path: str, listener: str = "http", **headers: str) -> httpx.Response:
        with self.instance.client("default/web", listener) as client:
            return client.get("x.test", path, headers=headers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("experimental")
    secure = HttpBackend("secure", CA.server(CA.issue("backend.test")))
    plain, authorizer = HttpBackend("plain"), HttpAuthorizer()
    secured = ("trusted", "several", "other", "empty")
    objects = [
        GATEWAYS,
        *(service(name, 443) for name in secured),
        service("plain"),
        service("auth"),
        secret("server", CA.issue("x.test")),
        bundle("good", CA.chain.decode()),
        bundle("foreign", OTHER_CA.chain.decode()),
        bundle("unreadable", "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"),
        policy("trusted", "trusted", "good"),
        policy("several", "several", "gone", "good"),
        policy("other", "other", "foreign"),
        policy("empty", "empty", "unreadable", "gone"),
        addressed("sentinel", SENTINEL),
        addressed("elsewhere", ELSEWHERE),
        addressed("both", ELSEWHERE, ANY),
    ]
    manifests = write(directory / "manifests", all="\n---\n".join(objects))
    backends = [f"default/{name}=127.0.0.1:{secure.port}" for name in secured]
    backends += [f"default/plain=127.0.0.1:{plain.port}", f"default/auth=127.0.0.1:{authorizer.port}"]
    flags = [word for each in backends for word in ("--backend", each)]
    with Instance(directory, str(manifests), "--port-offset", str(OFFSET), *flags) as instance:
        found = World(instance, manifests, plain, authorizer)
        eventually(lambda: found.conditions("gateways", "web")["Programmed"][0] == "True", "the Gateway is served")
        yield found
        found.api.close()
    for each in (secure, plain, authorizer):
        each.close()


def test_backends_are_verified_by_cluster_trust_bundles(world: World) -> None:
    assert world.get("/trusted").json()["backend"] == "secure"
    assert world.conditions("backendtlspolicies", "trusted")["ResolvedRefs"] == ("True", "ResolvedRefs")
    assert world.get("/several").json()["backend"] == "secure", "one bundle that is there is enough"
    several = world.conditions("backendtlspolicies", "several")
    assert (several["Accepted"][0], several["ResolvedRefs"]) == ("True", ("False", "InvalidCACertificateRef"))
    assert world.get("/other").status_code == 503, "a certificate of another authority"
    assert world.conditions("backendtlspolicies", "other")["Accepted"][0] == "True"
    assert world.get("/empty").status_code >= 500
    assert world.conditions("backendtlspolicies", "empty") == {
        "Accepted": ("False", "NoValidCACertificate"),
        "ResolvedRefs": ("False", "InvalidCACertificateRef"),
    }


def test_a_bundle_that_changes_is_followed(world: World) -> None:
    write(world.manifests, later="\n---\n".join([bundle("gone", CA.chain.decode())]))
    eventually(lambda: world.get("/empty").json()["backend"] == "secure", "the bundle is used")
    eventually(lambda: world.conditions("gateways", "web", "unfounded")["Programmed"][0] == "True", "clients as well")
    (world.manifests / "later.yaml").unlink()
    eventually(lambda: world.get("/empty").status_code >= 500, "the bundle is gone")
    eventually(
        lambda: world.conditions("gateways", "web", "unfounded")["Accepted"][0] == "False", "for clients as well"
    )


def test_clients_are_verified_by_cluster_trust_bundles(world: World) -> None:
    def get(pair: Pair | None) -> int:
        context = CA.client(pair)
        with world.instance.client("default/web", "mutual", tls=True, verify=context) as client:
            return client.get("x.test", "/plain").status_code

    assert get(CA.issue("client.test")) == 200
    for refused in (None, OTHER_CA.issue("client.test")):
        with pytest.raises((httpx.HTTPError, ssl.SSLError)):
            get(refused)
    assert world.conditions("gateways", "web", "mutual")["ResolvedRefs"] == ("True", "ResolvedRefs")
    unfounded = world.conditions("gateways", "web", "unfounded")
    assert unfounded["Accepted"] == ("False", "NoValidCACertificate")
    assert unfounded["ResolvedRefs"] == ("False", "InvalidCACertificateRef")
    assert unfounded["Programmed"][0] == "False"


def test_filters_of_a_listener(world: World) -> None:
    assert world.get("/plain").status_code == 200, "other listeners have none"
    assert world.get("/plain", "guarded").status_code == 401
    assert world.get("/nothing", "guarded").status_code == 401
    assert world.get("/nothing", "guarded", authorization="yes").status_code == 404
    assert world.get("/user", authorization="yes").status_code == 404
    answer = world.get("/user", "guarded", authorization="yes")
    assert answer.json()["headers"]["x-user"] == "somebody", "what the authorizer said has chosen the route"
    assert world.authorizer.asked[-1][1] == "/check/user"
    conditions = world.conditions("gateways", "web", "guarded")
    assert {conditions[kind][0] for kind in ("Accepted", "Programmed", "ResolvedRefs")} == {"True"}


def test_filters_of_a_listener_that_cannot_be_had(world: World) -> None:
    unknown = world.conditions("gateways", "web", "unknown")
    assert unknown["Accepted"] == ("False", "UnsupportedValue")
    assert unknown["ResolvedRefs"] == ("False", "InvalidListenerFilterRef")
    (report,) = [each for each in world.instance.status()["gateways"] if each["name"] == "web"]
    assert {each["name"]: each["bound_port"] for each in report["listeners"]}["unknown"] is None, "it is not served"
    assert world.conditions("gateways", "web", "broken")["ResolvedRefs"] == ("False", "InvalidListenerFilterRef")
    assert world.get("/plain", "broken", authorization="yes").status_code == 500


def test_routability_of_addresses(world: World) -> None:
    status = world.object("gateways", "web")["status"]
    assert [address["routability"] for address in status["addresses"]] == [""], "nothing is promised, and that is said"
    assert world.conditions("gateways", "web")["AddressesAssigned"] == ("True", "AddressesAssigned")
    (address,) = world.object("gateways", "sentinel")["status"]["addresses"]
    assert address["routability"] == SENTINEL["routability"]
    with world.instance.client("default/sentinel", "http") as client:
        assert client.get("x.test").status_code == 404
    elsewhere = world.conditions("gateways", "elsewhere")
    assert elsewhere["Programmed"] == ("False", "AddressNotAssigned")
    assert elsewhere["AddressesAssigned"] == ("False", "NotAssigned")
    assert not world.object("gateways", "elsewhere")["status"].get("addresses")
    both = world.conditions("gateways", "both")
    assert both["AddressesAssigned"] == ("False", "PartiallyAssigned")
    assert both["Programmed"] == ("True", "Programmed")
    assert [address["routability"] for address in world.object("gateways", "both")["status"]["addresses"]] == [""]


def test_what_is_claimed(world: World) -> None:
    claimed = {feature["name"] for feature in world.object("gatewayclasses", "any")["status"]["supportedFeatures"]}
    assert claimed >= {"ClusterTrustBundle", "GatewayAddressRoutability", "GatewayListenerFilters"}
