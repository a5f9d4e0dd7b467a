"""Who may speak to the API server, as files: its certificate authority, its own certificate, client certificates and
kubeconfigs. Everything secret has mode 0600 below a directory of mode 0700."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ADMINS = "system:masters"
"""The group whose members may do everything, as in Kubernetes."""
ADMIN = "propylon-admin"
CONTEXT = "propylon"
_CA_DAYS, _LEAF_DAYS, _RENEW_DAYS = 3650, 365, 30
_BACKDATE = dt.timedelta(hours=1)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that only its owner may read; nobody ever sees half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Credentials:
    """The authority of one API server and what it has issued. Made at first use, the same ever after."""

    def __init__(self, directory: Path) -> None:
        """`directory` holds `ca.crt`, `ca.key`, `server.crt`, `server.key`. Raises OSError, ValueError."""
        self.directory = directory
        self.ca_path = directory / "ca.crt"
        self.server_certificate = directory / "server.crt"
        self.server_key = directory / "server.key"
        self.token_key = directory / "tokens.key"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.ca_path.exists() and (directory / "ca.key").exists()):
            self._create_authority()
        self._certificate = x509.load_pem_x509_certificate(self.ca_path.read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{directory / 'ca.key'} is not an elliptic curve key; remove the directory {directory}")
        self._key = key

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def ensure_server_certificate(self, hosts: Iterable[str]) -> None:
        """Have a certificate for these names and addresses in place, not about to end."""
        names = _alternative_names(hosts)
        if self.server_certificate.exists() and self.server_key.exists():
            held = x509.load_pem_x509_certificate(self.server_certificate.read_bytes())
            alternative = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            if list(alternative) == names and not _ends_soon(held) and held.issuer == self._certificate.subject:
                return
        certificate, key = self._issue("propylon", (), names, ExtendedKeyUsageOID.SERVER_AUTH, _LEAF_DAYS)
        write_private(self.server_key, key)
        write_private(self.server_certificate, certificate + self.ca_pem)

    def issue_client(self, user: str, groups: Iterable[str], days: float = _LEAF_DAYS) -> tuple[bytes, bytes]:
        """A certificate and key, as PEM, that say who the client is: the common name is the user, organizations are
        the groups (the X.509 client certificates of Kubernetes)."""
        return self._issue(user, tuple(groups), [], ExtendedKeyUsageOID.CLIENT_AUTH, days)

    def kubeconfig(self, server: str, user: str, certificate: bytes, key: bytes, namespace: str = "default") -> bytes:
        """A kubeconfig with one context that needs no other file."""
        cluster = {"server": server, "certificate-authority-data": _base64(self.ca_pem)}
        credentials = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        document: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": CONTEXT, "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user, "namespace": namespace}}],
            "current-context": CONTEXT,
        }
        return yaml.safe_dump(document, sort_keys=False).encode()

    def write_admin_kubeconfig(self, path: Path, server: str) -> None:
        """Have the administrator's kubeconfig for this address in place; its certificate is kept while it lasts."""
        certificate = self.directory / "admin.crt"
        key = self.directory / "admin.key"
        if not (certificate.exists() and key.exists()) or self._is_stale(certificate):
            issued, secret = self.issue_client(ADMIN, (ADMINS,))
            write_private(key, secret)
            write_private(certificate, issued)
        content = self.kubeconfig(server, ADMIN, certificate.read_bytes(), key.read_bytes())
        if not path.exists() or path.read_bytes() != content:
            write_private(path, content)

    def token_secret(self) -> bytes:
        """The key that signs the tokens of service accounts."""
        if not self.token_key.exists():
            write_private(self.token_key, os.urandom(32))
        return self.token_key.read_bytes()

    def _is_stale(self, path: Path) -> bool:
        held = x509.load_pem_x509_certificate(path.read_bytes())
        try:
            held.verify_directly_issued_by(self._certificate)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, a new one is issued
            return True
        return _ends_soon(held)

    def _create_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"propylon {os.urandom(4).hex()}")])
        start = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - _BACKDATE)
            .not_valid_after(start + dt.timedelta(days=_CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(self.directory / "ca.key", _pem(key))
        write_private(self.ca_path, certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(
        self,
        common_name: str,
        organizations: tuple[str, ...],
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        days: float,
    ) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        start = dt.datetime.now(dt.UTC)
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - _BACKDATE)
            .not_valid_after(min(start + dt.timedelta(days=days), self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _pem(key)


def _alternative_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _ends_soon(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc < dt.datetime.now(dt.UTC) + dt.timedelta(days=_RENEW_DAYS)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(*form, serialization.NoEncryption())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
