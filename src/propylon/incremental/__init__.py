"""Incremental collections: pure derivations with recorded dependencies, equality cut-off and batches.

Contract: sources are fed, `Engine.commit` recomputes exactly what the changes touch, and the outcome equals a
computation from scratch. Work is proportional to what changed. The room knows nothing of gateways and imports nothing
of ours.

    engine = Engine()
    services: Source[str, Service] = engine.source("services")
    routes: Source[str, Route] = engine.source("routes")
    by_service = routes.index("routes by service", lambda key, route: route.services)
    users = engine.derive("users", services, lambda key, service, look: look.keys(by_service, key))
    services.set("web", Service(...))
    commit = engine.commit()
    commit.changes(users)  # {"web": (None, ())}
"""

from propylon.incremental.collection import Collection, Index, Source
from propylon.incremental.commit import Cause, Change, Commit, Failure, Observation, Recomputed
from propylon.incremental.derived import Derived, FlatDerived
from propylon.incremental.engine import Engine
from propylon.incremental.look import Look, OrderError

__all__ = [
    "Cause",
    "Change",
    "Collection",
    "Commit",
    "Derived",
    "Engine",
    "Failure",
    "FlatDerived",
    "Index",
    "Look",
    "Observation",
    "OrderError",
    "Recomputed",
    "Source",
]
