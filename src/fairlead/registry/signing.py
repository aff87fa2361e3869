"""CertificateSigningRequests: who asks is written down by the server, and each subresource changes its own part alone.

Source: upstream's `pkg/registry/certificates/certificates/strategy.go`. Invariants: the spec never changes after
creation; an approval or denial, once there, stays; the certificate comes through `status` alone.
"""

from __future__ import annotations

from typing import Any

from fairlead.registry.requests import RequestContext
from fairlead.registry.strategy import Strategy, keep

Object = dict[str, Any]

DECISIONS = ("Approved", "Denied")


class SigningRequests(Strategy):
    """The strategy of the kind."""

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        spec, user = obj.setdefault("spec", {}), ctx.user
        for key in ("username", "uid", "groups", "extra"):
            spec.pop(key, None)
        spec["username"] = user.name
        if user.uid:
            spec["uid"] = user.uid
        if user.groups:
            spec["groups"] = list(user.groups)
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra.items()}

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        keep(new, old, "spec")

    def prepare_for_status_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_status_update(new, old, ctx)
        status, before = new.setdefault("status", {}), old.get("status") or {}
        others = [c for c in status.get("conditions") or () if c.get("type") not in DECISIONS]
        _set_conditions(status, decisions(before) + others, ctx)
        if not status:
            del new["status"]

    def prepare_for_approval(self, new: Object, old: Object, ctx: RequestContext) -> None:
        """Only conditions, and none that was there is lost."""
        keep(new, old, "spec")
        conditions = list((new.get("status") or {}).get("conditions") or ())
        status = dict(old.get("status") or {})
        there = {c.get("type") for c in conditions}
        conditions += [c for c in decisions(status) if c.get("type") not in there]
        _set_conditions(status, conditions, ctx)
        new["status"] = status


def decisions(status: Object) -> list[Object]:
    """The conditions that say whether the request was approved or denied."""
    return [c for c in status.get("conditions") or () if c.get("type") in DECISIONS]


def _set_conditions(status: Object, conditions: list[Object], ctx: RequestContext) -> None:
    now = ctx.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    for condition in conditions:
        condition.setdefault("lastUpdateTime", now)
        condition.setdefault("lastTransitionTime", now)
    if conditions:
        status["conditions"] = conditions
    else:
        status.pop("conditions", None)
