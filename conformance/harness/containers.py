"""From a container's specification to a process: its program, environment and volumes.

The functions that read Secrets and ConfigMaps raise NotYetError while something is missing, as pods may be created
before what they refer to; the caller asks again.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import netns
from .api import Api, Object


class NotYetError(Exception):
    """Something that the pod refers to is not there yet."""


class UnsupportedError(Exception):
    """The pod asks for something this harness does not do."""


@dataclass(frozen=True)
class Program:
    """What stands for an image.

    A ``rooted`` program is one static binary: it is run in a root directory of its own, with volumes at their mount
    paths. Another sees the machine's files; in its arguments and environment each mount path is replaced by the
    directory that holds the volume.
    """

    command: tuple[str, ...]
    rooted: bool = False


def program_for(image: str, programs: Mapping[str, Program]) -> Program:
    """The program of the first pattern that fits the image with or without its tag. Raises UnsupportedError."""
    repository = re.sub(r"(@[^/]+|:[^/:]+)$", "", image)
    for pattern, program in programs.items():
        if fnmatch.fnmatchcase(image, pattern) or fnmatch.fnmatchcase(repository, pattern):
            return program
    raise UnsupportedError(f"no program stands for the image {image}: give one with --image")


async def write_volumes(api: Api, pod: Object, directory: Path) -> dict[str, Path]:
    """Writes each volume's files below ``directory``. Returns name -> path."""
    paths = {}
    for volume in pod["spec"].get("volumes") or []:
        path = directory / volume["name"]
        path.mkdir(parents=True, exist_ok=True)
        for file, content in (await _volume_files(api, pod, volume)).items():
            target = path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        paths[volume["name"]] = path
    return paths


async def _volume_files(api: Api, pod: Object, volume: Object) -> dict[str, bytes]:
    namespace = pod["metadata"]["namespace"]
    if "emptyDir" in volume:
        return {}
    if source := volume.get("secret"):
        return await _files(api, namespace, "secrets", source["secretName"], source)
    if source := volume.get("configMap"):
        return await _files(api, namespace, "configmaps", source["name"], source)
    if source := volume.get("projected"):
        return await _projected(api, pod, source["sources"])
    kinds = sorted(set(volume) - {"name"})
    raise UnsupportedError(f"volume {volume['name']}: {', '.join(kinds)} volumes are not supported")


async def _projected(api: Api, pod: Object, sources: Sequence[Object]) -> dict[str, bytes]:
    namespace = pod["metadata"]["namespace"]
    files: dict[str, bytes] = {}
    for entry in sources:
        if source := entry.get("secret"):
            files |= await _files(api, namespace, "secrets", source["name"], source)
        elif source := entry.get("configMap"):
            files |= await _files(api, namespace, "configmaps", source["name"], source)
        elif source := entry.get("serviceAccountToken"):
            account = pod["spec"].get("serviceAccountName", "default")
            spec: Object = {"expirationSeconds": source.get("expirationSeconds", 3600)}
            if source.get("audience"):
                spec["audiences"] = [source["audience"]]
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            answer = await api.create(path, body)
            files[source["path"]] = answer["status"]["token"].encode()
        elif source := entry.get("downwardAPI"):
            for item in source.get("items") or []:
                files[item["path"]] = field_value(pod, item["fieldRef"]["fieldPath"], "").encode()
        else:
            raise UnsupportedError(f"projected volumes of {', '.join(entry)} are not supported")
    return files


async def _files(api: Api, namespace: str, plural: str, name: str, source: Object) -> dict[str, bytes]:
    data = await _data(api, namespace, plural, name, bool(source.get("optional")))
    if "items" not in source:
        return data
    for item in source["items"]:
        if item["key"] not in data and not source.get("optional"):
            raise NotYetError(f"{plural} {namespace}/{name} has no key {item['key']}")
    return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}


async def _data(api: Api, namespace: str, plural: str, name: str, optional: bool) -> dict[str, bytes]:
    found = await api.find(f"/api/v1/namespaces/{namespace}/{plural}/{name}")
    if found is None:
        if optional:
            return {}
        raise NotYetError(f"{plural} {namespace}/{name} does not exist")
    if plural == "secrets":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    texts = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    return texts | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}


