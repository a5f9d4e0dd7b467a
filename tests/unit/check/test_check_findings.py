"""What check finds, where, and how it is told."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from click.testing import CliRunner

import propylon
from propylon.api import ObjectKey
from propylon.app.dev_certificates import Wanted
from propylon.app.documents import secret_document
from propylon.certificates.local_authority import LocalAuthority
from propylon.check import CODES, check_manifests
from propylon.check.finding import Finding, code_of
from propylon.check.formats import render
from propylon.check.ignore import BaselineError, apply_baseline, apply_ignores, baseline_text, ignores_in
from propylon.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime.now(UTC)
GOOD = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: example.com/c}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: c
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - name: https
    port: 443
    protocol: HTTPS
    hostname: shop.test
    tls: {certificateRefs: [{name: shop-tls}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.test]
  rules:
"""
RULE = "  - backendRefs: [{name: cart, port: 80}]\n"


@pytest.fixture
def found(tmp_path):
    def check(text="", rules=RULE, now=NOW, route=ROUTE):
        (tmp_path / "propylon.yaml").write_text(
            "apiVersion: config.propylon.dev/v1alpha1\nkind: UpConfiguration\nmetadata: {name: up}\ndevCerts: true\n"
        )
        (tmp_path / "base.yaml").write_text(GOOD)
        (tmp_path / "route.yaml").write_text(f"{route}{rules}---\n{text}")
        findings = check_manifests(propylon.load(tmp_path), now)
        return {finding.code: finding for finding in findings}

    return check


def test_nothing_is_found_where_nothing_is_wrong(found):
    assert found() == {}


def test_unreachable_rules_name_what_is_in_the_way(found):
    rules = "  - name: one\n    backendRefs: [{name: cart, port: 80}]\n" + RULE
    finding = found(rules=rules)["rule_unreachable"]
    assert (finding.object, finding.field, finding.severity) == (
        "HTTPRoute shop/r",
        "spec.rules[1].matches[0]",
        "warning",
    )
    assert "rule 0 of HTTPRoute shop/r" in finding.message
    assert Path(finding.file).read_text().splitlines()[finding.line - 1].startswith("  - backendRefs")


def test_one_match_of_several(found):
    matches = "matches: [{path: {value: /a}}, {path: {value: /a}, method: GET}]"
    rules = f"  - {matches}\n    backendRefs: [{{name: cart, port: 80}}]\n"
    assert "match_unreachable" not in found(rules=rules)
    same = "matches: [{path: {value: /a}}, {path: {value: /a}}]"
    assert list(found(rules=rules.replace(matches, same))) == ["match_unreachable"]


def test_redirects_to_themselves(found):
    rules = "  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]\n"
    finding = found(rules=rules)["redirect_loop"]
    assert "https://shop.test" in finding.message
    only_http = ROUTE.replace("{name: edge}", "{name: edge, sectionName: http}")
    assert found(rules=rules, route=only_http) == {}


def test_redirects_in_a_circle(found):
    to = "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: %s}}}]"
    rules = "".join(
        f"  - matches: [{{path: {{type: Exact, value: {path}}}}}]\n    {to % other}\n"
        for path, other in (("/a", "/b"), ("/b", "/a"))
    )
    assert "/a -> " in found(rules=rules)["redirect_loop"].message


def test_weights_of_zero(found):
    assert found(rules="  - backendRefs: [{name: cart, port: 80, weight: 0}]\n")["weights_zero"].severity == "error"


def test_certificates(found):
    assert "certificate_expired" in found(now=NOW + timedelta(days=5000))
    assert "certificate_expired" in found(now=NOW - timedelta(days=5000))


def test_certificates_that_do_not_name_the_host(found, tmp_path):

    pair = LocalAuthority(tmp_path / "authority").issue(("other.test",), ())
    secret = yaml.safe_dump(secret_document(Wanted(ObjectKey("shop", "shop-tls"), ()), *pair))
    secret = secret.replace("propylon.dev/dev-certificate", "a")
    finding = found(text=secret)["certificate_hostname"]
    assert finding.field == "spec.listeners[1].tls.certificateRefs"
    assert "shop.test" in finding.message
    assert "other.test" in finding.remedy


def test_missing_grants_come_with_the_grant(found):
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: away}\nspec: {ports: [{port: 80}]}\n"
    rules = "  - backendRefs: [{name: far, namespace: away, port: 80}]\n"
    finding = found(text=service, rules=rules)["ref_not_permitted"]
    grant = finding.remedy.partition("\n")[2]
    assert found(text=f"{service}---\n{grant}", rules=rules) == {}


def test_what_is_old_or_misplaced(found):
    route = ROUTE.replace("k8s.io/v1", "k8s.io/v1beta1")
    assert found(route=route)["version_deprecated"].remedy == "write apiVersion: gateway.networking.k8s.io/v1"
    gateway = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: g2\n  annotations:\n"
        "    service.beta.kubernetes.io/aws-load-balancer-type: nlb\nspec:\n  gatewayClassName: c\n"
        "  listeners: [{name: http, port: 80, protocol: HTTP}]\n"
    )
    finding = found(text=gateway)["annotation_misplaced"]
    assert Path(finding.file).read_text().splitlines()[finding.line - 1].strip().startswith("service.beta")


