"""Objects that are valid as far as the structs tell, each with a random choice of optional fields."""

from __future__ import annotations

import random
from typing import Any

from propylon import api
from propylon.api.introspect import FieldSpec, ItemsSpec, MapSpec, ScalarSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.kinds import KindInfo

from .zoo import good_scalar

Object = dict[str, Any]

UNIONS: dict[str, tuple[str, dict[str, str]]] = {
    "HTTPRouteFilter": (
        "type",
        {
            "RequestHeaderModifier": "requestHeaderModifier",
            "ResponseHeaderModifier": "responseHeaderModifier",
            "RequestMirror": "requestMirror",
            "RequestRedirect": "requestRedirect",
            "URLRewrite": "urlRewrite",
            "CORS": "cors",
            "ExternalAuth": "externalAuth",
            "ExtensionRef": "extensionRef",
        },
    ),
    "GRPCRouteFilter": (
        "type",
        {
            "RequestHeaderModifier": "requestHeaderModifier",
            "ResponseHeaderModifier": "responseHeaderModifier",
            "RequestMirror": "requestMirror",
            "ExtensionRef": "extensionRef",
        },
    ),
    "ListenerFilter": ("type", {"ExternalAuth": "externalAuth", "ExtensionRef": "extensionRef"}),
    "HTTPPathModifier": (
        "type",
        {"ReplaceFullPath": "replaceFullPath", "ReplacePrefixMatch": "replacePrefixMatch"},
    ),
    "SessionPersistence": ("type", {"Cookie": "cookie", "Header": "header"}),
    "HTTPExternalAuthFilter": ("protocol", {"GRPC": "grpc", "HTTP": "http"}),
    "SubjectAltName": ("type", {"Hostname": "hostname", "URI": "uri"}),
    "BackendSpec": (
        "type",
        {"EndpointSelector": "endpointSelector", "ExternalHostname": "externalHostname"},
    ),
}
"""Structs of which a discriminator allows one member: (discriminator, {its value: member})."""

_TRIES = 12
_DEPTH = 9


