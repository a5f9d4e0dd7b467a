"""Files and kubectl write the same objects: who wins, who conflicts, and what is told."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.instance import Instance, eventually
from support.kubectl import KUBECTL
from support.manifests import GATEWAY, OFFSET, route, service, to, write

pytestmark = pytest.mark.feature


class Up:
    """A running instance and kubectl for it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.kubeconfig = instance.data_dir / "kubeconfig"

    def kubectl(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.instance.data_dir), "KUBECONFIG": str(self.kubeconfig)}
        command = [KUBECTL, *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, env=environment)

    def shop(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "httproute", "shop", "-o", "json").stdout)
        return found

    def hosts(self) -> list[str]:
        found: list[str] = self.shop()["spec"]["hostnames"]
        return found

    def notices(self) -> str:
        return "\n".join(self.instance.status()["notices"])


def test_edits_win_until_the_file_changes_and_that_is_told(tmp_path: Path) -> None:
    manifests = write(
        tmp_path / "m", gateway=GATEWAY, services=service("a"), shop=route("shop", "file.example.com", to("a"))
    )
    with Instance(tmp_path, str(manifests), "--echo", "--port-offset", str(OFFSET)) as instance:
        instance.ready()
        up = Up(instance)
        eventually(lambda: up.kubectl("get", "--raw", "/readyz").stdout == "ok", "the API answers")

        applied = route("shop", "applied.example.com", to("a"))
        refused = up.kubectl("apply", "--server-side", "-f", "-", given=applied)
        assert 'with "files"' in refused.stderr, refused
        assert ".spec.hostnames" in refused.stderr
        assert up.hosts() == ["file.example.com"]
        forced = up.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=applied)
        assert forced.returncode == 0, forced.stderr
        assert up.hosts() == ["applied.example.com"]

        patch = '{"spec":{"hostnames":["patched.example.com"]},"metadata":{"labels":{"own":"x"}}}'
        assert up.kubectl("patch", "httproute", "shop", "--type=merge", "-p", patch).returncode == 0
        assert up.hosts() == ["patched.example.com"]
        assert "overrides" not in up.notices()

        write(manifests, shop=route("shop", "again.example.com", to("a")))
        eventually(lambda: up.hosts() == ["again.example.com"], "the file wins")
        assert up.shop()["metadata"]["labels"]["own"] == "x"
        told = eventually(lambda: "overrides" in up.notices() and up.notices(), "it is told")
        assert "HTTPRoute default/shop" in told
        assert "spec.hostnames (kubectl-patch)" in told

        write(manifests, shop=route("shop", "last.example.com", to("a")))
        eventually(lambda: up.hosts() == ["last.example.com"], "the file changes on")
        eventually(lambda: "overrides" not in up.notices(), "nothing is overridden any more")
