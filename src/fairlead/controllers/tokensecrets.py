"""Secrets of type `kubernetes.io/service-account-token`: a token that does not have to be asked for again.

Upstream: pkg/controller/serviceaccount/tokens_controller.go. The token is bound to its Secret: with the Secret it ends.
Invariant: a Secret whose ServiceAccount is not there, or is another one of that name, goes.
"""

from __future__ import annotations

import base64
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import SECRETS, SERVICEACCOUNTS
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import key_of

Object = dict[str, Any]

TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
SECONDS = 2**32  # the longest that can be asked for: 136 years


def account_of(secret: Object) -> str:
    """The name of the ServiceAccount that a Secret says to be of; empty if it says none."""
    return str((secret["metadata"].get("annotations") or {}).get(NAME) or "")


def belongs(secret: Object, account: Object | None) -> bool:
    """Whether a Secret may stay: the account that it names is there, and is the one it has a token of, if any."""
    if account is None:
        return False
    uid = (secret["metadata"].get("annotations") or {}).get(UID)
    return not uid or bool(uid == account["metadata"]["uid"])


def completed(secret: Object, account: Object, ca_pem: str, token: str) -> Object:
    """The Secret with all that it should hold; `token` where it has none yet."""
    metadata, data = secret["metadata"], dict(secret.get("data") or {})
    annotations = {**(metadata.get("annotations") or {}), UID: account["metadata"]["uid"]}
    held = {"namespace": metadata["namespace"], "ca.crt": ca_pem}
    data |= {key: base64.b64encode(text.encode()).decode() for key, text in held.items() if text}
    if not data.get("token"):
        data["token"] = base64.b64encode(token.encode()).decode()
    return {**secret, "metadata": {**metadata, "annotations": annotations}, "data": data}


class TokenSecretController:
    """Fills such Secrets, and deletes those that are of nobody. Of Secrets only the metadata is kept in memory; what is
    meant is read when it is looked at."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._queue: WorkQueue[str] = WorkQueue()
        context.on(SECRETS, self._on_secret)
        context.on(SERVICEACCOUNTS, self._on_account)

    async def run(self) -> None:
        """Until cancelled."""
        for secret in self._context.cache(SECRETS):
            self._on_secret(None, secret)
        await work(self._queue, self._reconcile, "tokensecrets")

    def _on_secret(self, before: Object | None, after: Object | None) -> None:
        if after is not None and account_of(after):
            self._queue.add(key_of(after))

    def _on_account(self, before: Object | None, after: Object | None) -> None:
        if before is None or after is not None:
            return
        for secret in self._context.cache(SECRETS).list(before["metadata"]["namespace"]):
            if account_of(secret) == before["metadata"]["name"]:
                self._queue.add(key_of(secret))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        try:
            secret = await self._client.get(SECRETS, name, namespace)
            if secret.get("type") != TYPE or pods.is_terminating(secret):
                return
            account = await self._account(account_of(secret), namespace)
            if account is None or not belongs(secret, account):
                conditions = {key: secret["metadata"][key] for key in ("uid", "resourceVersion")}
                await self._client.delete(SECRETS, name, namespace, preconditions=conditions)
                return
            token = "" if (secret.get("data") or {}).get("token") else await self._token(secret, account)
            wanted = completed(secret, account, self._context.options.ca_pem, token)
            if wanted != secret:
                await self._client.update(SECRETS, wanted, namespace)
        except StatusError as error:
            if not is_gone(error) and not is_conflict(error):  # then there is an event that brings us back
                raise

    async def _account(self, name: str, namespace: str) -> Object | None:
        """Asked of the server: the cache may be behind, and what is not there takes the Secret with it."""
        try:
            return await self._client.get(SERVICEACCOUNTS, name, namespace)
        except StatusError as error:
            if not is_gone(error):
                raise
            return None

    async def _token(self, secret: Object, account: Object) -> str:
        metadata = secret["metadata"]
        bound = {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": SECONDS, "boundObjectRef": bound},
        }
        name, namespace = account["metadata"]["name"], metadata["namespace"]
        made = await self._client.create_subresource(SERVICEACCOUNTS, name, "token", body, namespace)
        return str(made["status"]["token"])
