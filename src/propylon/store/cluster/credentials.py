"""Where the API server is, whom to trust and who we are: from a kubeconfig, or from the pod this runs in.

Formats: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/ and, for programs that hand out tokens,
https://kubernetes.io/docs/reference/config-api/client-authentication.v1/.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0
"""How long a token read from a file is used before the file is read again: kubelets rotate them."""
EXEC_SECONDS = 60.0
"""How long a credentials program may take."""


class CredentialsError(Exception):
    """No usable credentials; the message names the file, the field and the remedy."""


class TokenSource(Protocol):
    """Hands out the bearer token of the moment."""

    async def token(self) -> str | None:
        """The token; None to send none. Raises CredentialsError."""

    def invalidate(self) -> None:
        """The server refused the last one: get a fresh one next time."""


class Authorization(Protocol):
    """Says who we are in every request."""

    async def header(self) -> str | None:
        """The Authorization header (RFC 9110, 11.6.2); None to send none. Raises CredentialsError."""

    def invalidate(self) -> None:
        """The server refused the last one (401): say something fresher next time."""


class Credentials(NamedTuple):
    """Everything that is needed to talk to one API server as one user."""

    server: str
    """URL without a trailing slash."""
    context: ssl.SSLContext | None
    """None for http."""
    auth: Authorization
    namespace: str
    """Where objects of our own go that name no other namespace: the pod's, or the kubeconfig context's."""
    server_name: str | None = None
    """The name the server's certificate must bear, if it is not the URL's host."""
    rotations: Callable[[], int] = lambda: 0
    """How often our own certificate changed: connections from before have the old one."""


# --- tokens -----------------------------------------------------------------------------------------------------------


class FixedToken:
    """A token that is what it is, or none."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def token(self) -> str | None:
        """As given."""
        return self._token

    def invalidate(self) -> None:
        """Nothing fresher is to be had."""


class FileToken:
    """A token in a file that somebody rotates."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = ""
        self._until = 0.0

    async def token(self) -> str | None:
        """The file's content, read at most once a minute. Raises CredentialsError."""
        if time.monotonic() >= self._until:
            try:
                self._read = self._path.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise CredentialsError(f"{self._path}: the token cannot be read: {error.strerror}") from error
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._read

    def invalidate(self) -> None:
        """Read the file again at once."""
        self._until = 0.0


