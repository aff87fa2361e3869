"""The node agent's half that runs pods: processes in namespaces, probes, environment, files, logs, exec.

In: the pods bound to this node. Out: running processes, and their truth in pod status. Never: a decision about where
a pod should run.
"""
