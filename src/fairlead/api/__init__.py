"""The Kubernetes object model, as pure functions over plain dicts.

In: objects as decoded JSON, schemas as data. Out: resource descriptors, parsed selectors, defaulted objects, field
errors as values, patched objects, tables. Never: a socket, a process, a clock, a die; time and dice are arguments.
"""
