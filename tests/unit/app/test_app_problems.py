"""What is printed of problems: each once when it comes, once when it is mended, at the cost of what changed."""

import random

from propylon import api
from propylon.app.problems import Problems
from propylon.app.report import Problem
from propylon.graph.model import Finding


def ref(name: str) -> api.ObjectRef:
    return api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "shop", name)


def finding(message: str) -> Finding:
    return Finding("Accepted", "NoMatchingParent", message)


class Places:
    """Where objects stand; counts how often that is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, about: api.ObjectRef, _field: str) -> tuple[str, int, int]:
        self.asked += 1
        return f"{about.name}.yaml", 3, 1


def test_a_problem_is_told_once_and_once_when_it_is_mended() -> None:
    problems = Problems(Places())
    problems.set_findings("routes", ref("cart"), (finding("there is no Gateway"),))
    line = "cart.yaml:3: HTTPRoute shop/cart: NoMatchingParent: there is no Gateway"
    assert problems.news() == [f"error: {line} (mend the parentRef, or add what it names)"]
    problems.set_others("store", [Problem("error", "data", 0, 0, "", "", "the disk is full")])
    assert problems.news() == ["error: data: the disk is full"]
    problems.set_findings("routes", ref("cart"), ())
    assert problems.news() == ["mended: cart.yaml:3: HTTPRoute shop/cart: NoMatchingParent"]
    assert problems.news() == []
    assert [problem.message for problem in problems.all()] == ["the disk is full"]


def test_what_comes_and_goes_between_two_tellings_is_not_told() -> None:
    problems = Problems(Places())
    problems.set_findings("routes", ref("cart"), (finding("there is no Gateway"),))
    problems.set_findings("routes", ref("cart"), ())
    assert problems.news() == []


def test_what_two_origins_say_alike_is_one_problem() -> None:
    problems = Problems(Places())
    problems.set_findings("routes", ref("cart"), (finding("there is no Gateway"),))
    problems.set_findings("rejections", ref("cart"), (finding("there is no Gateway"),))
    assert len(problems.all()) == 1
    assert len(problems.news()) == 1
    problems.set_findings("routes", ref("cart"), ())
    assert problems.news() == []
    problems.set_findings("rejections", ref("cart"), ())
    assert problems.news() == ["mended: cart.yaml:3: HTTPRoute shop/cart: NoMatchingParent"]


def test_one_more_problem_costs_the_same_among_thousands() -> None:
    places = Places()
    problems = Problems(places)
    for number in range(2000):
        problems.set_findings("routes", ref(f"r{number}"), (finding("there is no Gateway"),))
    assert len(problems.news()) == 2000
    places.asked = 0
    problems.set_findings("routes", ref("one-more"), (finding("there is no Gateway"),))
    assert len(problems.news()) == 1
    assert places.asked == 1


def test_what_was_told_and_not_mended_is_what_there_is() -> None:
    """Origins come and go at random; names are such that what is mended can be told apart."""
    draw = random.Random(7)
    problems = Problems(Places())
    told: set[str] = set()
    for _ in range(300):
        for _ in range(draw.randint(1, 4)):
            said = tuple(finding("there is no Gateway") for _ in range(draw.randint(0, 2)))
            problems.set_findings(draw.choice(["one", "other"]), ref(draw.choice("uvwxyz")), said)
        lines = problems.news()
        mended = {line.removeprefix("mended: ") for line in lines if line.startswith("mended: ")}
        begun = {line.removeprefix("error: ").partition(": there is")[0] for line in lines if line[:5] == "error"}
        assert len(lines) == len(mended) + len(begun)
        assert mended <= told
        assert not begun & told
        told = (told - mended) | begun
        assert told == {problem.short() for problem in problems.all()}
