"""P11: manifests read, beside PyYAML's C loader; and beside our own other parser, which tells where an error is."""

import cProfile
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import yaml

from bench import worlds
from bench.commands import render
from bench.envoy_profiles import keep
from bench.record import DESCENDING, Figure, Goal, figure
from bench.subject import BenchError, profiling
from propylon.store.files.parsing import parse_documents, parse_thoroughly

ROUNDS = 5


def documents(sizes: Sequence[int]) -> Iterable[Figure]:
    """P11: CPU time for one file of N documents; the values must be the same."""
    for size in sizes:
        text = manifest(size)
        if profiling():
            profile = cProfile.Profile(time.process_time)
            began = time.process_time()
            profile.runcall(parse_documents, text)
            keep("P11 parser", render(profile, f"P11 one file, {size:,}", time.process_time() - began))
            continue
        readers: dict[str, Callable[[str], list[object]]] = {
            "PyYAML": lambda text: list(yaml.load_all(text, Loader=yaml.CSafeLoader)),
            "thorough": lambda text: [found.value for found in parse_thoroughly(text)],
            "ours": lambda text: [found.value for found in parse_documents(text)],
        }
        if not readers["PyYAML"](text) == readers["thorough"](text) == readers["ours"](text):
            raise BenchError("the parsers do not agree")
        times: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):
            for name, read in readers.items():
                gc.collect()  # nothing that was read is kept: who comes later would have it looked at again
                began = time.process_time()
                read(text)
                times[name].append((time.process_time() - began) * 1000)
        least = statistics.median(times["PyYAML"])
        yield figure("P11", size, "PyYAML's CSafeLoader", times["PyYAML"], "ms")
        yield figure("P11", size, "the thorough parser", times["thorough"], "ms", floor=least)
        yield figure("P11", size, "one file", times["ours"], "ms", floor=least)
        faster = [theirs / ours for theirs, ours in zip(times["PyYAML"], times["ours"], strict=True)]
        yield figure("P11", size, "times as fast as PyYAML", faster, "x", goal=Goal(3, DESCENDING))


def manifest(size: int) -> str:
    """So many documents, of Services and HTTPRoutes in turns, as people write them."""
    found = []
    for number in range(0, size, 2):
        found += [worlds.service(f"r{number}"), worlds.route(f"r{number}", worlds.hostname_of(number), f"r{number}")]
    return str(yaml.dump_all(found[:size], Dumper=yaml.CSafeDumper, sort_keys=False))
