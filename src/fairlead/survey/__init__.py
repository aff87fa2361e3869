"""Gathers what `fairlead.explain` judges: objects through the API, kernels' states in nodes' and pods' namespaces.

The thin shell around a pure core. Invariant: it only reads (but for the requests of `--probe`), and what it could not
read it says.
"""
