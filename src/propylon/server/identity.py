"""Who asks: users by client certificate, service accounts by token. Pure but for reading the clock."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from functools import lru_cache
from typing import Any

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ISSUER = "propylon"
AUDIENCE = "https://kubernetes.default.svc"


class User(msgspec.Struct, frozen=True):
    """A name, the groups it belongs to, (for service accounts) a uid, and which credential was shown, if that is known:
    "X509SHA256=" and the certificate's hash."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    credential: str = ""


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


@lru_cache(maxsize=1024)
def user_of_certificate(der: bytes) -> User:
    """The user that a verified client certificate speaks for: common name, and organizations as groups."""
    subject = x509.load_der_x509_certificate(der).subject
    names = [str(entry.value) for entry in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(entry.value) for entry in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if not names:
        return ANONYMOUS
    credential = f"X509SHA256={hashlib.sha256(der).hexdigest()}"
    return User(names[0], (*groups, AUTHENTICATED), credential=credential)


def service_account(namespace: str, name: str, uid: str = "") -> User:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid)


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def issue_token(secret: bytes, namespace: str, name: str, uid: str, seconds: int) -> tuple[str, int]:
    """A token (JWT, HS256: whoever checks it also made it) of a service account, and when it ends (Unix seconds)."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "iat": now,
        "nbf": now,
        "exp": now + seconds,
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
    }
    head = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    return f"{head}.{_signature(secret, head)}", now + seconds


def _signature(secret: bytes, head: str) -> str:
    digest = hmac.new(secret, head.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class _Account(msgspec.Struct, frozen=True):
    name: str
    uid: str


class _Kubernetes(msgspec.Struct, frozen=True):
    namespace: str
    serviceaccount: _Account


class Claims(msgspec.Struct, frozen=True):
    """What a token says."""

    exp: int
    iss: str
    kubernetes: _Kubernetes = msgspec.field(name="kubernetes.io")


def read_token(secret: bytes, token: str) -> Claims | None:
    """The claims of a token that we signed and that has not ended; None for any other."""
    head, dot, signature = token.rpartition(".")
    if not dot or not signature.isascii() or not head.isascii():
        return None
    if not hmac.compare_digest(signature, _signature(secret, head)):
        return None
    try:
        body = head.partition(".")[2]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Claims)
    except (ValueError, msgspec.MsgspecError):
        return None
    return claims if claims.exp > time.time() and claims.iss == ISSUER else None
