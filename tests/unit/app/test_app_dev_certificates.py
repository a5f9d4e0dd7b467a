from propylon import api
from propylon.app.dev_certificates import (
    ANNOTATION,
    certificate_for,
    names_for,
    needs_route_names,
    plan_dev_certificates,
    secrets_of,
)
from propylon.app.documents import secret_document

TLS = api.ObjectKey("edge", "tls")


def listener(**tls: object) -> api.Listener:
    entry = {"name": "a", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "tls"}], **tls}}
    decoded = api.decode(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "front", "namespace": "edge"},
            "spec": {"gatewayClassName": "x", "listeners": [entry]},
        }
    )
    assert isinstance(decoded, api.Gateway)
    return decoded.spec.listeners[0]


def test_secrets_of_terminating_listeners() -> None:
    assert secrets_of(listener(), "edge") == (TLS,)
    refs = [{"name": "a", "namespace": "other"}, {"name": "b", "kind": "Foreign", "group": "x.y"}]
    assert secrets_of(listener(certificateRefs=refs), "edge") == (api.ObjectKey("other", "a"),)
    assert secrets_of(listener(mode="Passthrough"), "edge") == ()


def test_names_that_clients_accept() -> None:
    assert needs_route_names("")
    assert needs_route_names("*.localhost")
    assert not needs_route_names("*.example.com")
    assert not needs_route_names("localhost")
    assert names_for("*.localhost", ["a.localhost"], ["127.0.0.1"]) == ("*.localhost", "a.localhost")
    assert names_for("", ["a.example.com"], ["127.0.0.1"]) == ("localhost", "127.0.0.1", "a.example.com")


def test_listeners_that_share_a_secret_share_a_certificate() -> None:
    wanted = certificate_for(TLS, ["a.example.com", "*.b.org", "a.example.com", "127.0.0.1"])
    assert (wanted.dns_names, wanted.ip_addresses) == (("a.example.com", "*.b.org"), ("127.0.0.1",))


def test_only_missing_and_our_own_are_issued() -> None:
    wanted = certificate_for(TLS, ["a.example.com"])
    ours = api.decode(secret_document(wanted, b"chain", b"key"))
    foreign = api.decode({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": "edge"}})
    assert isinstance(ours, api.Secret)
    assert isinstance(foreign, api.Secret)
    assert plan_dev_certificates([wanted], lambda _: None) == (wanted,)
    assert plan_dev_certificates([wanted], lambda _: ours) == ()
    assert plan_dev_certificates([wanted], lambda _: foreign) == (), "somebody else's stays as it is"
    changed = certificate_for(TLS, ["b.example.com"])
    assert plan_dev_certificates([changed], lambda _: ours) == (changed,)
    assert ours.metadata.annotations[ANNOTATION] == "a.example.com"
