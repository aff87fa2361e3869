"""What to do next for a StatefulSet. ◆ Pure; upstream: pkg/controller/statefulset/stateful_set_control.go.

Invariant: with ordered management at most one pod is made or ended at a time, and only when all before it are running,
ready and available; a pod is replaced for an update only when every pod above it is up to date and healthy.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from fairlead.api.kinds import STATEFULSETS
from fairlead.controllers import pods, statefulset_claims
from fairlead.controllers.podcontrol import pod_of
from fairlead.controllers.revisions import HASH, template_of

Object = dict[str, Any]

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_ordinal_name = re.compile(r"(.*)-([0-9]+)").fullmatch


class Plan(msgspec.Struct):
    """Pods to create, to delete and to give their identity back; the status; seconds until time alone changes it."""

    status: Object
    create: list[Object] = []
    delete: list[Object] = []
    update: list[Object] = []
    condemned: list[Object] = []  # pods that are too many
    again_in: float | None = None


def ordinal_of(pod: Object) -> int:
    """The number its name ends with; -1 if it has none."""
    found = _ordinal_name(pod["metadata"]["name"])
    return int(found[2]) if found else -1


def parent_of(pod: Object) -> str:
    """The set its name says it is of."""
    found = _ordinal_name(pod["metadata"]["name"])
    return found[1] if found else ""


def first_ordinal(stateful_set: Object) -> int:
    """spec.ordinals.start."""
    return int((stateful_set["spec"].get("ordinals") or {}).get("start") or 0)


def is_monotonic(stateful_set: Object) -> bool:
    """One pod after the other."""
    return bool(stateful_set["spec"].get("podManagementPolicy") != "Parallel")


def partition_of(stateful_set: Object) -> int:
    """Pods with a smaller ordinal are not updated."""
    rolling = (stateful_set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    return int(rolling.get("partition") or 0)


def is_rolling(stateful_set: Object) -> bool:
    """Its pods are replaced by the controller when the template changes."""
    return (stateful_set["spec"].get("updateStrategy") or {}).get("type") != "OnDelete"


def new_pod(stateful_set: Object, ordinal: int, revision: Object) -> Object:
    """The pod with that ordinal, of a revision's template."""
    name = f"{stateful_set['metadata']['name']}-{ordinal}"
    pod = pod_of(stateful_set, STATEFULSETS, template_of(revision))
    del pod["metadata"]["generateName"]
    labels = {POD_NAME: name, POD_INDEX: str(ordinal), HASH: revision["metadata"]["name"]}
    pod["metadata"] |= {"name": name, "labels": {**(pod["metadata"].get("labels") or {}), **labels}}
    pod["spec"] = {**statefulset_claims.with_claims(stateful_set, name, pod["spec"]), "hostname": name}
    if stateful_set["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = stateful_set["spec"]["serviceName"]
    return pod


def plan(
    stateful_set: Object, owned: Sequence[Object], current: Object, update: Object, now: datetime.datetime
) -> Plan:
    """Decide. `current` and `update`: the revisions before and after the rollout (the same if there is none)."""
    return _Control(stateful_set, owned, current, update, now).plan()


class _Control:
    def __init__(
        self, stateful_set: Object, owned: Sequence[Object], current: Object, update: Object, now: datetime.datetime
    ) -> None:
        self.set, self.current, self.update, self.now = stateful_set, current, update, now
        self.monotonic = is_monotonic(stateful_set)
        self.min_ready = int(stateful_set["spec"].get("minReadySeconds") or 0)
        self.start = first_ordinal(stateful_set)
        self.wanted = int(stateful_set["spec"].get("replicas", 1))
        self.waits: list[float] = []
        mine = [p for p in owned if parent_of(p) == stateful_set["metadata"]["name"]]
        self.replicas: list[Object | None] = [None] * self.wanted
        self.condemned: list[Object] = []
        for pod in mine:
            place = ordinal_of(pod) - self.start
            if 0 <= place < self.wanted:
                self.replicas[place] = pod
            else:
                self.condemned.append(pod)
        self.condemned.sort(key=ordinal_of, reverse=True)
        self.result = Plan(self._status(mine), create=[], delete=[], update=[], condemned=self.condemned)

    # -- the pods' states ------------------------------------------------------------------------------------------

    def _available(self, pod: Object) -> bool:
        """Running, ready, and for long enough."""
        if not _is_running_and_ready(pod):
            return False
        wait = pods.available_in(pod, self.min_ready, self.now)
        if wait:
            self.waits.append(wait)
        return wait == 0.0

    def _revision(self, pod: Object) -> str:
        return str((pod["metadata"].get("labels") or {}).get(HASH) or "")

    def _status(self, mine: Sequence[Object]) -> Object:
        current, update = self.current["metadata"]["name"], self.update["metadata"]["name"]
        before = self.set.get("status") or {}
        alive = [p for p in mine if not pods.is_terminating(p)]
        status: Object = {
            "observedGeneration": self.set["metadata"].get("generation", 0),
            "replicas": len(mine),
            "readyReplicas": sum(_is_running_and_ready(p) for p in mine),
            "availableReplicas": sum(self._available(p) for p in mine),
            "currentReplicas": sum(self._revision(p) == current for p in alive),
            "updatedReplicas": sum(self._revision(p) == update for p in alive),
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": int(before.get("collisionCount") or 0),
        }
        if before.get("conditions"):
            status["conditions"] = before["conditions"]
        return status

    # -- the steps -------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        if not pods.is_terminating(self.set):
            waits = self._scale_up() or self._scale_down()
            if not waits:
                self._roll()
        self._complete()
        self.result.again_in = min(self.waits, default=None)
        return self.result

    def _scale_up(self) -> bool:
        """Make what is missing, in order. True: wait before anything else."""
        for place, pod in enumerate(self.replicas):
            if pod is None:
                self.result.create.append(self._make(self.start + place))
                if self.monotonic:
                    return True
                continue
            if pods.is_finished(pod):
                if not pods.is_terminating(pod):
                    self.result.delete.append(pod)
                if self.monotonic:
                    return True
                continue
            if self.monotonic and (pods.is_terminating(pod) or not self._available(pod)):
                return True
            self._identify(pod)
        return False

    def _make(self, ordinal: int) -> Object:
        of_old = is_rolling(self.set) and ordinal < self.start + partition_of(self.set)
        revision = self.current if of_old else self.update
        if revision is self.current:
            self._count("currentReplicas", 1)
        if revision["metadata"]["name"] == self.update["metadata"]["name"]:
            self._count("updatedReplicas", 1)
        self._count("replicas", 1)
        return new_pod(self.set, ordinal, revision)

    def _count(self, name: str, change: int) -> None:
        self.result.status[name] = max(0, self.result.status[name] + change)

    def _identify(self, pod: Object) -> None:
        """A pod that lost the label with its name gets it back."""
        name = pod["metadata"]["name"]
        labels = pod["metadata"].get("labels") or {}
        wanted = {POD_NAME: name, POD_INDEX: str(ordinal_of(pod))}
        if any(labels.get(k) != v for k, v in wanted.items()):
            after = {**pod["metadata"], "labels": {**labels, **wanted}}
            self.result.update.append({**pod, "metadata": after})

    def _scale_down(self) -> bool:
        """End what is too much, the highest ordinal first. True: wait before anything else."""
        every = [*(p for p in self.replicas if p is not None), *reversed(self.condemned)]
        unhealthy = [p for p in every if pods.is_terminating(p) or not _is_running_and_ready(p)]
        first = min(unhealthy, key=ordinal_of, default=None)
        for pod in self.condemned:
            if pods.is_terminating(pod):
                if self.monotonic:
                    return True
                continue
            if self.monotonic and pod is not first and not self._available(pod):
                return True
            self.result.delete.append(pod)
            if self.monotonic:
                return True
        return False

    def _roll(self) -> None:
        """Replace one pod of an old revision, the highest ordinal first."""
        if not is_rolling(self.set) or self.result.create or self.result.delete:
            return
        update = self.update["metadata"]["name"]
        for place in range(self.wanted - 1, partition_of(self.set) - 1, -1):
            pod = self.replicas[place]
            if pod is None:
                return
            if self._revision(pod) != update and not pods.is_terminating(pod):
                self.result.delete.append(pod)
                self._count("currentReplicas", -1)
                return
            if pods.is_terminating(pod) or not self._available(pod):
                return

    def _complete(self) -> None:
        """When every pod is of the new revision it is the current one."""
        status = self.result.status
        all_of_them = (status["updatedReplicas"], status["readyReplicas"], status["replicas"]) == (self.wanted,) * 3
        if is_rolling(self.set) and all_of_them:
            status["currentRevision"] = status["updateRevision"]
            status["currentReplicas"] = status["updatedReplicas"]


def _is_running_and_ready(pod: Object) -> bool:
    return pods.phase(pod) == "Running" and pods.is_ready(pod)
