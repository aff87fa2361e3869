"""A revisioned log of objects: write by compare-and-swap, list at a revision, watch since a revision, compact.

In: keys and bytes. Out: records with revisions, and events in revision order. Never: a look inside the bytes.
"""
