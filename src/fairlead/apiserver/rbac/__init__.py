"""RBAC: who may do what, from Roles and bindings.

`rules` (pure) says what a rule covers; `index` decides from everything that is bound, in memory; `defaults` is the
policy a cluster starts with; `upkeep` feeds the index from the registry and keeps
defaults and aggregated roles as they must be.
"""
