"""Kustomizations are built as kustomize builds them; what cannot be built is said and stops nothing else."""

import pytest

from propylon.store.files import FileSource, Severity
from propylon.store.files.generators import name_hash
from propylon.store.files.remote import built_in, is_remote

HEADER = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"


def thing(name, kind="ConfigMap", namespace="", more=""):
    place = f", namespace: {namespace}" if namespace else ""
    return f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}{place}}}\n{more}"


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  template:
    spec:
      containers:
        - name: main
          image: registry.example.com:5000/team/app:1.0
          envFrom:
            - configMapRef: {name: settings}
          env:
            - name: KEY
              valueFrom: {secretKeyRef: {name: keys, key: k}}
"""

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: any
  listeners:
    - {name: http, port: 80, protocol: HTTP}
"""


@pytest.fixture
def build(tmp_path):
    """Writes files, the root's kustomization among them, and loads the directory (or one below it)."""

    def run(kustomization=None, /, at="", **files):
        if kustomization is not None:
            files["kustomization"] = kustomization
        for name, text in files.items():
            target = tmp_path / (name.replace("__", "/") + ".yaml")
            target.parent.mkdir(parents=True, exist_ok=True)
            is_kustomization = target.name == "kustomization.yaml"
            target.write_text(HEADER + text if is_kustomization and "kind: Component" not in text else text)
        return FileSource([str(tmp_path / at)]).load()

    return run


def found(loaded, kind, prefix=""):
    documents = [item.document for ref, item in loaded.objects.items() if ref.kind == kind]
    (document,) = [document for document in documents if document["metadata"]["name"].startswith(prefix)]
    return document


def names(loaded):
    return sorted(ref.name for ref in loaded.objects)


def said(loaded, severity=Severity.ERROR):
    return [problem for problem in loaded.problems if problem.severity is severity]


def test_only_what_the_kustomization_names_is_loaded_once(build):
    loaded = build(
        "resources: [base, one.yaml]\n",
        base__kustomization="resources: [a.yaml, ../shared]\n",
        base__a=thing("a"),
        one=thing("one"),
        shared__kustomization="resources: [s.yaml]\n",
        shared__s=thing("s"),
        stray=thing("stray"),
        variants__kustomization="resources: [v.yaml]\n",
        variants__v=thing("v"),
    )
    assert names(loaded) == ["a", "one", "s"] and not loaded.problems


def test_a_directory_without_one_builds_those_below_once(build):
    loaded = build(
        base__kustomization="resources: [a.yaml]\n",
        base__a=thing("a"),
        overlay__kustomization="resources: [../base]\nnamePrefix: x-\n",
        plain__p=thing("p"),
    )
    assert names(loaded) == ["p", "x-a"] and not loaded.problems


def test_one_base_by_two_ways_is_one_object(build):
    loaded = build(
        "resources: [left, right]\n",
        left__kustomization="resources: [../base]\n",
        right__kustomization="resources: [../base]\n",
        base__kustomization="resources: [a.yaml]\n",
        base__a=thing("a"),
    )
    assert names(loaded) == ["a"] and not loaded.problems


def test_namespace_goes_to_namespaced_objects_and_accounts(build):
    binding = (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: b}\n"
        "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}\n"
        "subjects: [{kind: ServiceAccount, name: sa}, {kind: User, name: u}]\n"
    )
    loaded = build(
        "namespace: shop\nresources: [a.yaml, b.yaml, sa.yaml, ns.yaml]\n",
        a=thing("a", namespace="elsewhere"),
        b=binding,
        sa=thing("sa", "ServiceAccount"),
        ns=thing("old", "Namespace"),
    )
    assert {(ref.kind, ref.namespace, ref.name) for ref in loaded.objects} == {
        ("ConfigMap", "shop", "a"),
        ("ClusterRoleBinding", "", "b"),
        ("ServiceAccount", "shop", "sa"),
        ("Namespace", "", "shop"),
    }
    assert [subject.get("namespace") for subject in found(loaded, "ClusterRoleBinding")["subjects"]] == ["shop", None]


