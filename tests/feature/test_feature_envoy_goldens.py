"""Real Envoy takes whatever the Graph makes of its own golden manifests, the broken ones included."""

import os
import sys
from pathlib import Path

import pytest

from propylon.envoy import EnvoySettings, build_translation
from propylon.graph import GatewayAddresses
from support.envoy_proxy import Proxy
from support.envoy_world import World

GRAPH_TESTS = Path(__file__).parents[1] / "unit" / "graph"
sys.path.insert(0, str(GRAPH_TESTS))
CASES = sorted((GRAPH_TESTS / "goldens").glob("*.yaml"))
OFFSET = 11_000 + os.getpid() % 10_000

pytestmark = pytest.mark.feature


@pytest.fixture(scope="module")
def proxy():
    each = Proxy()
    start = World()
    start.backend("start")
    each.apply(start)
    yield each
    each.close()


class OfGateway:
    """The resources of one Gateway, for `Proxy.apply`."""

    def __init__(self, translation, gateway):
        self.translation, self.gateway = translation, gateway

    def resources(self):
        found = [r for part in self.translation for (gateway, _), r in part.items() if gateway == self.gateway]
        return {(r.type_url, r.name): r for r in found}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_envoy_takes_it(proxy, path):
    import graph_world

    world = graph_world.World()
    translation = build_translation(world.engine, world.graph, EnvoySettings())
    world.load(path.read_text().partition("\n---\nexpected:")[0])
    for gateway in list(world.graph.gateways):
        world.sources.addresses.set(gateway, GatewayAddresses((), ("127.0.0.1",), OFFSET))
    world.commit()
    for gateway in world.graph.gateways:
        proxy.apply(OfGateway(translation, gateway))
        served = {key for key, _ in world.graph.ports.items() if key.gateway == gateway}
        assert len([k for k in proxy.sent if k[0].endswith(".Listener")]) == len(served)
        names = {name for _, name in proxy.sent}
        used = {key for (owner, key), _ in world.graph.clusters.items() if owner == gateway}
        assert all(any(key.backend.name in name for name in names) for key in used)


def test_there_are_goldens():
    assert len(CASES) >= 40
