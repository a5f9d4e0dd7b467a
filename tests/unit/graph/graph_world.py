"""A world of Gateway API objects for tests: manifests in, Graph and statuses out, and a readable summary of both."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from propylon import api
from propylon.graph import GatewayAddresses, Settings, Sources, build_graph
from propylon.graph.model import BackendRef, Finding, Match, PortKey, Rule
from propylon.incremental import Commit, Engine, Source
from propylon.status import PortProgrammed, build_status


@cache
def certificate(name: str) -> tuple[str, str]:
    """A self-signed certificate and its key, PEM; the same for the same name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=3650))
    cert = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False).sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return cert.public_bytes(Encoding.PEM).decode(), private.decode()


def filled(value: Any) -> Any:
    """Replace `@cert NAME`, `@key NAME` by PEM, so that no key material lies in the repository."""
    if isinstance(value, dict):
        return {k: filled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v) for v in value]
    if isinstance(value, str) and value.startswith(("@cert ", "@key ")):
        return certificate(value.split()[1])[value.startswith("@key ")]
    return value


class World:
    """An engine with the Graph and the statuses, fed with documents."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.engine = Engine()
        self.sources = Sources.create(self.engine)
        self.graph = build_graph(self.engine, self.sources, settings or Settings())
        self.programmed: Source[PortKey, PortProgrammed] = self.engine.source("programmed")
        self.rejections: Source[api.ObjectRef, tuple[Finding, ...]] = self.engine.source("rejections")
        collections = build_status(self.engine, self.sources, self.graph, self.programmed, self.rejections)
        self.statuses = collections.statuses

    def set(self, document: dict[str, Any]) -> api.ObjectRef:
        """Take in one document; a Gateway gets the addresses it asks for, or 10.0.0.1."""
        obj = api.decode(api.apply_defaults(filled(document)))
        ref = api.ref_of(obj)
        source = self.sources.by_kind(ref.group, ref.kind)
        assert source is not None, f"no source for {ref}"
        source.set(ref.key, obj)
        if isinstance(obj, api.Gateway):
            wanted = tuple(a.value for a in obj.spec.addresses if a.type == "IPAddress" and a.value) or ("10.0.0.1",)
            self.sources.addresses.set(
                ref.key, GatewayAddresses(tuple(api.GatewayStatusAddress(a) for a in wanted), wanted)
            )
        return ref

    def remove(self, ref: api.ObjectRef) -> None:
        """Take out one object."""
        source = self.sources.by_kind(ref.group, ref.kind)
        assert source is not None
        source.remove(ref.key)

    def commit(self) -> Commit:
        """Compute; nothing may fail."""
        commit = self.engine.commit()
        assert not commit.failures, commit.failures
        return commit

    def acknowledge(self) -> None:
        """Let proxies acknowledge every port."""
        self.programmed.replace({key: PortProgrammed("Programmed") for key in self.graph.ports})
        self.commit()

    def load(self, text: str) -> World:
        """Take in a multi-document manifest, compute and acknowledge."""
        for document in yaml.safe_load_all(text):
            if document:
                self.set(document)
        self.commit()
        self.acknowledge()
        return self

    def state(self) -> dict[str, dict[Any, Any]]:
        """Everything derived, for comparison."""
        collections = {name: dict(value.items()) for name, value in self.graph._asdict().items() if name != "settings"}
        collections["statuses"] = dict(self.statuses.items())
        return collections

    def condition(self, kind: str, name: str, type_: str, listener: str = "", parent: int = 0) -> tuple[str, str, str]:
        """(status, reason, message) of a condition; `name` is `namespace/name`."""
        namespace, _, short = name.rpartition("/")
        group = "gateway.networking.x-k8s.io" if kind == "XBackend" else api.GATEWAY_GROUP
        status: Any = self.statuses.get(api.ObjectRef(group, kind, namespace, short)) or {}
        if listener:
            status = next(entry for entry in status["listeners"] if entry["name"] == listener)
        elif "parents" in status:
            status = status["parents"][parent]
        elif "ancestors" in status:
            status = status["ancestors"][parent]
        found = next((c for c in status.get("conditions", ()) if c["type"] == type_), None)
        return ("", "", "") if found is None else (found["status"], found["reason"], found["message"])

    def order(self, hostname: str, port: int = 80) -> list[str]:
        """The routes of a virtual host in their order, as `name: path`."""
        return [
            f"{entry.route.name}: {describe_match(entry.match)}"
            for key, host in self.graph.virtual_hosts.items()
            if key.hostname == hostname and key.table.port == port
            for entry in host.entries
        ]


# --- summaries --------------------------------------------------------------------------------------------------------


def describe_match(match: Match) -> str:
    """A match in one line."""
    short = {"PathPrefix": "", "Exact": "=", "RegularExpression": "~"}[match.path_type]
    parts = [f"{short}{match.path}", match.method or ""]
    parts += [f"{h.name}{'~' if h.type == 'RegularExpression' else '='}{h.value}" for h in match.headers]
    parts += [f"?{q.name}{'~' if q.type == 'RegularExpression' else '='}{q.value}" for q in match.query]
    return " ".join(part for part in parts if part)


def describe_backend(ref: BackendRef) -> str:
    """A backend in one line: where it leads, or why nowhere."""
    filters = "".join(f" +{type(f).__name__}" for f in ref.filters)
    if ref.cluster is None:
        assert ref.finding is not None
        return f"{ref.finding.reason} (weight {ref.weight}){filters}"
    key = ref.cluster.backend
    return f"{key.namespace}/{key.name}:{key.port} {ref.cluster.protocol} (weight {ref.weight}){filters}"


def describe_rule(rule: Rule) -> str:
    """What a rule does, in one line."""
    filters = [type(f).__name__ for f in rule.filters]
    extras = [name for name in ("timeouts", "retry", "session") if getattr(rule, name) is not None]
    action = " | ".join(describe_backend(b) for b in rule.backends) or "no backends"
    failed = f"500 {rule.finding.reason}: " if rule.finding is not None else ""
    also = " ".join(f"+{name}" for name in (*filters, *extras))
    return f"{failed}{action}{' ' + also if also else ''}"


def summarize_graph(world: World) -> dict[str, Any]:
    """What is served, without what is only said."""
    graph = world.graph
    summary: dict[str, Any] = {}
    for port_key, port in graph.ports.items():
        gateway = "/".join(port_key.gateway)
        listeners = [
            f"{'/'.join(v.key[1:4]) + '/' if v.key.kind != 'Gateway' else ''}{v.key.section}: "
            f"{v.protocol} {v.hostname or '*'}"
            + (f" {v.tls.mode}" if v.tls else "")
            + (
                f" certificates {', '.join('/'.join(c[1:]) for c in v.tls.certificates)}"
                if v.tls and v.tls.certificates
                else ""
            )
            + (
                " client certificate " + ("required" if v.tls.client_validation.required else "optional")
                if v.tls and v.tls.client_validation
                else ""
            )
            for v in port.listeners
        ]
        summary.setdefault("ports", {})[f"{gateway} {port_key.transport} {port_key.port}"] = listeners
    for host_key, host in graph.virtual_hosts.items():
        table = host_key.table
        listener = f" {table.listener}" if table.listener else ""
        name = f"{'/'.join(table.gateway)}:{table.port}{listener} {host_key.hostname}"
        summary.setdefault("virtual_hosts", {})[name] = [
            f"{e.route.kind} {e.route.namespace}/{e.route.name} {describe_match(e.match)} -> {describe_rule(e.rule)}"
            for e in host.entries
        ]
    for l4_key, l4 in graph.l4_routes.items():
        name = f"{'/'.join(l4_key.gateway)} {l4_key.transport} {l4_key.port} {l4_key.hostname}".strip()
        mode = f" {l4.tls_mode}" if l4.tls_mode else ""
        backends = " | ".join(describe_backend(b) for b in l4.backends)
        summary.setdefault("l4", {})[name] = f"{l4.route.kind} {l4.route.key}{mode} -> {backends}"
    for (gateway_key, cluster_key), cluster in graph.clusters.items():
        tls = cluster.backend.tls
        text = cluster.backend.discovery
        text += f" {cluster.backend.dns_name}" if cluster.backend.dns_name else ""
        text += f" TLS {tls.server_name}" if tls else ""
        text += " sessions" if cluster.session else ""
        text += f" client certificate {'/'.join(cluster.client_certificate[1:])}" if cluster.client_certificate else ""
        name = f"{'/'.join(gateway_key)} -> {'/'.join(map(str, cluster_key.backend))} {cluster_key.protocol}"
        summary.setdefault("clusters", {})[name] = text
    for backend_key, endpoints in graph.endpoints.items():
        if endpoints:
            summary.setdefault("endpoints", {})["/".join(map(str, backend_key))] = [
                f"{e.address}:{e.port}{' draining' if e.draining else ''}" for e in endpoints
            ]
    secrets = [
        f"{'/'.join(gateway)} {key.kind} {key.namespace}/{key.name}" for (gateway, key), _ in graph.secrets.items()
    ]
    if secrets:
        summary["secrets"] = secrets
    for ref, findings in graph.dangling.items():
        summary.setdefault("dangling", {})[str(ref)] = [f.message for f in findings]
    return summary


def summarize_status(world: World) -> dict[str, Any]:
    """Every status in short: one line per condition, messages only where something is not as it should be."""
    summary: dict[str, Any] = {}
    for ref, status in world.statuses.items():
        entry: dict[str, Any] = {}
        if status.get("addresses"):
            entry["addresses"] = [a["value"] for a in status["addresses"]]
        if status.get("attachedListenerSets"):
            entry["attachedListenerSets"] = status["attachedListenerSets"]
        if "conditions" in status:
            entry["conditions"] = _conditions(status["conditions"])
        for listener in status.get("listeners", ()):
            kinds = " ".join(k["kind"] for k in listener["supportedKinds"])
            name = f"{listener['name']} ({listener['attachedRoutes']} routes; {kinds or 'no kinds'})"
            entry.setdefault("listeners", {})[name] = _conditions(listener["conditions"])
        for field in ("parents", "ancestors"):
            for item in status.get(field, ()):
                target = item.get("parentRef") or item.get("ancestorRef")
                name = " ".join(str(v) for k, v in target.items() if k != "group")
                entry.setdefault(field, {})[name] = _conditions(item["conditions"])
        if entry:
            summary[str(ref)] = entry
    return summary


NORMAL = {
    ("Accepted", "True", "Accepted"),
    ("Programmed", "True", "Programmed"),
    ("ResolvedRefs", "True", "ResolvedRefs"),
    ("Conflicted", "False", "NoConflicts"),
    ("SupportedVersion", "True", "SupportedVersion"),
    ("AddressesAssigned", "True", "AddressesAssigned"),
}


UNMENTIONED = {"Conflicted", "AddressesAssigned"}
"""Conditions that most objects of their kind have, and that say nothing while they are fine."""


def _conditions(conditions: Iterable[dict[str, Any]]) -> list[str] | str:
    lines = [
        f"{c['type']}={c['status']}/{c['reason']}: {c['message']}"
        for c in conditions
        if (c["type"], c["status"], c["reason"]) not in NORMAL or "; but " in c["message"]
    ]
    return lines or "fine: " + " ".join(c["type"] for c in conditions if c["type"] not in UNMENTIONED)