class _ExecStatus(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None


class _ExecCredential(msgspec.Struct, frozen=True):
    status: _ExecStatus


class ExecCredentials:
    """What a program prints as an ExecCredential: a token, a client certificate, or both."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        information: Mapping[str, Any],
        context: ssl.SSLContext | None = None,
        hint: str = "",
    ) -> None:
        """`information` is the ExecCredential that the program is given; `context` gets the certificates it hands out.

        `hint` is said where the program is not there.
        """
        self._command = command
        self._environment = environment
        self._information = information
        self._context = context
        self._hint = f" {hint.strip()}" if hint.strip() else ""
        self._token: str | None = None
        self._certificate = ""
        self._until = 0.0
        self._lock = asyncio.Lock()
        self.rotations = 0
        """How often the certificate changed: connections from before go on with the old one."""

    async def token(self) -> str | None:
        """The token, None if the program hands out a certificate only. Runs it unless what it said last still holds.

        Raises CredentialsError.
        """
        async with self._lock:
            if time.time() >= self._until:
                status = await self._run()
                self._use_certificate(status)
                self._token, self._until = status.token, _expiry(status.expiration_timestamp)
            return self._token

    def invalidate(self) -> None:
        """Run the program again at once."""
        self._until = 0.0

    def _use_certificate(self, status: _ExecStatus) -> None:
        pair = f"{status.client_certificate_data or ''}\n{status.client_key_data or ''}"
        if self._context is None or pair == self._certificate or not status.client_certificate_data:
            return
        try:
            _load_certificate(self._context, pair.encode())
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise CredentialsError(
                f"the credentials program {self._command[0]} printed a certificate that cannot be used: {error}"
            ) from error
        self.rotations += bool(self._certificate)
        self._certificate = pair

    async def _run(self) -> _ExecStatus:
        name = self._command[0]
        environment = {**os.environ, **self._environment, "KUBERNETES_EXEC_INFO": json.dumps(self._information)}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise CredentialsError(
                f"the credentials program {name} cannot be run: {error.strerror}{self._hint}"
            ) from error
        try:
            async with asyncio.timeout(EXEC_SECONDS):
                out, err = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise CredentialsError(f"the credentials program {name} took more than {EXEC_SECONDS:.0f} s") from error
        if process.returncode:
            text = err.decode(errors="replace").strip()
            raise CredentialsError(f"the credentials program {name} failed (exit code {process.returncode}): {text}")
        try:
            status = msgspec.json.decode(out, type=_ExecCredential).status
        except msgspec.DecodeError as error:
            raise CredentialsError(f"the credentials program {name} printed no ExecCredential: {error}") from error
        if not status.token and not (status.client_certificate_data and status.client_key_data):
            raise CredentialsError(
                f"the credentials program {name} printed neither a token nor a certificate with its key"
            )
        return status


def _expiry(timestamp: str | None) -> float:
    """Half a minute before the end, so that no request travels with a token that dies on its way."""
    if timestamp is None:
        return float("inf")
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp() - 30


class BearerAuth:
    """The token of the moment."""

    def __init__(self, source: TokenSource) -> None:
        self.source = source

    async def header(self) -> str | None:
        """See Authorization."""
        token = await self.source.token()
        return f"Bearer {token}" if token is not None else None

    def invalidate(self) -> None:
        """See Authorization."""
        self.source.invalidate()


class BasicAuth:
    """A name and a password."""

    def __init__(self, username: str, password: str) -> None:
        self._header = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()

    async def header(self) -> str | None:
        """See Authorization."""
        return self._header

    def invalidate(self) -> None:
        """Nothing fresher is to be had."""


# --- where they come from ---------------------------------------------------------------------------------------------


def load_credentials(kubeconfig: str | None = None, context: str | None = None) -> Credentials:
    """Credentials of a kubeconfig file if one is named, else of the pod, else of `$KUBECONFIG` or `~/.kube/config`.

    Raises CredentialsError.
    """
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists()
    if kubeconfig is None and context is None and in_pod:
        return in_cluster_credentials(SERVICE_ACCOUNT, os.environ)
    named = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return kubeconfig_credentials([Path(part) for part in named.split(os.pathsep) if part], context)


def in_cluster_credentials(directory: Path, environment: Mapping[str, str]) -> Credentials:
    """Those of the service account that a pod has mounted. Raises CredentialsError."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        context = ssl_context((directory / "ca.crt").read_text(encoding="ascii"))
        namespace = (directory / "namespace").read_text(encoding="utf-8").strip()
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        raise CredentialsError(f"{directory}: the service account cannot be read: {error}") from error
    shown = f"[{host}]" if ":" in host else host
    return Credentials(f"https://{shown}:{port}", context, BearerAuth(FileToken(directory / "token")), namespace)


def kubeconfig_credentials(files: list[Path], context_name: str | None = None) -> Credentials:
    """Those of a context (the current one by default) of one or several kubeconfig files, the first of which wins.

    Raises CredentialsError.
    """
    merged = _merge(files)
    name = context_name or merged.current
    shown = ", ".join(map(str, files))
    if not name:
        raise CredentialsError(f"{shown}: no current-context: choose one with --context")
    context = _named(merged.contexts, name, "context", shown)
    cluster = _named(merged.clusters, str(context.value.get("cluster", "")), "cluster", shown)
    user = _named(merged.users, str(context.value.get("user", "")), "user", shown)
    server = str(cluster.value.get("server", "")).rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise CredentialsError(f"{cluster.file}: cluster {context.value.get('cluster')!r} has no URL in `server`")
    try:
        tls = _context_of(cluster, user) if server.startswith("https://") else None
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CredentialsError(f"{shown}: certificates of context {name!r} cannot be used: {error}") from error
    namespace, server_name = context.value.get("namespace") or "default", cluster.value.get("tls-server-name")
    program = _exec_of(cluster, user, tls)
    if program is not None:
        return Credentials(server, tls, BearerAuth(program), namespace, server_name, lambda: program.rotations)
    return Credentials(server, tls, _auth_of(user), namespace, server_name)


class _Entry(NamedTuple):
    """A named part of a kubeconfig, and the file that relative paths in it start from."""

    value: Mapping[str, Any]
    file: Path


class _Merged(NamedTuple):
    current: str
    clusters: dict[str, _Entry]
    users: dict[str, _Entry]
    contexts: dict[str, _Entry]


def _merge(files: list[Path]) -> _Merged:
    merged = _Merged("", {}, {}, {})
    existing = [file for file in files if file.exists()]
    if not existing:
        raise CredentialsError(f"{', '.join(map(str, files))}: no such kubeconfig: name one with --kubeconfig")
    for file in existing:
        try:
            document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            for key, into in (("cluster", merged.clusters), ("user", merged.users), ("context", merged.contexts)):
                for entry in document.get(f"{key}s") or ():
                    into.setdefault(str(entry["name"]), _Entry(entry.get(key) or {}, file))
            merged = merged._replace(current=merged.current or str(document.get("current-context") or ""))
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            raise CredentialsError(f"{file}: not a kubeconfig: {error}") from error
    return merged


def _named(entries: Mapping[str, _Entry], name: str, kind: str, files: str) -> _Entry:
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise CredentialsError(f"{files}: there is no {kind} {name!r}; there are: {known}")
    return entries[name]


def _bytes_of(entry: _Entry, field: str) -> bytes | None:
    """The content of `field`, which a kubeconfig holds as a path, or as base64 in `field`-data, which wins."""
    if inline := entry.value.get(f"{field}-data"):
        try:
            return base64.b64decode(inline, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{field}-data is not base64") from error
    path = entry.value.get(field)
    return (entry.file.parent / str(path)).read_bytes() if path else None


def _context_of(cluster: _Entry, user: _Entry) -> ssl.SSLContext:
    authority = _bytes_of(cluster, "certificate-authority")
    context = ssl_context(authority.decode("ascii") if authority is not None else None)
    if cluster.value.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes_of(user, "client-certificate"), _bytes_of(user, "client-key")
    if certificate is not None and key is not None:
        _load_certificate(context, certificate.rstrip() + b"\n" + key)
    return context


def _load_certificate(context: ssl.SSLContext, pair: bytes) -> None:
    """Have connections to come present this certificate; PEM, with its key. Raises ssl.SSLError, OSError."""
    # The ssl module reads keys from files only; this one is ours alone and gone at once.
    with tempfile.NamedTemporaryFile() as file:
        file.write(pair)
        file.flush()
        context.load_cert_chain(file.name)


def ssl_context(authority: str | None) -> ssl.SSLContext:
    """A context that trusts the authority (PEM), or the system's if there is none. Raises ssl.SSLError."""
    context = ssl.create_default_context(cadata=authority)
    # Authorities made by older tools lack extensions that RFC 5280 wants and Python 3.13 insists on.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context


def _auth_of(user: _Entry) -> Authorization:
    value = user.value
    if token := value.get("token"):
        return BearerAuth(FixedToken(str(token)))
    if path := value.get("tokenFile"):
        return BearerAuth(FileToken(user.file.parent / path))
    if username := value.get("username"):
        return BasicAuth(str(username), str(value.get("password", "")))
    return BearerAuth(FixedToken(None))


def _exec_of(cluster: _Entry, user: _Entry, context: ssl.SSLContext | None) -> ExecCredentials | None:
    """The user's credentials program, unless there is a token that goes before it."""
    program = user.value.get("exec")
    if not program or user.value.get("token") or user.value.get("tokenFile"):
        return None
    command = str(program.get("command", ""))
    if "/" in command:
        command = str(user.file.parent / command)
    environment = {str(entry["name"]): str(entry["value"]) for entry in program.get("env") or ()}
    if program.get("interactiveMode") == "Always":
        raise CredentialsError(f"{user.file}: the credentials program {command} wants a terminal, and there is none")
    spec: dict[str, Any] = {"interactive": False}
    if program.get("provideClusterInfo"):
        spec["cluster"] = _cluster_information(cluster)
    information = {
        "apiVersion": str(program.get("apiVersion", "client.authentication.k8s.io/v1")),
        "kind": "ExecCredential",
        "spec": spec,
    }
    arguments = map(str, program.get("args") or ())
    return ExecCredentials(
        [command, *arguments], environment, information, context, str(program.get("installHint", ""))
    )


def _cluster_information(cluster: _Entry) -> dict[str, Any]:
    """What a program may know of the cluster it is to log in to."""
    value = cluster.value
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    known = {name: value[name] for name in names if name in value}
    if (authority := _bytes_of(cluster, "certificate-authority")) is not None:
        known["certificate-authority-data"] = base64.b64encode(authority).decode()
    for extension in value.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            known["config"] = extension.get("extension")
    return known
