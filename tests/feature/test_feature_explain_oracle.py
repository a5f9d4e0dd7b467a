"""What `explain` says, real Envoy does: random manifests, random requests.

At length: `python tests/oracle_explain.py`.
"""

import pytest

from support.explain_oracle import Oracle

pytestmark = pytest.mark.feature


@pytest.fixture(scope="module")
def oracle():
    each = Oracle()
    yield each
    each.close()


@pytest.mark.parametrize("seed", range(8))
def test_explain_says_what_envoy_does(oracle, seed):
    difference = oracle.run(seed, 60)
    assert not difference, difference
