import msgspec
import pytest

from propylon import api
from propylon.graph.rules import InvalidRule, build_session, expression_problem, seconds

ROUTE = api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "n", "r")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0s", 0.0), ("500ms", 0.5), ("10s", 10.0), ("1h30m", 5400.0), ("1m1s1ms", 61.001), ("99999h", 359_996_400.0)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text, "f") == expected


@pytest.mark.parametrize("text", ["", "1", "1.5s", "1d", "-1s", "s", "1s1s1s1s1s", "100000s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        seconds(text, "spec.x")
    assert caught.value.finding.field == "spec.x"
    assert caught.value.finding.reason == "UnsupportedValue"


def test_expressions_are_taken_as_envoy_takes_them() -> None:
    assert expression_problem("/(?:a|b)+") is None
    assert "RE2" in (expression_problem("(?=x)") or "")
    assert "too large" in (expression_problem("(?:x{1000})" * 70) or "")


def test_sessions_get_names_that_last() -> None:
    def session(rule: str) -> str:
        return build_session(api.SessionPersistence(), ROUTE, rule, "f").name

    assert session("0") == session("0") != session("1")
    named = api.SessionPersistence(
        cookie=api.CookieConfig(name="mine", lifetime_type="Permanent"), absolute_timeout="1h"
    )
    built = build_session(named, ROUTE, "0", "f")
    assert (built.name, built.permanent, built.absolute_timeout, built.path) == ("mine", True, 3600.0, "/")
    header = build_session(api.SessionPersistence(type="Header"), ROUTE, "0", "f")
    assert (header.type, header.name.startswith("x-session-")) == ("Header", True)
    with pytest.raises(InvalidRule):
        build_session(api.SessionPersistence(type="Token"), ROUTE, "0", "f")


@pytest.mark.parametrize("struct", [api.HTTPRouteFilter, api.GRPCRouteFilter, api.HTTPRouteMatch])
def test_what_is_kept_by_its_content_can_be_hashed(struct: type) -> None:
    """Matches and filters are translated once for all rules that have the same."""
    waiting, seen = [msgspec.inspect.type_info(struct)], []
    while waiting:
        found = waiting.pop()
        if found in seen:
            continue
        seen.append(found)
        assert not isinstance(found, msgspec.inspect.DictType | msgspec.inspect.ListType | msgspec.inspect.SetType)
        if isinstance(found, msgspec.inspect.StructType):
            waiting += [field.type for field in found.fields]
        elif isinstance(found, msgspec.inspect.UnionType):
            waiting += found.types
        elif isinstance(found, msgspec.inspect.VarTupleType):
            waiting.append(found.item_type)
    assert len(seen) > 5
