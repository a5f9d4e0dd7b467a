"""All checks together."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from propylon import api
from propylon.app.findings import gateway_findings, listener_set_findings, route_findings
from propylon.app.offline import Manifests
from propylon.app.problems import REMEDIES
from propylon.app.snapshots import Taken
from propylon.app.unsupported import without_effect
from propylon.check.certificates import certificate_doubts, holder_of
from propylon.check.finding import Finding, Severity, code_of
from propylon.check.hosts import lost_places, no_fall_through
from propylon.check.loops import redirect_loops
from propylon.check.manifests import issued_secrets, manifest_doubts
from propylon.check.shadow import Shadowed, unreachable
from propylon.explain.hints import grant_for
from propylon.explain.predicates import match_text
from propylon.graph import model
from propylon.graph.gateways import Parent
from propylon.store.files import Severity as FileSeverity

_OF_FILES: dict[FileSeverity, Severity] = {
    FileSeverity.ERROR: "error",
    FileSeverity.WARNING: "warning",
    FileSeverity.NOTICE: "notice",
}


def check_manifests(manifests: Manifests | Taken, now: datetime) -> list[Finding]:
    """Everything wrong or doubtful, each once, ordered by place. `now` is aware; certificates are judged by it."""
    found = [*_Check(manifests).all(now)]
    return sorted(dict.fromkeys(found))


class _Check:
    def __init__(self, manifests: Manifests | Taken) -> None:
        self.manifests = manifests
        self.graph = manifests.graph
        self.secrets_to_come = issued_secrets(manifests.documents.items())

    def all(self, now: datetime) -> Iterator[Finding]:
        yield from self._of_files()
        yield from self._of_issuers()
        yield from self._of_graph()
        yield from self._of_objects()
        yield from self._of_rules()
        for doubt in certificate_doubts(self.graph, now):
            severity: Severity = "error" if doubt.code == "certificate_expired" else "warning"
            field = f"spec.listeners[{doubt.listener.index}].tls.certificateRefs"
            yield self._at(holder_of(doubt.listener), field, severity, doubt.code, doubt.message, doubt.remedy)

    def _at(
        self, ref: api.ObjectRef, field: str, severity: Severity, code: str, message: str, remedy: str = ""
    ) -> Finding:
        file, line, column = self.manifests.locate(ref, field)
        return Finding(file, line, column, severity, code, _name(ref), field, message, remedy)

    def _of_files(self) -> Iterator[Finding]:
        for p in self.manifests.problems:
            severity = _OF_FILES[p.severity]
            code = p.code or "unreadable"
            yield Finding(p.file, p.line, p.column, severity, code, p.object, p.field, p.message, p.remedy)

    # -- the Graph's own findings --------------------------------------------------------------------------------------

    def _of_graph(self) -> Iterator[Finding]:
        for key, gateway in self.graph.gateways.items():
            yield from self._of_findings(api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *key), gateway_findings(gateway))
        for key, node in self.graph.listener_set_nodes.items():
            listeners = self.graph.listeners_by_parent.get(Parent("ListenerSet", *key)) or ()
            found = (listener for each in listeners if (listener := self.graph.listeners.get(each)) is not None)
            ref = api.ObjectRef(api.GATEWAY_GROUP, "ListenerSet", *key)
            yield from self._of_findings(ref, listener_set_findings(node, found))
        for ref, route in self.graph.routes.items():
            yield from self._of_findings(ref, route_findings(route))
        for policy in self.graph.policies.snapshot().values():
            yield from self._of_findings(policy.ref, policy.findings)
        for ref, findings in self.graph.dangling.items():
            yield from self._of_findings(ref, findings)

    def _of_findings(self, ref: api.ObjectRef, findings: Iterable[model.Finding]) -> Iterator[Finding]:
        for f in findings:
            # PartiallyInvalid is True when something is wrong: part of the route is not served.
            doubtful = f.condition != "PartiallyInvalid" and (f.condition == "Warning" or f.status == "True")
            grant = grant_for(f, ref)
            remedy = f"apply:\n{grant}" if grant else REMEDIES.get(f.reason, "")
            yield self._at(ref, f.field, "warning" if doubtful else "error", code_of(f.reason), f.message, remedy)

    def _of_issuers(self) -> Iterator[Finding]:
        """Secrets that cert-manager makes; the rest is looked at as if they were there."""
        for key in self.manifests.issue(self.secrets_to_come.__contains__):
            message = (
                f"Secret {key} is in no manifest: cert-manager makes it, and until then the listener is not served"
            )
            yield self._at(*self.secrets_to_come[key], "notice", "certificate_of_issuer", message)

    # -- objects -------------------------------------------------------------------------------------------------------

    def _of_objects(self) -> Iterator[Finding]:
        for ref, document in self.manifests.documents.items():
            for doubt in manifest_doubts(ref, document):
                yield self._at(ref, doubt.field, "warning", doubt.code, doubt.message, doubt.remedy)
            for f in without_effect(ref, document):
                yield self._at(ref, f.field, "notice", code_of(f.reason), f.message)
            if ref.group == api.GATEWAY_GROUP and ref.kind.endswith("Route") and self._serves_nothing(ref):
                message = "it names no Gateway or ListenerSet whose GatewayClass is there: it serves nothing"
                remedy = "name one in spec.parentRefs, and include its GatewayClass"
                yield self._at(ref, "spec.parentRefs", "warning", "route_without_gateway", message, remedy)

    def _serves_nothing(self, ref: api.ObjectRef) -> bool:
        return ref not in self.graph.routes and ref not in self.graph.dangling

    # -- rules ---------------------------------------------------------------------------------------------------------

    def _of_rules(self) -> Iterator[Finding]:
        for ref, route in self.graph.routes.items():
            for rule in route.rules:
                if rule.backends and all(backend.weight == 0 for backend in rule.backends):
                    field = f"spec.rules[{rule.index}].backendRefs"
                    message = f"all backends of rule {rule.index} have weight 0: it answers 500"
                    yield self._at(ref, field, "error", "weights_zero", message, "give one a weight above 0")
        whole: set[tuple[api.ObjectRef, int]] = set()
        for shadowed in unreachable(host for _, host in self.graph.virtual_hosts.items()):
            place = (shadowed.entry.route, shadowed.entry.rule.index)
            if place not in whole:
                yield self._of_shadow(shadowed)
            if shadowed.whole_rule:
                whole.add(place)
        for loop in redirect_loops(self.graph):
            message = "it redirects to itself: " + " -> ".join(loop.urls)
            field = f"spec.rules[{loop.entry.rule.index}].filters"
            remedy = "attach it to the listener it redirects from only, by sectionName"
            yield self._at(loop.entry.route, field, "error", "redirect_loop", message, remedy)

        for hidden in no_fall_through(self.graph):
            message = (
                f"requests for {hidden.host} that none of its rules takes get 404: rule {hidden.wider.rule.index} of "
                f"{_name(hidden.wider.route)} for {hidden.wider_host} does not get them"
            )
            remedy = f"add {hidden.host} to the hostnames of {_name(hidden.wider.route)}, if it should"
            yield self._at(hidden.entry.route, "spec.hostnames", "notice", "no_fall_through", message, remedy)
        for lost in lost_places(self.graph):
            where = f"port {lost.key.port}" + (f", host {lost.key.hostname}" if lost.key.hostname else "")
            message = f"it serves nothing: {_name(lost.by)} has its place ({where}), by hostname, age or name"
            yield self._at(lost.route, "spec.parentRefs", "warning", "place_taken", message, "remove one of them")

    def _of_shadow(self, shadowed: Shadowed) -> Finding:
        entry = shadowed.entry
        host = "" if shadowed.host.hostname == "*" else f" for host {shadowed.host.hostname}"
        what = f"match {shadowed.match} [{match_text(entry.match)}]"
        code = "rule_unreachable" if shadowed.whole_rule else "match_unreachable"
        subject = (
            f"rule {entry.rule.index} is never reached: {what}" if shadowed.whole_rule else f"{what} is never reached"
        )
        takers = [self._taker(by) for by in shadowed.by[:3]]
        if len(shadowed.by) > 3:
            takers.append(f"{len(shadowed.by) - 3} more")
        together = " together" if len(takers) > 1 else ""
        verb = "take" if together else "takes"
        message = f"{subject}: what it takes{host}, {' and '.join(takers)} {verb} before{together}"
        field = f"spec.rules[{entry.rule.index}].matches[{shadowed.match}]"
        remedy = "remove one of them, or make this one more specific"
        return self._at(entry.route, field, "warning", code, message, remedy)

    def _taker(self, by: model.VirtualHostEntry) -> str:
        index = next(i for i, match in enumerate(by.rule.matches) if match is by.match)
        file, line, _ = self.manifests.locate(by.route, f"spec.rules[{by.rule.index}].matches[{index}]")
        where = f" ({file}:{line})" if file else ""
        return f"rule {by.rule.index} of {_name(by.route)}{where} [{match_text(by.match)}]"


def _name(ref: api.ObjectRef) -> str:
    return f"{ref.kind} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind} {ref.name}"
