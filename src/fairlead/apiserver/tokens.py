"""Service-account tokens: issued for TokenRequest, verified on requests. JWTs, ES256.

Beside authentication. Invariant: a token is good only while its service account (and the object it is bound to) still
is the very one it was issued for; what was verified is remembered for a few seconds, never longer than the token lives.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fairlead.api import errors
from fairlead.api.kinds import NODES, PODS, SECRETS, SERVICEACCOUNTS
from fairlead.registry import Registry, RequestContext, User

MIN_SECONDS, DEFAULT_SECONDS, MAX_SECONDS = 600, 3600, 1 << 32
REMEMBER_SECONDS = 10.0
REMEMBERED = 1024
_BINDABLE = {("v1", "Pod"): PODS, ("v1", "Secret"): SECRETS, ("v1", "Node"): NODES}
_CLAIM = "kubernetes.io"
_PREFIX = "authentication.kubernetes.io"


class TokenIssuer:
    """Signs and verifies with one key. `issuer` is also the audience the API server itself takes."""

    def __init__(self, registry: Registry, private_key: bytes, issuer: str) -> None:
        from fairlead.apiserver import pki  # brings cryptography with it, which costs 50 ms

        self._registry, self._key, self.issuer = registry, private_key, issuer
        self._public = pki.public_key_of(private_key)
        self._verified: OrderedDict[tuple[str, ...], tuple[User, float]] = OrderedDict()

    async def request(self, namespace: str, name: str, body: dict[str, Any], ctx: RequestContext) -> dict[str, Any]:
        """TokenRequest: the body with its status filled in. Raises 404 (no such account), 409 (bound object), 422."""
        import jwt

        account = await self._registry.get(SERVICEACCOUNTS, namespace, name)
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            what = "less than 10 minutes" if seconds < MIN_SECONDS else "larger than 2^32 seconds"
            wrong = errors.invalid("spec.expirationSeconds", seconds, f"may not specify a duration {what}")
            raise errors.unprocessable("TokenRequest", "authentication.k8s.io", name, [wrong])
        audiences = spec.get("audiences") or [self.issuer]
        now = int(ctx.now.timestamp())
        claim: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
        }
        if spec.get("boundObjectRef"):
            claim |= await self._bound(namespace, spec["boundObjectRef"])
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": secrets.token_hex(16),
            _CLAIM: claim,
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        token = jwt.encode(claims, self._key, algorithm="ES256")
        until = datetime.fromtimestamp(now + seconds, ctx.now.tzinfo).strftime("%Y-%m-%dT%H:%M:%SZ")
        body["metadata"] = {**(body.get("metadata") or {}), "name": name, "namespace": namespace}
        body["spec"] = {**spec, "audiences": audiences, "expirationSeconds": seconds}
        body["status"] = {"token": token, "expirationTimestamp": until}
        return body

    async def _bound(self, namespace: str, reference: dict[str, Any]) -> dict[str, Any]:
        resource = _BINDABLE.get((reference.get("apiVersion") or "", reference.get("kind") or ""))
        if resource is None:
            raise errors.bad_request(
                f"cannot bind token for serviceaccount to a type of object that is not supported: "
                f"{reference.get('apiVersion')}, Kind={reference.get('kind')}; supported are v1 Pod, Secret and Node"
            )
        name = reference.get("name") or ""
        meta = (await self._registry.get(resource, namespace if resource.namespaced else "", name))["metadata"]
        if reference.get("uid") and reference["uid"] != meta["uid"]:
            why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record"
            raise errors.conflict(resource.plural, resource.group, name, f"{why} ({meta['uid']})")
        return {resource.singular: {"name": name, "uid": meta["uid"]}}

    async def verify(self, token: str, now: float, audiences: Sequence[str] = ()) -> User | None:
        """Whose token it is, or None if it isn't ours, is for none of `audiences` (none given: ours), isn't valid or
        isn't good any more. `now` is POSIX time."""
        key = (token, *audiences)
        known = self._verified.get(key)
        if known and now < known[1]:
            return known[0]
        import jwt

        try:
            # The clock is an argument, so expiry is checked below and not by the library.
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                audience=list(audiences) or [self.issuer],
                issuer=self.issuer,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "sub"]},
            )
        except jwt.InvalidTokenError:
            return None
        if not isinstance(claims["exp"], int) or claims["exp"] <= now or claims.get("nbf", 0) > now + 60:
            return None
        user = await self._user(claims)
        if user is not None:
            self._verified[key] = (user, min(now + REMEMBER_SECONDS, claims["exp"]))
            if len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)
        return user

    async def _user(self, claims: dict[str, Any]) -> User | None:
        claim = claims.get(_CLAIM) or {}
        namespace, account = claim.get("namespace", ""), claim.get("serviceaccount") or {}
        extra = {f"{_PREFIX}/credential-id": [f"JTI={claims.get('jti', '')}"]}
        try:
            current = await self._registry.get(SERVICEACCOUNTS, namespace, account.get("name", ""))
            if current["metadata"]["uid"] != account.get("uid"):
                return None
            for resource in _BINDABLE.values():
                bound = claim.get(resource.singular)
                if bound:
                    place = namespace if resource.namespaced else ""
                    there = await self._registry.get(resource, place, bound.get("name", ""))
                    if there["metadata"]["uid"] != bound.get("uid"):
                        return None
                    extra[f"{_PREFIX}/{resource.singular}-name"] = [bound["name"]]
                    extra[f"{_PREFIX}/{resource.singular}-uid"] = [bound["uid"]]
        except errors.StatusError:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(str(claims["sub"]), groups, account["uid"], extra)

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set, for others to verify our tokens with."""
        from jwt.algorithms import ECAlgorithm

        algorithm = ECAlgorithm(ECAlgorithm.SHA256)
        key = ECAlgorithm.to_jwk(algorithm.prepare_key(self._public), as_dict=True)
        return {"keys": [{**key, "use": "sig", "alg": "ES256"}]}
