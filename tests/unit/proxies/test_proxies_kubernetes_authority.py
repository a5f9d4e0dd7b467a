"""Certificates between proxies and control plane, and their rotation."""

import datetime as dt

import msgspec
from cryptography import x509

from propylon.api import ObjectKey
from propylon.proxies.kubernetes.authority import (
    AUTHORITY_DAYS,
    LEAF_DAYS,
    REPLICA,
    SETTLING,
    Authority,
    admits,
    admits_replica,
    due,
    identity,
    issue,
    make_authority,
    plan_authorities,
    signer,
    trust,
    usable,
)
from propylon.proxies.kubernetes.bootstrap import CERTIFICATE_FILE, TRUST_FILE, sds_files

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
WEB = ObjectKey("shop", "web")


def parsed(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_the_first_authority_signs_at_once() -> None:
    (only,) = plan_authorities((), NOW)
    assert signer((only,), NOW) is only
    assert plan_authorities((only,), NOW + DAY) == (only,)


def test_a_successor_is_trusted_for_a_day_before_it_signs_and_the_old_one_until_it_ends() -> None:
    (old,) = plan_authorities((), NOW)
    later = NOW + dt.timedelta(days=AUTHORITY_DAYS * 0.7)
    both = plan_authorities((old,), later)
    assert both[0] == old
    assert len(both) == 2
    assert signer(both, later) is old
    assert trust(both) == both[0].certificate_pem + both[1].certificate_pem
    assert plan_authorities(both, later + DAY) == both
    assert signer(both, later + SETTLING) is both[1]
    ended = NOW + dt.timedelta(days=AUTHORITY_DAYS, hours=1)
    assert plan_authorities(both, ended) == (both[1],)


def test_a_leaf_names_its_gateway_is_signed_and_never_outlives_its_authority() -> None:
    authority = make_authority(NOW)
    leaf = issue(authority, NOW, uris=[identity(WEB)])
    certificate = parsed(leaf.certificate_pem)
    certificate.verify_directly_issued_by(authority.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://propylon.dev/gateway/shop/web"]
    assert certificate.not_valid_after_utc == NOW + dt.timedelta(days=LEAF_DAYS)
    late = issue(authority, NOW + dt.timedelta(days=AUTHORITY_DAYS - 1), uris=["x:y"])
    assert parsed(late.certificate_pem).not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_certificate_is_replaced_in_the_last_third_of_its_life_and_when_it_does_not_fit() -> None:
    authority, other = make_authority(NOW), make_authority(NOW)
    uri = identity(WEB)
    leaf = issue(authority, NOW, uris=[uri])
    assert usable(leaf, [other, authority], uri, NOW)
    assert usable(leaf, [authority], uri, NOW + dt.timedelta(days=LEAF_DAYS * 0.6))
    assert not usable(leaf, [authority], uri, NOW + dt.timedelta(days=LEAF_DAYS * 0.7))
    assert not usable(leaf, [other], uri, NOW)
    assert not usable(leaf, [authority], identity(ObjectKey("shop", "web2")), NOW)
    another = issue(authority, NOW, uris=[uri])
    assert not usable(msgspec.structs.replace(leaf, key_pem=another.key_pem), [authority], uri, NOW)
    assert not usable(msgspec.structs.replace(leaf, certificate_pem="garbage"), [authority], uri, NOW)
    assert not usable(msgspec.structs.replace(leaf, key_pem=""), [authority], uri, NOW)
    assert not due(authority.certificate, NOW)


def test_who_is_admitted_as_which_node() -> None:
    assert admits("shop/web", [identity(WEB)])
    assert not admits("shop/web2", [identity(WEB)])
    assert not admits("shop/we", [identity(WEB)])
    assert not admits("shop/web", [])


def test_keys_do_not_show_in_logs() -> None:
    authority = make_authority(NOW)
    leaf = issue(authority, NOW, uris=["x:y"])
    assert "PRIVATE" not in repr(authority) + repr(leaf) + str((authority, leaf))


def test_a_replica_is_no_proxy_and_a_proxy_no_replica() -> None:
    key = ObjectKey("shop", "web")
    assert admits_replica([REPLICA])
    assert not admits_replica([identity(key), identity(ObjectKey("controller", "controller"))])
    assert not admits("shop/web", [REPLICA])
    assert admits("shop/web", [identity(key)])


def test_an_authority_survives_its_secret() -> None:
    authority = make_authority(NOW)
    assert msgspec.json.decode(msgspec.json.encode(authority), type=Authority) == authority


def test_the_files_of_the_secret_are_what_envoy_expects_of_sds() -> None:
    files = sds_files("CERT", "KEY", "CA")
    (secret,) = msgspec.json.decode(files[CERTIFICATE_FILE])["resources"]
    assert secret["tls_certificate"]["private_key"] == {"inline_string": "KEY"}
    (secret,) = msgspec.json.decode(files[TRUST_FILE])["resources"]
    assert secret["validation_context"] == {"trusted_ca": {"inline_string": "CA"}}
