"""Acting as another user: the `Impersonate-…` headers, and whether the one who sends them may.

After authentication, before authorization. Invariant: whoever a request is made as, the real user was allowed to
impersonate every part of that identity: the user, each group, the uid, each extra value.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from multidict import CIMultiDictProxy

from fairlead.api import errors
from fairlead.apiserver.authorization import Attributes, Authorizer, forbidden
from fairlead.registry import User

_AUTHENTICATION = "authentication.k8s.io"
_ACCOUNT = "system:serviceaccount:"
_EXTRA = "impersonate-extra-"


async def impersonated(user: User, headers: CIMultiDictProxy[str], authorizer: Authorizer) -> User:
    """The user to act as: `user` itself, without such headers. Raises 403; 400 for an identity without a
    user."""
    if not any(name.lower().startswith("impersonate-") for name in headers):
        return user
    name = headers.get("Impersonate-User", "")
    groups = headers.getall("Impersonate-Group", [])
    uid = headers.get("Impersonate-Uid", "")
    extra: dict[str, list[str]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            extra.setdefault(unquote(header[len(_EXTRA) :].lower()), []).append(value)
    if not name:
        raise errors.bad_request("impersonating a group, uid or extra without impersonating a user")
    account = name.removeprefix(_ACCOUNT).split(":") if name.startswith(_ACCOUNT) else []
    if len(account) == 2:
        asked: list[dict[str, Any]] = [{"plural": "serviceaccounts", "namespace": account[0], "name": account[1]}]
        if not groups:
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
            asked_groups: list[str] = []
        else:
            asked_groups = groups
    else:
        asked = [{"plural": "users", "name": name}]
        asked_groups = groups
    asked += [{"plural": "groups", "name": group} for group in asked_groups]
    if uid:
        asked.append({"group": _AUTHENTICATION, "plural": "uids", "name": uid})
    for key, values in extra.items():
        asked += [
            {"group": _AUTHENTICATION, "plural": "userextras", "subresource": key, "name": value} for value in values
        ]
    for question in asked:
        attributes = Attributes(user, "impersonate", version="v1", **question)
        decision = await authorizer.authorize(attributes)
        if not decision.allowed:
            raise forbidden(attributes, decision.reason)
    everyone = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    if everyone not in groups:
        groups = [*groups, everyone]
    return User(name, tuple(groups), uid, extra)
