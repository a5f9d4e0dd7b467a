from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest

from propylon.certificates.local_authority import CA_DAYS, AuthorityError, LocalAuthority
from propylon.certificates.x509 import CertificateError, Names, describe, expiry, matches, names_of, read_chain


@pytest.fixture
def authority(tmp_path: Path) -> LocalAuthority:
    return LocalAuthority(tmp_path / "ca")


def handshake(chain: bytes, key: bytes, ca: bytes, name: str, directory: Path) -> dict[str, object]:
    """The certificate a verifying client sees."""
    (directory / "leaf.pem").write_bytes(chain + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "leaf.pem")
    client = ssl.create_default_context(cadata=ca.decode())
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as connection:
            return dict(connection.getpeercert() or {})
    finally:
        ours.close()
        thread.join(10)


@pytest.mark.parametrize("name", ["www.example.com", "shop.wild.example.com", "127.0.0.1", "::1"])
def test_a_client_that_trusts_the_authority_accepts_its_certificates(
    authority: LocalAuthority, tmp_path: Path, name: str
) -> None:
    chain, key = authority.issue(["www.example.com", "*.wild.example.com"], ["127.0.0.1", "::1"])
    assert handshake(chain, key, authority.certificate_pem, name, tmp_path)
    assert matches(key, chain)
    assert names_of(chain).covers(name)


def test_a_client_refuses_other_names_and_other_authorities(authority: LocalAuthority, tmp_path: Path) -> None:
    chain, key = authority.issue(["www.example.com"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(chain, key, authority.certificate_pem, "other.example.com", tmp_path)
    other = LocalAuthority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(chain, key, other.certificate_pem, "www.example.com", tmp_path)
    assert not matches(other.issue(["a"])[1], chain)


def test_the_authority_stays_the_same_and_its_key_is_private(tmp_path: Path) -> None:
    first, second = LocalAuthority(tmp_path), LocalAuthority(tmp_path)
    assert first.certificate_pem == second.certificate_pem == first.certificate_path.read_bytes()
    assert first.key_path.stat().st_mode & 0o777 == 0o600
    assert str(first.certificate_path) in first.trust_instructions()


def test_certificates_end_in_time_and_never_after_their_authority(tmp_path: Path) -> None:
    now = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]
    authority = LocalAuthority(tmp_path, now=lambda: now[0])
    leaf = read_chain(authority.issue(["a.example"])[0])[0]
    assert leaf.not_valid_after_utc == now[0] + dt.timedelta(days=397)
    assert leaf.not_valid_before_utc < now[0]
    now[0] += dt.timedelta(days=CA_DAYS - 100)
    assert expiry(authority.issue(["a.example"])[0]) == expiry(authority.certificate_pem)
    now[0] += dt.timedelta(days=90)
    with pytest.raises(AuthorityError, match=r"ca\.crt ends on"):
        LocalAuthority(tmp_path, now=lambda: now[0])


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key"])
@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_broken_file_is_named_with_the_remedy(tmp_path: Path, broken: str, content: bytes) -> None:
    LocalAuthority(tmp_path)
    (tmp_path / broken).write_bytes(content)
    with pytest.raises(AuthorityError, match=rf"{broken} is broken .* Remove "):
        LocalAuthority(tmp_path)


@pytest.mark.parametrize("missing", ["ca.crt", "ca.key"])
def test_a_missing_file_is_not_silently_replaced(tmp_path: Path, missing: str) -> None:
    LocalAuthority(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(AuthorityError, match=f"{missing} is missing"):
        LocalAuthority(tmp_path)


def test_a_foreign_key_and_an_open_key_are_refused(tmp_path: Path) -> None:
    one, two = LocalAuthority(tmp_path / "one"), LocalAuthority(tmp_path / "two")
    one.key_path.write_bytes(two.key_path.read_bytes())
    with pytest.raises(AuthorityError, match="is not the key of"):
        LocalAuthority(tmp_path / "one")
    two.key_path.chmod(0o644)
    with pytest.raises(AuthorityError, match="chmod 600"):
        LocalAuthority(tmp_path / "two")


def test_names_that_no_certificate_can_have_are_refused(authority: LocalAuthority) -> None:
    for bad in ("", "a..b", "a b", "*.*.example", "x" * 64, "a/b"):
        with pytest.raises(ValueError, match="is not a DNS name"):
            authority.issue([bad])
    with pytest.raises(ValueError, match="at least one"):
        authority.issue([])
    with pytest.raises(ValueError, match="does not appear to be"):
        authority.issue([], ["300.0.0.1"])


def test_names_are_normalised(authority: LocalAuthority) -> None:
    chain, _ = authority.issue(["WWW.Example.com", "bücher.example", "www.example.com."])
    assert names_of(chain).dns == ("www.example.com", "xn--bcher-kva.example")
    long = ".".join(["label" * 6] * 4)
    assert names_of(authority.issue([long])[0]).covers(long)


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("example.com", True),
        ("EXAMPLE.com.", True),
        ("a.wild.example", True),
        ("a.b.wild.example", False),
        ("wild.example", False),
        ("com", False),
        ("10.0.0.1", True),
        ("10.0.0.2", False),
    ],
)
def test_a_wildcard_stands_for_one_label(authority: LocalAuthority, name: str, covered: bool) -> None:
    names = names_of(authority.issue(["example.com", "*.wild.example"], ["10.0.0.1"])[0])
    assert names.covers(name) is covered


def test_reading_says_what_is_wrong(authority: LocalAuthority) -> None:
    chain, key = authority.issue(["a.example"])
    with pytest.raises(CertificateError):
        names_of(key)
    with pytest.raises(CertificateError):
        matches(chain, chain)
    assert names_of(authority.certificate_pem) == Names()
    assert "a.example" in describe(chain)
    assert "valid until" in describe(authority.certificate_pem)