def test_names_get_prefix_and_suffix_and_references_follow(build):
    loaded = build(
        "namePrefix: pre-\nnameSuffix: -post\nresources: [deployment.yaml, settings.yaml, keys.yaml, ns.yaml]\n",
        deployment=DEPLOYMENT,
        settings=thing("settings"),
        keys=thing("keys", "Secret"),
        ns=thing("shop", "Namespace"),
    )
    assert names(loaded) == ["pre-app-post", "pre-keys-post", "pre-settings-post", "shop"]
    container = found(loaded, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"][0]["configMapRef"]["name"] == "pre-settings-post"
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "pre-keys-post"


def test_labels_and_annotations(build):
    service = thing("s", "Service", more="spec: {selector: {app: x}, ports: [{port: 80}]}\n")
    loaded = build(
        "commonLabels: {team: a}\nlabels: [{pairs: {only: meta}}]\ncommonAnnotations: {note: b}\n"
        "resources: [s.yaml, deployment.yaml]\n",
        s=service,
        deployment=DEPLOYMENT,
    )
    document = found(loaded, "Service")
    assert document["metadata"]["labels"] == {"team": "a", "only": "meta"}
    assert document["metadata"]["annotations"] == {"note": "b"}
    assert document["spec"]["selector"] == {"app": "x", "team": "a"}
    deployment = found(loaded, "Deployment")
    assert deployment["spec"]["selector"]["matchLabels"] == {"team": "a"}
    assert deployment["spec"]["template"]["metadata"] == {"labels": {"team": "a"}, "annotations": {"note": "b"}}


def test_patches_inline_from_files_and_by_target(build):
    loaded = build(
        """
resources: [gateway.yaml, deployment.yaml, gone.yaml]
patches:
  - target: {group: gateway.networking.k8s.io, kind: Gateway, name: w.*}
    patch: |-
      - op: add
        path: /spec/listeners/-
        value: {name: other, port: 8080, protocol: HTTP}
  - path: change.yaml
  - patch: |-
      apiVersion: v1
      kind: ConfigMap
      metadata: {name: gone}
      $patch: delete
patchesJson6902:
  - target: {version: v1, kind: Deployment, name: app}
    path: operations.yaml
patchesStrategicMerge:
  - |-
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: app}
    spec: {template: {spec: {containers: [{name: side, image: side:1}]}}}
""",
        gateway=GATEWAY,
        deployment=DEPLOYMENT,
        gone=thing("gone"),
        change="apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, labels: {l: v}}\n",
        operations="[{op: add, path: /spec/replicas, value: 3}]\n",
    )
    assert not loaded.problems and names(loaded) == ["app", "web"]
    gateway = found(loaded, "Gateway")
    assert [listener["name"] for listener in gateway["spec"]["listeners"]] == ["http", "other"]
    assert gateway["metadata"]["labels"] == {"l": "v"}
    deployment = found(loaded, "Deployment")
    assert deployment["spec"]["replicas"] == 3
    assert [container["name"] for container in deployment["spec"]["template"]["spec"]["containers"]] == ["side", "main"]


def test_a_patch_that_does_not_fit_is_located_and_changes_nothing(build):
    loaded = build(
        """resources: [gateway.yaml]
patches:
  - target: {kind: Gateway}
    patch: |-
      - {op: add, path: /metadata/labels, value: {a: b}}
      - {op: replace, path: /spec/nothing, value: 1}
  - patch: "apiVersion: v1\\nkind: Service\\nmetadata: {name: none}"
""",
        gateway=GATEWAY,
    )
    assert "labels" not in found(loaded, "Gateway")["metadata"]
    first, second = said(loaded)
    assert (first.field, first.line) == ("patches[0]", 5) and "operation 1" in first.message
    assert (second.field, second.line) == ("patches[1]", 9) and "matches no object" in second.message


def test_generated_names_end_in_kustomizes_hash_and_references_follow(build, tmp_path):
    (tmp_path / "app.properties").write_text("color=blue\n")
    (tmp_path / "values.env").write_text("# no\nA=1\n\nB=two words\n")
    loaded = build(
        """
resources: [deployment.yaml]
configMapGenerator:
  - name: settings
    literals: [x=1, "quoted='y z'"]
    files: [app.properties, renamed=app.properties]
    envs: [values.env]
  - name: fixed
    literals: [k=v]
    options: {disableNameSuffixHash: true, labels: {l: v}}
secretGenerator:
  - name: keys
    type: kubernetes.io/basic-auth
    literals: [username=admin, password=secret]
""",
        deployment=DEPLOYMENT,
    )
    settings = found(loaded, "ConfigMap", "settings")
    assert settings["data"] == {
        "A": "1",
        "B": "two words",
        "app.properties": "color=blue\n",
        "renamed": "color=blue\n",
        "x": "1",
        "quoted": "y z",
    }
    secret = found(loaded, "Secret")
    assert secret["data"] == {"username": "YWRtaW4=", "password": "c2VjcmV0"}
    assert found(loaded, "ConfigMap", "fixed")["metadata"]["labels"] == {"l": "v"}
    container = found(loaded, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == secret["metadata"]["name"]
    assert settings["metadata"]["name"] != "settings" and len(settings["metadata"]["name"]) == len("settings-") + 10


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Published results of kustomize's own hash.
        ({"kind": "ConfigMap"}, "6ct58987ht"),
        ({"kind": "ConfigMap", "data": {"one": ""}}, "9g67k2htb6"),
        ({"kind": "ConfigMap", "data": {"two": "2", "one": "", "three": "3"}}, "f5h7t85m9b"),
        ({"kind": "Secret", "type": "my-type"}, "5gmgkf8578"),
    ],
)
def test_the_hash_is_kustomizes(value, expected):
    assert name_hash({**value, "metadata": {"name": ""}}) == expected


