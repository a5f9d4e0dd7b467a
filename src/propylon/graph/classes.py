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

    def adopt(key: api.ObjectKey, gateway_class: api.GatewayClass, _look: Look) -> GatewayClass | None:
        name = gateway_class.spec.controller_name
        if settings.controllers is not None and name not in settings.controllers:
            return None
        findings: tuple[Finding, ...] = ()
        parameters = gateway_class.spec.parameters_ref
        if parameters is not None:
            findings = (
                Finding(
                    "Accepted",
                    "InvalidParameters",
                    f"parameters of kind {parameters.kind}.{parameters.group} are not supported: remove parametersRef",
                    "spec.parametersRef",
                ),
            )
        return GatewayClass(key.name, name, gateway_class.metadata.generation, findings)

    return engine.derive("classes", sources.gateway_classes, adopt)


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
