"""The certificates by which proxies and control plane know each other. Pure but for the making of keys.

One authority per installation, kept in a Secret beside the controller. Every Gateway's proxies share a certificate that
names the Gateway (a SPIFFE-shaped URI), so that a proxy can only ever ask for its own Gateway's configuration. Both are
replaced long before they end, and a new authority is trusted everywhere before it signs anything.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from propylon.api.meta import ObjectKey

AUTHORITY_DAYS = 3 * 365
LEAF_DAYS = 90
SETTLING = dt.timedelta(days=1)
"""How long a new authority is only trusted: kubelets and replicas take a while to pass a Secret on."""
_BACKDATE = dt.timedelta(hours=1)
_TRUST_DOMAIN = "spiffe://propylon.dev/gateway/"
REPLICA = "spiffe://propylon.dev/controller"
"""The URI that the certificate of a replica of the controller bears, as client of another one."""


class Authority(msgspec.Struct, frozen=True):
    """One certificate authority."""

    certificate_pem: str
    key_pem: str

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()})"

    @property
    def certificate(self) -> x509.Certificate:
        """Parsed. Raises ValueError."""
        return x509.load_pem_x509_certificate(self.certificate_pem.encode())


class Leaf(msgspec.Struct, frozen=True):
    """A certificate and its key, PEM."""

    certificate_pem: str
    key_pem: str

    def __repr__(self) -> str:
        return "Leaf(...)"


def identity(gateway: ObjectKey) -> str:
    """The URI that the certificate of a Gateway's proxies bears."""
    return f"{_TRUST_DOMAIN}{gateway.namespace}/{gateway.name}"


def make_authority(now: dt.datetime) -> Authority:
    """A new one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"propylon xDS {now:%Y-%m-%d}")])
    end = now + dt.timedelta(days=AUTHORITY_DAYS)
    builder = _builder(name, name, key, now, end).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    builder = builder.add_extension(_key_usage(signs=True), True)
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def plan_authorities(known: Sequence[Authority], now: dt.datetime) -> tuple[Authority, ...]:
    """The authorities to keep, oldest first: what has ended is dropped, a successor is made in the last third."""
    kept = sorted((a for a in known if a.certificate.not_valid_after_utc > now), key=_made)
    if not kept or due(kept[-1].certificate, now):
        kept.append(make_authority(now))
    return tuple(kept)


def signer(authorities: Sequence[Authority], now: dt.datetime) -> Authority:
    """The newest one that everybody had time to learn of, else the oldest."""
    settled = [a for a in authorities if a.certificate.not_valid_before_utc + _BACKDATE + SETTLING <= now]
    return settled[-1] if settled else authorities[0]


def trust(authorities: Sequence[Authority]) -> str:
    """Their certificates, PEM."""
    return "".join(authority.certificate_pem for authority in authorities)


def issue(authority: Authority, now: dt.datetime, *, uris: Sequence[str] = (), dns_names: Sequence[str] = ()) -> Leaf:
    """A certificate for a client that is these URIs, or a server of these names."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed_by = authority.certificate
    end = min(now + dt.timedelta(days=LEAF_DAYS), signed_by.not_valid_after_utc)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(name) for name in dns_names]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "propylon proxy" if uris else "propylon xDS")])
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if uris else ExtendedKeyUsageOID.SERVER_AUTH
    builder = (
        _builder(subject, signed_by.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_key_usage(signs=False), True)
        .add_extension(x509.ExtendedKeyUsage([usage]), False)
        .add_extension(x509.SubjectAlternativeName(names), False)
    )
    ca_key = serialization.load_pem_private_key(authority.key_pem.encode(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    return Leaf(_pem(builder.sign(ca_key, hashes.SHA256())), _key_pem(key))


def due(certificate: x509.Certificate, now: dt.datetime) -> bool:
    """Whether less than a third of its life is left."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= end - (end - start) / 3


def usable(leaf: Leaf, authorities: Sequence[Authority], uri: str, now: dt.datetime) -> bool:
    """Whether a certificate found in a Secret serves its purpose and need not be replaced yet."""
    try:
        certificate = x509.load_pem_x509_certificate(leaf.certificate_pem.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = serialization.load_pem_private_key(leaf.key_pem.encode(), password=None)
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return False
    if key.public_key() != certificate.public_key():
        return False
    return (
        names.get_values_for_type(x509.UniformResourceIdentifier) == [uri]
        and not due(certificate, now)
        and any(_signed(certificate, authority.certificate) for authority in authorities)
    )


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except Exception:  # noqa: BLE001 - the library raises what the key type's backend does
        return False
    return True


def admits(node: str, uris: Sequence[str]) -> bool:
    """Whether whoever proved to be these URIs may ask for the node ("namespace/name") of a Gateway."""
    return f"{_TRUST_DOMAIN}{node}" in uris


def admits_replica(uris: Sequence[str]) -> bool:
    """Whether whoever proved to be these URIs is a replica of the controller."""
    return REPLICA in uris


def _made(authority: Authority) -> dt.datetime:
    return authority.certificate.not_valid_before_utc


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATE)  # clocks of nodes differ
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