async def environment(api: Api, pod: Object, container: Object, ip: str) -> dict[str, str]:
    """A container's variables, $(NAME) references to earlier ones replaced."""
    namespace = pod["metadata"]["namespace"]
    values = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOSTNAME": pod["metadata"]["name"]}
    for source in container.get("envFrom") or []:
        for key, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if reference := source.get(key):
                data = await _data(api, namespace, plural, reference["name"], bool(reference.get("optional")))
                values |= {source.get("prefix", "") + name: value.decode() for name, value in data.items()}
    for entry in container.get("env") or []:
        if "valueFrom" not in entry:
            values[entry["name"]] = expand(entry.get("value", ""), values)
            continue
        value = await _value_from(api, pod, entry["valueFrom"], ip)
        if value is not None:
            values[entry["name"]] = value
    return values


async def _value_from(api: Api, pod: Object, source: Object, ip: str) -> str | None:
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"], ip)
    for key, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if reference := source.get(key):
            optional = bool(reference.get("optional"))
            data = await _data(api, pod["metadata"]["namespace"], plural, reference["name"], optional)
            if reference["key"] in data:
                return data[reference["key"]].decode()
            if optional:
                return None
            raise NotYetError(f"{plural} {reference['name']} has no key {reference['key']}")
    raise UnsupportedError(f"variables from {', '.join(source)} are not supported")


def field_value(pod: Object, path: str, ip: str) -> str:
    """The downward API's fields. Raises UnsupportedError for those it does not have."""
    metadata, spec = pod["metadata"], pod["spec"]
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(metadata.get(match[1], {}).get(match[2], ""))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": ip,
        "status.podIPs": ip,
        "status.hostIP": netns.NODE_IP,
    }
    if path not in fields:
        raise UnsupportedError(f"the field {path} is not supported")
    return str(fields[path])


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replaces $(NAME) by a variable's value. Unknown names stay as they are, and $$ stands for $."""

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else values.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)\s]+)\)", replaced, text)


@dataclass(frozen=True)
class Launch:
    """A container ready to be started."""

    command: list[str]
    environment: dict[str, str]


def prepare(
    container: Object,
    program: Program,
    sandbox: netns.Sandbox,
    variables: dict[str, str],
    volumes: Mapping[str, Path],
    root: Path,
) -> Launch:
    """The command line that runs a container's program in its pod's network.

    The program stands for the image's entry point and the container's ``command``; ``args`` follow. Only where the
    program is empty, the container's own ``command`` is taken, to be found on the machine.
    """
    mounts = {mount["mountPath"].rstrip("/"): _source(mount, volumes) for mount in container.get("volumeMounts") or []}
    arguments = [expand(argument, variables) for argument in container.get("args") or []]
    if not program.rooted:
        words = program.command or [expand(word, variables) for word in container.get("command") or []]
        if not words:
            raise UnsupportedError(f"neither --image nor the container says what to run for {container['image']}")
        command = [*sandbox.enter_command, "--", *words, *arguments]
        return Launch(
            [_relocated(part, mounts) for part in command],
            {name: _relocated(value, mounts) for name, value in variables.items()},
        )
    binary = Path(program.command[0])
    root.mkdir(parents=True, exist_ok=True)
    _link_or_copy(binary, root / "program")
    for path, source in mounts.items():
        target = root / path.lstrip("/")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    command = [*sandbox.enter_command, f"--root={root}", "--wd=/", "--", "/program", *program.command[1:], *arguments]
    return Launch(command, variables)


def _source(mount: Mapping[str, Any], volumes: Mapping[str, Path]) -> Path:
    return volumes[mount["name"]] / str(mount.get("subPath", ""))


def _relocated(text: str, mounts: Mapping[str, Path]) -> str:
    for path, source in mounts.items():
        # Only whole path segments: /etc/tls must not touch /etc/tls-extra.
        text = re.sub(re.escape(path) + r"(?=/|$|[\s,:;\"'])", str(source).replace("\\", "\\\\"), text)
    return text


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        target.hardlink_to(source)
        return
    shutil.copy(source, target)
