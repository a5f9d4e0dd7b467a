"""BackendTLSPolicies: what they ask for, which of them counts for a port, whether it can be done (GEP-1897)."""

from typing import NamedTuple

import msgspec

from propylon import api
from propylon.graph.model import BackendTls, Finding, SecretKey, SubjectAltName
from propylon.graph.references import Grants, Referrer
from propylon.graph.sources import Sources
from propylon.graph.tls import Authorities, resolve_authorities
from propylon.incremental import Collection, Engine, Index, Look


class Target(NamedTuple):
    """What a policy is about: a Service, or one of its ports by name (`section` is "" for all of them)."""

    namespace: str
    service: str
    section: str


class Verdict(msgspec.Struct, frozen=True):
    """A policy judged by itself and against others with the same target."""

    tls: BackendTls
    findings: tuple[Finding, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether backends can be spoken to as it asks."""
        return not any(f.condition == "Accepted" for f in self.findings)


class Claim(NamedTuple):
    """What a policy claims; of two, the lesser goes first."""

    created: str
    policy: api.ObjectKey
    targets: tuple[Target, ...]


class Policies(NamedTuple):
    """The collections about BackendTLSPolicies."""

    by_service: Index[api.ObjectKey, api.ObjectKey, Claim]
    verdicts: Collection[api.ObjectKey, Verdict]
    authorities: Collection[SecretKey, bytes]


def targets(policy: api.BackendTLSPolicy) -> tuple[Target, ...]:
    """Return the Services a policy is about; other kinds of targets are left to other controllers."""
    return tuple(
        Target(policy.metadata.namespace, ref.name, ref.section_name or "")
        for ref in policy.spec.target_refs
        if ref.group == "" and ref.kind == "Service"
    )


def validation_key(kind: str, key: api.ObjectKey) -> SecretKey:
    """Name the CA certificates that belong to an object."""
    return SecretKey("validation", key.namespace, f"{kind.lower()}/{key.name}")


def build_policies(engine: Engine, sources: Sources, grants: Grants) -> Policies:
    """Judge every BackendTLSPolicy."""
    claims = engine.derive(
        "policy claims",
        sources.backend_tls_policies,
        lambda key, policy, _look: Claim(policy.metadata.creation_timestamp, key, targets(policy)),
    )
    by_target = claims.index("policies by target", lambda _key, claim: claim.targets)
    # For who asks about a Service: one question, not one for each of its ports and one more.
    by_service = claims.index(
        "policies by service", lambda _key, claim: [api.ObjectKey(t.namespace, t.service) for t in claim.targets]
    )

    def authorities(key: api.ObjectKey, policy: api.BackendTLSPolicy, look: Look) -> dict[SecretKey, bytes]:
        found = authorities_of(look, sources, grants, "BackendTLSPolicy", key, policy.spec.validation)
        return {validation_key("BackendTLSPolicy", key): found.pem} if found.valid else {}

    def judge(key: api.ObjectKey, policy: api.BackendTLSPolicy, look: Look) -> Verdict:
        findings = list(conflicts(key, policy, look, by_target))
        tls, problems = backend_tls(look, sources, grants, "BackendTLSPolicy", key, policy.spec.validation)
        tls = msgspec.structs.replace(tls, options=policy.spec.options, origin=api.ref_of(policy))
        return Verdict(tls, (*findings, *problems))

    return Policies(
        by_service,
        engine.derive("policy verdicts", sources.backend_tls_policies, judge),
        engine.flat_derive("policy authorities", sources.backend_tls_policies, authorities),
    )


def conflicts(
    key: api.ObjectKey,
    policy: api.BackendTLSPolicy,
    look: Look,
    by_target: Index[Target, api.ObjectKey, Claim],
) -> tuple[Finding, ...]:
    """Find targets that an older policy (then: one first by namespace/name) took before this one."""
    mine = (policy.metadata.creation_timestamp, key)
    for index, target in enumerate(targets(policy)):
        first = min(claim[:2] for _, claim in look.by(by_target, target))
        if first < mine:
            section = f" port {target.section}" if target.section else ""
            message = f"BackendTLSPolicy {first[1]} goes first for Service {target.namespace}/{target.service}{section}"
            return (Finding("Accepted", "Conflicted", message, f"spec.targetRefs[{index}]"),)
    return ()


def authorities_of(
    look: Look,
    sources: Sources,
    grants: Grants,
    kind: str,
    key: api.ObjectKey,
    validation: api.BackendTLSPolicyValidation,
) -> Authorities:
    """Gather the CA certificates a validation refers to."""
    group = api.GATEWAY_GROUP if kind == "BackendTLSPolicy" else api.EXPERIMENTAL_GROUP
    field = "spec.validation" if kind == "BackendTLSPolicy" else "spec.tls.validation"
    referrer = Referrer(group, kind, key.namespace)
    refs = validation.ca_certificate_refs
    return resolve_authorities(look, sources, grants, referrer, refs, "InvalidKind", f"{field}.caCertificateRefs")


def backend_tls(
    look: Look,
    sources: Sources,
    grants: Grants,
    kind: str,
    key: api.ObjectKey,
    validation: api.BackendTLSPolicyValidation,
) -> tuple[BackendTls, tuple[Finding, ...]]:
    """Turn a validation (of a BackendTLSPolicy or an XBackend) into TLS settings, with what is wrong with it."""
    secret: SecretKey | None = None
    findings: list[Finding] = []
    well_known = validation.well_known_ca_certificates
    if validation.ca_certificate_refs:
        authorities = authorities_of(look, sources, grants, kind, key, validation)
        findings.extend(authorities.findings)
        secret = validation_key(kind, key)
        if not authorities.valid:
            reasons = "; ".join(f.message for f in authorities.findings)
            findings.append(Finding("Accepted", "NoValidCACertificate", f"no usable CA certificate: {reasons}"))
    elif well_known != "System":
        what = f"wellKnownCACertificates {well_known!r} is not known" if well_known else "no CA certificates are given"
        findings.append(Finding("Accepted", "Invalid", f'{what}: use "System" or caCertificateRefs'))
    names = tuple(
        SubjectAltName("URI", san.uri or "") if san.type == "URI" else SubjectAltName("DNS", san.hostname or "")
        for san in validation.subject_alt_names
    )
    return BackendTls(validation.hostname, secret, names), tuple(findings)
