"""Manifests that many feature tests begin with; `port_offset` keeps bound ports above the privileged ones."""

from pathlib import Path

OFFSET = 20000
"""For `--port-offset`: listener port 80 is bound to 20080 of the Gateway's own loopback address."""


def write(directory: Path, **files: str) -> Path:
    """Write `name.yaml` for every keyword; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
    return directory


GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: propylon}
spec: {controllerName: propylon.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: propylon
  listeners:
    - {name: http, port: 80, protocol: HTTP}
"""


def service(name: str, port: int = 80, namespace: str = "default") -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{ports: [{{port: {port}}}]}}
"""


def route(name: str, hostname: str, *rules: str, gateway: str = "web", section: str = "") -> str:
    """An HTTPRoute; every rule is YAML in flow style."""
    parent = f"{{name: {gateway}{', sectionName: ' + section if section else ''}}}"
    lines = "\n".join(f"    - {rule}" for rule in rules)
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: default}}
spec:
  parentRefs: [{parent}]
  hostnames: ["{hostname}"]
  rules:
{lines}
"""


def to(service_name: str, *, prefix: str = "/", port: int = 80, weight: int = 1) -> str:
    """A rule that sends a path prefix to a Service."""
    match = f"{{path: {{type: PathPrefix, value: {prefix}}}}}"
    return f"{{matches: [{match}], backendRefs: [{{name: {service_name}, port: {port}, weight: {weight}}}]}}"
