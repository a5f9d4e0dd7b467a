"""A bucket of an index after a batch: the same by bisection, by merging, and by sorting anew."""

import random

import pytest

from propylon.incremental.collection import FEW, patched


class Counting(int):
    """A number that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        Counting.compared += 1
        return int(self) < int(other)


@pytest.mark.parametrize("size", [0, 1, 40, 3000])
@pytest.mark.parametrize("changed", [1, FEW, FEW + 1, 100])
def test_a_patched_bucket_is_what_sorting_would_make_of_it(size: int, changed: int) -> None:
    draw = random.Random(size * 1000 + changed)
    members = tuple(sorted(draw.sample(range(10_000), size)))
    held = set(members)
    joined = [key for key in draw.sample(range(10_000), changed) if key not in held]
    left = draw.sample(members, min(changed, size // 2))
    wanted = tuple(sorted(held.union(joined).difference(left)))
    assert patched(members, joined, left) == wanted
    assert patched(members, joined, ()) == tuple(sorted(held.union(joined)))
    assert patched(members, (), left) == tuple(sorted(held.difference(left)))


def test_keys_that_cannot_be_compared_are_kept_all_the_same() -> None:
    members = (1, "a", None)
    joined = [("b", number) for number in range(FEW + 5)]
    assert set(patched(members, joined, ())) == {*members, *joined}
    assert set(patched(members, joined[:1], [1])) == {"a", None, joined[0]}


def test_twenty_new_members_cost_about_the_same_among_many() -> None:
    members = tuple(map(Counting, range(0, 20_000, 2)))
    Counting.compared = 0
    patched(members, [Counting(number) for number in range(1, 400, 20)], ())
    assert Counting.compared < 20 * 20  # ten thousand members are not looked at one by one
