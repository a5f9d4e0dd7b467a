"""What a Gateway's proxies are made of: the pure plan from a Gateway and its parameters to Kubernetes objects."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from propylon import api
from propylon.proxies.kubernetes.bootstrap import (
    RUN_DIRECTORY,
    XDS_DIRECTORY,
    ControlPlane,
    Probes,
    build_pod_bootstrap,
)
from propylon.proxies.kubernetes.names import CILIUM_CONTROLLER, base_name, dns_label, label_value
from propylon.proxies.kubernetes.parameters import ParametersPatch, ParametersSpec, parse_quantity
from propylon.proxies.kubernetes.patching import merge_patch
from propylon.proxies.settings import ProxySettings

Document = dict[str, Any]

DEFAULT_IMAGE = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
"""The Envoy that everything is tested with."""
MANAGER = "propylon"
MANAGED_BY = "app.kubernetes.io/managed-by"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
CLASS_NAME = "gateway.networking.k8s.io/gateway-class-name"
CONTROLLER = "propylon.dev/controller-name"
"""Label that tells one installation's objects from another's: its controllerName, "/" as "_"."""
CONTAINER = "envoy"
PROBE_PORT = 19001
DRAIN_SECONDS = 15
_GRACE_SECONDS = 15
"""What a pod may take on top of draining."""
_USER = 65532
_CONCURRENCY = 2
_HEAP_SHARE = 0.8
"""Of the container's memory limit: the rest is for what Envoy's heap does not count."""
ADDRESS_ANNOTATIONS = ("lbipam.cilium.io/ips", "metallb.io/loadBalancerIPs")
"""By which Cilium and MetalLB are asked for addresses; other load balancers pass them over."""


class Installation(msgspec.Struct, frozen=True):
    """What is the same for all Gateways."""

    control_plane: ControlPlane
    controller_name: str
    image: str = DEFAULT_IMAGE
    probe_address: str = "0.0.0.0"
    """Where pods answer probes: "::" where pods have IPv6 addresses only."""


class Wanted(msgspec.Struct, frozen=True):
    """What a Gateway wants."""

    gateway: api.Gateway
    ports: tuple[tuple[int, str], ...]
    """(port, "TCP" or "UDP") of its listeners, sorted; at least one."""
    parameters: ParametersSpec = ParametersSpec()
    credentials: tuple[tuple[str, str], ...] = ()
    """Files of the Secret by which its proxies prove who they are: see `bootstrap.sds_files`."""
    token: str = ""
    """What makes the path for draining hard to guess."""
    cluster_ip: str = ""
    """The cluster IP that its Service is to have, "" if any will do."""


def plan_documents(wanted: Wanted, installation: Installation) -> tuple[Document, ...]:
    """The objects, in the order to be applied."""
    plan = _Plan(wanted, installation)
    documents = [plan.service_account(), plan.secret(), plan.deployment(), plan.service(), plan.disruption_budget()]
    if wanted.parameters.autoscaling is not None:
        documents.append(plan.autoscaler())
    return tuple(documents)


def secret_name(gateway: api.Gateway, controller_name: str) -> str:
    """The name of the Secret with the certificate of a Gateway's proxies."""
    return dns_label(base_name(gateway.metadata.name, gateway.spec.gateway_class_name, controller_name), "-xds")


def object_name(gateway: api.Gateway, controller_name: str) -> str:
    """The name of all other objects of a Gateway."""
    return base_name(gateway.metadata.name, gateway.spec.gateway_class_name, controller_name)


def installation_labels(controller_name: str) -> dict[str, str]:
    """By which everything that an installation made is found again."""
    return {MANAGED_BY: MANAGER, CONTROLLER: label_value(controller_name.replace("/", "_"))}


def selector_labels(gateway: api.Gateway) -> dict[str, str]:
    """By which the objects of one Gateway are found (GEP-1762)."""
    return {
        GATEWAY_NAME: label_value(gateway.metadata.name),
        CLASS_NAME: label_value(gateway.spec.gateway_class_name),
    }


def own_labels(gateway: api.Gateway, kind: str, controller_name: str) -> dict[str, str]:
    """The labels that nobody else has a say in."""
    labels = {**selector_labels(gateway), **installation_labels(controller_name)}
    if kind == "Service" and controller_name == CILIUM_CONTROLLER:
        labels["io.cilium.gateway/owning-gateway"] = label_value(gateway.metadata.name)
    return labels


