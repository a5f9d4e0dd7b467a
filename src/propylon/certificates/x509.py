"""What certificates and keys say, from their PEM text. Pure."""

from __future__ import annotations

import datetime as dt
import ipaddress

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class CertificateError(ValueError):
    """Not a PEM certificate or key we can read."""


class Names(msgspec.Struct, frozen=True):
    """Whom a certificate speaks for: its subjectAltName (RFC 5280 section 4.2.1.6), lower-case, in its order."""

    dns: tuple[str, ...] = ()
    ip: tuple[IPAddress, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether a client that asks for this DNS name or IP address accepts the certificate (RFC 6125 section 6.4).

        A wildcard stands for exactly one label, the leftmost.
        """
        try:
            return ipaddress.ip_address(name) in self.ip
        except ValueError:
            pass
        wanted = name.rstrip(".").lower()
        _, dot, parent = wanted.partition(".")
        return any(each == wanted or (dot != "" and each == f"*.{parent}") for each in self.dns)


def read_chain(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text, the first being the one the others are for. Raises `CertificateError`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"not a PEM certificate: {error}") from error


def read_key(pem: bytes) -> PrivateKeyTypes:
    """The private key of a PEM text. Raises `CertificateError`, for encrypted keys too."""
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"not a PEM private key: {error}") from error


def names_of(pem: bytes) -> Names:
    """Whom the first certificate speaks for; nobody, if it has no subjectAltName. Raises `CertificateError`."""
    try:
        extension = read_chain(pem)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names()
    except ValueError as error:
        raise CertificateError(f"a certificate with extensions that cannot be read: {error}") from error
    dns = tuple(name.lower() for name in extension.get_values_for_type(x509.DNSName))
    return Names(dns, tuple(ip for ip in extension.get_values_for_type(x509.IPAddress) if isinstance(ip, IPAddress)))


def expiry(pem: bytes) -> dt.datetime:
    """When the first certificate of the chain to expire does so, UTC. Raises `CertificateError`."""
    return min(certificate.not_valid_after_utc for certificate in read_chain(pem))


def matches(key: bytes, certificate: bytes) -> bool:
    """Whether the private key is the first certificate's. Both PEM. Raises `CertificateError`."""
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ours = read_key(key).public_key().public_bytes(*form)
    return ours == read_chain(certificate)[0].public_key().public_bytes(*form)


def describe(pem: bytes) -> str:
    """The first certificate in one line for people: names, issuer, end. Raises `CertificateError`."""
    certificate, names = read_chain(pem)[0], names_of(pem)
    told = [*names.dns, *map(str, names.ip)] or [certificate.subject.rfc4514_string() or "nobody"]
    return (
        f"{', '.join(told)}, issued by {certificate.issuer.rfc4514_string() or 'nobody'}, "
        f"valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    )
