"""The table of kinds, looked up in every way."""

import msgspec
import pytest

from propylon import api


def test_every_lookup_finds_every_kind() -> None:
    for info in api.KINDS:
        assert api.by_kind(info.group, info.kind) is info
        assert api.by_resource(info.group, info.plural) is info
        assert api.by_type(info.type) is info
        assert info in api.by_name(info.kind)
        assert info.version == info.served_versions[0]
        assert info.type.__doc__, "kubectl explain shows it"
        fields = {field.name: field.default for field in msgspec.structs.fields(info.type)}
        assert (fields["api_version"], fields["kind"]) == (info.api_version, info.kind)
    names = [(info.group, info.plural) for info in api.KINDS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("gtw", ["Gateway"]),
        ("HTTPRoutes", ["HTTPRoute"]),
        ("httproute.gateway.networking.k8s.io", ["HTTPRoute"]),
        ("httproute.example.com", []),
        ("svc", ["Service"]),
        ("nothing", []),
    ],
)
def test_names_people_use(word: str, kinds: list[str]) -> None:
    assert [info.kind for info in api.by_name(word)] == kinds


def test_what_is_not_interpreted_is_not_found() -> None:
    assert api.by_kind("apps", "Deployment") is None
    assert api.by_kind("", "HTTPRoute") is None
    assert api.by_resource("", "httproutes") is None


def test_api_versions() -> None:
    route = api.by_type(api.HTTPRoute)
    assert route.api_version == "gateway.networking.k8s.io/v1"
    assert route.api_version_of("v1beta1") == "gateway.networking.k8s.io/v1beta1"
    assert api.by_type(api.Service).api_version == "v1"
    assert api.group_of("v1") == ""
    assert api.group_of("apps/v1") == "apps"
