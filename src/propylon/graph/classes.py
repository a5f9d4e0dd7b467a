"""Which GatewayClasses are ours, and which Gateways follow from that."""

import msgspec

from propylon import api
from propylon.graph.model import Finding, GatewayClass
from propylon.graph.sources import Settings, Sources
from propylon.incremental import Collection, Engine, Look


class GatewayHead(msgspec.Struct, frozen=True):
    """What routes need to know of a Gateway of ours apart from its listeners."""

    controller_name: str
    default_scope: str | None
    allowed_listeners: api.ListenerNamespaces
    """Whose ListenerSets it lets in."""


def build_classes(engine: Engine, sources: Sources, settings: Settings) -> Collection[api.ObjectKey, GatewayClass]:
    """Adopt GatewayClasses by controller name."""

    def adopt(key: api.ObjectKey, gateway_class: api.GatewayClass, look: Look) -> GatewayClass | None:
        name = gateway_class.spec.controller_name
        if settings.controllers is not None and name not in settings.controllers:
            return None
        findings: tuple[Finding, ...] = ()
        ref = gateway_class.spec.parameters_ref
        if ref is not None:
            target = api.ObjectRef(ref.group, ref.kind, ref.namespace or "", ref.name)
            findings = judge_parameters(look, sources, settings, target, "spec.parametersRef")
        return GatewayClass(key.name, name, gateway_class.metadata.generation, findings)

    return engine.derive("classes", sources.gateway_classes, adopt)


def judge_parameters(
    look: Look, sources: Sources, settings: Settings, target: api.ObjectRef, field: str
) -> tuple[Finding, ...]:
    """Refuse a `parametersRef` that leads to nothing usable."""
    kind = f"{target.kind}.{target.group}" if target.group else target.kind
    if (target.group, target.kind) not in settings.parameter_kinds:
        message = f"parameters of kind {kind} are not supported: remove {field.removeprefix('spec.')}"
        return (Finding("Accepted", "InvalidParameters", message, field),)
    found = look.get(sources.parameters, target)
    if found is None:
        message = f"{kind} {target.key} does not exist"
        return (Finding("Accepted", "InvalidParameters", message, field),)
    if found.error:
        return (Finding("Accepted", "InvalidParameters", f"{kind} {target.key}: {found.error}", field),)
    return ()


def build_heads(
    engine: Engine, sources: Sources, classes: Collection[api.ObjectKey, GatewayClass]
) -> Collection[api.ObjectKey, GatewayHead]:
    """Tell which Gateways are ours: those of an adopted and accepted class."""

    def head(_key: api.ObjectKey, gateway: api.Gateway, look: Look) -> GatewayHead | None:
        gateway_class = look.get(classes, api.ObjectKey("", gateway.spec.gateway_class_name))
        if gateway_class is None or not gateway_class.accepted:
            return None
        allowed = (gateway.spec.allowed_listeners or api.AllowedListeners()).namespaces
        return GatewayHead(gateway_class.controller_name, gateway.spec.default_scope, allowed)

    return engine.derive("gateway heads", sources.gateways, head)
