from typing import Any

import pytest

from propylon import api
from propylon.app.unsupported import without_effect


def ref(group: str, kind: str) -> api.ObjectRef:
    return api.ObjectRef(group, kind, "ns", "name")


@pytest.mark.parametrize(
    ("group", "kind", "words"),
    [
        ("cert-manager.io", "ClusterIssuer", "--dev-certs"),
        ("cilium.io", "CiliumLoadBalancerIPPool", "pools"),
        ("metallb.io", "IPAddressPool", "pools"),
        ("kyverno.io", "ClusterPolicy", "spec.infrastructure.annotations"),
    ],
)
def test_companions_kinds_are_named(group: str, kind: str, words: str) -> None:
    (found,) = without_effect(ref(group, kind), {})
    assert found.condition == "Warning"
    assert words in found.message


def test_annotations_are_named_once_a_reason() -> None:
    gateway: dict[str, Any] = {
        "metadata": {"annotations": {"cert-manager.io/issuer": "a", "cert-manager.io/duration": "b", "team": "c"}},
        "spec": {"infrastructure": {"annotations": {"io.cilium/lb-ipam-ips": "192.0.2.1"}}},
    }
    found = without_effect(ref(api.GATEWAY_GROUP, "Gateway"), gateway)
    assert [f.field for f in found] == [
        "metadata.annotations[cert-manager.io/duration]",
        "spec.infrastructure.annotations[io.cilium/lb-ipam-ips]",
    ]


def test_ordinary_objects_are_left_in_peace() -> None:
    assert without_effect(ref("", "ConfigMap"), {"metadata": {"annotations": {"cert-manager.io/x": "y"}}}) == ()
    assert without_effect(ref("", "Service"), {"metadata": {}}) == ()
    assert without_effect(ref("argoproj.io", "Application"), {}) == ()