def test_routes_of_no_gateway(found):
    nobody = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: lost}\nspec:\n  rules: []\n"
    codes = found(text=nobody.replace("rules: []", "parentRefs: [{kind: Service, group: '', name: s}]"))
    assert "route_without_gateway" in codes


def test_hosts_do_not_fall_through(found):
    wide = ROUTE.replace("name: r,", "name: wide,").replace("hostnames: [shop.test]", "hostnames: ['*.test']") + RULE
    narrow = "  - matches: [{path: {value: /a}}]\n    backendRefs: [{name: cart, port: 80}]\n"
    finding = found(text=wide, rules=narrow)["no_fall_through"]
    assert (finding.object, finding.severity) == ("HTTPRoute shop/r", "notice")
    assert "HTTPRoute shop/wide for *.test" in finding.message
    assert "no_fall_through" not in found(text=wide)


def test_two_tcp_routes_on_one_port(found):
    gateway = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: data, namespace: shop}\nspec:\n"
        "  gatewayClassName: c\n  listeners: [{name: db, port: 5432, protocol: TCP}]\n"
    )
    tcp = (
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: %s, namespace: shop}\n"
        "spec:\n  parentRefs: [{name: data}]\n  rules: [{backendRefs: [{name: cart, port: 80}]}]\n"
    )
    assert found(text=gateway + tcp % "one") == {}
    finding = found(text=gateway + tcp % "one" + tcp % "two")["place_taken"]
    assert (finding.object, "TCPRoute shop/one" in finding.message) == ("TCPRoute shop/two", True)


def test_codes_of_reasons():
    assert code_of("RefNotPermitted") == "ref_not_permitted"
    assert code_of("NoValidCACertificate") == "no_valid_ca_certificate"


# --- ignoring ---------------------------------------------------------------------------------------------------------


FOUND = Finding("a.yaml", 3, 5, "warning", "rule_unreachable", "HTTPRoute shop/r", "spec", "never, ever", "remove it")


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("\n\nspec: # propylon-ignore: rule_unreachable -- kept for next week\n", []),
        ("\n# propylon-ignore: weights_zero, rule_unreachable -- kept\nspec:\n", []),
        ("\n\nspec: # propylon-ignore: rule_unreachable\n", ["ignore_without_reason", "rule_unreachable"]),
        ("# propylon-ignore: rule_unreachable -- elsewhere\n", ["ignore_unused", "rule_unreachable"]),
        ("\n\nspec:\n", ["rule_unreachable"]),
    ],
)
def test_ignore_comments_need_a_reason_and_a_finding(text, codes):
    assert sorted(f.code for f in apply_ignores([FOUND], ["a.yaml"], lambda _file: text)) == codes


def test_ignores_are_read_per_line():
    assert [i.line for i in ignores_in("a\n# propylon-ignore: x -- y\nb # propylon-ignore: z")] == [2, 3]


def test_a_baseline_knows_findings_wherever_they_move():
    text = baseline_text([FOUND])
    moved = Finding("b.yaml", 99, 1, "warning", FOUND.code, FOUND.object, FOUND.field, FOUND.message)
    assert apply_baseline([moved], text) == []
    with pytest.raises(BaselineError):
        apply_baseline([FOUND], "{}")


# --- telling ----------------------------------------------------------------------------------------------------------


def test_text_names_place_code_and_remedy():
    text = render([FOUND], "text", "1")
    assert text.splitlines()[0] == "a.yaml:3:5: warning: never, ever [rule_unreachable]"
    assert text.splitlines()[-1] == "1 warning"
    assert render([], "text", "1") == "nothing found"


def test_json_and_sarif():
    (document,) = json.loads(render([FOUND], "json", "1"))["findings"]
    assert (document["line"], document["page"]) == (3, "docs/reference/check.md#rule_unreachable")
    run = json.loads(render([FOUND], "sarif", "1"))["runs"][0]
    assert run["results"][0]["locations"][0]["physicalLocation"]["region"] == {"startLine": 3, "startColumn": 5}
    assert run["tool"]["driver"]["rules"][run["results"][0]["ruleIndex"]]["id"] == "rule_unreachable"


def test_github_and_junit():
    line = render([FOUND], "github", "1")
    assert line == (
        "::warning title=rule_unreachable,file=a.yaml,line=3,col=5::HTTPRoute shop/r: never, ever (remove it)"
    )
    error = Finding("a<b.yaml", 0, 0, "error", "weights_zero", "", "", 'is "0" & < 1')
    suite = ET.fromstring(render([FOUND, error], "junit", "1"))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert ET.fromstring(render([], "junit", "1")).get("failures") == "0"


# --- the command ------------------------------------------------------------------------------------------------------


