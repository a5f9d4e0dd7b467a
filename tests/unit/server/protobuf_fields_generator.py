"""Makes `src/propylon/server/protobuf_fields.json` from the struct tags of the Go module k8s.io/api.

    python tests/unit/server/protobuf_fields_generator.py MODULES > src/propylon/server/protobuf_fields.json

MODULES is the directory that holds `api@v...` and `apimachinery@v...` (`go env GOMODCACHE`, below k8s.io).
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOTS = {
    "core.v1": (
        "Namespace Service Secret ConfigMap Node Event Pod ServiceAccount Endpoints PersistentVolumeClaim "
        "PersistentVolume ResourceQuota LimitRange"
    ),
    "apps.v1": "Deployment ReplicaSet StatefulSet DaemonSet",
    "batch.v1": "Job CronJob",
    "autoscaling.v1": "Scale",
    "autoscaling.v2": "HorizontalPodAutoscaler",
    "policy.v1": "PodDisruptionBudget",
    "networking.v1": "Ingress IngressClass NetworkPolicy",
    "rbac.v1": "Role RoleBinding ClusterRole ClusterRoleBinding",
    "discovery.v1": "EndpointSlice",
    "coordination.v1": "Lease",
    "certificates.v1beta1": "ClusterTrustBundle",
    "certificates.v1alpha1": "ClusterTrustBundle",
    "scheduling.v1": "PriorityClass",
    "storage.v1": "StorageClass",
    "authentication.v1": "TokenRequest TokenReview SelfSubjectReview",
    "authorization.v1": ("SelfSubjectAccessReview SubjectAccessReview LocalSubjectAccessReview SelfSubjectRulesReview"),
    "meta.v1": "DeleteOptions",
}
SPECIAL = {
    "meta.v1.Time": "time",
    "meta.v1.MicroTime": "time",
    "meta.v1.FieldsV1": "raw",
    "runtime.RawExtension": "raw",
    "intstr.IntOrString": "intstr",
    "resource.Quantity": "quantity",
}
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "int": "i", "uint32": "i", "float64": "d"}
TYPE = re.compile(r"^type (\w+) struct \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
ALIAS = re.compile(r"^type (\w+) (=? ?\w+|map\[\w+\][\w.]+|\[\]\w+)$", re.MULTILINE)
GROUPED = re.compile(r"^\t(\w+) = (\w+\.\w+)$", re.MULTILINE)
FIELD = re.compile(
    r'^\t(?:(\w+)[ \t]+)?([^\s`]+)[ \t]+`json:"([^"]*)"[^`\n]*? protobuf:"(\w+),(\d+),[^"]*"', re.MULTILINE
)
PACKAGES = {"metav1": "meta.v1", "v1": "core.v1", "corev1": "core.v1", "intstr": "intstr", "resource": "resource"}
PACKAGES |= {"runtime": "runtime", "types": "types", "apiv1": "core.v1"}


def load(modules: Path) -> tuple[dict[str, str], dict[str, str]]:
    structs: dict[str, str] = {}
    aliases: dict[str, str] = {"types.UID": "string", "types.NodeName": "string", "types.NamespacedName": "string"}
    api = max(modules.glob("api@v*"))
    meta = max(modules.glob("apimachinery@v*"))
    sources = [(package, api / package.replace(".", "/")) for package in ROOTS if package != "meta.v1"]
    sources.append(("meta.v1", meta / "pkg/apis/meta/v1"))
    for package, directory in sources:
        for file in sorted(directory.glob("*types*.go")):
            text = file.read_text(encoding="utf-8")
            structs.update({f"{package}.{name}": body for name, body in TYPE.findall(text)})
            aliases.update({f"{package}.{name}": target.strip("= ") for name, target in ALIAS.findall(text)})
    return structs, aliases


def generate(modules: Path) -> dict[str, list[list[Any]]]:
    structs, aliases = load(modules)
    found: dict[str, list[list[Any]]] = {}
    waiting = [f"{package}.{name}" for package, names in ROOTS.items() for name in names.split()]

    def kind_of(text: str, package: str) -> str:
        if text in SCALARS:
            return SCALARS[text]
        if text == "byte":
            return "raw"
        where, dot, name = text.rpartition(".")
        full = f"{PACKAGES.get(where, where)}.{name}" if dot else f"{package}.{text}"
        if full in SPECIAL:
            return SPECIAL[full]
        if full in structs:
            waiting.append(full)
            return full
        if full in aliases:
            alias = aliases[full]
            if alias.startswith(("map[", "[]")):
                return described(alias, full.rpartition(".")[0])
            return kind_of(alias, full.rpartition(".")[0])
        return "skip"  # of an alpha API, which nobody writes here

    def described(text: str, package: str) -> str:
        text = text.removeprefix("*")
        if text == "[]byte":
            return "bytes"
        if text.startswith("[]"):
            return "[]" + described(text[2:], package)
        if text.startswith("map[") and not text.startswith("map[["):
            return "{}" + described(text.partition("]")[2], package)
        return kind_of(text, package)

    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        package = name.rpartition(".")[0]
        fields: list[list[Any]] = []
        found[name] = fields
        for _, go_type, json_tag, _, number in FIELD.findall(structs[name]):
            json_name, *flags = json_tag.split(",")
            pointer = go_type.startswith("*")
            kind = described(go_type, package)
            fields.append([int(number), json_name, kind, 1 if pointer or "omitempty" not in flags else 0])
    return dict(sorted(found.items()))


if __name__ == "__main__":
    table = generate(Path(sys.argv[1]))
    lines = [f"{json.dumps(name)}: {json.dumps(fields, separators=(',', ':'))}" for name, fields in table.items()]
    print("{\n" + ",\n".join(lines) + "\n}")
