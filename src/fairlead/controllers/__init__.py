"""The controllers: what makes the cluster as the objects say it should be.

Each is a file with a pure decision and a thin loop around it. They know the cluster only by the API. Invariant:
nothing here polls; every decision follows an event, or a time the API itself names.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Protocol

from fairlead.client.rest import Client
from fairlead.controllers.bootstrap import BootstrapController
from fairlead.controllers.context import Context, ControllerOptions
from fairlead.controllers.deployment import DeploymentController
from fairlead.controllers.endpoints import EndpointsController
from fairlead.controllers.endpointslice import EndpointSliceController
from fairlead.controllers.endpointslicemirroring import EndpointSliceMirroringController
from fairlead.controllers.garbage import GarbageCollector
from fairlead.controllers.loadbalancer import LoadBalancerController
from fairlead.controllers.namespace import NamespaceController
from fairlead.controllers.nodeaddresses import NodeAddressesController
from fairlead.controllers.nodelifecycle import NodeLifecycleController
from fairlead.controllers.podgc import PodGCController
from fairlead.controllers.replicaset import ReplicaSetController
from fairlead.controllers.scheduler import Scheduler
from fairlead.controllers.serviceaccount import ServiceAccountController
from fairlead.controllers.servicecidr import ServiceCIDRController

__all__ = ["Context", "ControllerOptions", "run_controllers"]

log = logging.getLogger("fairlead.controllers")


class _Controller(Protocol):
    async def run(self) -> None:
        """Until cancelled."""


_ALL = (
    BootstrapController,
    ServiceAccountController,
    NodeAddressesController,
    Scheduler,
    ReplicaSetController,
    DeploymentController,
    EndpointSliceController,
    EndpointSliceMirroringController,
    EndpointsController,
    NodeLifecycleController,
    NamespaceController,
    PodGCController,
)
_LATER = (
    GarbageCollector,
    ServiceCIDRController,
)
"""Those that need the kinds that are followed later; the collector must know all dependents before it decides."""

_WORKLOADS = "fairlead.controllers.workloads"  # loaded beside the cluster's start, not before it


async def run_controllers(client: Client, options: ControllerOptions) -> None:
    """Run all controllers until cancelled, over one shared set of caches (one watch per kind).

    They start once what they follow is listed; until the API server can be reached they wait, and say so once.
    """
    context = Context(client, options)
    controllers: list[_Controller] = [make(context) for make in _ALL]
    if options.load_balancer_pool:
        controllers.append(LoadBalancerController.within(context, options.load_balancer_pool))
    later: list[_Controller] = [make(context) for make in _LATER]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(context.informer.run(), name="informer")
            await context.informer.synced.wait()
            told = list(context.recorders)
            for recorder in told:
                await recorder.start()
            for controller in controllers:
                group.create_task(controller.run(), name=type(controller).__name__)
            workloads = await asyncio.to_thread(importlib.import_module, _WORKLOADS)
            later += [make(context) for make in workloads.CONTROLLERS]
            for recorder in context.recorders:
                if recorder not in told:
                    await recorder.start()
            group.create_task(context.later.run(), name="later-informer")
            await context.later.synced.wait()
            group.create_task(context.customs.run(), name="custom-kinds")
            await context.customs.synced()
            for follower in later:
                group.create_task(follower.run(), name=type(follower).__name__)
            log.debug("%d controllers run", len(controllers) + len(later))
    finally:
        await asyncio.gather(*(r.stop() for r in context.recorders), return_exceptions=True)
