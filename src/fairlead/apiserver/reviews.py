"""The Self…Review resources: a client asks what it may do, or who it is. Nothing is stored.

Beside the verbs. Invariant: the answer comes from the same authorizer that guards requests.
"""

from __future__ import annotations

from typing import Any

from fairlead.api import errors, times
from fairlead.api.kinds import (
    SELF_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_REVIEWS,
    SELF_SUBJECT_RULES_REVIEWS,
    Resource,
)
from fairlead.apiserver.authorization import Attributes, Authorizer
from fairlead.registry import RequestContext, User

Object = dict[str, Any]


async def review(resource: Resource, obj: Object, ctx: RequestContext, authorizer: Authorizer) -> Object:
    """The review with its status filled in. Raises 422 for a question that isn't one."""
    obj.setdefault("metadata", {})
    if resource == SELF_SUBJECT_ACCESS_REVIEWS:
        decision = await authorizer.authorize(_question(obj, ctx.user))
        obj["status"] = {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}
    elif resource == SELF_SUBJECT_RULES_REVIEWS:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise errors.bad_request("no namespace on request")
        rules, paths = await authorizer.rules_for(ctx.user, namespace)
        obj["status"] = {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}
    elif resource == SELF_SUBJECT_REVIEWS:
        obj["metadata"]["creationTimestamp"] = times.render(ctx.now)
        obj["status"] = {"userInfo": _user_info(ctx.user)}
    else:
        raise errors.method_not_allowed()
    return obj


def _question(obj: Object, user: User) -> Attributes:
    spec = obj.get("spec") or {}
    asked: Object = spec.get("resourceAttributes") or {}
    path: Object = spec.get("nonResourceAttributes") or {}
    if ("resourceAttributes" in spec) == ("nonResourceAttributes" in spec):
        what = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        wrong = errors.invalid("spec.resourceAttributes", path or None, what)
        raise errors.unprocessable("SelfSubjectAccessReview", "authorization.k8s.io", "", [wrong])
    if path:
        return Attributes(user, path.get("verb") or "", path=path.get("path") or "")
    return Attributes(
        user,
        asked.get("verb") or "",
        asked.get("group") or "",
        asked.get("version") or "",
        asked.get("resource") or "",
        asked.get("subresource") or "",
        asked.get("namespace") or "",
        asked.get("name") or "",
    )


def _user_info(user: User) -> Object:
    return {
        "username": user.name,
        **({"uid": user.uid} if user.uid else {}),
        "groups": list(user.groups),
        **({"extra": user.extra} if user.extra else {}),
    }
