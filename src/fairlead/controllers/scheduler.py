"""Binds pods to nodes: acts on what `placement` decides.

Upstream: pkg/scheduler. Invariant: a decision counts at once, before the server has confirmed it, so no room is given
away twice; a pod that fits nowhere is tried again when something changes that could help, never by a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import NAMESPACES, NODES, PODDISRUPTIONBUDGETS, PODS
from fairlead.api.storage import claims_of
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue
from fairlead.controllers import placement, podaffinity, pods, podvolumes, preemption
from fairlead.controllers.claimbinding import ClaimBinding
from fairlead.controllers.context import Context

Object = dict[str, Any]
log = logging.getLogger("fairlead.controllers")

_AT_ONCE = 64  # bindings under way


class Scheduler:
    """Finds a node for every pod that has none and is for this scheduler."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._pods = context.cache(PODS)
        self._states: dict[str, placement.NodeState] = {}
        self._homeless: dict[str, list[Object]] = {}  # pods on nodes that are not known (yet)
        self._assumed: dict[str, tuple[str, Object]] = {}  # uid → node, pod: bound by us, not yet in the cache
        self._waiting: set[str] = set()  # keys of pods that fitted nowhere
        self._waiting_for_pods: set[str] = set()  # those among them that another pod's coming may help
        self._nominated: dict[str, tuple[str, Object]] = {}  # uid → node, pod: others were told to make room there
        self._recorder = context.recorder("default-scheduler")
        self._queue: WorkQueue[str] = WorkQueue(base=0.1, cap=10.0)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._writing: set[asyncio.Task[None]] = set()
        self._claims = ClaimBinding(context, self._retry)
        context.informer.on(NODES, self._on_node)
        context.informer.on(PODS, self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                key = await self._queue.get()
                try:
                    await self._schedule(key)
                except Exception:
                    log.exception("scheduler: %s failed; trying again", key)
                    self._queue.add_rate_limited(key)
                finally:
                    self._queue.done(key)
        finally:
            self._queue.close()
            for task in self._writing:
                task.cancel()

    # -- what happens ----------------------------------------------------------------------------------------------

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        if after is None:
            assert before is not None
            gone = self._states.pop(before["metadata"]["name"], None)
            if gone is not None and gone.pods:
                self._homeless[gone.name] = list(gone.pods.values())
            return
        name = after["metadata"]["name"]
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = placement.NodeState(after)
            for pod in self._homeless.pop(name, []):
                state.add(pod)
            self._retry()
        else:
            old = (state.allocatable, state.labels, state.taints, (state.node.get("spec") or {}).get("unschedulable"))
            state.set_node(after)
            new = (state.allocatable, state.labels, state.taints, (after.get("spec") or {}).get("unschedulable"))
            if old != new:
                self._retry()

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        pod = after if after is not None else before
        assert pod is not None
        uid, key = pod["metadata"]["uid"], _key(pod)
        if after is None or pods.node_name(after) or before is None or before["metadata"]["uid"] != uid:
            self._nominated.pop((before or pod)["metadata"]["uid"], None)
        if before is not None and (after is None or before["metadata"]["uid"] != uid):
            self._leave(before)
            self._waiting.discard(key)
        if after is None:
            return
        node = pods.node_name(after)
        if node:
            self._assumed.pop(uid, None)
            self._waiting.discard(key)
            if pods.is_finished(after):
                self._leave(after)
            elif node in self._states:
                self._states[node].add(after)
                for waiting in self._waiting_for_pods:
                    self._queue.add(waiting)
                self._waiting_for_pods.clear()
            else:
                homes = self._homeless.setdefault(node, [])
                homes[:] = [p for p in homes if p["metadata"]["uid"] != uid] + [after]
        elif self._is_ours(after):
            changed = (
                before is None
                or before["spec"] != after["spec"]
                or before["metadata"].get("labels") != after["metadata"].get("labels")
            )
            if uid not in self._assumed and (changed or key not in self._waiting):
                self._queue.add(key)

    def _leave(self, pod: Object) -> None:
        """The pod takes no room any more."""
        self._claims.wake()
        uid = pod["metadata"]["uid"]
        node = pods.node_name(pod)
        assumed = self._assumed.pop(uid, None)
        if assumed is not None:
            node = assumed[0]
        if node in self._states and uid in self._states[node].pods:
            self._states[node].remove(uid)
            self._retry()
        homes = self._homeless.get(node)
        if homes:
            homes[:] = [p for p in homes if p["metadata"]["uid"] != uid]

    def _retry(self) -> None:
        """Something changed that may help those that wait."""
        for key in sorted(self._waiting, key=self._importance):
            self._queue.add(key)
        self._waiting.clear()
        self._waiting_for_pods.clear()

    def _importance(self, key: str) -> tuple[int, str]:
        namespace, _, name = key.partition("/")
        pod = self._pods.get(name, namespace)
        return preemption.importance(pod) if pod is not None else (1, "")

    def _is_ours(self, pod: Object) -> bool:
        spec = pod["spec"]
        return (
            not spec.get("nodeName")
            and not pods.is_terminating(pod)
            and not pods.is_finished(pod)
            and not spec.get("schedulingGates")
            and spec.get("schedulerName", "default-scheduler") == self._context.options.scheduler_name
        )

    # -- one pod ---------------------------------------------------------------------------------------------------

    async def _schedule(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        pod = self._pods.get(name, namespace)
        if pod is None or not self._is_ours(pod) or pod["metadata"]["uid"] in self._assumed:
            return
        volumes = self._volumes_of(key, pod)
        if volumes is None:
            return
        namespaces = _NamespaceLabels(self._context)
        with self._room_kept(pod):
            states, group = list(self._states.values()), placement.spread_group(pod)
            node, why = placement.place(pod, states, group, namespaces, volumes.bar)
            open_to_it = [state for state in states if not volumes.bar(state)] if not node else []
            choice = self._preemption(pod, open_to_it, namespaces) if open_to_it else None
        if not node:
            self._waiting.add(key)
            if choice is not None:
                self._nominated[pod["metadata"]["uid"]] = (choice.node, pod)
                self._spawn(self._preempt(pod, choice))
            if podaffinity.depends_on_pods(pod):
                self._waiting_for_pods.add(key)
            self._spawn(self._say_why_not(pod, why))
            return
        self._assumed[pod["metadata"]["uid"]] = (node, pod)
        self._states[node].add(pod)
        if volumes.waiting:
            self._spawn(self._bind_volumes(key, pod, node, volumes.choose(self._states[node]) or []))
            return
        await self._slots.acquire()
        self._spawn(self._bind(key, pod, node))

    def _volumes_of(self, key: str, pod: Object) -> podvolumes.PodVolumes | None:
        """What the pod's claims ask of its place; None if it has to wait for them wherever it goes."""
        if not claims_of(pod):
            return podvolumes.PodVolumes()
        if not self._claims.synced:
            self._waiting.add(key)
            self._spawn(self._claims.wait_until_synced())
            return None
        placed = [other for state in self._states.values() for other in state.pods.values()]
        volumes = self._claims.of(pod, placed)
        if not volumes.refusal:
            return volumes
        self._waiting.add(key)
        count = len(self._states)
        why = f"0/{count} nodes are available: {volumes.refusal}." if count else placement.explain(0, {})
        self._spawn(self._say_why_not(pod, why))
        return None

    async def _bind_volumes(self, key: str, pod: Object, node: str, choices: Sequence[podvolumes.Choice]) -> None:
        """The pod's claims first, then the pod."""
        uid = pod["metadata"]["uid"]
        try:
            wanted = await self._claims.bind(choices, node, lambda: uid in self._assumed)
        except (StatusError, TimeoutError) as error:
            said = "context deadline exceeded" if isinstance(error, TimeoutError) else str(error)
            self._give_up(uid, node)
            if not isinstance(error, StatusError) or not is_conflict(error):
                text = f'running PreBind plugin "VolumeBinding": binding volumes: {said}'
                self._recorder.event(pod, "Warning", "FailedScheduling", text)
            self._queue.add_rate_limited(key)
            return
        if wanted:
            await self._slots.acquire()
            await self._bind(key, pod, node)

    def _give_up(self, uid: str, node: str) -> None:
        """The pod does not go to that node after all."""
        if self._assumed.pop(uid, None) is not None and node in self._states:
            self._states[node].remove(uid)
            self._retry()

    def _preemption(
        self, pod: Object, states: Sequence[placement.NodeState], namespaces: Mapping[str, Mapping[str, str]]
    ) -> preemption.Choice | None:
        budgets = self._context.cache(PODDISRUPTIONBUDGETS)
        return preemption.choose(pod, states, namespaces, list(budgets))

    @contextlib.contextmanager
    def _room_kept(self, pod: Object) -> Iterator[None]:
        """For as long, pods that others made room for and that are as important count as being there."""
        kept = [
            (self._states[node], other)
            for uid, (node, other) in self._nominated.items()
            if uid != pod["metadata"]["uid"]
            and node in self._states
            and preemption.priority_of(other) >= preemption.priority_of(pod)
        ]
        for state, other in kept:
            state.add(other)
        try:
            yield
        finally:
            for state, other in kept:
                state.remove(other["metadata"]["uid"])

    async def _preempt(self, pod: Object, choice: preemption.Choice) -> None:
        """Tell the pods that must go so, end them, and say where the pod is going to be."""
        metadata, at = pod["metadata"], times.render(self._context.now())
        said = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{pod['spec'].get('schedulerName')}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": at,
        }
        for victim in choice.victims:
            goes = victim["metadata"]
            patch = {"metadata": {"uid": goes["uid"]}, "status": {"conditions": [said]}}
            where = goes["namespace"]
            try:
                await self._client.patch(PODS, goes["name"], patch, where, "strategic", subresource="status")
                await self._client.delete(PODS, goes["name"], where, preconditions={"uid": goes["uid"]})
            except StatusError as error:
                if not is_gone(error) and not is_conflict(error):
                    log.warning("scheduler: cannot preempt %s: %s", _key(victim), error)
                continue
            message = f"Preempted by pod {metadata['uid']} on node {choice.node}"
            self._recorder.event(victim, "Normal", "Preempted", message)
        if (pod.get("status") or {}).get("nominatedNodeName") == choice.node:
            return
        named = {"metadata": {"uid": metadata["uid"]}, "status": {"nominatedNodeName": choice.node}}
        try:
            await self._client.patch(PODS, metadata["name"], named, metadata["namespace"], subresource="status")
        except StatusError as error:
            if not is_gone(error) and not is_conflict(error):
                log.warning("scheduler: cannot nominate a node for %s: %s", _key(pod), error)

    def _spawn(self, write: Coroutine[Any, Any, None]) -> None:
        """Write without making the next pod wait."""
        task = asyncio.create_task(write)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _bind(self, key: str, pod: Object, node: str) -> None:
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create_subresource(PODS, metadata["name"], "binding", binding, metadata["namespace"])
        except StatusError as error:
            self._give_up(metadata["uid"], node)
            if not is_gone(error) and not is_conflict(error):
                log.warning("scheduler: cannot bind %s to %s: %s", key, node, error)
                self._recorder.event(pod, "Warning", "FailedScheduling", f"binding rejected: {error}")
            if not is_gone(error):
                self._queue.add_rate_limited(key)
        else:
            self._queue.forget(key)
            message = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}"
            self._recorder.event(pod, "Normal", "Scheduled", message)
        finally:
            self._slots.release()

    async def _say_why_not(self, pod: Object, why: str) -> None:
        metadata = pod["metadata"]
        self._recorder.event(pod, "Warning", "FailedScheduling", why)
        before = pods.condition(pod, "PodScheduled") or {}
        if (before.get("status"), before.get("reason"), before.get("message")) == ("False", "Unschedulable", why):
            return
        now = times.render(self._context.now())
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why,
            "lastProbeTime": None,
            "lastTransitionTime": before.get("lastTransitionTime") if before.get("status") == "False" else now,
        }
        patch = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(
                PODS, metadata["name"], patch, metadata["namespace"], "strategic", subresource="status"
            )
        except StatusError as error:
            if not is_gone(error) and not is_conflict(error):
                log.warning("scheduler: cannot say why %s/%s waits: %s", metadata["namespace"], metadata["name"], error)


class _NamespaceLabels(Mapping[str, Mapping[str, str]]):
    """The labels of each namespace, looked up when asked for."""

    def __init__(self, context: Context) -> None:
        self._cache = context.cache(NAMESPACES)

    def __getitem__(self, name: str) -> Mapping[str, str]:
        namespace = self._cache.get(name)
        if namespace is None:
            raise KeyError(name)
        return namespace["metadata"].get("labels") or {}

    def __iter__(self) -> Iterator[str]:
        return (n["metadata"]["name"] for n in self._cache)

    def __len__(self) -> int:
        return len(self._cache)


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
