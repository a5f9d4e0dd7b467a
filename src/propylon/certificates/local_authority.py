"""A certificate authority for one machine: so that HTTPS works in development, with one certificate to trust.

Kept in a directory as `ca.crt` and `ca.key` (mode 0600), made at first use, the same ever after.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import getpass
import ipaddress
import os
import socket
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from propylon.certificates.x509 import CertificateError, IPAddress, matches, read_chain, read_key

CA_DAYS = 3650
LEAF_DAYS = 397
"""The longest that browsers accept from a public authority (CA/Browser Forum Baseline Requirements 6.3.2 until
2026).
"""
RENEW_CA_DAYS = 30
"""A CA that ends sooner than this is refused rather than used."""
_BACKDATE = dt.timedelta(hours=1)
"""Clocks of containers and virtual machines lag."""
_LONGEST_COMMON_NAME = 64


class AuthorityError(Exception):
    """The authority's files cannot be used. The message names the file and the remedy."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class LocalAuthority:
    """The authority kept in a directory. Loads it, or makes it, when constructed."""

    def __init__(self, directory: Path, *, now: Callable[[], dt.datetime] = _now) -> None:
        """`directory` is created with mode 0700 if need be; `now` gives the time in UTC. Raises `AuthorityError`."""
        self._now = now
        self.certificate_path = directory / "ca.crt"
        """The certificate to trust, as PEM."""
        self.key_path = directory / "ca.key"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Two programs that start together must end up with one authority.
            descriptor = os.open(directory / "ca.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not self.certificate_path.exists() and not self.key_path.exists():
                    self._create()
                self._certificate, self._key = self._load()
            finally:
                os.close(descriptor)
        except OSError as error:
            raise AuthorityError(f"The local certificate authority in {directory} cannot be used: {error}") from error

    @property
    def certificate_pem(self) -> bytes:
        """The CA certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        dns_names: Iterable[str],
        ip_addresses: Iterable[str | IPAddress] = (),
        *,
        valid_days: float = LEAF_DAYS,
    ) -> tuple[bytes, bytes]:
        """A new certificate and key for these names: the chain (leaf, CA) and the key, as PEM.

        ECDSA P-256, for servers and clients. It never outlives the CA. Raises ValueError for a name that a certificate
        cannot have, and if there is none.
        """
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(map(_ascii, dns_names))]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(ip_addresses)]
        if not names:
            raise ValueError("a certificate needs at least one DNS name or IP address")
        key = ec.generate_private_key(ec.SECP256R1())
        start = self._now()
        end = min(start + dt.timedelta(days=valid_days), self._certificate.not_valid_after_utc)
        common_name = str(names[0].value)
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "propylon development")]
        if len(common_name) <= _LONGEST_COMMON_NAME:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - _BACKDATE)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_authority_key(self._certificate), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return leaf.public_bytes(serialization.Encoding.PEM) + self.certificate_pem, _private_pem(key)

    def trust_instructions(self) -> str:
        """How to make programs on this machine trust the authority, for people."""
        path = self.certificate_path.resolve()
        return "\n".join(
            (
                "HTTPS certificates come from a certificate authority that only this machine has.",
                f"  curl           curl --cacert {path} https://...",
                f"  Python, Node   REQUESTS_CA_BUNDLE={path}  NODE_EXTRA_CA_CERTS={path}",
                f"  Debian, Ubuntu sudo cp {path} /usr/local/share/ca-certificates/propylon.crt "
                "&& sudo update-ca-certificates",
                f"  Fedora, RHEL   sudo trust anchor {path}",
                "  macOS          sudo security add-trusted-cert -d -r trustRoot "
                f"-k /Library/Keychains/System.keychain {path}",
                "  Firefox        Settings, Privacy & Security, View Certificates, Authorities, Import",
                f"  Chrome (Linux) certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n propylon -i {path}",
            )
        )

    def _create(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        start = self._now()
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "propylon development"),
                x509.NameAttribute(NameOID.COMMON_NAME, _authority_name()),
            ]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - _BACKDATE)
            .not_valid_after(start + dt.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        # The key first: without its certificate it is worth nothing, the other way round nothing could be issued.
        _write(self.key_path, _private_pem(key), 0o600)
        _write(self.certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        remedy = f"Remove {self.certificate_path} and {self.key_path} for a new authority (which must be trusted anew)."
        for path in (self.certificate_path, self.key_path):
            if not path.exists():
                raise AuthorityError(f"{path} is missing. Restore it, or: {remedy}")
        if self.key_path.stat().st_mode & 0o077:
            raise AuthorityError(f"{self.key_path} is readable by others. Remedy: chmod 600 {self.key_path}")
        certificate_pem, key_pem = self.certificate_path.read_bytes(), self.key_path.read_bytes()
        try:
            certificate = read_chain(certificate_pem)[0]
        except CertificateError as error:
            raise AuthorityError(f"{self.certificate_path} is broken ({error}). {remedy}") from error
        try:
            key = read_key(key_pem)
        except CertificateError as error:
            raise AuthorityError(f"{self.key_path} is broken ({error}). {remedy}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"{self.key_path} is not an elliptic curve key. {remedy}")
        if not matches(key_pem, certificate_pem):
            raise AuthorityError(f"{self.key_path} is not the key of {self.certificate_path}. {remedy}")
        if certificate.not_valid_after_utc < self._now() + dt.timedelta(days=RENEW_CA_DAYS):
            raise AuthorityError(
                f"{self.certificate_path} ends on {certificate.not_valid_after_utc:%Y-%m-%d}. {remedy}"
            )
        return certificate, key


def _authority_name() -> str:
    """A name by which its owner recognises it in a list of trusted authorities."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = str(os.getuid())
    return f"propylon {user}@{socket.gethostname()}"[:_LONGEST_COMMON_NAME]


def _ascii(name: str) -> str:
    """A DNS name as certificates have it. Raises ValueError if it is none."""
    lowered = name.rstrip(".").lower()
    if not lowered.isascii():
        lowered = lowered.encode("idna").decode("ascii")
    labels = lowered.removeprefix("*.").split(".")
    if not all(0 < len(label) <= 63 and label.replace("-", "a").replace("_", "a").isalnum() for label in labels):
        raise ValueError(f"{name!r} is not a DNS name")
    return lowered


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is there whole or not at all, and never readable by more than `mode` allows."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
