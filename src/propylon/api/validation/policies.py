"""Rules about classes, policies and XBackends (the CEL rules of their CRDs)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from propylon.api.policies import (
    BackendSpec,
    BackendTLS,
    BackendTLSPolicySpec,
    BackendTLSPolicyValidation,
    EndpointSelectorBackend,
    ExternalHostnameBackend,
    SubjectAltName,
)
from propylon.api.schema import SUBDOMAIN_PATTERN
from propylon.api.validation.rules import Place, Rule, Violation, duplicates
from propylon.api.validation.scalars import Pattern

_NAME_SEGMENT = Pattern("^([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$")
_SUBDOMAIN = Pattern(f"^{SUBDOMAIN_PATTERN}$")


def _target(ref: Any) -> tuple[Any, ...]:
    return (ref.get("group"), ref.get("kind"), ref.get("name"))


def target_refs_need_section_names(refs: Any) -> Iterable[Violation]:
    """Several references to one target must all name a section, or none."""
    for index, ref in enumerate(refs):
        same = [other for other in refs if _target(other) == _target(ref)]
        if not ref.get("sectionName") and any(other.get("sectionName") for other in same):
            yield Violation(f"[{index}]", ref)


def target_refs_must_be_unique(refs: Any) -> Iterable[Violation]:
    """Each section of a target is named once."""
    for index in duplicates((*_target(ref), ref.get("sectionName") or None) for ref in refs):
        yield Violation(f"[{index}]", refs[index])


def ca_certificates_must_come_from_one_place(validation: Any) -> Iterable[Violation]:
    """References and well-known certificates exclude each other (standard channel)."""
    if validation.get("caCertificateRefs") and validation.get("wellKnownCACertificates"):
        yield Violation(".wellKnownCACertificates", validation["wellKnownCACertificates"])


def ca_certificates_must_be_given(validation: Any) -> Iterable[Violation]:
    """Without authorities to trust, no certificate can be checked (standard channel)."""
    if not validation.get("caCertificateRefs") and not validation.get("wellKnownCACertificates"):
        yield Violation("", None)


def exactly_one_ca_certificate_source(validation: Any) -> Iterable[Violation]:
    """References or well-known certificates, one of the two (experimental channel)."""
    if ("caCertificateRefs" in validation) == ("wellKnownCACertificates" in validation):
        yield Violation("", validation.get("wellKnownCACertificates"))


def _alt_name_rules() -> tuple[Rule, ...]:
    # Unlike in other unions, an empty string counts as absent here.
    rules: list[Rule] = []
    for kind, member in (("Hostname", "hostname"), ("URI", "uri")):

        def missing(name: Any, kind: str = kind, member: str = member) -> Iterable[Violation]:
            if name.get("type") == kind and not name.get(member):
                yield Violation(f".{member}", name.get(member))

        def misplaced(name: Any, kind: str = kind, member: str = member) -> Iterable[Violation]:
            if name.get("type") != kind and name.get(member):
                yield Violation(f".{member}", name[member])

        place = (Place(SubjectAltName),)
        rules += (
            Rule(
                missing,
                place,
                f"{member} is missing although type is {kind}",
                f"Add {member}.",
                name=f"subject_alt_name_{member}_must_be_set_for_its_type",
            ),
            Rule(
                misplaced,
                place,
                f"{member} is set although type is not {kind}",
                f"Set type to {kind}, or remove {member}.",
                name=f"subject_alt_name_{member}_must_be_absent_for_other_types",
            ),
        )
    return tuple(rules)


def _uses_tls(spec: Any) -> bool:
    return bool(spec.get("tls", {}).get("mode", "None") != "None")


def h2c_excludes_tls(spec: Any) -> Iterable[Violation]:
    """H2C is HTTP/2 in clear text."""
    if spec.get("protocol") == "H2C" and _uses_tls(spec):
        yield Violation(".tls.mode", spec["tls"]["mode"])


def http2_needs_tls(spec: Any) -> Iterable[Violation]:
    """HTTP2 is HTTP/2 over TLS."""
    if spec.get("protocol") == "HTTP2" and not _uses_tls(spec):
        yield Violation(".tls.mode", spec.get("tls", {}).get("mode"))


def wss_needs_tls(spec: Any) -> Iterable[Violation]:
    """WSS is WebSocket over TLS."""
    if spec.get("protocol") == "WSS" and not _uses_tls(spec):
        yield Violation(".tls.mode", spec.get("tls", {}).get("mode"))


def session_persistence_needs_endpoints(spec: Any) -> Iterable[Violation]:
    """Only among several endpoints can one be kept."""
    if "sessionPersistence" in spec and spec.get("type") != "EndpointSelector":
        yield Violation(".sessionPersistence", spec["sessionPersistence"])


def match_label_keys_must_be_qualified_names(labels: Any) -> Iterable[Violation]:
    """A label key is a name of up to 63 characters, maybe after a DNS subdomain of up to 253 and a slash."""
    for key in labels:
        prefix, slash, name = key.rpartition("/")
        prefix_is_valid = not slash or (len(prefix) <= 253 and _SUBDOMAIN.search(prefix))
        if not prefix_is_valid or not _NAME_SEGMENT.search(name):
            yield Violation(f'["{key}"]', key)


def external_hostname_must_be_outside_of_the_cluster(hostname: Any) -> Iterable[Violation]:
    """Names of the cluster's own domain belong to Services."""
    if hostname.endswith(".cluster.local"):
        yield Violation("", hostname)


