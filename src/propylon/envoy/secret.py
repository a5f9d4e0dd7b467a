"""Secret: certificates with their keys, and CA certificates, as SDS delivers them."""

from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from propylon.envoy import names
from propylon.graph.model import Certificate


def build_secret(certificate: Certificate) -> Any:
    """Envoy's Secret."""
    out = secret_pb2.Secret(name=names.secret(certificate.key))
    if certificate.key.kind == "validation":
        out.validation_context.trusted_ca.inline_bytes = certificate.chain
    else:
        out.tls_certificate.certificate_chain.inline_bytes = certificate.chain
        out.tls_certificate.private_key.inline_bytes = certificate.private_key
    return out
