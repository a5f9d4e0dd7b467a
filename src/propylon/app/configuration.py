"""What `propylon up` was asked to do: options of the command line over those of a `propylon.yaml` in the directory."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

FILE_NAME = "propylon.yaml"
API_VERSION = "config.propylon.dev/v1alpha1"
KIND = "UpConfiguration"


class ConfigurationError(Exception):
    """An option that cannot be honoured; the message names it, its place and the remedy."""


class BackendOverride(NamedTuple):
    """`--backend NAMESPACE/SERVICE[:PORT]=HOST:PORT`; port 0 stands for every port of the Service."""

    namespace: str
    service: str
    port: int
    host: str
    host_port: int


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `propylon up` can be told; None where neither the command line nor a file says anything."""

    paths: tuple[str, ...] = ()
    data_dir: Path
    echo: bool = False
    dev_certs: bool = False
    port_offset: int = 0
    address_pools: tuple[str, ...] = ()
    """CIDRs of addresses that this machine has, for Gateways that ask for none; else loopback addresses."""
    backends: tuple[BackendOverride, ...] = ()
    variables: dict[str, str] = {}
    variable_files: tuple[str, ...] = ()
    controllers: tuple[str, ...] | None = None
    """controllerNames to adopt; None adopts every GatewayClass."""
    concurrency: int | None = None
    access_log: bool = True
    backend_statistics: bool = False
    """Envoy counts status codes and times of answers by backend too: where somebody reads its admin socket."""
    trusted_hops: int = 0
    """Proxies in front of the Gateways whose X-Forwarded-For is believed."""
    api: bool = True
    """Serve the Kubernetes API."""
    api_host: str = "127.0.0.1"
    api_port: int | None = None
    """None takes the port of last time, at first one that is free."""
    once: bool = False
    trace: bool = False
    """Print what every turn recomputed, and why."""


class FileOptions(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The fields of an UpConfiguration beside apiVersion, kind and metadata."""

    echo: bool | None = None
    dev_certs: bool | None = None
    port_offset: int | None = None
    backends: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    controllers: tuple[str, ...] | None = None
    concurrency: int | None = None
    access_log: bool | None = None
    backend_statistics: bool | None = None
    trusted_hops: int | None = None


def default_data_dir() -> Path:
    """`$PROPYLON_DATA_DIR`, else the place that the XDG base directory specification names."""
    if configured := os.environ.get("PROPYLON_DATA_DIR"):
        return Path(configured)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "propylon"


def parse_backend(text: str) -> BackendOverride:
    """Read one `--backend` value. Raises ConfigurationError."""
    example = "NAMESPACE/SERVICE[:PORT]=HOST:PORT, for example shop/cart:80=127.0.0.1:5000"
    name, _, address = text.partition("=")
    namespace, _, service = name.partition("/")
    service, _, port = service.partition(":")
    host, _, host_port = address.rpartition(":")
    if not (namespace and service and host and host_port.isdigit() and (not port or port.isdigit())):
        raise ConfigurationError(f"--backend {text!r} is not of the form {example}")
    if not 0 < int(host_port) < 65536 or not 0 <= int(port or 0) < 65536:
        raise ConfigurationError(f"--backend {text!r}: a port lies between 1 and 65535")
    return BackendOverride(namespace, service, int(port or 0), host.strip("[]"), int(host_port))


def read_file_options(paths: Sequence[str]) -> FileOptions:
    """The UpConfiguration of the first path that has one. Raises ConfigurationError naming file and field."""
    for path in paths:
        file = Path(path) / FILE_NAME
        if file.is_file():
            return _parse(file)
    return FileOptions()


def _parse(file: Path) -> FileOptions:
    try:
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error
    if not isinstance(document, Mapping) or document.get("kind") != KIND:
        raise ConfigurationError(f"{file}: this name is kept for an object of kind {KIND} ({API_VERSION})")
    fields = {k: v for k, v in document.items() if k not in {"apiVersion", "kind", "metadata"}}
    try:
        return msgspec.convert(fields, FileOptions)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}") from error


_CHOICES: tuple[str, ...] = (
    "echo",
    "dev_certs",
    "port_offset",
    "controllers",
    "concurrency",
    "access_log",
    "backend_statistics",
    "trusted_hops",
)
"""What a file may choose and the command line may choose otherwise."""


def merge_options(command_line: Mapping[str, Any], file: FileOptions) -> UpOptions:
    """Options of the command line win; lists and variables add up. Raises ConfigurationError."""
    given = {key: value for key, value in command_line.items() if value is not None}
    from_file = {key: value for key in _CHOICES if (value := getattr(file, key)) is not None}
    merged: dict[str, Any] = {**from_file, **given}
    merged["backends"] = tuple(parse_backend(b) for b in (*file.backends, *command_line.get("backends", ())))
    merged["variables"] = {**file.variables, **command_line.get("variables", {})}
    return UpOptions(**merged)
