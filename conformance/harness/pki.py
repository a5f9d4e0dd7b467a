"""Certificates of one run's control plane: one authority, everything else issued by it."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=7)


class Authority:
    """A certificate authority that writes PEM files into one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("conformance")
        builder = _builder(self._name, self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.path = self._write("ca.crt", self._certificate.public_bytes(serialization.Encoding.PEM))

    @classmethod
    def adopt(cls, directory: Path, certificate: Path, key: Path) -> Authority:
        """An authority that exists already; what it issues goes into ``directory``."""
        authority = cls.__new__(cls)
        authority.directory = directory
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        authority.path = certificate
        authority._certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        authority._key = loaded
        authority._name = authority._certificate.subject
        return authority

    def issue(
        self, file: str, user: str, *, groups: Sequence[str] = (), names: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """A certificate for ``user`` (and ``groups``, Kubernetes' meaning of O), valid as a server under ``names``.

        Returns the paths of certificate and key. Names that look like IP addresses become such.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(user, groups), self._name, key)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return (
            self._write(f"{file}.crt", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write(f"{file}.key", _pem(key)),
        )

    def signing_key(self, file: str) -> Path:
        """A bare key, for service account tokens."""
        # SEC 1, not PKCS 8: kube-apiserver takes the public half from this very file, and reads it in that form only.
        form = serialization.PrivateFormat.TraditionalOpenSSL
        return self._write(file, _pem(ec.generate_private_key(ec.SECP256R1()), form))

    def client_context(self, certificate: Path, key: Path) -> ssl.SSLContext:
        """TLS settings of a client that trusts this authority alone."""
        context = ssl.create_default_context(cafile=str(self.path))
        context.load_cert_chain(certificate, key)
        return context

    def server_context(self, certificate: Path, key: Path) -> ssl.SSLContext:
        """TLS settings of a server that demands a client certificate of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.path))
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def kubeconfig(self, file: str, server: str, certificate: Path, key: Path) -> Path:
        """A kubeconfig with everything inline. JSON, which is YAML too."""
        user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        cluster = {"server": server, "certificate-authority-data": _base64(self.path)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "conformance", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "conformance", "context": {"cluster": "conformance", "user": "user"}}],
            "current-context": "conformance",
        }
        return self._write(file, json.dumps(document, indent=2).encode())

    def _write(self, file: str, content: bytes) -> Path:
        path = self.directory / file
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(minutes=5),
        not_valid_after=now + _LIFETIME,
    )


def _name(user: str, groups: Sequence[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(
    key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
