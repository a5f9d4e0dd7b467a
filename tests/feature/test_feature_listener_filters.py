"""Authorization that cannot be walked around: of listeners, before routes are chosen (GEP-5224), and in scopes."""

import pytest

from propylon.envoy import EnvoySettings
from propylon.graph.model import Match, ValueMatch
from support.authorizers import HttpAuthorizer, external
from support.envoy_site import Site, a, b
from support.envoy_world import entry, listener

pytestmark = pytest.mark.feature

NEVER = 10**9
YES = {"Authorization": "yes"}


@pytest.fixture(scope="module", params=[NEVER, 1], ids=["in one", "in scopes"])
def site(request):
    each = Site(EnvoySettings(access_log=False, scopes_from=request.param))
    yield each
    each.close()


@pytest.fixture(scope="module")
def authorizer(site):
    """Allows what is authorized, and says that it is `somebody`."""
    each = HttpAuthorizer()
    site.world.backend("auth", each.port)
    yield each
    each.close()


@pytest.mark.parametrize("spelling", ["one.test", "ONE.test", "one.test.", "one.test:9"])
def test_no_spelling_of_a_host_leads_around_the_authorizer(site, authorizer, spelling):
    site.serve(entry(filters=(external("auth"),), backends=(a,)), host="one.test")
    site.serve(entry(backends=(b,)), host="open.test")
    start = len(authorizer.asked)
    assert site.ask(spelling).status == 401
    assert site.ask(spelling, headers=YES).seen["backend"] == "a"
    assert len(authorizer.asked) == start + 2, "asked once a request"
    assert site.ask("Open.test").seen["backend"] == "b"
    assert len(authorizer.asked) == start + 2


def test_wildcards_are_guarded_route_by_route(site, authorizer):
    site.serve(
        entry(Match("/in"), filters=(external("auth"),), backends=(a,)), entry(backends=(b,)), host="*.wild.test"
    )
    assert site.ask("x.wild.test", "/in").status == 401
    assert site.ask("X.wild.test", "/in", headers=YES).seen["backend"] == "a"
    assert site.ask("x.wild.test", "/out").seen["backend"] == "b"


@pytest.mark.parametrize("host", ["chosen.test", "*.chosen.test"])
def test_what_the_authorizer_says_chooses_the_route(site, authorizer, host):
    known = Match("/", headers=(ValueMatch("x-user", "somebody"),))
    site.serve(entry(known, backends=(a,)), entry(backends=(b,)), host=host, filters=(external("auth"),))
    asked = host.replace("*", "any")
    assert site.ask(asked).status == 401
    start = len(authorizer.asked)
    assert site.ask(asked, headers=YES).seen["backend"] == "a"
    assert len(authorizer.asked) == start + 1, "routes are matched once, and nobody is asked twice"


@pytest.mark.parametrize("host", ["again.test", "*.again.test", "AGAIN.test"])
def test_the_route_that_is_chosen_in_the_end_has_its_own_filters_asked(site, authorizer, host):
    known = Match("/", headers=(ValueMatch("x-user", "somebody"),))
    before = external("auth", path="/listener")
    own = external("auth", path="/route", allowed_headers=("x-user",))
    other = external("auth", path="/other")
    site.serve(
        entry(Match("/twice", headers=known.headers), filters=(own,), backends=(a,)),
        entry(Match("/twice"), backends=(b,)),
        entry(Match("/once", headers=known.headers), backends=(a,)),
        entry(Match("/once"), filters=(other,), backends=(b,)),
        host=host.lower(),
        filters=(before,),
    )
    asked = host.replace("*", "any")
    start = len(authorizer.asked)
    assert site.ask(asked, "/twice", headers=YES).seen["backend"] == "a"
    assert site.ask(asked, "/once", headers=YES).seen["backend"] == "a"
    paths = [path for _, path, _, _ in authorizer.asked[start:]]
    assert paths == ["/listener/twice", "/route/twice", "/listener/once"]


@pytest.mark.parametrize("host", ["nothing.test", "*.nothing.test"])
def test_what_no_route_matches_is_authorized_first(site, authorizer, host):
    routed = entry(Match("/only"), filters=(external("auth", path="/route"),), backends=(a,))
    site.serve(routed, host=host, filters=(external("auth"),))
    asked = host.replace("*", "any")
    assert site.ask(asked, "/other").status == 401
    start = len(authorizer.asked)
    assert site.ask(asked, "/other", headers=YES).status == 404
    assert len(authorizer.asked) == start + 1, "the filters of a route that was not chosen are not asked"


def test_hosts_without_any_route_are_authorized_first(site, authorizer):
    guarded = listener("guarded", "HTTP", site.port, "*.claimed.test", filters=(external("auth"),))
    broken = listener("broken", "HTTP", site.port, "broken.test", filters=(external(None),))
    site.world.port(site.listener, guarded, broken)
    site.proxy.apply(site.world)
    assert site.ask("x.claimed.test").status == 401
    assert site.ask("x.claimed.test", headers=YES).status == 404
    assert site.ask("broken.test", headers=YES).status == 500
    assert site.ask("elsewhere.test").status == 404


def test_filters_of_a_listener_are_asked_in_their_order(site, authorizer):
    filters = [external("auth", path=f"/{name}") for name in "zay"]
    host = site.serve(entry(backends=(a,)), filters=(*filters, filters[0]))
    start = len(authorizer.asked)
    assert site.ask(host, headers=YES).status == 200
    assert [path.strip("/") for _, path, _, _ in authorizer.asked[start:]] == ["z", "a", "y", "z"]
    start = len(authorizer.asked)
    assert site.ask(host).status == 401
    assert len(authorizer.asked) == start + 1, "an answer ends it"
