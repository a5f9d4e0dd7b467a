"""The authority's Secret, and who was issued which certificate."""

import base64
import datetime as dt
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import msgspec
from cryptography import x509

from propylon import api
from propylon.proxies.kubernetes.authority import (
    REPLICA,
    Authority,
    Leaf,
    due,
    identity,
    issue,
    plan_authorities,
    signer,
    trust,
    usable,
)
from propylon.proxies.kubernetes.bootstrap import CERTIFICATE_FILE, sds_files
from propylon.proxies.kubernetes.documents import MANAGED_BY, MANAGER, secret_name
from propylon.store.cluster import ApiError, Client

AUTHORITY_NAME = "propylon-xds-authority"
_KEY = "authorities.json"
_TRIES = 3


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class AuthorityStore:
    """Keeps the authorities in a Secret."""

    def __init__(self, client: Client, namespace: str, *, now: Callable[[], dt.datetime] = _now) -> None:
        self._client = client
        self._namespace = namespace
        self._collection = f"/api/v1/namespaces/{namespace}/secrets"
        self._now = now

    async def keep(self) -> tuple[Authority, ...]:
        """The authorities in force, oldest first; made or succeeded as need be.

        Raises ApiError, Unreachable; ValueError if the Secret holds something else: deleting it is the remedy.
        """
        for _ in range(_TRIES):
            found = await self._read()
            known = _authorities(found) if found is not None else ()
            planned = plan_authorities(known, self._now())
            if planned == known:
                return planned
            try:
                await self._write(planned, found)
            except ApiError as error:
                if error.status == 409:  # another replica was quicker: what it wrote counts
                    continue
                raise
            return planned
        raise ValueError(f"Secret {self._namespace}/{AUTHORITY_NAME} is being changed by somebody else all the time")

    async def find(self) -> tuple[Authority, ...]:
        """The authorities in force as whoever leads keeps them, none if there are none yet. Raises like `keep`."""
        found = await self._read()
        return _authorities(found) if found is not None else ()

    async def _read(self) -> dict[str, Any] | None:
        try:
            answer = await self._client.request("GET", f"{self._collection}/{AUTHORITY_NAME}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return msgspec.json.decode(answer, type=dict[str, Any])

    async def _write(self, authorities: Sequence[Authority], found: dict[str, Any] | None) -> None:
        content = base64.b64encode(msgspec.json.encode(authorities)).decode()
        bundle = base64.b64encode(trust(authorities).encode()).decode()
        metadata: dict[str, Any] = {
            "name": AUTHORITY_NAME,
            "namespace": self._namespace,
            "labels": {MANAGED_BY: MANAGER},
        }
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
        document["data"] = {_KEY: content, "ca.crt": bundle}
        if found is None:
            await self._client.request("POST", self._collection, body=msgspec.json.encode(document))
            return
        metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        path = f"{self._collection}/{AUTHORITY_NAME}"
        await self._client.request("PUT", path, body=msgspec.json.encode(document))


def _authorities(secret: dict[str, Any]) -> tuple[Authority, ...]:
    name = f"Secret {secret['metadata'].get('namespace')}/{AUTHORITY_NAME}"
    try:
        found = msgspec.json.decode(base64.b64decode(secret["data"][_KEY]), type=tuple[Authority, ...])
        for authority in found:
            authority.certificate  # noqa: B018 - raises if it is none
    except (KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"{name} holds no authorities, delete it for new ones: {error}") from error
    return found


class Identities:
    """Certificates of the control plane and of every Gateway's proxies, issued when they are asked for."""

    def __init__(self, server_name: str, *, now: Callable[[], dt.datetime] = _now) -> None:
        self._server_name = server_name
        self._now = now
        self._authorities: tuple[Authority, ...] = ()
        self._server: Leaf | None = None
        self._client: Leaf | None = None
        self._configuration: Any = None
        self._issued: dict[api.ObjectKey, Leaf] = {}
        self._found: dict[api.ObjectKey, api.Secret] = {}
        """Secrets that look like ours, by their own names."""

    @property
    def ready(self) -> bool:
        """Whether there is an authority."""
        return bool(self._authorities)

    @property
    def server_name(self) -> str:
        """The name that the control plane's certificate bears."""
        return self._server_name

    def renew(self, authorities: tuple[Authority, ...]) -> bool:
        """Go by these authorities from now on; whether they are others, so that all plans have to be made anew."""
        changed = authorities != self._authorities
        self._authorities = authorities
        if changed:
            self._client = None
        if changed or self._server is None or _is_due(self._server, self._now()):
            authority = signer(authorities, self._now())
            self._server = issue(authority, self._now(), dns_names=[self._server_name])
            self._configuration = grpc.ssl_server_certificate_configuration(
                [(self._server.key_pem.encode(), self._server.certificate_pem.encode())],
                root_certificates=trust(authorities).encode(),
            )
        return changed

    def server_credentials(self) -> grpc.ServerCredentials:
        """TLS for the xDS server that demands a certificate of ours; a renewed one counts from the next handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration, lambda: self._configuration, require_client_authentication=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """TLS for this replica as client of another one."""
        now = self._now()
        if self._client is None or _is_due(self._client, now):
            self._client = issue(signer(self._authorities, now), now, uris=[REPLICA])
        return grpc.ssl_channel_credentials(
            trust(self._authorities).encode(), self._client.key_pem.encode(), self._client.certificate_pem.encode()
        )

    def seen(self, key: api.ObjectKey, secret: api.Secret | None) -> None:
        """A Secret as a watch brought it; what proxies have already need not be issued again."""
        self._found.pop(key, None)
        if secret is not None and CERTIFICATE_FILE in secret.data:
            self._found[key] = secret

    def files(self, gateway: api.ObjectKey, document: api.Gateway, controller_name: str) -> tuple[tuple[str, str], ...]:
        """The files of a Gateway's Secret: with the certificate that it has, unless that is not good any more."""
        now, uri = self._now(), identity(gateway)
        leaf = self._issued.get(gateway) or self._read(
            api.ObjectKey(gateway.namespace, secret_name(document, controller_name))
        )
        if leaf is None or not usable(leaf, self._authorities, uri, now):
            leaf = issue(signer(self._authorities, now), now, uris=[uri])
        self._issued[gateway] = leaf
        files = sds_files(leaf.certificate_pem, leaf.key_pem, trust(self._authorities))
        return tuple(sorted(files.items()))

    def token(self, gateway: api.Gateway) -> str:
        """Something that only we can know of a Gateway, and that stays the same as long as an authority does."""
        key = self._authorities[0].key_pem.encode()
        return hmac.new(key, gateway.metadata.uid.encode(), hashlib.sha256).hexdigest()[:32]

    def due(self) -> set[api.ObjectKey]:
        """Gateways whose certificates are to be replaced."""
        now = self._now()
        return {gateway for gateway, leaf in self._issued.items() if _is_due(leaf, now)}

    def forget(self, gateway: api.ObjectKey) -> None:
        """The Gateway is gone."""
        self._issued.pop(gateway, None)

    def _read(self, key: api.ObjectKey) -> Leaf | None:
        secret = self._found.get(key)
        text = secret.decoded(CERTIFICATE_FILE) if secret is not None else None
        if text is None:
            return None
        try:
            found = msgspec.json.decode(text)["resources"][0]["tls_certificate"]
            return Leaf(found["certificate_chain"]["inline_string"], found["private_key"]["inline_string"])
        except (msgspec.DecodeError, KeyError, IndexError, TypeError):
            return None


def _is_due(leaf: Leaf, now: dt.datetime) -> bool:
    return due(x509.load_pem_x509_certificate(leaf.certificate_pem.encode()), now)
