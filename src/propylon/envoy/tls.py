"""TLS towards clients and towards backends: the transport sockets. Keys and CAs come by SDS, so rotation drains
nothing."""

from collections.abc import Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2

from propylon.envoy import matcher, names
from propylon.envoy.resource import ads, pack, seconds
from propylon.envoy.settings import EnvoySettings
from propylon.graph.model import BackendTls, Cluster, ListenerTls, SecretKey

HTTP_ALPN = ("h2", "http/1.1")
_HANDSHAKE_TIMEOUT = 15.0
_SECRET_PATIENCE = 60.0
"""Seconds. A Secret that does not come must not keep the other listeners of its port from serving for ever."""


def build_downstream_socket(tls: ListenerTls, alpn: Sequence[str] = ()) -> Any:
    """Transport socket of a listener that terminates TLS (1.2 and later)."""
    common = tls_pb2.CommonTlsContext(
        tls_params=common_pb2.TlsParameters(tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2),
        tls_certificate_sds_secret_configs=[build_secret_source(key) for key in tls.certificates],
        alpn_protocols=alpn,
    )
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common)
    if tls.client_validation is not None:
        context.require_client_certificate.value = tls.client_validation.required
        combined = context.common_tls_context.combined_validation_context
        combined.validation_context_sds_secret_config.CopyFrom(build_secret_source(tls.client_validation.secret))
        combined.default_validation_context.SetInParent()
        if not tls.client_validation.required:
            # AllowInsecureFallback: a certificate that does not verify is as good as none.
            combined.default_validation_context.trust_chain_verification = (
                common_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED
            )
    return base_pb2.TransportSocket(name=names.TLS_TRANSPORT_SOCKET, typed_config=pack(context))


def handshake_timeout() -> Any:
    """How long a client may take for its handshake."""
    return seconds(_HANDSHAKE_TIMEOUT)


def build_upstream_socket(cluster: Cluster, tls: BackendTls, settings: EnvoySettings) -> Any:
    """Transport socket of a cluster whose backend speaks TLS."""
    common = tls_pb2.CommonTlsContext(alpn_protocols=_upstream_alpn(cluster))
    certificate = tls.client_certificate or cluster.client_certificate
    if certificate is not None:
        common.tls_certificate_sds_secret_configs.append(build_secret_source(certificate))
    if tls.verify:
        _validate(common, tls, settings)
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=tls.server_name)
    return base_pb2.TransportSocket(name=names.TLS_TRANSPORT_SOCKET, typed_config=pack(context))


def _validate(common: Any, tls: BackendTls, settings: EnvoySettings) -> None:
    sans = [(san.type, san.value) for san in tls.subject_alt_names] or [("DNS", tls.server_name)]
    matchers = [
        common_pb2.SubjectAltNameMatcher(
            san_type=common_pb2.SubjectAltNameMatcher.URI if type_ == "URI" else common_pb2.SubjectAltNameMatcher.DNS,
            matcher=matcher.exact(value),
        )
        for type_, value in sans
        if value
    ]
    if tls.validation is None:
        context = common.validation_context
        context.trusted_ca.filename = settings.system_ca_file
    else:
        combined = common.combined_validation_context
        combined.validation_context_sds_secret_config.CopyFrom(build_secret_source(tls.validation))
        context = combined.default_validation_context
    context.match_typed_subject_alt_names.extend(matchers)


def _upstream_alpn(cluster: Cluster) -> tuple[str, ...]:
    """What is offered; nothing where bytes are passed on, for the client's protocol is not known."""
    return {"HTTP2": ("h2",), "GRPC": ("h2",), "HTTP": ("http/1.1",)}.get(cluster.key.protocol, ())


def build_secret_source(key: SecretKey) -> Any:
    """Where a Secret comes from. Equal sources share one Secret in Envoy."""
    return secret_pb2.SdsSecretConfig(name=names.secret(key), sds_config=ads(_SECRET_PATIENCE))
