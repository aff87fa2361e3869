"""Who is asking: client certificates, static tokens, service-account tokens, bootstrap tokens.

First step of every request. Invariant: a request either has a user that some credential proved, or is anonymous; a
credential that was given and does not hold is an error, never a fall-back to anonymous.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairlead.api import errors
from fairlead.apiserver import bootstraptokens
from fairlead.apiserver.tokens import TokenIssuer
from fairlead.registry import Registry, User
from fairlead.registry.requests import utc_now

AUTHENTICATED = "system:authenticated"
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Authenticator:
    """Asks each kind of credential in upstream's order: certificate, then bearer token."""

    def __init__(
        self, tokens: Mapping[str, User], issuer: TokenIssuer | None, registry: Registry | None = None
    ) -> None:
        self._tokens = [(token.encode(), _authenticated(user)) for token, user in tokens.items()]
        self._issuer, self._registry = issuer, registry

    async def authenticate(self, certificate: Mapping[str, Any] | None, authorization: str) -> User:
        """The user; ANONYMOUS when no credential was given. Raises 401 when one was and does not hold.

        `certificate` is the peer's, already verified against the authority, as `SSLSocket.getpeercert()` gives it.
        """
        if certificate:
            user = of_certificate(certificate)
            if user is not None:
                return user
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return ANONYMOUS
        found = self._static(token)
        if found is None and self._issuer is not None and token.count(".") == 2:
            found = await self._issuer.verify(token, time.time())
        found = found or await self._bootstrapper(token)
        if found is None:
            raise errors.unauthorized()
        return found

    async def review(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        """Whose token it is and for which of `audiences` (none given: the API server's own) it is good; None if it is
        not good, or for none of them."""
        ours = [self._issuer.issuer] if self._issuer is not None else []
        good: list[str] = []
        for audience in audiences or ours:
            user = (self._static(token) or await self._bootstrapper(token)) if audience in ours else None
            if user is None and self._issuer is not None and token.count(".") == 2:
                user = await self._issuer.verify(token, time.time(), [audience])
            if user is not None:
                found, good = user, [*good, audience]
        return (found, good) if good else None

    async def _bootstrapper(self, token: str) -> User | None:
        if self._registry is None:
            return None
        user = await bootstraptokens.authenticate(self._registry, token, utc_now())
        return _authenticated(user) if user is not None else None

    def _static(self, token: str) -> User | None:
        encoded, found = token.encode(), None
        for known, user in self._tokens:  # all of them, each in constant time
            if hmac.compare_digest(known, encoded):
                found = user
        return found


def of_certificate(certificate: Mapping[str, Any]) -> User | None:
    """Common name → user, organizations → groups; None without a common name."""
    subject: Iterable[Iterable[tuple[str, str]]] = certificate.get("subject") or ()
    pairs = [pair for rdn in subject for pair in rdn]
    name = next((value for key, value in pairs if key == "commonName"), "")
    if not name:
        return None
    groups = tuple(value for key, value in pairs if key == "organizationName")
    return _authenticated(User(name, groups))


def _authenticated(user: User) -> User:
    if AUTHENTICATED in user.groups:
        return user
    return User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)
