"""Envoy's HTTP filters, one module each: what a listener installs and what a route configures."""
