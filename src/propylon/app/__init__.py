"""Wiring: builds the process from a configuration. The only room that knows all others."""