def test_exit_codes_and_baselines(tmp_path):
    (tmp_path / "m.yaml").write_text(GOOD + f"---{ROUTE}{RULE}{RULE}")

    def run(*arguments):
        return CliRunner().invoke(main, ["check", str(tmp_path / "m.yaml"), *arguments])

    assert run().exit_code == 1  # the Secret is missing
    baseline = str(tmp_path / "baseline.json")
    assert run("--baseline", baseline).exit_code == 2
    assert run("--write-baseline").exit_code == 2
    assert run("--baseline", baseline, "--write-baseline").exit_code == 0
    known = run("--baseline", baseline)
    assert (known.exit_code, known.output) == (0, "nothing found\n")
    assert CliRunner().invoke(main, ["check", str(tmp_path / "nosuch")]).exit_code == 2
    assert CliRunner().invoke(main, ["check"]).exit_code == 2


def test_warnings_fail_if_asked(tmp_path):
    text = GOOD.replace("  - name: https\n", "").partition("    port: 443")[0]
    service = (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {ports: [{port: 80}]}\n"
    )
    (tmp_path / "m.yaml").write_text(f"{text}{service}---{ROUTE}{RULE}{RULE}")
    result = CliRunner().invoke(main, ["check", str(tmp_path)])
    assert (result.exit_code, "rule_unreachable" in result.output) == (0, True)
    assert CliRunner().invoke(main, ["check", str(tmp_path), "--fail-on", "warning"]).exit_code == 1


def test_the_quickstart_is_clean():
    assert check_manifests(propylon.load(ROOT / "examples" / "quickstart"), NOW) == []


def test_every_code_has_its_place_in_the_docs():
    text = (ROOT / "docs" / "reference" / "check.md").read_text()
    assert not [code for code in CODES if not re.search(rf'<a id="{code}">', text)]


def test_secrets_that_cert_manager_makes_are_no_error(tmp_path):
    annotated = GOOD.replace(
        "{name: edge, namespace: shop}",
        "{name: edge, namespace: shop, annotations: {cert-manager.io/cluster-issuer: acme}}",
    )
    secured = ROUTE.replace("[{name: edge}]", "[{name: edge, sectionName: https}]")
    (tmp_path / "m.yaml").write_text(f"{annotated}---{secured}{RULE}{RULE}")
    found = {f.code: f for f in check_manifests(propylon.load(tmp_path), NOW)}
    assert found["certificate_of_issuer"].severity == "notice"
    assert found["certificate_of_issuer"].field == "spec.listeners[1].tls.certificateRefs[0]"
    assert "invalid_certificate_ref" not in found
    assert "rule_unreachable" in found, "what is behind the listener is looked at all the same"
    (tmp_path / "m.yaml").write_text(f"{GOOD}---{secured}{RULE}")
    assert "invalid_certificate_ref" in {f.code for f in check_manifests(propylon.load(tmp_path), NOW)}
    certificate = "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: c, namespace: shop}\n"
    (tmp_path / "c.yaml").write_text(f"{certificate}spec: {{secretName: shop-tls, dnsNames: [shop.test]}}\n")
    found = {f.code: f for f in check_manifests(propylon.load(tmp_path), NOW)}
    assert found["certificate_of_issuer"].field == "spec.secretName"


OLD = {
    "spec.rules[0].sessionPersistence": ROUTE + RULE + "    sessionPersistence: {type: Cookie, cookie: {name: s}}\n",
    "metadata.annotations[external-dns.alpha.kubernetes.io/hostname]": ROUTE.replace(
        "namespace: shop}", "namespace: shop, annotations: {external-dns.alpha.kubernetes.io/hostname: a.test}}"
    )
    + RULE,
    "spec.cidrs": "\napiVersion: cilium.io/v2alpha1\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: p}\n"
    "spec: {cidrs: [{cidr: 192.0.2.0/24}]}\n",
}


@pytest.mark.parametrize("field", OLD)
def test_old_fields_and_annotations_are_told_with_the_rewrite(tmp_path, field):
    (tmp_path / "m.yaml").write_text(f"{GOOD}---{OLD[field]}")
    (old,) = [f for f in check_manifests(propylon.load(tmp_path), NOW) if f.code == "field_deprecated"]
    assert (old.field, old.severity, old.remedy.split()[0] in {"write", "move"}) == (field, "warning", True)
    assert old.line > 1


def test_roles_that_name_the_wrong_group(tmp_path):
    role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, namespace: shop}\nrules:\n"
    right = "- {apiGroups: [gateway.networking.k8s.io], resources: [gateways], verbs: [get]}\n"
    wild = "- {apiGroups: ['*'], resources: [gateways], verbs: [get]}\n"
    wild += "- {apiGroups: [''], resources: [pods], verbs: [get]}\n"
    (tmp_path / "m.yaml").write_text(f"{role}{right}{wild}")
    assert check_manifests(propylon.load(tmp_path), NOW) == []
    (tmp_path / "m.yaml").write_text(
        f"{role}{right}- {{apiGroups: [''], resources: [pods, httproutes], verbs: [get]}}\n"
    )
    (found,) = check_manifests(propylon.load(tmp_path), NOW)
    assert (found.code, found.field) == ("role_of_wrong_group", "rules[1].resources[1]")
    assert found.remedy == "add gateway.networking.k8s.io to apiGroups"
