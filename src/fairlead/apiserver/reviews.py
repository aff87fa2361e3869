"""The review resources: who am I, what may I (or someone else) do, whose token is this. Nothing is stored.

Beside the verbs. Invariant: the answers come from the same authorizer and authenticator that guard requests.
"""

from __future__ import annotations

from typing import Any

from fairlead.api import errors, times
from fairlead.api.kinds import (
    LOCAL_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_REVIEWS,
    SELF_SUBJECT_RULES_REVIEWS,
    SUBJECT_ACCESS_REVIEWS,
    TOKEN_REVIEWS,
    Resource,
)
from fairlead.apiserver.authentication import Authenticator
from fairlead.apiserver.authorization import Attributes, Authorizer
from fairlead.registry import RequestContext, User

Object = dict[str, Any]


class Reviewer:
    """Answers reviews."""

    def __init__(self, authorizer: Authorizer, authenticator: Authenticator) -> None:
        self._authorizer, self._authenticator = authorizer, authenticator

    async def review(self, resource: Resource, namespace: str, obj: Object, ctx: RequestContext) -> Object:
        """The review with its status filled in. Raises 400 or 422 for a question that isn't one."""
        obj.setdefault("metadata", {})
        spec = obj.get("spec") or {}
        if resource == SELF_SUBJECT_ACCESS_REVIEWS:
            obj["status"] = await self._decided(_question(resource, spec, ctx.user))
        elif resource in (SUBJECT_ACCESS_REVIEWS, LOCAL_SUBJECT_ACCESS_REVIEWS):
            if resource == LOCAL_SUBJECT_ACCESS_REVIEWS:
                _check_local(spec, namespace)
            obj["status"] = await self._decided(_question(resource, spec, _user(resource, spec)))
        elif resource == SELF_SUBJECT_RULES_REVIEWS:
            asked = spec.get("namespace") or ""
            if not asked:
                raise errors.bad_request("no namespace on request")
            rules, paths = await self._authorizer.rules_for(ctx.user, asked)
            obj["status"] = {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}
        elif resource == SELF_SUBJECT_REVIEWS:
            obj["metadata"]["creationTimestamp"] = times.render(ctx.now)
            obj["status"] = {"userInfo": _user_info(ctx.user)}
        elif resource == TOKEN_REVIEWS:
            obj["status"] = await self._token(spec)
        else:
            raise errors.method_not_allowed()
        return obj

    async def _decided(self, question: Attributes) -> Object:
        decision = await self._authorizer.authorize(question)
        return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}

    async def _token(self, spec: Object) -> Object:
        token = spec.get("token") or ""
        if not token:
            raise errors.bad_request("token is required for TokenReview in authentication")
        found = await self._authenticator.review(token, spec.get("audiences") or ())
        if found is None:
            return {"user": {}, "error": "invalid bearer token"}
        user, audiences = found
        return {"authenticated": True, "user": _user_info(user), "audiences": audiences}


def _check_local(spec: Object, namespace: str) -> None:
    given = (spec.get("resourceAttributes") or {}).get("namespace") or ""
    if given != namespace:
        raise errors.bad_request(f"spec.resourceAttributes.namespace must match namespace: {namespace}")


def _user(resource: Resource, spec: Object) -> User:
    name, groups = spec.get("user") or "", tuple(spec.get("groups") or ())
    if not name and not groups:
        what = "at least one of user or group must be specified"
        wrong = errors.invalid("spec.user", "", what)
        raise errors.unprocessable(resource.kind, resource.group, "", [wrong])
    return User(name, groups, spec.get("uid") or "", spec.get("extra") or {})


def _question(resource: Resource, spec: Object, user: User) -> Attributes:
    asked: Object = spec.get("resourceAttributes") or {}
    path: Object = spec.get("nonResourceAttributes") or {}
    if ("resourceAttributes" in spec) == ("nonResourceAttributes" in spec):
        what = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        wrong = errors.invalid("spec.resourceAttributes", path or None, what)
        raise errors.unprocessable(resource.kind, resource.group, "", [wrong])
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
