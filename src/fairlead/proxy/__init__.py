"""Virtual IPs in the kernel: compile (snapshot, node) → ServiceTable → desired objects → diff → apply.

In: a `ServiceSnapshot`. Out: kernel rules in a table of our own, kept true. Never: a change to a stranger's rule.
"""
