"""What is there from the beginning."""

from pathlib import Path

from propylon.api.meta import ObjectRef
from propylon.server.bootstrap import default_objects, ensure_defaults
from propylon.store import LocalStore
from propylon.store.protocol import ref_of_document

EDIT = ObjectRef("rbac.authorization.k8s.io", "ClusterRole", "", "edit")


def test_everything_is_created_once(tmp_path: Path) -> None:
    with LocalStore(tmp_path) as store:
        ensure_defaults(store)
        version = store.resource_version
        assert all(store.get(ref_of_document(wanted)) for wanted in default_objects())
        ensure_defaults(store)
        assert store.resource_version == version


def test_missing_rules_come_back_unless_the_role_says_no(tmp_path: Path) -> None:
    own = {"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}
    with LocalStore(tmp_path) as store:
        ensure_defaults(store)
        whole = store.get(EDIT)
        store.update({**whole, "rules": [own, *whole["rules"][1:]]})
        ensure_defaults(store)
        assert store.get(EDIT)["rules"] == [own, *whole["rules"][1:], whole["rules"][0]]
        held = store.get(EDIT)
        annotations = {"rbac.authorization.kubernetes.io/autoupdate": "false"}
        store.update({**held, "rules": [own], "metadata": {**held["metadata"], "annotations": annotations}})
        ensure_defaults(store)
        assert store.get(EDIT)["rules"] == [own]
