"""A Kubernetes control plane without containers, for the official conformance suite.

``netns`` makes the network, ``cluster`` runs the control plane in it, ``kubelet`` (with ``containers`` and ``logs``)
runs pods as processes, ``suite`` runs the tests, ``report`` counts them. Nothing here knows the implementation under
test: that is a command line.
"""
