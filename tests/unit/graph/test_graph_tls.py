import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from graph_world import certificate

from propylon.graph.tls import bundle_problem, key_pair_problem, key_problem


def test_a_pair_has_to_be_one() -> None:
    chain, key = (part.encode() for part in certificate("one"))
    _, other = (part.encode() for part in certificate("two"))
    assert key_pair_problem(chain, key) is None
    assert key_pair_problem(chain, other) == "tls.key does not belong to the certificate in tls.crt"
    assert key_pair_problem(b"", key) == "tls.crt holds no valid PEM certificate"
    assert "tls.key" in (key_pair_problem(chain, chain) or "")


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (rsa.generate_private_key(65537, 2048), True),
        (rsa.generate_private_key(65537, 1024), False),
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ec.generate_private_key(ec.SECP256K1()), False),
        (ed25519.Ed25519PrivateKey.generate(), True),
    ],
    ids=["RSA 2048", "RSA 1024", "P-384", "secp256k1", "Ed25519"],
)
def test_keys_that_envoy_refuses_are_refused_before(key: PrivateKeyTypes, good: bool) -> None:
    assert (key_problem(key) is None) == good


def test_bundles() -> None:
    one, two = certificate("one")[0], certificate("two")[0]
    assert bundle_problem(one + two) is None
    assert bundle_problem("  ") == "is empty"
    assert bundle_problem("hello") == "holds no valid PEM certificate"
    assert bundle_problem(one + "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n") is not None
