"""propylon: the Kubernetes Gateway API with real Envoy, with or without a cluster."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from propylon.app.offline import Manifests, load
    from propylon.explain import ExplainError, Explanation, Request

__version__ = "0.1.0"

__all__ = ["ExplainError", "Explanation", "Manifests", "Request", "__version__", "load"]

_PLACES = {
    "ExplainError": "propylon.explain",
    "Explanation": "propylon.explain",
    "Manifests": "propylon.app.offline",
    "Request": "propylon.explain",
    "load": "propylon.app.offline",
}


def __getattr__(name: str) -> Any:
    """The library's names, imported when they are used: commands that need none of them stay quick."""
    if name in _PLACES:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
