"""Asks the real kube-apiserver and `propylon.api` about the same objects, and shows where they differ.

``corpus`` collects and generates objects, ``mutation`` breaks them, ``ours`` and ``theirs`` judge them, ``summary``
counts. ``run.py`` does it all in the control plane of the conformance harness, once for each channel of the CRDs.
"""