def gateway_document(
    gateway: api.Gateway,
    controller_name: str,
    api_version: str,
    kind: str,
    name: str,
    content: Document,
    *,
    annotations: Mapping[str, str] | None = None,
    patches: Iterable[ParametersPatch] = (),
) -> Document:
    """An object for a Gateway, which owns it: with the labels and annotations of `spec.infrastructure` (GEP-1867).

    What ties it to its Gateway is neither for patches nor for those labels to change.
    """
    metadata, infrastructure = gateway.metadata, gateway.spec.infrastructure
    owner = {
        "apiVersion": f"{api.GATEWAY_GROUP}/v1",
        "kind": "Gateway",
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
    }
    kept = {"name": name, "namespace": metadata.namespace, "ownerReferences": [owner]}
    own = own_labels(gateway, kind, controller_name)
    labels = {**(infrastructure.labels if infrastructure else {}), **own}
    document: Document = {"apiVersion": api_version, "kind": kind, "metadata": {**kept, "labels": labels}, **content}
    if noted := {**(infrastructure.annotations if infrastructure else {}), **(annotations or {})}:
        document["metadata"]["annotations"] = noted
    for patch in patches:
        if patch.kind == kind:
            document = merge_patch(document, patch.patch)
    labels = {**(document["metadata"].get("labels") or {}), **own}
    return {**document, "metadata": {**document["metadata"], **kept, "labels": labels}}


