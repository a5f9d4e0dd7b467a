"""Runs data planes in a cluster: what Kubernetes objects a Gateway's proxies are made of, and who brings them there.

Pure: `plan_documents` says which objects a Gateway wants, `observe` reads addresses back from its Service, `authority`
issues the certificates by which proxies and control plane know each other. `Applier` is the thin edge: it applies,
prunes and repairs through whatever client it is given.
"""

from propylon.proxies.kubernetes.addresses import Observed, observe
from propylon.proxies.kubernetes.apply import Applier, Conflict, Documents
from propylon.proxies.kubernetes.documents import Document, Installation, Wanted, plan_documents
from propylon.proxies.kubernetes.parameters import (
    PARAMETERS_GROUP,
    PARAMETERS_INFO,
    GatewayParameters,
    ParametersSpec,
    merge_parameters,
    parameter_errors,
)

__all__ = [
    "PARAMETERS_GROUP",
    "PARAMETERS_INFO",
    "Applier",
    "Conflict",
    "Document",
    "Documents",
    "GatewayParameters",
    "Installation",
    "Observed",
    "ParametersSpec",
    "Wanted",
    "merge_parameters",
    "observe",
    "parameter_errors",
    "plan_documents",
]
