"""Kubernetes service discovery and service networking, complete, in Python.

Data flows one way through the packages: api → linux → store → registry → apiserver → client → discovery →
controllers → podnetwork → announce → images → kubelet → proxy → dns → ingress → explain → survey → dashboard →
cluster → cli. A package imports only from those before it.
"""

__version__ = "0.1.0"