def test_generators_merge_into_what_is_there(build):
    loaded = build(
        "resources: [base]\nconfigMapGenerator: [{name: c, behavior: merge, literals: [b=2]}]\n",
        base__kustomization="configMapGenerator: [{name: c, literals: [a=1]}]\n",
    )
    assert found(loaded, "ConfigMap")["data"] == {"a": "1", "b": "2"} and not loaded.problems


def test_references_that_kustomize_leaves_behind_are_warned_about(build):
    route = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n"
        "spec:\n  rules:\n    - backendRefs:\n        - {name: s, port: 80}\n"
    )
    loaded = build(
        "namePrefix: x-\nresources: [r.yaml, s.yaml]\n",
        r=route,
        s=thing("s", "Service", more="spec: {ports: [{port: 80}]}\n"),
    )
    assert found(loaded, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0]["name"] == "s"
    (problem,) = said(loaded, Severity.WARNING)
    assert problem.field == "spec.rules[0].backendRefs[0].name" and "x-s" in problem.remedy and problem.line == 7


def test_images_and_replicas(build):
    loaded = build(
        "resources: [deployment.yaml]\n"
        'images: [{name: "registry.example.com:5000/team/app", newName: other/app, newTag: "2.0"}]\n'
        "replicas: [{name: app, count: 4}]\n",
        deployment=DEPLOYMENT,
    )
    deployment = found(loaded, "Deployment")
    assert deployment["spec"]["replicas"] == 4
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "other/app:2.0"


def test_components_change_what_includes_them(build):
    component = (
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        "resources: [extra.yaml]\ncommonAnnotations: {by: component}\n"
    )
    loaded = build(
        "resources: [a.yaml]\ncomponents: [part]\n",
        a=thing("a"),
        part__kustomization=component,
        part__extra=thing("extra"),
    )
    assert names(loaded) == ["a", "extra"]
    assert all(item.document["metadata"]["annotations"] == {"by": "component"} for item in loaded.objects.values())


def test_variables_are_filled_in_after_the_build(build, tmp_path):
    (tmp_path / "vars.env").write_text("port=8080\nenv=prod\n")
    loaded = build(
        'resources: [gateway.yaml]\nnameSuffix: "-${env}"\n'
        "patches:\n  - target: {kind: Gateway}\n"
        "    patch: |-\n      - op: replace\n        path: /spec/listeners/0/port\n        value: ${port}\n",
        gateway=GATEWAY,
    )
    gateway = found(loaded, "Gateway")
    assert gateway["metadata"]["name"] == "web-prod"
    assert gateway["spec"]["listeners"][0]["port"] == 8080
    assert not loaded.problems


