"""References across namespaces: ReferenceGrants, namespaces, and the collections every reference is resolved in."""

from typing import NamedTuple

from propylon import api
from propylon.graph.sources import Sources
from propylon.incremental import Engine, Index, Look


class GrantKey(NamedTuple):
    """Who may refer to what: from a kind in a namespace, to a kind in the grant's namespace."""

    from_group: str
    from_kind: str
    from_namespace: str
    to_group: str
    to_kind: str
    to_namespace: str


class Referrer(NamedTuple):
    """The object that refers, as a ReferenceGrant would name it."""

    group: str
    kind: str
    namespace: str


Grants = Index[GrantKey, api.ObjectKey, api.ReferenceGrant]


def index_grants(engine: Engine, sources: Sources) -> Grants:
    """Index ReferenceGrants by what they allow, so that a grant concerns only references it could allow."""
    return sources.reference_grants.index("grants by reference", grant_keys)


def grant_keys(key: api.ObjectKey, grant: api.ReferenceGrant) -> set[GrantKey]:
    """Return every (from, to) pair of a grant; names in `to` are looked at later."""
    return {
        GrantKey(f.group, f.kind, f.namespace, t.group, t.kind, key.namespace)
        for f in grant.spec.from_
        for t in grant.spec.to
    }


def granted(look: Look, grants: Grants, referrer: Referrer, target: api.ObjectRef) -> bool:
    """Tell whether `referrer` may refer to `target`: same namespace, or a ReferenceGrant over there says so."""
    if target.namespace == referrer.namespace:
        return True
    key = GrantKey(*referrer, target.group, target.kind, target.namespace)
    return any(
        to.group == target.group and to.kind == target.kind and to.name in {None, "", target.name}
        for _, grant in look.by(grants, key)
        for to in grant.spec.to
    )


def not_permitted(referrer: Referrer, target: api.ObjectRef) -> str:
    """Say that a reference needs a grant, and which."""
    return (
        f"{target.kind} {target.namespace}/{target.name} is in another namespace, and no ReferenceGrant in "
        f"{target.namespace} lets {referrer.kind}s of namespace {referrer.namespace} refer to it"
    )


def namespace_labels(look: Look, sources: Sources, name: str) -> dict[str, str]:
    """Return the labels of a namespace; every namespace carries its own name, known to us or not."""
    namespace = look.get(sources.namespaces, api.ObjectKey("", name))
    labels = namespace.metadata.labels if namespace is not None else {}
    return {"kubernetes.io/metadata.name": name, **labels}


def namespace_allowed(
    look: Look, sources: Sources, from_: str, selector: api.LabelSelector | None, own: str, other: str
) -> bool:
    """Tell whether objects of namespace `other` are let in by `from`/`selector` of an object in namespace `own`."""
    match from_:
        case "All":
            return True
        case "Same":
            return own == other
        case "Selector":
            # A selector that is missing selects nothing: letting everybody in would be the worse mistake.
            return selector is not None and selector.matches(namespace_labels(look, sources, other))
    return False
