"""propylon: the Kubernetes Gateway API with real Envoy, with or without a cluster."""

__version__ = "0.1.0"
