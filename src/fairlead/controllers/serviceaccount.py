"""In every namespace: the ServiceAccount `default` and the ConfigMap kube-root-ca.crt.

Upstream: pkg/controller/serviceaccount, pkg/controller/certificates/rootcacertpublisher. Invariant: both come back
when deleted, and the certificate authority is what this cluster's is, whatever someone wrote there.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS, Resource
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import Context

Object = dict[str, Any]

ROOT_CA = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


def root_ca(namespace: str, ca_pem: str) -> Object:
    """The ConfigMap as it should be."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ROOT_CA,
            "namespace": namespace,
            "annotations": {"kubernetes.io/description": _DESCRIPTION},
        },
        "data": {"ca.crt": ca_pem},
    }


class ServiceAccountController:
    """Makes and mends them."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._queue: WorkQueue[str] = WorkQueue()
        context.informer.on(NAMESPACES, self._on_namespace)
        context.informer.on(SERVICEACCOUNTS, self._on_account)
        context.informer.on(CONFIGMAPS, self._on_config_map)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "serviceaccount")

    def _on_namespace(self, before: Object | None, after: Object | None) -> None:
        if after is not None:
            self._queue.add(after["metadata"]["name"])

    def _on_account(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None and before["metadata"]["name"] == "default":
            self._queue.add(before["metadata"]["namespace"])

    def _on_config_map(self, before: Object | None, after: Object | None) -> None:
        obj = after or before or {}
        if obj["metadata"]["name"] == ROOT_CA:
            self._queue.add(obj["metadata"]["namespace"])

    async def _reconcile(self, name: str) -> None:
        namespace = self._context.cache(NAMESPACES).get(name)
        if namespace is None or pods.is_terminating(namespace):
            return
        if self._context.cache(SERVICEACCOUNTS).get("default", name) is None:
            account = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": name},
            }
            await self._create(SERVICEACCOUNTS, account)
        if not self._context.options.ca_pem:
            return
        wanted = root_ca(name, self._context.options.ca_pem)
        there = self._context.cache(CONFIGMAPS).get(ROOT_CA, name)
        if there is None:
            await self._create(CONFIGMAPS, wanted)
        elif there.get("data") != wanted["data"]:
            await self._client.update(CONFIGMAPS, {**there, "data": wanted["data"]})

    async def _create(self, resource: Resource, obj: Object) -> None:
        try:
            await self._client.create(resource, obj)
        except StatusError as error:
            ending = error.code == 403 and "being terminated" in error.message
            if error.reason != "AlreadyExists" and not ending and error.code != 404:
                raise
