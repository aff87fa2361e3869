"""What every pod worker needs of the node around it: the API, the runtime, the network, the clock, the Services.

Made once by the kubelet. Invariant: nothing here knows a pod's state.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import (
    CONFIGMAPS,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    SECRETS,
    SERVICEACCOUNTS,
    Resource,
)
from fairlead.client import Client
from fairlead.client.events import EventRecorder
from fairlead.discovery.confirmed import Standing
from fairlead.discovery.model import ServiceSnapshot
from fairlead.kubelet.environment import Sources
from fairlead.kubelet.imagepull import Images, credentials
from fairlead.kubelet.options import KubeletOptions, PodNetwork, ServiceSource
from fairlead.kubelet.runtime import Runtime
from fairlead.kubelet.volumes import Fetcher

Object = dict[str, Any]
_TOKEN_USE = 0.8
_SERVICES_POLL = 0.1  # only for a source that does not call `services_changed`


def utc_now() -> datetime:
    """The present, for everything that has no better clock."""
    return datetime.now(UTC)


class Surroundings:
    """One node's."""

    def __init__(
        self,
        options: KubeletOptions,
        client: Client,
        network: PodNetwork,
        runtime: Runtime,
        recorder: EventRecorder,
        *,
        services: ServiceSource,
        allocatable: Mapping[str, str],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.options, self.client, self.network, self.runtime = options, client, network, runtime
        self.recorder, self.allocatable, self.now = recorder, allocatable, now
        self.standing = Standing(options.node_name)
        self._services = services
        self._services_changed = asyncio.Event()
        self._tokens: dict[tuple[str, str, int], tuple[str, str, datetime]] = {}
        self.images = Images(options.images_dir)
        self.fetch = Fetcher(self._configmap, self._secret, self._token, self._claim, self._persistent)

    def services_changed(self) -> None:
        """The snapshot is another one."""
        self._services_changed.set()

    def ready_nodes(self) -> list[str]:
        """The nodes that new connections may come by."""
        return [node.name for node in self._services().nodes.values() if node.ready]

    async def services(self) -> ServiceSnapshot:
        """The Services, once they have been listed."""
        while not (snapshot := self._services()).synced:
            self._services_changed.clear()
            try:
                async with asyncio.timeout(_SERVICES_POLL):
                    await self._services_changed.wait()
            except TimeoutError:
                continue
        return snapshot

    async def sources(self, namespace: str, configmaps: Iterable[str], secrets: Iterable[str]) -> Sources:
        """The ConfigMaps and Secrets of these names; those that are not there are None. Raises StatusError."""
        wanted = [(CONFIGMAPS, name) for name in configmaps] + [(SECRETS, name) for name in secrets]
        found = await asyncio.gather(*(self._find(resource, namespace, name) for resource, name in wanted))
        maps: dict[str, Object | None] = {}
        decoded: dict[str, Mapping[str, bytes] | None] = {}
        for (resource, name), obj in zip(wanted, found, strict=True):
            if resource is CONFIGMAPS:
                maps[name] = obj
            else:
                decoded[name] = None if obj is None else secret_data(obj)
        return Sources(maps, decoded)

    async def _find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        try:
            return await self.client.get(resource, name, namespace)
        except StatusError as error:
            if error.code == 404:
                return None
            raise

    async def pull_credentials(self, pod: Object) -> tuple[Object | None, list[str]]:
        """What the pod's imagePullSecrets hold, and the names of those that are not there. Raises StatusError."""
        names = [ref["name"] for ref in pod["spec"].get("imagePullSecrets") or () if ref.get("name")]
        found = [await self._find(SECRETS, pod["metadata"]["namespace"], name) for name in names]
        there = [(secret.get("type", ""), secret_data(secret)) for secret in found if secret is not None]
        return credentials(there), [name for name, secret in zip(names, found, strict=True) if secret is None]

    def _configmap(self, namespace: str, name: str) -> Awaitable[Object]:
        return self.client.get(CONFIGMAPS, name, namespace)

    def _secret(self, namespace: str, name: str) -> Awaitable[Object]:
        return self.client.get(SECRETS, name, namespace)

    def _claim(self, namespace: str, name: str) -> Awaitable[Object]:
        return self.client.get(PERSISTENTVOLUMECLAIMS, name, namespace)

    def _persistent(self, name: str) -> Awaitable[Object]:
        return self.client.get(PERSISTENTVOLUMES, name)

    def forget_tokens(self, uid: str) -> None:
        """The pod is gone."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]

    async def _token(self, pod: Object, audience: str, seconds: int) -> tuple[str, str]:
        """A token bound to the pod: the one we have until four fifths of its life are over."""
        metadata = pod["metadata"]
        key = (metadata["uid"], audience, seconds)
        known = self._tokens.get(key)
        if known is not None and self.now() < known[2]:
            return known[0], known[1]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": seconds,
                "boundObjectRef": bound,
                **({"audiences": [audience]} if audience else {}),
            },
        }
        name = pod["spec"].get("serviceAccountName") or "default"
        answer = await self.client.create_subresource(SERVICEACCOUNTS, name, "token", request, metadata["namespace"])
        status = answer.get("status") or {}
        token, expires = str(status["token"]), str(status.get("expirationTimestamp") or "")
        life = times.parse(expires) - self.now() if expires else timedelta(seconds=seconds)
        self._tokens[key] = (token, expires, self.now() + life * _TOKEN_USE)
        return token, expires


def secret_data(secret: Object) -> dict[str, bytes]:
    """A Secret's data, decoded."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
