"""Bootstrap tokens: what a machine shows that has no identity yet, to ask for one.

Beside authentication. Source: upstream's plugin/pkg/auth/authenticator/token/bootstrap and cluster-bootstrap/token/api.
A token `<id>.<secret>` is a Secret `bootstrap-token-<id>` in kube-system. Invariant: a token is looked up anew on each
request, so that one deleted or expired is worth nothing from that moment; the reason is logged, never told.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
from datetime import datetime
from typing import Any

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import SECRETS
from fairlead.registry import Registry, User

log = logging.getLogger("fairlead.apiserver")

Object = dict[str, Any]

NAMESPACE = "kube-system"
SECRET_TYPE = "bootstrap.kubernetes.io/token"
SECRET_PREFIX = "bootstrap-token-"
USER_PREFIX = "system:bootstrap:"
GROUP = "system:bootstrappers"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_EXTRA_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


def parse(token: str) -> tuple[str, str] | None:
    """(id, secret), or None for what is no bootstrap token."""
    match = _TOKEN.fullmatch(token)
    return (match[1], match[2]) if match else None


def user_of(secret: Object, identity: str, shown: str, now: datetime) -> tuple[User | None, str]:
    """The user whom the Secret lets in that showed this secret part; or None and why not. Pure."""
    data = {key: _decoded(value) for key, value in (secret.get("data") or {}).items()}
    if (secret.get("metadata") or {}).get("deletionTimestamp"):
        return None, "it is being deleted"
    if secret.get("type") != SECRET_TYPE:
        return None, f"its type is not {SECRET_TYPE}"
    if not hmac.compare_digest(data.get("token-secret", "").encode(), shown.encode()) or not shown:
        return None, "the secret differs"
    if data.get("token-id") != identity:
        return None, "its token-id is another one"
    if "expiration" in data:
        try:
            expired = times.parse(data["expiration"]) <= now
        except ValueError:
            return None, f"its expiration {data['expiration']!r} is no time"
        if expired:
            return None, f"it expired at {data['expiration']}"
    if data.get("usage-bootstrap-authentication") != "true":
        return None, "it is not for authentication (usage-bootstrap-authentication)"
    extra = [group.strip() for group in data.get("auth-extra-groups", "").split(",") if group.strip()]
    for group in extra:
        if not _EXTRA_GROUP.fullmatch(group):
            return None, f"{group!r} is no group of bootstrappers (auth-extra-groups)"
    return User(f"{USER_PREFIX}{identity}", (GROUP, *sorted(set(extra)))), ""


async def authenticate(registry: Registry, token: str, now: datetime) -> User | None:
    """The user of a bootstrap token, or None if it isn't one or isn't good."""
    parts = parse(token)
    if parts is None:
        return None
    identity, shown = parts
    try:
        secret = await registry.get(SECRETS, NAMESPACE, SECRET_PREFIX + identity)
    except StatusError:
        return None
    user, why_not = user_of(secret, identity, shown, now)
    if user is None:
        log.info("bootstrap token %s refused: %s", identity, why_not)
    return user


def _decoded(value: Any) -> str:
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
