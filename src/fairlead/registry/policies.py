"""Roles and bindings: what whoever writes one must hold himself.

The check is the API server's, which has the policy at hand and puts it into the request's context. Invariant: asked
before every create and update that comes with such a check.
"""

from __future__ import annotations

from typing import Any

from fairlead.registry.requests import RequestContext
from fairlead.registry.strategy import Strategy

Object = dict[str, Any]


class Policies(Strategy):
    """Role, ClusterRole, RoleBinding, ClusterRoleBinding."""

    create_on_update = True

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        if ctx.may_grant is not None:
            ctx.may_grant(self.resource, obj, None)

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        if ctx.may_grant is not None:
            ctx.may_grant(self.resource, new, old)
