"""The control loops, one file each: a pure `reconcile` and a thin `run`.

In: objects seen through the client. Out: writes through the client. Never: a private way to the store.
"""
