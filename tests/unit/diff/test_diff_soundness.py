"""`diff` against `explain`: random manifests, one change, random requests.

Where any request is answered differently, a change is told; every example is answered differently indeed.
"""

import random

import pytest

from propylon.app.comparison import compare_snapshots
from propylon.explain import Request
from support.diff_generator import PORTS, Mutator, answer, asked, certificate, snapshot
from support.explain_generator import Generator

REQUESTS = 120


@pytest.fixture(scope="module")
def secret():
    return certificate()


def pair(seed, secret, tmp_path):
    generator = Generator(seed, PORTS, wide=True)
    documents = generator.manifests(secret)
    mutated, what = Mutator(seed).mutated(documents)
    return generator, snapshot(documents, tmp_path), snapshot(mutated, tmp_path), what


@pytest.mark.parametrize("seed", range(40))
def test_what_is_told_is_so_and_nothing_is_missed(seed, secret, tmp_path):
    generator, before, after, what = pair(seed, secret, tmp_path)
    found = compare_snapshots(before, after, onto=False)
    for change in found.changes:
        example = change.example
        request = Request(example.url, example.method, example.headers, change.gateway, example.sni)
        shown = {aspect.name for aspect in change.aspects}
        if shown & {"answer", "backends", "path at the backend", "host at the backend", "headers at the backend"}:
            assert answer(before, request) != answer(after, request), (what, change)
    for _ in range(REQUESTS):
        request = asked(generator.request())
        if answer(before, request) != answer(after, request):
            assert found.changes, (what, request, answer(before, request), answer(after, request))


def test_the_same_twice_is_the_same(secret, tmp_path):
    for seed in range(10):
        documents = Generator(seed, PORTS, wide=True).manifests(secret)
        shuffled = random.Random(seed).sample(documents, len(documents))
        found = compare_snapshots(snapshot(documents, tmp_path), snapshot(shuffled, tmp_path), onto=False)
        assert found.same
        assert not found.objects
        assert found.hosts_tried == 0
