"""CRDs of older releases, CRDs that are missing, and those that come while a controller runs."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from cluster_plane import Plane
from cluster_site import GROUP, Site, await_answers

from propylon.status import SUPPORTED_FEATURES
from support.instance import eventually

OF_OLD = ("v1.4.1", "v1.5.1", "v1.6.3")
OF_THE_FUTURE = "v1.99.0"
"""What protects CRDs from unsafe changes lets nothing else in."""
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FIND_SECONDS = 60.0
"""Kinds that are not served are looked for again every ten seconds."""
ALONE = ("--no-leader-elect",)
"""Who is killed and started again would have to wait until the lease of its former self runs out."""
MISSING = ("tlsroutes", "tcproutes", "udproutes", "grpcroutes", "listenersets", "backendtlspolicies", "referencegrants")
RESTART_LINES = 30


def crd_names(directory: Path) -> list[str]:
    return [file.name for file in sorted(directory.glob("*.yaml"))]


def some_of(directory: Path, target: Path, wanted: Callable[[str], bool]) -> Path:
    """A directory with some of the CRDs of another."""
    target.mkdir()
    for name in crd_names(directory):
        if wanted(name):
            shutil.copyfile(directory / name, target / name)
    return target


def echoed(address: str, port: int) -> bool:
    """Whether a TCP connection leads to a backend that speaks HTTP."""
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: tcp.example\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP/1.1 200")


def tcp_route(site: Site, version: str) -> dict[str, object]:
    rules = [{"backendRefs": [{"name": "a", "port": 80}]}]
    spec = {"parentRefs": [{"name": "web", "sectionName": "tcp"}], "rules": rules}
    return site.document(f"{GROUP}/{version}", "TCPRoute", "bytes", spec)


def supported(site: Site) -> tuple[str, str]:
    """Status and message of SupportedVersion of the site's class."""
    found = site.plane.get(f"/apis/{GROUP}/v1/gatewayclasses/{site.name}")["status"]["conditions"]
    return next((c["status"], c["message"]) for c in found if c["type"] == "SupportedVersion")


def await_judged(site: Site, version: str, status: str) -> None:
    """Wait until SupportedVersion has that status, because of that version."""

    def judged() -> bool:
        found, message = supported(site)
        return found == status and version in message

    eventually(judged, f"SupportedVersion is {status} by {version}")


def claimed(site: Site) -> set[str]:
    found = site.plane.get(f"/apis/{GROUP}/v1/gatewayclasses/{site.name}")["status"]["supportedFeatures"]
    return {feature["name"] for feature in found}


def test_every_release_since_v1_4(plane: Plane, tmp_path: Path) -> None:
    """Installed over each other while a controller runs and is killed and started again, on traffic all the time."""
    with Site(plane, tmp_path) as site, site.controller(*ALONE) as controller:
        eventually(lambda: controller.said("not served"), "the log says that there are no CRDs", 30)
        upgrade(plane, OF_OLD[0])
        site.publish()
        plane.merge(site.path("gateways", "web"), {"spec": {"listeners": listeners()}})
        plane.apply(tcp_route(site, "v1alpha2"))
        eventually(lambda: site.answered_by() == "a", "v1.4.1 is served", FIND_SECONDS)
        site.await_statuses()
        eventually(lambda: echoed(site.address, 9000), "the TCPRoute is served")
        assert not claimed(site) & {"ListenerSet", "GatewayListenerFilters", "GatewayAddressRoutability"}
        with site.load() as load:
            for version in (*OF_OLD, "v1.7.0", OF_THE_FUTURE):
                upgrade(plane, version)
                before = len(controller.lines())
                for backend in ("b", "a"):
                    site.lead_to(backend)
                    site.await_served(backend)
                    site.await_statuses()
                controller.kill()
                controller.start()
                site.lead_to("b")
                site.await_served("b")
                site.await_statuses()
                assert echoed(site.address, 9000)
                status = "False" if version == OF_THE_FUTURE else "True"
                await_judged(site, version, status)
                await_answers(load, 20)
                assert len(controller.lines(before)) <= RESTART_LINES, controller.lines(before)
        assert load.result.failures == []
        assert claimed(site) == set(SUPPORTED_FEATURES)


def upgrade(plane: Plane, version: str) -> None:
    """Install the experimental CRDs of a release over those that are there."""
    if version in plane.older:
        plane.install_crds(plane.older[version] / "experimental")
    elif version == OF_THE_FUTURE:
        annotations = {f"{GROUP}/bundle-version": version}
        plane.merge(f"{CRDS}/httproutes.{GROUP}", {"metadata": {"annotations": annotations}})
    else:
        plane.install_crds(plane.artifacts.experimental_crds)


def listeners() -> list[dict[str, object]]:
    return [{"name": "http", "port": 80, "protocol": "HTTP"}, {"name": "tcp", "port": 9000, "protocol": "TCP"}]


def test_kinds_that_are_missing_and_come_later(fresh_plane: Plane, tmp_path: Path) -> None:
    """The standard channel with Gateways and HTTPRoutes only; all else is installed later, then taken away again."""
    plane, standard = fresh_plane, fresh_plane.artifacts.standard_crds

    def is_optional(name: str) -> bool:
        return any(kind in name for kind in MISSING)

    plane.install_crds(some_of(standard, tmp_path / "first", lambda name: not is_optional(name)))
    with Site(plane, tmp_path) as site:
        site.publish()
        with site.controller() as controller:
            site.await_served("a")
            site.await_statuses()
            with site.load() as load:
                before = len(controller.lines())
                plane.install_crds(some_of(standard, tmp_path / "second", is_optional))
                plane.merge(site.path("gateways", "web"), {"spec": {"listeners": listeners()}})
                plane.apply(tcp_route(site, "v1"))
                eventually(lambda: echoed(site.address, 9000), "TCPRoutes are found and served", FIND_SECONDS)
                site.lead_to("b")
                site.await_served("b")
                site.await_statuses()
                plane.delete(f"{CRDS}/tcproutes.{GROUP}")
                site.lead_to("a")
                site.await_served("a")
                await_answers(load, 20)
                assert len(controller.lines(before)) <= 2 * len(MISSING), controller.lines(before)
            assert load.result.failures == []
