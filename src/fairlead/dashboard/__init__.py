"""The live page: services, their endpoints and pods, what passes, and `explain` on a click.

In: the API, by list and watch, and a cluster's `Eyes`. Out: one page on this machine's loopback, for whoever has its
token. Invariant: it only reads, with the rights of whoever started it.
"""