class _Plan:
    """One Gateway's objects."""

    def __init__(self, wanted: Wanted, installation: Installation) -> None:
        self.gateway = wanted.gateway
        self.wanted = wanted
        self.parameters = wanted.parameters
        self.installation = installation
        self.name = object_name(wanted.gateway, installation.controller_name)
        self.selector = selector_labels(self.gateway)

    def service_account(self) -> Document:
        """An identity of its own that may do nothing."""
        return self._document("v1", "ServiceAccount", {"automountServiceAccountToken": False})

    def secret(self) -> Document:
        """The certificate towards the control plane."""
        # Not stringData: server-side apply would not know that field again.
        data = {name: base64.b64encode(text.encode()).decode() for name, text in self.wanted.credentials}
        content = {"type": "Opaque", "data": data}
        name = secret_name(self.gateway, self.installation.controller_name)
        return self._document("v1", "Secret", content, name=name)

    def deployment(self) -> Document:
        """Envoy, rolled over without losing a pod's capacity."""
        spec: Document = {
            "selector": {"matchLabels": self.selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": {"metadata": self._template_metadata(), "spec": self._pod()},
        }
        if self.parameters.autoscaling is None:
            spec["replicas"] = 1 if self.parameters.replicas is None else self.parameters.replicas
        return self._document("apps/v1", "Deployment", {"spec": spec})

    def service(self) -> Document:
        """What leads to the proxies: the Gateway's addresses are this Service's."""
        parameters = self.parameters.service
        kind = (parameters and parameters.type) or default_service_type(self.gateway)
        spec: Document = {
            "type": kind,
            "selector": self.selector,
            "ipFamilyPolicy": (parameters and parameters.ip_family_policy) or "PreferDualStack",
            "ports": [service_port(port, transport) for port, transport in self.wanted.ports],
        }
        if self.wanted.cluster_ip:
            spec["clusterIP"] = self.wanted.cluster_ip
        if parameters is not None and kind != "ClusterIP" and parameters.external_traffic_policy:
            spec["externalTrafficPolicy"] = parameters.external_traffic_policy
        annotations: dict[str, str] = {}
        if kind == "LoadBalancer":
            if parameters is not None and parameters.load_balancer_class is not None:
                spec["loadBalancerClass"] = parameters.load_balancer_class
            if parameters is not None and parameters.load_balancer_source_ranges is not None:
                spec["loadBalancerSourceRanges"] = list(parameters.load_balancer_source_ranges)
            if requested := requested_addresses(self.gateway):
                spec["loadBalancerIP"] = requested[0]
                annotations = dict.fromkeys(ADDRESS_ANNOTATIONS, ",".join(requested))
        return self._document("v1", "Service", {"spec": spec}, annotations=annotations)

    def disruption_budget(self) -> Document:
        """A drained node takes one proxy at a time."""
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": self.selector}}
        return self._document("policy/v1", "PodDisruptionBudget", {"spec": spec})

    def autoscaler(self) -> Document:
        """By CPU use."""
        scaling = self.parameters.autoscaling
        assert scaling is not None
        target = {"type": "Utilization", "averageUtilization": scaling.target_cpu}
        spec = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name},
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        }
        return self._document("autoscaling/v2", "HorizontalPodAutoscaler", {"spec": spec})

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _document(
        self,
        api_version: str,
        kind: str,
        content: Document,
        *,
        name: str | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Document:
        return gateway_document(
            self.gateway,
            self.installation.controller_name,
            api_version,
            kind,
            name or self.name,
            content,
            annotations=annotations,
            patches=self.parameters.patches,
        )

    def _template_metadata(self) -> Document:
        infrastructure = self.gateway.spec.infrastructure
        # Ours come last: somebody else's word must not tear a Deployment from its pods.
        own = own_labels(self.gateway, "Pod", self.installation.controller_name)
        metadata: Document = {"labels": {**(infrastructure.labels if infrastructure else {}), **own}}
        if infrastructure and infrastructure.annotations:
            metadata["annotations"] = dict(infrastructure.annotations)
        return metadata

    def _pod(self) -> Document:
        parameters = self.parameters
        drain = DRAIN_SECONDS if parameters.drain_seconds is None else parameters.drain_seconds
        pod: Document = {
            "serviceAccountName": self.name,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": drain + _GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
                # Port 80 for somebody who is not root, without a capability and without mapping ports onto others
                # that a listener may want as well. One of the sysctls that Kubernetes calls safe.
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "containers": [self._container(drain)],
            "volumes": [
                {
                    "name": "xds",
                    "secret": {
                        "secretName": secret_name(self.gateway, self.installation.controller_name),
                        "defaultMode": 0o440,
                    },
                },
                {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
            "topologySpreadConstraints": _listed(parameters.topology_spread_constraints)
            or [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": self.selector},
                }
            ],
        }
        optional = {
            "imagePullSecrets": _listed(parameters.image_pull_secrets),
            "nodeSelector": parameters.node_selector,
            "tolerations": _listed(parameters.tolerations),
            "affinity": parameters.affinity,
            "priorityClassName": parameters.priority_class_name,
        }
        return pod | {name: value for name, value in optional.items() if value}

    def _container(self, drain: int) -> Document:
        parameters = self.parameters
        probe_port = self._probe_port()
        probe = {"httpGet": {"path": "/ready", "port": probe_port}, "periodSeconds": 3, "timeoutSeconds": 2}
        container: Document = {
            "name": CONTAINER,
            "image": parameters.image or self.installation.image,
            "command": ["/usr/local/bin/envoy"],
            "args": [
                *("--config-yaml", self._bootstrap(probe_port, drain)),
                *("--concurrency", str(self._concurrency())),
                *("--log-level", parameters.log_level or ProxySettings().log_level),
                *("--drain-time-s", str(max(1, drain))),
                "--disable-hot-restart",
            ],
            "readinessProbe": {**probe, "failureThreshold": 2},
            "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 300},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": [
                {"name": "xds", "mountPath": XDS_DIRECTORY, "readOnly": True},
                {"name": "run", "mountPath": RUN_DIRECTORY},
            ],
            "resources": parameters.resources or {"requests": {"cpu": "100m", "memory": "128Mi"}},
        }
        if drain:
            # Meanwhile the pod is no endpoint any more, load balancers turn away, and clients are told to reconnect.
            container["lifecycle"] = {"preStop": {"httpGet": {"path": self._drain_path(), "port": probe_port}}}
        return container

    def _drain_path(self) -> str:
        return f"/drain/{self.wanted.token}"

    def _bootstrap(self, probe_port: int, drain: int) -> str:
        settings = ProxySettings()
        if (memory := self._limit("memory")) is not None:
            settings = msgspec.structs.replace(settings, max_heap_bytes=max(1, int(memory * _HEAP_SHARE)))
        return build_pod_bootstrap(
            str(api.key_of(self.gateway)),
            self.installation.control_plane,
            probes=Probes(
                self.installation.probe_address, probe_port, self._drain_path() if drain else "", drain_seconds=drain
            ),
            settings=settings,
        )

    def _probe_port(self) -> int:
        """The first port from PROBE_PORT on that no listener wants."""
        taken = {port for port, _ in self.wanted.ports}
        return next(port for port in range(PROBE_PORT, 65536) if port not in taken)

    def _concurrency(self) -> int:
        if self.parameters.concurrency is not None:
            return self.parameters.concurrency
        cores = self._limit("cpu")
        return max(1, math.ceil(cores)) if cores is not None else _CONCURRENCY

    def _limit(self, name: str) -> float | None:
        limits = (self.parameters.resources or {}).get("limits")
        return parse_quantity(limits[name]) if isinstance(limits, Mapping) and name in limits else None


def requested_addresses(gateway: api.Gateway) -> tuple[str, ...]:
    """The IP addresses of load balancers that a Gateway asks for by value, each once."""
    wishes = (a for a in gateway.spec.addresses if a.type == "IPAddress" and not a.wants_cluster_ip)
    return tuple(dict.fromkeys(a.value for a in wishes if a.value))


def default_service_type(gateway: api.Gateway) -> str:
    """LoadBalancer, unless a Gateway asks for cluster IPs and nothing else: then nobody outside is to reach it."""
    wishes = gateway.spec.addresses
    return "ClusterIP" if wishes and all(a.wants_cluster_ip for a in wishes) else "LoadBalancer"


def service_port(port: int, transport: str) -> Document:
    """A port of a Service that leads to the same port of the proxies."""
    name = f"port-{port}" if transport == "TCP" else f"port-{port}-{transport.lower()}"
    return {"name": name, "port": port, "targetPort": port, "protocol": transport}


def _listed(items: tuple[Any, ...] | None) -> list[Any] | None:
    return list(items) if items is not None else None