class Generator:
    """Makes objects; everything random comes from the given source."""

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def document(self, info: KindInfo, version: str, density: float | None = None) -> Object:
        """An object that `api` takes for valid, if a dozen tries bring one forth; otherwise the last try.

        Each optional field is there with the probability `density`, which is random unless given.
        """
        document: Object = {}
        for _ in range(_TRIES):
            document = self._document(info, version, density or self.random.choice((0.1, 0.3, 0.5, 0.8)))
            if not any(finding.severity == "error" for finding in api.validate(document)):
                break
        return document

    def _document(self, info: KindInfo, version: str, density: float) -> Object:
        metadata: Object = {"name": f"generated-{self.random.randrange(10**6)}"}
        if info.namespaced:
            metadata["namespace"] = "default"
        document: Object = {"apiVersion": info.api_version_of(version), "kind": info.kind, "metadata": metadata}
        spec = struct_spec(info.schema(version)).fields["spec"].type
        document["spec"] = self.value(spec, density)
        return document

    def status(self, info: KindInfo, version: str) -> Any:
        """A status of a kind that has one."""
        return self.value(struct_spec(info.schema(version)).fields["status"].type, self.random.choice((0.2, 0.5, 0.9)))

    def value(self, spec: TypeSpec, density: float, depth: int = 0) -> Any:
        """A value of a type; each optional field is there with the probability `density`."""
        match spec:
            case StructSpec():
                return self._struct(spec, density, depth)
            case ItemsSpec():
                return self._items(spec, density, depth)
            case MapSpec():
                count = self.random.randrange(min(spec.constraint.max_properties or 3, 3) + 1)
                keys = self.random.sample(("a", "example.com/b", "app.kubernetes.io/name", "C.d_e"), count)
                return {key: self.value(spec.values, density, depth + 1) for key in keys}
            case ScalarSpec():
                return good_scalar(spec, self.random)

    def _items(self, spec: ItemsSpec, density: float, depth: int) -> list[Any]:
        low = spec.constraint.min_items or 0
        high = min(spec.constraint.max_items or 3, 3)
        count = self.random.randint(low, max(low, high if depth < _DEPTH else low))
        return [self.value(spec.items, density, depth + 1) for _ in range(count)]

    def _struct(self, spec: StructSpec, density: float, depth: int) -> Object:
        name = spec.struct.__name__
        chosen: Object = {}
        left_out: set[str] = set()
        if name in UNIONS:
            discriminator, members = UNIONS[name]
            allowed = spec.fields[discriminator].type.constraint.enum or tuple(members)
            kind = self.random.choice([value for value in members if value in allowed] or list(allowed))
            chosen[discriminator] = kind
            member = members[str(kind)]
            chosen[member] = self.value(spec.fields[member].type, density, depth + 1)
            left_out = set(members.values())
        for key, field in spec.fields.items():
            if key not in chosen and key not in left_out and self._wants(field, density, depth):
                chosen[key] = self.value(field.type, density, depth + 1)
        repair = getattr(self, f"_repair_{name}", None)
        if repair is not None:
            repair(chosen)
        return chosen

    def _wants(self, field: FieldSpec, density: float, depth: int) -> bool:
        # Further down less, or objects get out of hand.
        return field.required or self.random.random() < density * (0.85 ** max(0, depth - 3))

    # Rules across fields, as far as random values would hardly ever keep them.

    def _repair_Listener(self, listener: Object) -> None:  # noqa: N802 - named after the struct
        protocol = self.random.choice(("HTTP", "HTTPS", "TLS", "TCP", "UDP", "example.com/proto"))
        listener["protocol"] = protocol
        listener["name"] = f"l{self.random.randrange(10**6)}"
        if protocol in ("HTTP", "TCP", "UDP"):
            listener.pop("tls", None)
        if protocol in ("TCP", "UDP"):
            listener.pop("hostname", None)
        if protocol not in ("HTTP", "HTTPS"):
            listener.pop("filters", None)
        if protocol in ("HTTPS", "TLS"):
            mode = "Passthrough" if protocol == "TLS" and self.random.random() < 0.5 else "Terminate"
            listener["tls"] = {"mode": mode, "certificateRefs": [{"name": "certificate"}]}

    _repair_ListenerEntry = _repair_Listener  # noqa: N815

    def _repair_GatewaySpecAddress(self, address: Object) -> None:  # noqa: N802
        address["value"] = self.random.choice(("192.0.2.1", "2001:db8::1", "192.0.2.77"))
        if address.get("type", "IPAddress") != "IPAddress":
            address["value"] = "www.example.com"
        if "routability" in address:
            address["routability"] = self.random.choice(("Cluster", "example.com/inside"))

    _repair_GatewayStatusAddress = _repair_GatewaySpecAddress  # noqa: N815

    def _repair_HTTPPathMatch(self, match: Object) -> None:  # noqa: N802
        match["value"] = self.random.choice(("/", "/a", "/a/b", "/a%20b", "/~x"))

    def _repair_GRPCMethodMatch(self, match: Object) -> None:  # noqa: N802
        match["service"] = self.random.choice(("package.Service", "Service", ".a.B"))
        if "method" in match:
            match["method"] = self.random.choice(("Get", "_list"))

    def _repair_BackendObjectReference(self, ref: Object) -> None:  # noqa: N802
        if ref.get("kind") == "XBackend":
            ref.pop("port", None)
        else:
            ref.setdefault("port", 80)

    _repair_BackendRef = _repair_HTTPBackendRef = _repair_GRPCBackendRef = _repair_BackendObjectReference  # noqa: N815

    def _repair_HTTPRouteRule(self, rule: Object) -> None:  # noqa: N802
        _distinct(rule.get("filters", []), "type")
        for ref in rule.get("backendRefs", ()):
            _distinct(ref.get("filters", []), "type")
        types = {item["type"] for item in rule.get("filters", ())}
        if "RequestRedirect" in types:
            rule.pop("backendRefs", None)
            rule["filters"] = [item for item in rule["filters"] if item["type"] != "URLRewrite"]
        if "name" in rule:
            rule["name"] = f"r{self.random.randrange(10**6)}"

    _repair_GRPCRouteRule = _repair_HTTPRouteRule  # noqa: N815

    def _repair_TLSRouteRule(self, rule: Object) -> None:  # noqa: N802
        if "name" in rule:
            rule["name"] = f"r{self.random.randrange(10**6)}"

    _repair_TCPRouteRule = _repair_UDPRouteRule = _repair_TLSRouteRule  # noqa: N815

    def _repair_HTTPRouteTimeouts(self, timeouts: Object) -> None:  # noqa: N802
        if "request" in timeouts and "backendRequest" in timeouts:
            timeouts.update(request="10s", backendRequest=self.random.choice(("10s", "9999ms", "0s", "1s")))

    def _repair_SessionPersistence(self, persistence: Object) -> None:  # noqa: N802
        if persistence.get("cookie", {}).get("lifetimeType") == "Permanent":
            persistence["absoluteTimeout"] = "1h"

    def _repair_HTTPRequestMirrorFilter(self, mirror: Object) -> None:  # noqa: N802
        if "percent" in mirror:
            mirror.pop("fraction", None)

    def _repair_Fraction(self, fraction: Object) -> None:  # noqa: N802
        fraction["numerator"] = self.random.randint(0, min(fraction.get("denominator", 100), 200))

    def _repair_HTTPCORSFilter(self, cors: Object) -> None:  # noqa: N802
        for values in cors.values():
            if isinstance(values, list) and "*" in values:
                values[:] = ["*"]
            elif isinstance(values, list):
                values[:] = list(dict.fromkeys(values))

    def _repair_HTTPHeaderFilter(self, headers: Object) -> None:  # noqa: N802
        for key in ("set", "add"):
            _distinct(headers.get(key, []), "name")
        if "remove" in headers:
            headers["remove"] = list(dict.fromkeys(headers["remove"]))

    def _repair_BackendTLSPolicyValidation(self, validation: Object) -> None:  # noqa: N802
        if validation.get("caCertificateRefs"):
            validation.pop("wellKnownCACertificates", None)
        else:
            validation.pop("caCertificateRefs", None)
            validation["wellKnownCACertificates"] = "System"

    def _repair_FrontendTLSConfig(self, frontend: Object) -> None:  # noqa: N802
        _distinct(frontend.get("perPort", []), "port")

    def _repair_BackendSpec(self, backend: Object) -> None:  # noqa: N802
        if backend.get("protocol") == "H2C":
            backend.pop("tls", None)
        if backend["type"] != "EndpointSelector":
            backend.pop("sessionPersistence", None)

    def _repair_BackendTLS(self, tls: Object) -> None:  # noqa: N802
        if tls.get("mode", "None") != "ClientAndServer":
            tls.pop("clientCertificateRef", None)
        if tls.get("mode") == "None":
            tls.pop("validation", None)

    def _repair_TLSRouteSpec(self, spec: Object) -> None:  # noqa: N802
        spec["hostnames"] = self.random.sample(("a.example.com", "*.example.com", "b.example.org"), 2)


def _distinct(items: list[Object], key: str) -> None:
    seen: set[Any] = set()
    kept = [item for item in items if not (item.get(key) in seen or seen.add(item.get(key)))]
    items[:] = kept
