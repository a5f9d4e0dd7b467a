from propylon import api
from propylon.app.dev_certificates import ANNOTATION, plan_dev_certificates, wanted_certificates
from propylon.app.documents import secret_document

EDGE = api.ObjectKey("edge", "front")


def listeners(*entries: dict[str, object]) -> tuple[api.Listener, ...]:
    decoded = api.decode(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "front", "namespace": "edge"},
            "spec": {"gatewayClassName": "x", "listeners": list(entries)},
        }
    )
    assert isinstance(decoded, api.Gateway)
    return decoded.spec.listeners


def https(name: str, hostname: str | None, secret: str = "tls", **ref: str) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": name,
        "port": 443,
        "protocol": "HTTPS",
        "tls": {"certificateRefs": [{"name": secret, **ref}]},
    }
    return {**entry, "hostname": hostname} if hostname else entry


def test_listeners_that_share_a_secret_share_a_certificate() -> None:
    found = wanted_certificates(
        [(EDGE, listeners(https("a", "A.example.com"), https("b", "*.b.org")), ("127.70.0.1",))]
    )
    assert [(w.secret, w.dns_names, w.ip_addresses) for w in found] == [
        (api.ObjectKey("edge", "tls"), ("a.example.com", "*.b.org"), ())
    ]


def test_without_hostname_the_addresses_stand_in() -> None:
    (found,) = wanted_certificates([(EDGE, listeners(https("a", None, namespace="other")), ("127.70.0.1",))])
    assert found.secret == api.ObjectKey("other", "tls")
    assert found.ip_addresses == ("127.70.0.1",)
    assert "localhost" in found.dns_names


def test_passthrough_and_plain_listeners_want_nothing() -> None:
    passthrough = {"name": "p", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
    assert (
        wanted_certificates([(EDGE, listeners(passthrough, {"name": "h", "port": 80, "protocol": "HTTP"}), ())]) == ()
    )


def test_only_missing_and_our_own_are_issued() -> None:
    (wanted,) = wanted_certificates([(EDGE, listeners(https("a", "a.example.com")), ())])
    ours = api.decode(secret_document(wanted, b"chain", b"key"))
    foreign = api.decode({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": "edge"}})
    assert isinstance(ours, api.Secret)
    assert isinstance(foreign, api.Secret)
    assert plan_dev_certificates([wanted], lambda _: None) == (wanted,)
    assert plan_dev_certificates([wanted], lambda _: ours) == ()
    assert plan_dev_certificates([wanted], lambda _: foreign) == (), "somebody else's stays as it is"
    (changed,) = wanted_certificates([(EDGE, listeners(https("a", "b.example.com")), ())])
    assert plan_dev_certificates([changed], lambda _: ours) == (changed,)
    assert ours.metadata.annotations[ANNOTATION] == "a.example.com"
