"""What Gateways get written by the ingress: statuses, and the Services that they are reached by.

A thin shell beside `run`: decisions are `gateway`'s. Invariant: only what differs is written, and of a route's status
only our own entries.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from typing import Any

import orjson

from fairlead.api.errors import StatusError
from fairlead.api.kinds import SERVICES, Resource
from fairlead.client import Client
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.ingress.gateway.conditions import (
    CONTROLLER,
    class_status,
    gateway_status,
    policy_status,
    route_status,
)
from fairlead.ingress.gateway.gateways import CompiledGateways, differs
from fairlead.ingress.gateway.kinds import GROUP, served
from fairlead.ingress.world import World

log = logging.getLogger("fairlead.ingress")

Object = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name


def utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def discover(client: Client) -> tuple[Resource, ...]:
    """The kinds of Gateway API that the cluster serves, none if it has none. Raises StatusError."""
    try:
        group = orjson.loads(await client.get_raw(f"/apis/{GROUP}"))
        found = []
        for version in group["versions"]:
            listed = orjson.loads(await client.get_raw(f"/apis/{version['groupVersion']}"))
            found += [(version["version"], resource["name"]) for resource in listed["resources"]]
    except StatusError as error:
        if is_gone(error):
            return ()
        raise
    return served(found)


class GatewayWriter:
    """`say` what was compiled and is served now; `run` writes it."""

    def __init__(self, client: Client, world: World, now: Callable[[], str] = utc_now) -> None:
        self._client, self._world, self._now = client, world, now
        self._queue: WorkQueue[Key] = WorkQueue()
        self._said = CompiledGateways()
        self.kinds: tuple[Resource, ...] = ()

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._write, "gateway-status", workers=4)

    def say(self, compiled: CompiledGateways) -> None:
        """This is served: let every object and Service say so."""
        self._said = compiled
        objects = self._world.gateways
        for service in compiled.services:
            self._queue.add(("services", service["metadata"]["namespace"], service["metadata"]["name"]))
        for namespace, name in self._world.fronts:
            self._queue.add(("services", namespace, name))
        for name in objects.classes:
            self._queue.add(("gatewayclasses", "", name))
        for namespace, name in objects.gateways:
            self._queue.add(("gateways", namespace, name))
        for kind, found in objects.routes.items():
            for namespace, name in found:
                self._queue.add((f"{kind.lower()}s", namespace, name))
        for namespace, name in objects.policies:
            self._queue.add(("backendtlspolicies", namespace, name))

    async def _write(self, key: Key) -> None:
        plural, namespace, name = key
        if plural == "services":
            await self._write_service(namespace, name)
            return
        resource = next((kind for kind in self.kinds if kind.plural == plural), None)
        found = self._status(resource, namespace, name) if resource is not None else None
        if resource is None or found is None:
            return
        obj, status = found
        shown = obj.get("status") or {}
        if all(shown.get(field) == value for field, value in status.items()):
            return
        patch = {"metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}, "status": status}
        try:
            await self._client.patch(resource, name, patch, namespace, subresource="status")
        except StatusError as error:
            if not is_gone(error):
                raise

    def _status(self, resource: Resource, namespace: str, name: str) -> tuple[Object, Object] | None:
        """An object, and what its status should say; None if that is not ours to say."""
        objects = self._world.gateways
        if resource.plural == "gatewayclasses":
            found = objects.classes.get(name)
            if found is None or found["spec"].get("controllerName") != CONTROLLER:
                return None
            return found, class_status(found, self._now())
        if resource.plural == "gateways":
            gateway, says = objects.gateways.get((namespace, name)), self._said.gateways.get((namespace, name))
            if gateway is None or says is None:
                return None
            return gateway, gateway_status(gateway, says.conditions, says.listeners, [*says.addresses], self._now())
        if resource.plural == "backendtlspolicies":
            policy = objects.policies.get((namespace, name))
            ancestors = self._said.policies.get((namespace, name), ())
            if policy is None or not (ancestors or _ours(policy, "ancestors")):
                return None
            return policy, policy_status(policy, ancestors, self._now())
        route = objects.routes.get(resource.kind, {}).get((namespace, name))
        if route is None:
            return None
        parents = self._said.routes.get((resource.kind, namespace, name), ())
        if not parents and not _ours(route, "parents"):
            return None
        return route, route_status(route, parents, self._now())

    async def _write_service(self, namespace: str, name: str) -> None:
        wanted = next(
            (
                service
                for service in self._said.services
                if (service["metadata"]["namespace"], service["metadata"]["name"]) == (namespace, name)
            ),
            None,
        )
        found = self._world.fronts.get((namespace, name))
        try:
            if wanted is None:
                if found is not None:
                    await self._client.delete(SERVICES, name, namespace)
            elif found is None:
                await self._client.create(SERVICES, wanted, namespace)
            elif differs(wanted, found):
                await self._client.patch(SERVICES, name, wanted, namespace)
        except StatusError as error:
            if not is_gone(error) and error.reason != "AlreadyExists":
                raise


def _ours(obj: Object, field: str) -> bool:
    """Whether a status has an entry of ours."""
    return any(entry.get("controllerName") == CONTROLLER for entry in (obj.get("status") or {}).get(field) or ())
