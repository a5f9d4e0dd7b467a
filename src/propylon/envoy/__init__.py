"""From the Graph to Envoy's configuration: resources as bytes, one module per Envoy concept. Pure.

Contract: `build_translation` derives collections of `Resource` from a Graph, keyed by (Gateway, resource name). Equal
input gives equal bytes. Nothing here does I/O, and nothing decides what an object means: that is the Graph's.
"""

from propylon.envoy.forms import Forms, build_forms
from propylon.envoy.resource import Resource
from propylon.envoy.settings import EnvoySettings
from propylon.envoy.translation import Translation, build_translation

__all__ = ["EnvoySettings", "Forms", "Resource", "Translation", "build_forms", "build_translation"]
