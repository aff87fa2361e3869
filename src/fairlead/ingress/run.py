"""The ingress: follows the API, keeps the data plane as the objects say, and says on the objects what it did.

The thin shell at the end: events → world → table → configuration → HAProxy; statuses and Events beside it. Invariants:
nothing is served before everything was listed once; what HAProxy refuses leaves the one before in place and is said;
while the API server is away, traffic goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CONFIGMAPS, INGRESSCLASSES, INGRESSES, SECRETS
from fairlead.client import Batch, Client, Watched, follow
from fairlead.client.backoff import Backoff
from fairlead.client.election import Election
from fairlead.client.events import EventRecorder
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.discovery.fold import WATCHED
from fairlead.discovery.model import ServiceKey
from fairlead.ingress import isolate, status
from fairlead.ingress.gateway.gateways import CompiledGateways
from fairlead.ingress.gateway.kinds import KINDS
from fairlead.ingress.gatewaywriter import GatewayWriter, discover
from fairlead.ingress.haproxy.config import Configuration, render
from fairlead.ingress.haproxy.process import DataPlaneError, Haproxy, Refused
from fairlead.ingress.haproxy.spares import FREE, Loaded, afresh, settle
from fairlead.ingress.ingresses import CONTROLLER, Problem
from fairlead.ingress.options import IngressOptions
from fairlead.ingress.servers import Place, assign, places_of
from fairlead.ingress.table import RouteTable, mark
from fairlead.ingress.world import World

log = logging.getLogger("fairlead.ingress")

Object = dict[str, Any]
COMPONENT = "fairlead-ingress"
_QUIET = 3.0  # s without a change before a reload is worth its while
_PATIENCE = 2.0  # s that what is there waits for ConfigMaps to be listed
_LOOK = 10.0  # s between looks whether the cluster has Gateway API by now
_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0  # s until what HAProxy refused is tried again


class Ingress:
    """`run` follows the API until cancelled. `fallback_pem`: what clients see whose server name nobody has a
    certificate for."""

    def __init__(self, options: IngressOptions, client: Client, haproxy: Haproxy, fallback_pem: str) -> None:
        self._options, self._client, self._haproxy = options, client, haproxy
        self._world = World(options, fallback_pem)
        self._recorder = EventRecorder(client, COMPONENT, options.node)
        self._table = RouteTable()
        self._places: Mapping[str, tuple[Place, ...]] = {}
        self._loaded = Loaded()
        self._told: set[Problem] = set()
        self._culprits: dict[str, isolate.Culprit] = {}
        self._speaks = False
        self._statuses: WorkQueue[tuple[str, str]] = WorkQueue()
        self._gateways = GatewayWriter(client, self._world)
        self._with_gateways = options.gateways and options.publish is not None
        self._listed = {"ingresses": False, "gateways": not self._with_gateways}
        self._policed = asyncio.Event()  # there is a policy, which may name ConfigMaps
        self._routes, self._changed = False, asyncio.Event()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        await self._recorder.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name="ingress-follower")
                group.create_task(self._keep_applied(), name="ingress-data-plane")
                group.create_task(self._keep_said(), name="ingress-writer")
                if self._with_gateways:
                    group.create_task(self._follow_gateways(), name="gateway-follower")
                    group.create_task(self._follow_authorities(), name="authority-follower")
        finally:
            await self._recorder.stop()

    async def _follow(self) -> None:
        watched = [Watched(r) for r in (*WATCHED, INGRESSES, INGRESSCLASSES, SECRETS)]
        async for batch in follow(self._client, *watched):
            self._take(batch)

    async def _keep_said(self) -> None:
        """Write statuses, Services and Events: always, or while this replica leads."""
        if not self._options.leader_elect:
            await self._say_all()
            return
        namespace = self._options.publish[0] if self._options.publish is not None else "kube-system"
        controller = self._options.classes.controller
        lease = COMPONENT if controller == CONTROLLER else f"{COMPONENT}-{mark(controller)[:8]}"
        await Election(self._client, lease, self._options.identity, namespace).run(self._say_all)

    async def _say_all(self) -> None:
        self._speaks, self._told = True, set()
        self._routes = True  # whatever was compiled before is said anew
        self._changed.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(work(self._statuses, self._write_status, "ingress-status", workers=2))
                group.create_task(self._gateways.run())
        finally:
            self._speaks = False

    async def _follow_gateways(self) -> None:
        """From when the cluster has Gateway API."""
        while True:
            try:
                self._gateways.kinds = await discover(self._client)
            except StatusError as error:
                log.debug("cannot see whether there is a Gateway API: %s", error)
            else:
                if self._gateways.kinds:
                    break
                self._begin("gateways")
            await asyncio.sleep(_LOOK)
        log.info("serving Gateway API: %s", ", ".join(kind.plural for kind in self._gateways.kinds))
        async for batch in follow(self._client, *(Watched(kind) for kind in self._gateways.kinds)):
            self._fold(batch, "gateways")
            if self._world.gateways.policies and not self._policed.is_set():
                self._policed.set()
                self._listed["authorities"] = False
                asyncio.get_running_loop().call_later(_PATIENCE, self._begin, "authorities")

    async def _follow_authorities(self) -> None:
        """Most clusters have no policy, and many ConfigMaps."""
        await self._policed.wait()
        async for batch in follow(self._client, Watched(CONFIGMAPS)):
            self._fold(batch, "authorities")

    def _fold(self, batch: Batch, what: str) -> None:
        """Objects beside those that services are made from."""
        self._routes |= self._world.take(batch.events, self._world.snapshot.synced).routes
        if batch.synced:
            self._begin(what)
            if self._routes:
                self._changed.set()

    def _take(self, batch: Batch) -> None:
        folded = self._world.take(batch.events, batch.synced)
        self._routes |= folded.routes
        if not batch.synced:
            return
        self._begin("ingresses")
        if folded.published:
            for key in self._world.ingresses:
                self._statuses.add(key)
        if self._routes or folded.endpoints:
            self._changed.set()

    def _begin(self, what: str) -> None:
        """That is listed; once all is, it can be served."""
        if not self._listed[what]:
            self._listed[what] = True
            self._routes = True
            self._changed.set()

    async def _keep_applied(self) -> None:
        """Whatever came while the last change was under way is the next one."""
        backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        gateways, unsaid = CompiledGateways(), False
        while True:
            await self._next_change()
            if not all(self._listed.values()):
                continue
            try:
                if self._routes:
                    self._routes, unsaid = False, True
                    gateways = self._compile()
                await self._apply()
            except (Refused, ValueError) as error:
                if await self._isolate(error):
                    self._routes = True
                    self._changed.set()
                    continue
                log.error("the configuration can't be used: %s; what was served before still is", error)
            except (DataPlaneError, OSError) as error:
                log.error("%s; what was served before still is", error)
            except Exception:
                log.exception("routes could not be made; what was served before still is")
                self._routes = True
            else:
                backoff.reset()
                if unsaid:
                    unsaid = False
                    self._gateways.say(gateways)
                continue
            await asyncio.sleep(backoff.next())
            self._changed.set()

    def _compile(self) -> CompiledGateways:
        """The table, but for what HAProxy refused before and would again."""
        table, compiled, gateways = self._world.table()
        self._culprits = isolate.still(self._culprits, table)
        self._table = isolate.without(table, self._culprits)
        self._tell((*compiled.problems, *isolate.problems(self._culprits)))
        for key in compiled.ours:
            self._statuses.add(key)
        return isolate.refuse(gateways, self._culprits)

    async def _isolate(self, error: Exception) -> bool:
        """Find whose fault it was; whether anybody was found."""

        async def refusal(table: RouteTable) -> str:
            try:
                return await self._haproxy.refusal(self._afresh(table)[1])
            except ValueError as wrong:
                return str(wrong)

        try:
            found = await isolate.culprits(self._table, refusal)
        except OSError as wrong:
            log.error("cannot try configurations: %s", wrong)
            return False
        for origin, culprit in found.items():
            log.error("%s is left out, for HAProxy refuses it: %s", origin, culprit.why)
        if not found:
            log.debug("nobody is found whose fault it is that: %s", error)
        self._culprits |= found
        return bool(found)

    async def _next_change(self) -> None:
        """Waits for one. When it is quiet, reserves that were lent are made good by a reload, before they run out."""
        low = len(self._loaded.reserves) <= len(self._loaded.lent)
        try:
            async with asyncio.timeout(_QUIET if low and self._loaded.lent else None):
                await self._changed.wait()
        except TimeoutError:
            self._loaded = Loaded()
        self._changed.clear()

    async def _apply(self) -> None:
        wanted = self._table.sections()
        current = self._haproxy.current
        loaded = settle(self._loaded, wanted) if current is not None else None
        places = self._places_for(loaded) if loaded is not None else None
        if loaded is None or places is None:
            loaded, configuration = self._afresh(self._table)
        else:
            configuration = render(self._table, places, self._options.settings, loaded)
            if current is not None and configuration.shape != current.shape:  # a reload it must be
                loaded, configuration = self._afresh(self._table)
        applied = await self._haproxy.apply(configuration)
        self._places, self._loaded = configuration.places, loaded
        self.ready.set()
        if applied.how != "nothing":
            told = (applied.how, len(wanted), applied.commands, applied.seconds * 1000)
            level = logging.INFO if applied.how == "reload" else logging.DEBUG
            log.log(level, "%s: %d backends, %d commands, %.1f ms", *told)

    def _afresh(self, table: RouteTable) -> tuple[Loaded, Configuration]:
        """What a reload makes of a table: everything gets its own. Raises ValueError."""
        loaded = afresh(table.sections())
        places = places_of(loaded.names, self._world.snapshot, self._places, self._options.node)
        return loaded, render(table, places, self._options.settings, loaded)

    def _places_for(self, loaded: Loaded) -> dict[str, tuple[Place, ...]] | None:
        """The places of what is loaded; None if an endpoint would have none. A reserve that nobody has any more is
        emptied."""
        emptied = {name: assign(self._places.get(name, FREE), ()) or FREE for name in loaded.reserves}
        before = {**self._places, **{name: self._places.get(name, FREE) for name in loaded.lent.values()}}
        places = places_of(loaded.names, self._world.snapshot, before, self._options.node)
        if any(len(places[name]) != len(before[name]) for name in places if name in before):
            return None
        return {**emptied, **places}

    # -- what is said on the objects -----------------------------------------------------------------------------------

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        """An Event for each new problem, from the one replica that speaks."""
        if not self._speaks:
            return
        now = set(problems)
        for problem in problems:
            if problem not in self._told:
                log.warning("%s %s/%s: %s", problem.kind, problem.namespace, problem.name, problem.message)
                obj = self._find(problem)
                if obj is not None:
                    self._recorder.event(obj, "Warning", problem.reason, problem.message)
        self._told = now

    def _find(self, problem: Problem) -> Object | None:
        world = self._world
        if problem.kind == "Ingress":
            found = world.ingresses.get((problem.namespace, problem.name))
            kind = INGRESSES
        elif problem.kind == "IngressClass":
            found, kind = world.classes.get(problem.name), INGRESSCLASSES
        elif problem.kind in world.gateways.routes:
            found = world.gateways.routes[problem.kind].get((problem.namespace, problem.name))
            kind = next(resource for resource in KINDS if resource.kind == problem.kind)
        else:
            return None
        return None if found is None else {**found, "apiVersion": kind.api_version, "kind": kind.kind}

    async def _write_status(self, key: tuple[str, str]) -> None:
        ingress = self._world.ingresses.get(key)
        if ingress is None or not self._options.classes.ours(ingress, self._world.classes):
            return
        if self._options.addresses:
            wanted = status.fixed(self._options.addresses)
        elif self._options.publish is not None:
            wanted = status.published(self._world.snapshot.services.get(ServiceKey(*self._options.publish)))
        else:
            return
        patch = status.status_of(ingress, wanted)
        if patch is None:
            return
        try:
            await self._client.patch(INGRESSES, key[1], patch, key[0], subresource="status")
        except StatusError as error:
            if not is_gone(error):
                raise
