"""Which nodes a DaemonSet's pods belong on, and what to do next. ◆ Pure; upstream: pkg/controller/daemon.

Invariant: outside of a surge a node has at most one pod of the set that is not being deleted; an update takes pods
away only while fewer than maxUnavailable nodes are without an available one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fairlead.api.kinds import DAEMONSETS
from fairlead.controllers import placement, pods
from fairlead.controllers.podcontrol import pod_of
from fairlead.controllers.revisions import HASH
from fairlead.controllers.rollout import scaled

Object = dict[str, Any]

_PREFIX = "node.kubernetes.io/"
_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


class Plan(msgspec.Struct):
    """Nodes to make a pod for, pods to delete, failed pods to replace (with a back-off), the status."""

    status: Object
    create: list[str] = []
    delete: list[Object] = []
    failed: list[Object] = []
    again_in: float | None = None


class Fit(msgspec.Struct, frozen=True):
    """Whether a pod should be made on a node, and whether one that is there may stay."""

    run: bool
    stay: bool


def tolerations(spec: Object) -> list[Object]:
    """The pod's own, and those that keep a daemon on a node in trouble."""
    wanted = list(_TOLERATED)
    if spec.get("hostNetwork"):
        wanted.append(("network-unavailable", "NoSchedule"))
    own = list(spec.get("tolerations") or [])
    for name, effect in wanted:
        added = {"key": _PREFIX + name, "operator": "Exists", "effect": effect}
        if added not in own:
            own.append(added)
    return own


def new_pod(daemon_set: Object, node: str, hashed: str) -> Object:
    """The pod for a node: bound to it by an affinity to its name, which only it can meet."""
    pod = pod_of(daemon_set, DAEMONSETS, daemon_set["spec"]["template"])
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), HASH: hashed}
    spec = dict(pod["spec"])
    affinity = dict(spec.get("affinity") or {})
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"nodeSelectorTerms": [term]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": required,
    }
    pod["spec"] = {**spec, "affinity": affinity, "tolerations": tolerations(spec)}
    return pod


def node_of(pod: Object) -> str:
    """The node it is on, or is meant for."""
    bound = pods.node_name(pod)
    if bound:
        return bound
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and len(field.get("values") or []) == 1:
                return str(field["values"][0])
    return ""


def fit(daemon_set: Object, node: Object) -> Fit:
    """nodeName, nodeSelector, affinity and taints of one node."""
    spec = daemon_set["spec"]["template"].get("spec") or {}
    state = placement.NodeState(node)
    pod = {"metadata": {}, "spec": {**spec, "tolerations": tolerations(spec)}}
    if spec.get("nodeName") not in (None, "", state.name) or not placement.matches_node(pod, state):
        return Fit(False, False)
    taints = (node.get("spec") or {}).get("taints") or []
    if placement.untolerated(pod, taints, ("NoSchedule", "NoExecute")) is not None:
        return Fit(False, placement.untolerated(pod, taints, ("NoExecute",)) is None)
    return Fit(True, True)


def plan(
    daemon_set: Object, nodes: Iterable[Object], owned: Sequence[Object], hashed: str, now: datetime.datetime
) -> Plan:
    """Decide. `hashed`: of the present revision."""
    return _Control(daemon_set, nodes, owned, hashed, now).plan()


