"""Remote resources of kustomizations that need not be fetched, because what they define is built in."""

from __future__ import annotations

import re

_BUILT_IN = (
    (
        re.compile(
            r"github\.com/kubernetes-sigs/gateway-api(\.git)?/"
            r"(releases/(download/[^/]+|latest/download)/(standard|experimental)-install\.yaml|.*config/crd)"
            r"|kubernetes-sigs/gateway-api/.*config/crd"
            r"|gateway\.networking\.k8s\.io_\w+\.yaml"
        ),
        "the Gateway API's kinds",
    ),
    (
        re.compile(r"nginx-gateway-fabric(\.git)?/+(\w+/)*config/crd/gateway-api"),
        "the Gateway API's kinds",
    ),
    (
        re.compile(r"cert-manager/cert-manager/releases/(download/[^/]+|latest/download)/cert-manager(\.crds)?\.yaml"),
        "cert-manager's kinds",
    ),
    (
        re.compile(r"metallb/metallb/+.*(config/(crd|manifests|native|frr)|manifests/metallb)"),
        "MetalLB's kinds",
    ),
    (
        re.compile(r"cilium/cilium/.*/crds?/.*\.yaml"),
        "Cilium's kinds",
    ),
)


def is_remote(resource: str) -> bool:
    """Whether a kustomization's resource is a URL or a repository rather than a path."""
    return bool(re.match(r"(https?|ssh|git|file)://|git@|git::|(www\.)?github\.com[/:]", resource))


def built_in(url: str) -> str:
    """What a remote resource defines that is built in; "" if nothing known."""
    return next((what for pattern, what in _BUILT_IN if pattern.search(url)), "")
