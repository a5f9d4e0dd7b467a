"""Manifests become objects, and what is wrong with them is said with its place."""

import io
import sys
from collections import Counter
from itertools import pairwise

import pytest

from propylon.api.meta import ObjectRef
from propylon.store.files import FileSource, Severity
from propylon.store.files.parsing import ParseError, parse_documents
from propylon.store.files.substitute import expand, parse_variables, substitute
from propylon.store.files.yaml_positions import Positions

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
  namespace: shop
spec:
  parentRefs:
    - name: web
  hostnames:
    - "{host}"
"""


def route(name="cart", host="cart.example.com"):
    return ROUTE.format(name=name, host=host)


def route_ref(name="cart"):
    return ObjectRef("gateway.networking.k8s.io", "HTTPRoute", "shop", name)


@pytest.fixture
def tree(tmp_path):
    """Writes files below a directory and loads it."""

    class Tree:
        path = tmp_path / "manifests"

        def __init__(self):
            self.path.mkdir()
            self.source = None

        def write(self, **files):
            for name, text in files.items():
                self[name.replace("__", "/") + ".yaml"] = text

        def __setitem__(self, name, text):
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

        def load(self, **options):
            if self.source is None or options:
                self.source = FileSource([str(self.path)], **options)
            return self.source.load()

        def place(self, problem):
            return problem.file.removeprefix(f"{self.path}/"), problem.line, problem.column

    return Tree()


def names(loaded):
    return sorted(ref.name for ref in loaded.objects)


def errors(loaded):
    return [problem for problem in loaded.problems if problem.severity is Severity.ERROR]


def plain(text):
    return [document.value for document in parse_documents(text)]


# Parsing


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-5", -5),
        ("0755", 493),
        ("0x1F", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("''", ""),
        ("'1'", "1"),
        ("12:30:45", "12:30:45"),
        ("2024-01-02", "2024-01-02"),
        ("1.2.3.4", "1.2.3.4"),
        ("08", "08"),
        ("!!str 5", "5"),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("{<<: {a: 1, b: 2}, b: 3}", {"a": 1, "b": 3}),
        ("{80: x, true: y}", {"80": "x", "true": "y"}),
    ],
)
def test_scalars_mean_what_they_mean_to_kubernetes(text, value):
    assert plain(f"k: {text}") == [{"k": value}]
    assert type(plain(f"k: {text}")[0]["k"]) is type(value)


LAUGHS = "a: &a [1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\n", 2, "flow"),
        ("a: b\n\tc: d\n", 2, "tab"),
        ("a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a: *missing\n", 1, "alias"),
        ("a: !custom x\n", 1, "tag"),
        ("ok: 1\n---\n? [a]\n: b\n", 3, "key"),
        ("a: \x01", 1, "control"),
        (LAUGHS, 0, "expand"),
    ],
)
def test_malformed_text_is_located(text, line, words):
    with pytest.raises(ParseError) as caught:
        parse_documents(text)
    assert words in str(caught.value)
    assert caught.value.line == line or not line


@pytest.mark.parametrize(
    "text",
    ["[" * 5000 + "]" * 5000, "a: " + "[" * 100_000, "- " * 100_000, "{a: " * 100_000, "[" * 100_000],
    ids=["closed", "open", "block", "mappings", "nothing but brackets"],
)
def test_deep_nesting_is_refused_not_fatal(text):
    with pytest.raises(ParseError, match="nested too deeply"):
        parse_documents(text)


def test_long_lines_and_many_brackets_are_no_depth():
    assert len(parse_documents("a: [" + "{b: [1]}, " * 2000 + "]\n")) == 1


def test_positions_follow_field_paths():
    positions = Positions(
        "first: 1\n---\nspec:\n  rules:\n  - x: 1\n    matches: {}\nmetadata:\n  annotations:\n    a.b/c: d\n"
    )
    assert positions.locate(1, (), "spec.rules[0].matches") == (6, 5)
    assert positions.locate(1, (), "spec.rules[0].missing.deeper") == (5, 5)
    assert positions.locate(1, (), 'metadata.annotations["a.b/c"]') == (9, 5)
    assert positions.locate(1, ("spec", "rules", 0), "x") == (5, 5)


# Variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${a}", "1"),
        ("x-${a}-${b}-y", "x-1-two-y"),
        ("${missing:=d}", "d"),
        ("${missing:-d}", "d"),
        ("${empty:=d}", "d"),
        ("${empty=d}", ""),
        ("${empty-d}", ""),
        ("${missing:=x${a}}", "x1"),
        ("${missing:=}", ""),
        ("$${a}", "${a}"),
        ("$a ${a.b} ${1} ${} ${unclosed", "$a ${a.b} ${1} ${} ${unclosed"),
    ],
)
def test_variables_expand_as_in_flux(text, expected):
    assert expand(text, {"a": "1", "b": "two", "empty": ""}) == expected


def test_unquoted_values_are_read_again_and_quoted_ones_stay_strings():
    (document,) = plain("port: ${port}\ntext: '${port}'\nflag: ${flag}\n")
    filled, unset = substitute(document, {"port": "8080", "flag": "true"})
    assert filled == {"port": 8080, "text": "8080", "flag": True}
    assert unset == []


def test_substitution_is_off_where_the_object_says_so_and_lenient_in_data():
    (disabled,) = plain(
        "kind: X\nmetadata: {annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}}\nv: ${missing} $${a}\n"
    )
    assert substitute(disabled, {"a": "1"}) == ({**disabled, "v": "${missing} $${a}"}, [])
    (script,) = plain("apiVersion: v1\nkind: ConfigMap\ndata: {run: 'echo ${HOME} ${a}'}\nmetadata: {name: '${b}'}\n")
    filled, unset = substitute(script, {"a": "1"})
    assert filled["data"]["run"] == "echo ${HOME} 1"
    assert [(found.name, found.field) for found in unset] == [("b", "metadata.name")]


def test_files_of_variables():
    variables, bad = parse_variables("# comment\n\nexport A=1\nB = 'x y'\nnonsense\nC=\n")
    assert variables == {"A": "1", "B": "x y", "C": ""}
    assert bad == [(5, "nonsense")]


def test_variables_come_from_the_nearest_place(tree, tmp_path):
    tree["vars.env"] = "where=root\nonly_root=r\n"
    tree["deep/vars.env"] = "where=deep\n"
    tree["deep/a.yaml"] = route("a", "${where}.${only_root}.example.com")
    tree["b.yaml"] = route("b", "${where}.example.com")
    hosts = {ref.name: item.document["spec"]["hostnames"][0] for ref, item in tree.load().objects.items()}
    assert hosts == {"a": "deep.r.example.com", "b": "root.example.com"}
    (tmp_path / "given.env").write_text("where=file\nonly_root=file\n")
    loaded = tree.load(variable_files=[str(tmp_path / "given.env")], variables={"where": "flag"})
    hosts = {ref.name: item.document["spec"]["hostnames"][0] for ref, item in loaded.objects.items()}
    assert hosts == {"a": "flag.file.example.com", "b": "flag.example.com"}


def test_an_unset_variable_is_an_error_with_its_place_and_stops_no_other(tree):
    tree.write(a=route("a", "echo.${domain_name}"), b=route("b"))
    loaded = tree.load()
    assert names(loaded) == ["b"]
    (problem,) = errors(loaded)
    assert tree.place(problem) == ("a.yaml", 10, 7)
    assert "domain_name" in problem.message and "--var domain_name=VALUE" in problem.remedy
    assert problem.object == "HTTPRoute shop/a" and problem.field == "spec.hostnames[0]"
    tree["vars.env"] = "domain_name=example.com\n"
    assert names(tree.load()) == ["a", "b"]


# Finding


def test_directories_are_read_whole_but_for_hidden_and_temporary_files(tree):
    tree.write(a=route("a"), sub__deep__b=route("b"))
    tree["c.yml"] = route("c") + "---\n" + route("d") + "---\n"
    tree["e.json"] = '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Namespace",' + (
        ' "metadata": {"name": "e"}}]}'
    )
    for name in (".hidden.yaml", "a.yaml~", ".a.yaml.swp", "#a.yaml#", "x.yaml.tmp", ".git/config.yaml", "notes.txt"):
        tree[name] = route("ignored")
    loaded = tree.load()
    assert names(loaded) == ["a", "b", "c", "d", "e"]
    assert loaded.problems == ()


def test_links_to_directories_above_end(tree):
    tree.write(sub__a=route("a"))
    (tree.path / "sub" / "loop").symlink_to(tree.path)
    assert names(tree.load()) == ["a"]


def test_single_files_and_standard_input(tree, monkeypatch):
    tree.write(a=route("a"), b=route("b"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(route("c").encode())))
    loaded = FileSource([str(tree.path / "a.yaml"), "-"]).load()
    assert names(loaded) == ["a", "c"]
    assert str(loaded.objects[route_ref("c")].origin) == "-:1"


def test_yaml_that_is_no_manifest_is_a_warning(tree):
    tree.write(a=route("a"), values="replicas: 2\nimage: x\n")
    loaded = tree.load()
    assert names(loaded) == ["a"]
    (problem,) = loaded.problems
    assert problem.severity is Severity.WARNING and "no apiVersion and no kind" in problem.message


def test_helm_charts_are_skipped_with_a_notice(tree):
    tree["chart/Chart.yaml"] = "name: x\nversion: 1.0.0\n"
    tree["chart/templates/a.yaml"] = "{{ if .Values.x }}\n"
    (problem,) = tree.load().problems
    assert problem.severity is Severity.NOTICE and problem.code == "helm_chart"


def test_scopes_are_set_right(tree):
    tree.write(
        pool="apiVersion: cilium.io/v2alpha1\nkind: CiliumLoadBalancerIPPool\n"
        "metadata: {name: p, namespace: kube-system}\n",
        service="apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n",
    )
    loaded = tree.load()
    assert {(ref.namespace, ref.name) for ref in loaded.objects} == {("", "p"), ("default", "s")}
    (problem,) = loaded.problems
    assert problem.severity is Severity.WARNING and "kube-system is dropped" in problem.message


def test_a_duplicate_names_both_places_and_the_first_stays(tree):
    tree.write(a=route("cart", "first.example.com"), b="# second\n" + route("cart", "second.example.com"))
    loaded = tree.load()
    assert loaded.objects[route_ref()].document["spec"]["hostnames"] == ["first.example.com"]
    (problem,) = errors(loaded)
    assert problem.file.endswith("b.yaml") and "a.yaml:1" in problem.message


# What breaks


def test_a_broken_file_keeps_its_last_good_objects_and_says_so(tree):
    tree.write(a=route("a") + "---\n" + route("b"), c=route("c"))
    assert names(tree.load()) == ["a", "b", "c"]
    tree.write(a=route("a") + "---\nspec: [\n", c=route("c", "new.example.com"))
    loaded = tree.load()
    assert names(loaded) == ["a", "b", "c"]
    assert loaded.objects[route_ref("c")].document["spec"]["hostnames"] == ["new.example.com"]
    (problem,) = errors(loaded)
    assert "last good" in problem.message and tree.place(problem)[:2] == ("a.yaml", 13)
    tree.write(a=route("b"))
    assert names(tree.load()) == ["b", "c"]


def test_a_file_broken_from_the_start_is_held(tree):
    tree.write(a="spec: [\n", b=route("b"))
    loaded = tree.load()
    assert names(loaded) == ["b"]
    assert loaded.held_files == {f"{tree.path}/a.yaml"}


def test_an_invalid_object_keeps_its_last_good_version_and_stops_no_other(tree):
    tree.write(a=route("a") + "---\n" + route("b"))
    tree.load()
    tree.write(a=route("a", "not a host") + "---\n" + route("b", "new.example.com"))
    loaded = tree.load()
    hosts = {ref.name: item.document["spec"]["hostnames"] for ref, item in loaded.objects.items()}
    assert hosts == {"a": ["cart.example.com"], "b": ["new.example.com"]}
    assert loaded.held == {route_ref("a")}
    (problem,) = errors(loaded)
    assert tree.place(problem) == ("a.yaml", 10, 7) and problem.field == "spec.hostnames[0]"


def test_an_object_without_a_name_is_located(tree):
    tree.write(a="apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\nmetadata: {}\n")
    loaded = tree.load()
    assert loaded.objects == {}
    assert any(problem.field == "metadata.name" for problem in errors(loaded))


def test_placeholders_in_kinds_that_are_only_kept_are_warned_about(tree):
    tree.write(
        issuer="apiVersion: cert-manager.io/v1\nkind: ClusterIssuer\nmetadata: {name: i}\n"
        'spec:\n  acme:\n    email: "<--YOUR EMAIL-->"\n'
    )
    loaded = tree.load()
    assert names(loaded) == ["i"]
    (problem,) = loaded.problems
    assert problem.severity is Severity.WARNING and problem.line == 6 and problem.field == "spec.acme.email"


def test_a_directory_that_vanishes_keeps_its_objects(tree, tmp_path):
    tree.write(a=route("a"))
    tree.load()
    tree.path.rename(tmp_path / "away")
    loaded = tree.load()
    assert names(loaded) == ["a"] and not loaded.complete
    (tmp_path / "away").rename(tree.path)
    loaded = tree.load()
    assert names(loaded) == ["a"] and loaded.complete and loaded.problems == ()


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    loaded = FileSource([str(tmp_path / "missing")]).load()
    assert not loaded.complete and len(errors(loaded)) == 1


def test_only_changed_files_are_parsed_again(tree, monkeypatch):
    parsed = Counter()
    real = parse_documents

    def counting(text, **options):
        parsed[text] += 1
        return real(text, **options)

    monkeypatch.setattr("propylon.store.files.reader.parse_documents", counting)
    tree.write(a=route("a"), b=route("b"))
    tree.load()
    tree.load()
    tree.write(a=route("a", "new.example.com"))
    tree.load()
    assert parsed == {route("a"): 1, route("b"): 1, route("a", "new.example.com"): 1}


def test_flux_kustomizations_are_said_not_to_be_followed(tree):
    tree.write(
        flux="apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n"
        "metadata: {name: apps, namespace: flux-system}\nspec:\n  path: ./apps\n"
    )
    loaded = tree.load()
    assert names(loaded) == ["apps"]
    (problem,) = loaded.problems
    assert problem.severity is Severity.NOTICE and "./apps" in problem.remedy and problem.line == 5
