"""Objects on a real Kubernetes API: watched, and told what became of them.

`ClusterWatch` lists and watches every kind that is served and queues what changes; `StatusWriter` writes desired
statuses optimistically, leaving what others wrote; `LeaderElection` decides which replica writes; `Recorder` writes
Events. `rbac` tells what all of that must be allowed to do.
`Client` carries them all with credentials of a kubeconfig or of the pod they run in. Imports `api` and store errors.
"""

from propylon.store.cluster.client import ApiError, Client, Unreachable
from propylon.store.cluster.credentials import Credentials, CredentialsError, load_credentials
from propylon.store.cluster.discovery import Discovery, ResourcePath
from propylon.store.cluster.events import Recorder
from propylon.store.cluster.leader import Leader, LeaderElection
from propylon.store.cluster.reflector import Change, Reflector
from propylon.store.cluster.status import MergeStatus, StatusWriter
from propylon.store.cluster.watching import ClusterWatch

__all__ = [
    "ApiError",
    "Change",
    "Client",
    "ClusterWatch",
    "Credentials",
    "CredentialsError",
    "Discovery",
    "Leader",
    "LeaderElection",
    "MergeStatus",
    "Recorder",
    "Reflector",
    "ResourcePath",
    "StatusWriter",
    "Unreachable",
    "load_credentials",
]
