"""Names of scopes."""

from propylon import api
from propylon.envoy.scope import ANY, scope_key, scope_name
from propylon.graph.model import RouteTableKey

GATEWAY = api.ObjectKey("a-namespace-of-some-length", "a-gateway-of-some-length")
HTTP = RouteTableKey(GATEWAY, 65535, "")
HTTPS = RouteTableKey(GATEWAY, 65535, "Gateway/a-namespace-of-some-length/a-gateway-of-some-length/section")
HOSTNAME = "a-hostname-of-some-length.example.com"


def test_a_name_fits_where_envoy_does_not_allocate():
    for table in (HTTP, HTTPS):
        assert len(scope_name(table, HOSTNAME)) <= 22


def test_names_differ_as_keys_do():
    others = [RouteTableKey(GATEWAY, 80, ""), HTTPS._replace(listener=HTTPS.listener + "2"), HTTP, HTTPS]
    keys = {scope_key(table, hostname) for table in others for hostname in (HOSTNAME, "x.test", ANY)}
    names = {scope_name(table, hostname) for table in others for hostname in (HOSTNAME, "x.test", ANY)}
    assert len(keys) == len(names) == 12


def test_a_name_stays_from_one_process_to_the_next():
    assert scope_name(HTTP, "www.example.com") == "65535|jqd6h7_VWyGLGzVW"
