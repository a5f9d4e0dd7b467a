"""Certificates: key pairs of Secrets, CA certificates of ConfigMaps and ClusterTrustBundles, and who may use them."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from propylon import api
from propylon.graph.model import Finding, SecretKey
from propylon.graph.references import Grants, Referrer, granted, not_permitted
from propylon.graph.sources import CERTIFICATES_GROUP, Sources
from propylon.incremental import Look

CERT_MANAGER_ANNOTATIONS = ("cert-manager.io/issuer", "cert-manager.io/cluster-issuer", "cert-manager.io/issuer-kind")


class Resolved(NamedTuple):
    """A resolved certificate reference: the key, or the reason and message why there is none."""

    key: SecretKey | None
    reason: str = ""
    message: str = ""


@lru_cache(maxsize=8192)
def key_pair_problem(chain: bytes, private_key: bytes) -> str | None:
    """Say what is wrong with a certificate chain and its key (both PEM); None if nothing is."""
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        return "tls.crt holds no valid PEM certificate"
    try:
        key = load_pem_private_key(private_key, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls.key holds no usable PEM private key (encrypted keys are not supported)"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        same = certificates[0].public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls.crt holds a certificate with an unusable public key"
    if not same:
        return "tls.key does not belong to the certificate in tls.crt"
    return key_problem(key)


def key_problem(key: object) -> str | None:
    """Say why Envoy would refuse a private key: it takes RSA from 2048 bits on, ECDSA on the NIST curves, Ed25519."""
    match key:
        case rsa.RSAPrivateKey():
            return None if key.key_size >= 2048 else f"tls.key is an RSA key of {key.key_size} bits, 2048 are the least"
        case ec.EllipticCurvePrivateKey() if key.curve.name in {"secp256r1", "secp384r1", "secp521r1"}:
            return None
        case ed25519.Ed25519PrivateKey():
            return None
    return "tls.key is of a kind that Envoy does not take: use RSA, or ECDSA on P-256"


@lru_cache(maxsize=2048)
def bundle_problem(pem: str) -> str | None:
    """Say what is wrong with a bundle of CA certificates; None if nothing is."""
    if not pem.strip():
        return "is empty"
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return "holds no valid PEM certificate"
    return None


def key_pair(secret: api.Secret) -> tuple[bytes, bytes] | str:
    """Return (chain, private key) of a TLS Secret, or what is wrong with it."""
    chain, private_key = secret.decoded("tls.crt"), secret.decoded("tls.key")
    missing = [name for name, value in (("tls.crt", chain), ("tls.key", private_key)) if not value]
    if missing or chain is None or private_key is None:
        return f"has no usable {' and '.join(missing)}"
    return key_pair_problem(chain, private_key) or (chain, private_key)


def resolve_certificate(
    look: Look,
    sources: Sources,
    grants: Grants,
    referrer: Referrer,
    ref: api.SecretObjectReference,
    invalid: str,
) -> Resolved:
    """Resolve a reference to a TLS Secret: kind, then grant, then existence, then content.

    The grant comes before existence, so that nobody learns of Secrets they may not see. `invalid` is the reason for
    all that is not RefNotPermitted.
    """
    if ref.group != "" or ref.kind != "Secret":
        kind = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
        return Resolved(None, invalid, f"certificates of kind {kind} are not supported, only those of Secrets")
    target = api.ObjectRef("", "Secret", ref.namespace or referrer.namespace, ref.name)
    if not granted(look, grants, referrer, target):
        return Resolved(None, "RefNotPermitted", not_permitted(referrer, target))
    secret = look.get(sources.secrets, target.key)
    where = f"Secret {target.namespace}/{target.name}"
    if secret is None:
        return Resolved(None, invalid, f"{where} does not exist")
    pair = key_pair(secret)
    if isinstance(pair, str):
        return Resolved(None, invalid, f"{where} {pair}" if pair.startswith("has ") else f"{where}: {pair}")
    return Resolved(SecretKey("certificate", target.namespace, target.name))


def asks_cert_manager(annotations: dict[str, str]) -> bool:
    """Tell whether cert-manager is asked to issue the certificates of this object."""
    return any(name in annotations for name in CERT_MANAGER_ANNOTATIONS)


class Authorities(NamedTuple):
    """CA certificates gathered from references: PEM text, and what is wrong with those that gave none."""

    pem: bytes
    findings: tuple[Finding, ...]
    valid: int


def resolve_authorities(
    look: Look,
    sources: Sources,
    grants: Grants,
    referrer: Referrer,
    refs: Iterable[api.ObjectReference | api.LocalObjectReference],
    invalid_kind: str,
    field: str,
) -> Authorities:
    """Gather CA certificates (GEP-91, GEP-1897, GEP-5075): each bad reference is a finding, the good ones count."""
    pems: list[str] = []
    findings: list[Finding] = []
    for index, ref in enumerate(refs):
        found = _authority(look, sources, grants, referrer, ref, invalid_kind)
        if isinstance(found, str):
            pems.append(found)
        else:
            findings.append(Finding("ResolvedRefs", found[0], found[1], f"{field}[{index}]"))
    return Authorities("\n".join(pem.strip() for pem in pems).encode(), tuple(findings), len(pems))


def _authority(
    look: Look,
    sources: Sources,
    grants: Grants,
    referrer: Referrer,
    ref: api.ObjectReference | api.LocalObjectReference,
    invalid_kind: str,
) -> str | tuple[str, str]:
    pem: str | None
    if (ref.group, ref.kind) == ("", "ConfigMap"):
        namespace = getattr(ref, "namespace", None) or referrer.namespace
        target = api.ObjectRef("", "ConfigMap", namespace, ref.name)
        where = f"ConfigMap {namespace}/{ref.name}"
        if not granted(look, grants, referrer, target):
            return "RefNotPermitted", not_permitted(referrer, target)
        config_map = look.get(sources.config_maps, target.key)
        if config_map is None:
            return "InvalidCACertificateRef", f"{where} does not exist"
        pem = config_map.data.get("ca.crt")
        if pem is None:
            return "InvalidCACertificateRef", f"{where} has no key ca.crt"
        where += " key ca.crt"
    elif (ref.group, ref.kind) == (CERTIFICATES_GROUP, "ClusterTrustBundle"):
        if look.get(sources.lacking, "ClusterTrustBundle"):
            return invalid_kind, "ClusterTrustBundles are not served by this cluster: use a ConfigMap"
        where = f"ClusterTrustBundle {ref.name}"
        bundle = look.get(sources.cluster_trust_bundles, api.ObjectKey("", ref.name))
        if bundle is None:
            return "InvalidCACertificateRef", f"{where} does not exist"
        pem = bundle.spec.trust_bundle
    else:
        kind = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
        return invalid_kind, f"CA certificates of kind {kind} are not supported, only ConfigMap and ClusterTrustBundle"
    problem = bundle_problem(pem)
    return pem if problem is None else ("InvalidCACertificateRef", f"{where} {problem}")
