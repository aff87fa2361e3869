"""May this user do that? The question, the answer, and the seam between the server and whoever decides.

Between authentication and dispatch. Invariant: every request but the open health endpoints is asked about here, with
the attributes upstream's authorizers see, and the reviews (SelfSubjectAccessReview, …) ask the same object.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from fairlead.api.errors import StatusError, access_forbidden
from fairlead.apiserver.request import RequestInfo
from fairlead.registry import User


class Attributes(msgspec.Struct, frozen=True):
    """One question. For resource requests `path` is empty; for others only `verb` and `path` are set."""

    user: User
    verb: str
    group: str = ""
    version: str = ""
    plural: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    field_selector: str = ""  # of a list or watch, as it was given

    @classmethod
    def of(cls, user: User, info: RequestInfo, field_selector: str = "") -> Attributes:
        """The question a request poses."""
        if not info.is_resource:
            return cls(user, info.verb, path=info.path)
        return cls(
            user,
            info.verb,
            info.group,
            info.version,
            info.plural,
            info.subresource,
            info.namespace,
            info.name,
            "",
            field_selector if info.verb in ("list", "watch", "deletecollection") else "",
        )


class Decision(msgspec.Struct, frozen=True):
    """The answer, and why (shown to users)."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    """What decides. Must not block."""

    async def authorize(self, attributes: Attributes) -> Decision:
        """Whether the user may."""
        ...

    async def rules_for(self, user: User, namespace: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(resourceRules, nonResourceRules) as a SelfSubjectRulesReview lists them."""
        ...


class AlwaysAllow:
    """Whoever is authenticated may do everything."""

    async def authorize(self, attributes: Attributes) -> Decision:
        """Yes."""
        return Decision(True)

    async def rules_for(self, user: User, namespace: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Everything."""
        everything = ["*"]
        return (
            [{"verbs": everything, "apiGroups": everything, "resources": everything}],
            [{"verbs": everything, "nonResourceURLs": everything}],
        )


def denial(attributes: Attributes, reason: str = "") -> str:
    """The message of a 403, as upstream words it."""
    who = f'User "{attributes.user.name}"'
    if attributes.path:
        text = f'{who} cannot {attributes.verb} path "{attributes.path}"'
    else:
        what = attributes.plural + (f"/{attributes.subresource}" if attributes.subresource else "")
        where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
        text = f'{who} cannot {attributes.verb} resource "{what}" in API group "{attributes.group}" {where}'
    return f"{text}: {reason}" if reason else text


def forbidden(attributes: Attributes, reason: str = "") -> StatusError:
    """The 403 of a denied request."""
    text = denial(attributes, reason)
    if attributes.path:
        return access_forbidden(f"forbidden: {text}")
    plural, group, name = attributes.plural, attributes.group, attributes.name
    where = f"{plural}.{group}" if group else plural
    subject = f'{where} "{name}" is forbidden: ' if name else f"{where} is forbidden: "
    return access_forbidden(subject + text, plural, group, name)
