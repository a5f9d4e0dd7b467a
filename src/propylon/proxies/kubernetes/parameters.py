"""GatewayParameters: what a GatewayClass or a Gateway may say about the proxies that are made for it.

A Gateway names one of its own namespace in `spec.infrastructure.parametersRef`, a GatewayClass any in
`spec.parametersRef`; field by field, the Gateway's go before the class'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from propylon.api.kinds import KindInfo
from propylon.api.meta import ObjectMeta
from propylon.api.schema import Constraint, Doc, Model, one_of
from propylon.proxies.settings import LOG_LEVELS

PARAMETERS_GROUP = "propylon.dev"
PARAMETERS_VERSION = "v1alpha1"
PATCHED_KINDS = ("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service", "ServiceAccount")
SERVICE_TYPES = ("ClusterIP", "LoadBalancer", "NodePort")


class AutoscalingParameters(Model, frozen=True):
    """A HorizontalPodAutoscaler by CPU use."""

    max_replicas: Annotated[int, Constraint(minimum=1, format="int32")]
    min_replicas: Annotated[int, Constraint(minimum=1, format="int32")] = 1
    target_cpu: Annotated[
        int, Constraint(minimum=1, maximum=100, format="int32"), Doc("Percent of the requested CPU.")
    ] = msgspec.field(default=70, name="targetCPUUtilizationPercentage")


class ServiceParameters(Model, frozen=True):
    """The Service in front of the proxies."""

    type: Annotated[str | None, one_of(*SERVICE_TYPES), Doc("LoadBalancer when absent.")] = None
    external_traffic_policy: Annotated[str | None, one_of("Cluster", "Local")] = None
    ip_family_policy: Annotated[str | None, one_of("SingleStack", "PreferDualStack", "RequireDualStack")] = None
    load_balancer_class: str | None = None
    load_balancer_source_ranges: tuple[str, ...] | None = None


class ParametersPatch(Model, frozen=True):
    """A strategic merge patch of one of the objects that are made."""

    kind: Annotated[str, one_of(*PATCHED_KINDS)]
    patch: dict[str, Any]


class ParametersSpec(Model, frozen=True):
    """How many proxies, what they run with, where, and what leads to them. What is absent has a sensible default."""

    replicas: Annotated[int | None, Constraint(minimum=0, format="int32"), Doc("1 when absent.")] = None
    autoscaling: Annotated[AutoscalingParameters | None, Doc("Instead of replicas.")] = None
    image: Annotated[str | None, Doc("Envoy's image.")] = None
    image_pull_secrets: tuple[dict[str, str], ...] | None = None
    concurrency: Annotated[
        int | None, Constraint(minimum=1, maximum=256, format="int32"), Doc("Envoy's worker threads.")
    ] = None
    log_level: Annotated[str | None, one_of(*LOG_LEVELS)] = None
    drain_seconds: Annotated[
        int | None, Constraint(minimum=0, maximum=3600, format="int32"), Doc("How long a pod goes on serving; 15.")
    ] = None
    resources: Annotated[dict[str, Any] | None, Doc("Requests and limits of the Envoy container.")] = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[dict[str, Any], ...] | None = None
    affinity: dict[str, Any] | None = None
    topology_spread_constraints: tuple[dict[str, Any], ...] | None = None
    priority_class_name: str | None = None
    service: ServiceParameters | None = None
    patches: Annotated[tuple[ParametersPatch, ...], Doc("For what the fields above do not foresee.")] = ()


class GatewayParameters(Model, frozen=True):
    """Settings of the proxies of a Gateway, or of all Gateways of a class."""

    metadata: ObjectMeta
    spec: ParametersSpec = ParametersSpec()
    api_version: str = f"{PARAMETERS_GROUP}/{PARAMETERS_VERSION}"
    kind: str = "GatewayParameters"


PARAMETERS_INFO = KindInfo(
    group=PARAMETERS_GROUP,
    version=PARAMETERS_VERSION,
    kind="GatewayParameters",
    plural="gatewayparameters",
    singular="gatewayparameters",
    scope="Namespaced",
    type=GatewayParameters,
    short_names=("gwparams",),
    served_versions=(PARAMETERS_VERSION,),
    storage_version=PARAMETERS_VERSION,
    status_subresource=False,
)


def merge_parameters(of_class: ParametersSpec | None, of_gateway: ParametersSpec | None) -> ParametersSpec:
    """Both together: fields of the Gateway's replace those of the class', patches of both are made in this order."""
    if of_class is None or of_gateway is None:
        return of_gateway or of_class or ParametersSpec()
    given = {name: getattr(of_gateway, name) for name in of_gateway.__struct_fields__}
    # Replicas and autoscaling exclude each other: who says one thing takes the other back.
    if of_gateway.replicas is not None and of_gateway.autoscaling is None:
        of_class = msgspec.structs.replace(of_class, autoscaling=None)
    if of_gateway.service is not None and of_class.service is not None:
        fields = of_gateway.service.__struct_fields__
        changes = {f: value for f in fields if (value := getattr(of_gateway.service, f)) is not None}
        given["service"] = msgspec.structs.replace(of_class.service, **changes)
    given["patches"] = (*of_class.patches, *of_gateway.patches)
    return msgspec.structs.replace(of_class, **{name: value for name, value in given.items() if value is not None})


def parameter_errors(spec: ParametersSpec) -> tuple[str, ...]:
    """What is wrong with parameters, each with its field; the CRD refuses the same where it is in force."""
    return tuple(_errors(spec))


def _errors(spec: ParametersSpec) -> Iterable[str]:
    if spec.replicas is not None and spec.replicas < 0:
        yield f"spec.replicas: {spec.replicas} is negative"
    if spec.autoscaling is not None:
        scaling = spec.autoscaling
        if spec.replicas is not None:
            yield "spec.replicas: cannot be given together with spec.autoscaling"
        if not 1 <= scaling.min_replicas <= scaling.max_replicas:
            yield f"spec.autoscaling: minReplicas {scaling.min_replicas} is not in 1..{scaling.max_replicas}"
        if not 1 <= scaling.target_cpu <= 100:
            yield f"spec.autoscaling.targetCPUUtilizationPercentage: {scaling.target_cpu} is not in 1..100"
    if spec.concurrency is not None and not 1 <= spec.concurrency <= 256:
        yield f"spec.concurrency: {spec.concurrency} is not in 1..256"
    if spec.log_level is not None and spec.log_level not in LOG_LEVELS:
        yield f"spec.logLevel: {spec.log_level!r} is none of {', '.join(LOG_LEVELS)}"
    if spec.drain_seconds is not None and not 0 <= spec.drain_seconds <= 3600:
        yield f"spec.drainSeconds: {spec.drain_seconds} is not in 0..3600"
    if spec.service is not None and spec.service.type is not None and spec.service.type not in SERVICE_TYPES:
        yield f"spec.service.type: {spec.service.type!r} is none of {', '.join(SERVICE_TYPES)}"
    for index, patch in enumerate(spec.patches):
        if patch.kind not in PATCHED_KINDS:
            yield f"spec.patches[{index}].kind: {patch.kind!r} is none of {', '.join(PATCHED_KINDS)}"
        elif fixed := sorted({"apiVersion", "kind", "status"} & set(patch.patch)):
            yield f"spec.patches[{index}].patch: {', '.join(fixed)} cannot be changed"
    for field in ("limits", "requests"):
        amounts = (spec.resources or {}).get(field) or {}
        for name, amount in amounts.items() if isinstance(amounts, dict) else ():
            if parse_quantity(amount) is None:
                yield f"spec.resources.{field}.{name}: {amount!r} is not a quantity"


_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|[kMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$")
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {f"{unit}i": 1024.0 ** (n + 1) for n, unit in enumerate("KMGTPE")}


def parse_quantity(text: object) -> float | None:
    """A Kubernetes quantity ("250m", "1Gi", 2) in its unit (cores, bytes); None if it is none."""
    match = _QUANTITY.match(str(text))
    if match is None:
        return None
    number, unit = match.groups()
    if unit is None:
        return float(number)
    if unit in _UNITS or unit in _BINARY:
        return float(number) * {**_UNITS, **_BINARY}[unit]
    return float(number + unit)