def test_remote_resources_are_built_in_or_named(build):
    crds = "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.0.0/experimental-install.yaml"
    loaded = build(f"resources:\n  - {crds}\n  - https://example.com/x.yaml\n  - a.yaml\n", a=thing("a"))
    assert names(loaded) == ["a"]
    (notice,) = said(loaded, Severity.NOTICE)
    assert "built in" in notice.message and notice.line == 4
    (error,) = said(loaded)
    assert "https://example.com/x.yaml" in error.message and error.line == 5


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.0/standard-install.yaml",
        "github.com/kubernetes-sigs/gateway-api/config/crd?ref=v1.4.0",
        "https://github.com/nginxinc/nginx-gateway-fabric/config/crd/gateway-api/standard?ref=v1.4.0",
        "https://github.com/cert-manager/cert-manager/releases/download/v1.13.3/cert-manager.crds.yaml",
        "https://raw.githubusercontent.com/metallb/metallb/v0.13.12/config/manifests/metallb-native.yaml",
    ],
)
def test_known_remote_definitions(url):
    assert is_remote(url) and built_in(url)


def test_helm_charts_and_unsupported_fields_are_named_and_the_rest_loads(build):
    loaded = build(
        "resources: [a.yaml]\nhelmCharts: [{name: cilium}, {name: other}]\nreplacements: [{}]\nresource: [typo.yaml]\n",
        a=thing("a"),
    )
    assert names(loaded) == ["a"]
    assert ["cilium" in problem.message for problem in said(loaded, Severity.NOTICE)] == [True, False]
    assert [problem.field for problem in said(loaded)] == ["replacements"]
    assert [problem.field for problem in said(loaded, Severity.WARNING)] == ["resource"]


def test_missing_files_and_circles_are_named_and_the_rest_loads(build, tmp_path):
    loaded = build("resources: [missing.yaml, a.yaml, ../" + tmp_path.name + "]\n", a=thing("a"))
    assert names(loaded) == ["a"]
    assert [problem.field for problem in said(loaded)] == ["resources[0]", "resources"]
    assert loaded.held_files == {str(tmp_path / "missing.yaml")}


def test_kustomizations_in_a_circle_still_give_their_objects_once(build):
    loaded = build(
        left__kustomization="resources: [l.yaml, ../right]\n",
        left__l=thing("l"),
        right__kustomization="resources: [r.yaml, ../left]\n",
        right__r=thing("r"),
    )
    assert names(loaded) == ["l", "r"]
    assert ["circle" in problem.message for problem in said(loaded)] == [True]


def test_a_broken_kustomization_keeps_what_it_said_last(tmp_path):
    (tmp_path / "a.yaml").write_text(thing("a"))
    (tmp_path / "kustomization.yaml").write_text(HEADER + "resources: [a.yaml]\n")
    source = FileSource([str(tmp_path)])
    assert names(source.load()) == ["a"]
    (tmp_path / "kustomization.yaml").write_text(HEADER + "resources: [a.yaml\n")
    loaded = source.load()
    assert names(loaded) == ["a"] and "last good" in said(loaded)[0].message
    assert not FileSource([str(tmp_path)]).load().complete


def test_changes_of_any_file_of_the_build_are_seen(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.yaml").write_text(thing("a"))
    (tmp_path / "base" / "kustomization.yaml").write_text(HEADER + "resources: [a.yaml]\n")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "kustomization.yaml").write_text(HEADER + "resources: [../base]\n")
    source = FileSource([str(tmp_path / "top")])
    assert names(source.load()) == ["a"]
    (tmp_path / "base" / "a.yaml").write_text(thing("renamed"))
    loaded = source.load()
    assert names(loaded) == ["renamed"]
    assert str(tmp_path / "base" / "a.yaml") in loaded.watched
