"""One file per case: manifests, then a last document with what is expected of the Graph and of the statuses.

`UPDATE=1 pytest tests/unit/graph/test_graph_goldens.py` rewrites the expectations; read the difference before you
commit it. Every Gateway gets the addresses it asks for (or 10.0.0.1), and proxies acknowledge every port.
"""

import os
from pathlib import Path

import pytest
import yaml
from graph_world import World, summarize_graph, summarize_status

GOLDENS = Path(__file__).parent / "goldens"
CASES = sorted(GOLDENS.glob("*.yaml"))


class Folded(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def test_there_are_goldens() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    text = path.read_text()
    manifests, found, _ = text.partition("\n---\nexpected:")
    world = World().load(manifests)
    actual = {"graph": summarize_graph(world), "status": summarize_status(world)}
    if os.environ.get("UPDATE"):
        dumped = yaml.dump({"expected": actual}, Dumper=Folded, sort_keys=False, width=150, allow_unicode=True)
        path.write_text(f"{manifests.rstrip()}\n---\n{dumped}")
        return
    assert found, "no expectation: run with UPDATE=1, then read what it wrote"
    assert actual == yaml.safe_load("expected:" + text.partition("\n---\nexpected:")[2])["expected"]