def client_certificate_if_and_only_if_client_and_server(tls: Any) -> Iterable[Violation]:
    """The mode says whether a client certificate is shown."""
    if (tls.get("mode") == "ClientAndServer") != ("clientCertificateRef" in tls):
        yield Violation(".clientCertificateRef", tls.get("clientCertificateRef"))


def validation_if_and_only_if_tls(tls: Any) -> Iterable[Violation]:
    """A server certificate is checked whenever TLS is spoken."""
    if (tls.get("mode") != "None") != ("validation" in tls):
        yield Violation(".validation", tls.get("validation"))


def external_hostname_if_and_only_if_its_type(spec: Any) -> Iterable[Violation]:
    """The type says which field holds the backend."""
    if (spec.get("type") == "ExternalHostname") != ("externalHostname" in spec):
        yield Violation(".externalHostname", spec.get("externalHostname"))


def endpoint_selector_if_and_only_if_its_type(spec: Any) -> Iterable[Violation]:
    """The type says which field holds the backend."""
    if (spec.get("type") == "EndpointSelector") != ("endpointSelector" in spec):
        yield Violation(".endpointSelector", spec.get("endpointSelector"))


_TARGETS = (Place(BackendTLSPolicySpec, "targetRefs"),)
_VALIDATION = (Place(BackendTLSPolicyValidation),)
_BACKEND = (Place(BackendSpec),)

POLICY_RULES: tuple[Rule, ...] = (
    Rule(
        target_refs_need_section_names,
        _TARGETS,
        "several targetRefs name this target, but not all of them name a section of it",
        "Add sectionName (a Service's port name) to each of them.",
    ),
    Rule(target_refs_must_be_unique, _TARGETS, "another targetRef names the same target", "Remove one of the two."),
    Rule(
        ca_certificates_must_come_from_one_place,
        _VALIDATION,
        "caCertificateRefs and wellKnownCACertificates exclude each other",
        "Remove one of the two.",
        "standard",
    ),
    Rule(
        ca_certificates_must_be_given,
        _VALIDATION,
        "it is not said which authorities to trust",
        "Add caCertificateRefs, or wellKnownCACertificates: System.",
        "standard",
    ),
    Rule(
        exactly_one_ca_certificate_source,
        _VALIDATION,
        "exactly one of caCertificateRefs and wellKnownCACertificates must be given",
        "Add caCertificateRefs, or wellKnownCACertificates: System, not both.",
        "experimental",
    ),
    *_alt_name_rules(),
    Rule(h2c_excludes_tls, _BACKEND, "protocol H2C is without TLS", "Use protocol HTTP2, or set tls.mode to None."),
    Rule(http2_needs_tls, _BACKEND, "protocol HTTP2 is with TLS", "Use protocol H2C, or set tls.mode."),
    Rule(wss_needs_tls, _BACKEND, "protocol WSS is with TLS", "Set tls.mode."),
    Rule(
        session_persistence_needs_endpoints,
        _BACKEND,
        "sessionPersistence needs type EndpointSelector",
        "Remove sessionPersistence, or select endpoints.",
    ),
    Rule(
        external_hostname_if_and_only_if_its_type,
        _BACKEND,
        "externalHostname must be set for type ExternalHostname, and for no other type",
        "Make type and field agree.",
    ),
    Rule(
        endpoint_selector_if_and_only_if_its_type,
        _BACKEND,
        "endpointSelector must be set for type EndpointSelector, and for no other type",
        "Make type and field agree.",
    ),
    Rule(
        match_label_keys_must_be_qualified_names,
        (Place(EndpointSelectorBackend, "matchLabels"),),
        "this is not a valid label key",
        'Use letters, digits, "-", "_" and "." (63 at most), maybe after a DNS subdomain and "/".',
    ),
    Rule(
        external_hostname_must_be_outside_of_the_cluster,
        (Place(ExternalHostnameBackend, "hostname"),),
        "a host of the cluster is not an external one",
        "Refer to the Service itself, or use another hostname.",
    ),
    Rule(
        client_certificate_if_and_only_if_client_and_server,
        (Place(BackendTLS),),
        "clientCertificateRef must be set for mode ClientAndServer, and for no other mode",
        "Make mode and field agree.",
    ),
    Rule(
        validation_if_and_only_if_tls,
        (Place(BackendTLS),),
        "validation must be set for modes ServerOnly and ClientAndServer, and for no other mode",
        "Make mode and field agree.",
    ),
)
