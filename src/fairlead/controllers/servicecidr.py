"""ServiceCIDRs: the cluster's own, whether one can be used, and when one that was deleted may go.

Upstream: pkg/controller/servicecidrs, pkg/controlplane/controller/defaultservicecidr. Invariant: a ServiceCIDR with an
address in use that no other usable one has stays, and says why.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import IPADDRESSES, SERVICECIDRS
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import Context

Object = dict[str, Any]

DEFAULT = "kubernetes"
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_READY = "Kubernetes Service CIDR is ready"
_IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


def default(cidrs: Sequence[str]) -> Object:
    """The cluster's own, as it is made."""
    metadata = {"name": DEFAULT, "finalizers": [FINALIZER]}
    body = {"apiVersion": SERVICECIDRS.api_version, "kind": "ServiceCIDR", "metadata": metadata}
    return body | {"spec": {"cidrs": list(cidrs)}}


def is_in_use(cidr: Object, others: Sequence[Object], addresses: Sequence[Object]) -> bool:
    """Whether an address is in it that no other ServiceCIDR has which stays."""
    mine = _networks(cidr)
    staying = [
        network
        for other in others
        if other["metadata"]["name"] != cidr["metadata"]["name"] and not pods.is_terminating(other)
        for network in _networks(other)
    ]
    if all(any(own.version == other.version and own.subnet_of(other) for other in staying) for own in mine):  # type: ignore[arg-type]
        return False
    for address in addresses:
        try:
            ip = ipaddress.ip_address(address["metadata"]["name"])
        except ValueError:
            continue
        if any(ip in network for network in mine) and not any(ip in network for network in staying):
            return True
    return False


def condition(status: bool, now: str) -> Object:
    """Ready, or on its way out and still in use."""
    if status:
        return {"type": "Ready", "status": "True", "reason": "", "message": _READY, "lastTransitionTime": now}
    return {
        "type": "Ready",
        "status": "False",
        "reason": "Terminating",
        "message": _IN_USE,
        "lastTransitionTime": now,
    }


def _networks(cidr: Object) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in cidr["spec"]["cidrs"]]


class ServiceCIDRController:
    """Keeps them."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._cidrs, self._addresses = context.cache(SERVICECIDRS), context.cache(IPADDRESSES)
        self._queue: WorkQueue[str] = WorkQueue()
        context.on(SERVICECIDRS, self._on_cidr)
        context.on(IPADDRESSES, self._on_address)

    async def run(self) -> None:
        """Until cancelled."""
        self._queue.add(DEFAULT)
        await work(self._queue, self._reconcile, "servicecidr")

    def _on_cidr(self, before: Object | None, after: Object | None) -> None:
        self._queue.add((after or before or {})["metadata"]["name"])
        if before is None or after is None:  # another one may have become free, or needed
            self._add_leaving()

    def _on_address(self, before: Object | None, after: Object | None) -> None:
        if after is None:
            self._add_leaving()

    def _add_leaving(self) -> None:
        for cidr in self._cidrs.list():
            if pods.is_terminating(cidr):
                self._queue.add(cidr["metadata"]["name"])

    async def _reconcile(self, name: str) -> None:
        cidr = self._cidrs.get(name)
        try:
            if cidr is None:
                if name == DEFAULT:
                    await self._client.create(SERVICECIDRS, default(self._context.options.service_cidrs))
                return
            if pods.is_terminating(cidr):
                await self._let_go(cidr)
                return
            if FINALIZER not in (cidr["metadata"].get("finalizers") or []):
                finalizers = [*(cidr["metadata"].get("finalizers") or []), FINALIZER]
                cidr = await self._client.update(
                    SERVICECIDRS, {**cidr, "metadata": {**cidr["metadata"], "finalizers": finalizers}}
                )
            await self._say(cidr, True)
        except StatusError as error:
            if not (is_conflict(error) or is_gone(error) or error.reason == "AlreadyExists"):
                raise  # on a conflict the event that is coming brings it back

    async def _let_go(self, cidr: Object) -> None:
        finalizers = cidr["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        if await self._still_used(cidr):
            await self._say(cidr, False)
            return
        rest = [finalizer for finalizer in finalizers if finalizer != FINALIZER]
        await self._client.update(SERVICECIDRS, {**cidr, "metadata": {**cidr["metadata"], "finalizers": rest}})

    async def _still_used(self, cidr: Object) -> bool:
        """Asked of the cache, and if it says no, of the API: what was allocated last may not be in the cache."""
        others = self._cidrs.list()
        if is_in_use(cidr, others, self._addresses.list()):
            return True
        return is_in_use(cidr, others, (await self._client.list(IPADDRESSES))["items"])

    async def _say(self, cidr: Object, ready: bool) -> None:
        conditions = (cidr.get("status") or {}).get("conditions") or []
        wanted = condition(ready, times.render(self._context.now()))
        rest = [one for one in conditions if one["type"] != "Ready"]
        there: Object = next((one for one in conditions if one["type"] == "Ready"), {})
        if all(there.get(field) == wanted[field] for field in ("status", "reason", "message")):
            return
        await self._client.update_status(SERVICECIDRS, {**cidr, "status": {"conditions": [*rest, wanted]}})
