"""A client of any Kubernetes API server: REST calls, reflectors (list + watch, resumed), a work queue.

In: a kubeconfig or the in-cluster credentials. Out: objects as dicts, batches of watch events. Never: a private way to
fairlead's own store; every component that uses this runs against any cluster.
"""
