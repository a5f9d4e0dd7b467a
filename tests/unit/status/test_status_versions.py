"""SupportedVersion: whether the installed CRDs are of releases that we know."""

import pytest

from propylon.status.features import SUPPORTED_RELEASES, release_of
from propylon.status.gateways import version_judgement


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("v1.7.0", "v1.7"),
        ("v1.4.12", "v1.4"),
        ("v1.7.0-rc.1", "v1.7"),
        ("v10.20.30", "v10.20"),
        ("v1.7", None),
        ("1.7.0", None),
        ("main", None),
        ("", None),
    ],
)
def test_the_release_of_a_version(version: str, release: str | None) -> None:
    assert release_of(version) == release


def test_crds_of_known_releases_are_supported() -> None:
    for release in SUPPORTED_RELEASES:
        found = version_judgement((("gateways", f"{release}.1"), ("httproutes", f"{release}.1")))
        assert (found.status, found.reason) == ("True", "SupportedVersion")
        assert f"{release}.1 is installed" in found.message


def test_where_there_are_no_crds_nothing_is_in_the_way() -> None:
    assert version_judgement(()).status == "True"


@pytest.mark.parametrize("version", ["v1.3.0", "v2.0.0", "nonsense", ""])
def test_one_strange_crd_is_enough(version: str) -> None:
    found = version_judgement((("gateways", "v1.7.0"), ("httproutes", version)))
    assert (found.status, found.reason) == ("False", "UnsupportedVersion")
    assert f"httproutes of {version or 'no version'}" in found.message
    assert "v1.4 to v1.7" in found.message
    assert "gateways" not in found.message
