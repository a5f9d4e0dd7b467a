"""Certificates for tests."""

import datetime as dt
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair:
    """A certificate and its key, in PEM."""

    def __init__(self, certificate, key):
        self.certificate, self.key = certificate, key
        self.chain = certificate.public_bytes(serialization.Encoding.PEM)
        self.private_key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def load_into(self, context):
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "pair.pem"
            file.write_bytes(self.private_key + self.chain)
            context.load_cert_chain(file)
        return context


class Authority:
    """A certificate authority."""

    def __init__(self, name="test authority"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = _name(name)
        builder = _builder(self.subject, self.subject, self.key).add_extension(x509.BasicConstraints(True, None), True)
        self.pair = Pair(builder.sign(self.key, hashes.SHA256()), self.key)
        self.chain = self.pair.chain

    def issue(self, *dns_names, uris=(), key=None):
        key = key or ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(n) for n in dns_names] + [x509.UniformResourceIdentifier(u) for u in uris]
        builder = _builder(_name("leaf"), self.subject, key)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        return Pair(builder.sign(self.key, hashes.SHA256()), key)

    def client(self, pair=None, alpn=(), verify=True):
        """A client's context that trusts this authority."""
        context = ssl.create_default_context(cadata=self.chain.decode())
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return pair.load_into(context) if pair else context

    def server(self, pair, alpn=(), clients=None):
        """A server's context; `clients` is the authority whose certificates it demands."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=clients.chain.decode())
        return pair.load_into(context)


def _name(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject, issuer, key):
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
    )
