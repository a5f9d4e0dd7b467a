"""The same in Python: pytest examples/testing, with --propylon-engine both to ask real Envoy as well."""

import pytest

QUICKSTART = "examples/quickstart"


def test_everything_goes_to_https(gateway):
    gateway(QUICKSTART).get("http://blog.localhost:8080/").redirected_to("https://blog.localhost:8443/", 301)


@pytest.mark.parametrize("path", ["/pictures", "/pictures/", "/pictures/cat.png"])
def test_pictures(gateway, path):
    answer = gateway(QUICKSTART).get(f"https://blog.localhost:8443{path}")
    answer.routed_to("media/pictures:80").taken_by("blog/blog", rule="pictures")


def test_readers_and_editors(gateway):
    blog = gateway(QUICKSTART)
    blog.get("https://blog.localhost:8443/").split({"blog/blog": 95, "blog/blog-next": 5})
    blog.get("https://blog.localhost:8443/", headers={"X-Preview": "yes"}).routed_to("blog/blog-next")


def test_health(gateway):
    gateway(QUICKSTART).grpc("https://grpc.localhost:8443", "grpc.health.v1.Health/Check").routed_to("whoami/whoami")


def test_strangers(gateway):
    gateway(QUICKSTART).get("https://shop.localhost:8443/").not_routed().status(404)
