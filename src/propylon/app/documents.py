"""Objects that propylon itself writes into the store."""

import base64
from typing import Any

from propylon.app.dev_certificates import ANNOTATION, Wanted


def secret_document(wanted: Wanted, chain: bytes, key: bytes) -> dict[str, Any]:
    """The kubernetes.io/tls Secret of a development certificate."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": wanted.secret.name,
            "namespace": wanted.secret.namespace,
            "annotations": {ANNOTATION: wanted.annotation},
        },
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(chain).decode(),
            "tls.key": base64.b64encode(key).decode(),
        },
    }