class _Control:
    def __init__(
        self,
        daemon_set: Object,
        nodes: Iterable[Object],
        owned: Sequence[Object],
        hashed: str,
        now: datetime.datetime,
    ) -> None:
        self.set, self.hashed, self.now = daemon_set, hashed, now
        self.fits = {n["metadata"]["name"]: fit(daemon_set, n) for n in nodes}
        self.pods: dict[str, list[Object]] = {}
        for pod in sorted(owned, key=lambda p: (p["metadata"].get("creationTimestamp", ""), p["metadata"]["name"])):
            self.pods.setdefault(node_of(pod), []).append(pod)
        self.min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
        strategy = daemon_set["spec"].get("updateStrategy") or {}
        self.rolls = strategy.get("type") != "OnDelete"
        rolling = strategy.get("rollingUpdate") or {}
        desired = sum(f.run for f in self.fits.values())
        self.surge = scaled(rolling.get("maxSurge", 0), desired, up=True) if self.rolls else 0
        self.unavailable = scaled(rolling.get("maxUnavailable", 1), desired, up=True)
        if not self.surge and not self.unavailable:
            self.unavailable = 1
        self.waits: list[float] = []
        self.result = Plan({}, create=[], delete=[], failed=[])

    def plan(self) -> Plan:
        self.result.status = self._status()
        if not pods.is_terminating(self.set):
            self._manage()
            if self.rolls and not (self.result.create or self.result.delete or self.result.failed):
                self._surge() if self.surge else self._replace()
        self.result.again_in = min(self.waits, default=None)
        return self.result

    def _available(self, pod: Object) -> bool:
        wait = pods.available_in(pod, self.min_ready, self.now)
        if wait:
            self.waits.append(wait)
        return wait == 0.0

    def _is_new(self, pod: Object) -> bool:
        return (pod["metadata"].get("labels") or {}).get(HASH) == self.hashed

    def _manage(self) -> None:
        """One pod on each node that should have one, none elsewhere."""
        for name, fits in self.fits.items():
            there = self.pods.get(name, [])
            if fits.run and not there:
                self.result.create.append(name)
            elif fits.stay:
                self._manage_node([p for p in there if not pods.is_terminating(p)])
            else:
                self.result.delete += [p for p in there if not pods.is_terminating(p)]

    def _manage_node(self, there: list[Object]) -> None:
        self.result.failed += [p for p in there if pods.is_finished(p)]
        running = [p for p in there if not pods.is_finished(p)]
        if len(running) <= 1:
            return
        if not self.surge:
            placed = sorted(running, key=lambda p: not pods.node_name(p))
            self.result.delete += placed[1:]
            return
        new = [p for p in running if self._is_new(p)]
        old = [p for p in running if not self._is_new(p)]
        self.result.delete += new[1:] + old[1:]
        if new and old and (not pods.is_ready(old[0]) or self._available(new[0])):
            self.result.delete.append(old[0])

    def _pairs(self) -> Iterable[tuple[str, Object | None, Object | None, bool]]:
        """Each node with its old and its new pod; False where there are several of one sort."""
        for name, fits in self.fits.items():
            if not fits.run:
                continue
            there = [p for p in self.pods.get(name, []) if not pods.is_terminating(p)]
            new = [p for p in there if self._is_new(p)]
            old = [p for p in there if not self._is_new(p)]
            yield name, next(iter(old), None), next(iter(new), None), len(new) <= 1 and len(old) <= 1

    def _replace(self) -> None:
        """Delete old pods: all that serve nobody, of the others as many as may be missing."""
        missing = 0
        idle: list[Object] = []
        candidates: list[Object] = []
        for _, old, new, clear in self._pairs():
            if not clear or (old is None) == (new is None):
                missing += 1
            elif old is None:
                assert new is not None
                missing += not self._available(new)
            elif self._available(old):
                candidates.append(old)
            else:
                missing += 1
                idle.append(old)
        self.result.delete += idle + candidates[: max(0, self.unavailable - missing)]

    def _surge(self) -> None:
        """Make new pods beside the old ones; the old one goes when the new one is available."""
        extra = 0
        at_once: list[str] = []
        candidates: list[str] = []
        for name, old, new, clear in self._pairs():
            if not clear:
                extra += 1
            elif old is None:
                continue
            elif new is None:
                (candidates if self._available(old) else at_once).append(name)
            elif self._available(new):
                self.result.delete.append(old)
            else:
                extra += 1
        self.result.create += at_once + candidates[: max(0, self.surge - extra)]

    def _status(self) -> Object:
        counts = dict.fromkeys(("desired", "current", "misscheduled", "ready", "updated", "available"), 0)
        for name, fits in self.fits.items():
            there = self.pods.get(name, [])
            if not fits.run:
                counts["misscheduled"] += bool(there)
                continue
            counts["desired"] += 1
            if there:
                counts["current"] += 1
                shown = next((p for p in there if pods.is_ready(p)), there[0])
                counts["ready"] += pods.is_ready(shown)
                counts["available"] += self._available(shown)
                counts["updated"] += any(self._is_new(p) and not pods.is_terminating(p) for p in there)
        status: Object = {
            "currentNumberScheduled": counts["current"],
            "numberMisscheduled": counts["misscheduled"],
            "desiredNumberScheduled": counts["desired"],
            "numberReady": counts["ready"],
            "observedGeneration": self.set["metadata"].get("generation", 0),
            "updatedNumberScheduled": counts["updated"],
            "numberAvailable": counts["available"],
            "numberUnavailable": counts["desired"] - counts["available"],
        }
        before = self.set.get("status") or {}
        for kept in ("collisionCount", "conditions"):
            if before.get(kept):
                status[kept] = before[kept]
        return status
