"""How a Deployment moves from one template to another. ◆ Pure: Deployment, ReplicaSets, pods and time in, a plan out.

Upstream: pkg/controller/deployment (sync.go, rolling.go, recreate.go, progress.go, util/deployment_util.go).
Invariant: during a rolling update the pods asked for never exceed replicas + maxSurge, and nothing that is available
is taken away below replicas − maxUnavailable.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from fairlead.api.kinds import DEPLOYMENTS
from fairlead.controllers import owners
from fairlead.controllers.deployment_status import DeploymentFacts, is_complete, status_of
from fairlead.controllers.pods import is_terminating

Object = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HASH = "pod-template-hash"
_OWN_ANNOTATIONS = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_HISTORY_LIMIT = 2000  # characters


class Plan(msgspec.Struct):
    """What to do for one Deployment, in this order: create, update, delete, then status.

    `events` are told once the write they speak of is done. `again_in`: seconds until time alone changes something.
    """

    create: Object | None = None
    update: list[Object] = []
    delete: list[Object] = []
    revision: str = ""
    status: Object | None = None
    events: list[tuple[str, str]] = []  # reason, message
    again_in: float | None = None


class _Set:
    """A ReplicaSet as it will be when the plan is done."""

    def __init__(self, obj: Object, is_new: bool = False) -> None:
        self.before, self.is_created = obj, is_new
        self.replicas = int(obj["spec"].get("replicas", 1))
        self.annotations: dict[str, str] = dict(obj["metadata"].get("annotations") or {})
        self.min_ready = obj["spec"].get("minReadySeconds")
        status = obj.get("status") or {}
        self.available = int(status.get("availableReplicas", 0))
        self.actual = int(status.get("replicas", 0))
        self.name: str = obj["metadata"]["name"]
        self.order = (obj["metadata"].get("creationTimestamp") or "9", self.name)

    def after(self) -> Object:
        """The object to write."""
        spec = {**self.before["spec"], "replicas": self.replicas}
        spec.pop("minReadySeconds", None)
        if self.min_ready:
            spec["minReadySeconds"] = self.min_ready
        return {**self.before, "metadata": {**self.before["metadata"], "annotations": self.annotations}, "spec": spec}

    def changed(self) -> bool:
        after = self.after()
        return bool(
            after["spec"] != self.before["spec"]
            or self.annotations != (self.before["metadata"].get("annotations") or {})
        )


def fenceposts(deployment: Object) -> tuple[int, int]:
    """maxSurge and maxUnavailable in pods: percentages of replicas, surge rounded up, unavailable down."""
    spec = deployment["spec"]
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    replicas = spec.get("replicas", 1)
    surge = scaled(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = scaled(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return surge, min(unavailable, replicas)


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """An int-or-percent of a total."""
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return math.ceil(percent * total / 100) if up else percent * total // 100


def same_template(left: Object, right: Object) -> bool:
    """Equal but for the hash label."""

    def plain(template: Object) -> Object:
        metadata = template.get("metadata") or {}
        labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != HASH}
        rest = {k: v for k, v in metadata.items() if k not in {"labels", "creationTimestamp"} and v}
        return {"metadata": {**rest, "labels": labels}, "spec": template.get("spec")}

    return plain(left) == plain(right)


def template_hash(template: Object, collisions: int) -> str:
    """A name for a template; another one for each collision."""
    text = orjson.dumps(template, option=orjson.OPT_SORT_KEYS) + (str(collisions).encode() if collisions else b"")
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    letters = ""
    for _ in range(10):
        number, rest = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[rest]
    return letters


def newest(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """The ReplicaSet with the Deployment's template; the oldest of several."""
    template = deployment["spec"]["template"]
    found = [s for s in sets if same_template(s["spec"]["template"], template)]
    return min(found, key=lambda s: (s["metadata"].get("creationTimestamp", ""), s["metadata"]["name"]), default=None)


def revision_of(obj: Object) -> int:
    """The revision in an object's annotations; 0 if it has none."""
    text = (obj["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def plan(deployment: Object, sets: Sequence[Object], old_pods_run: bool, now: datetime.datetime) -> Plan:
    """Decide. `sets`: the ReplicaSets it controls; `old_pods_run`: pods of an old template are not finished."""
    return _Rollout(deployment, sets, old_pods_run, now).plan()


class _Rollout:
    def __init__(self, deployment: Object, sets: Sequence[Object], old_pods_run: bool, now: datetime.datetime) -> None:
        self.deployment, self.now, self.old_pods_run = deployment, now, old_pods_run
        self.spec = deployment["spec"]
        self.replicas = int(self.spec.get("replicas", 1))
        self.surge, self.unavailable = fenceposts(deployment)
        self.recreate = (self.spec.get("strategy") or {}).get("type") == "Recreate"
        self.found = False  # the new set was there already
        new = newest(deployment, sets)
        self.new = _Set(new) if new is not None else None
        self.old = sorted((_Set(s) for s in sets if s is not new), key=lambda s: s.order)
        self.result = Plan(update=[], delete=[], events=[])

    @property
    def all(self) -> list[_Set]:
        return [*self.old, *([self.new] if self.new is not None else [])]

    def plan(self) -> Plan:
        if is_terminating(self.deployment):
            self._finish()
            return self.result
        if self.spec.get("paused") or self._is_scaling():
            self._sync_new(create=False)
            self._scale()
        elif self.recreate:
            self._recreate()
        else:
            self._roll()
        self._finish()
        return self.result

    # -- strategies ----------------------------------------------------------------------------------------------

    def _roll(self) -> None:
        self._sync_new(create=True)
        assert self.new is not None
        if self.new.replicas > self.replicas:
            self._resize(self.new, self.replicas)
            return
        if self.new.replicas < self.replicas:
            target = self._new_size(self.new.replicas)
            if target != self.new.replicas:
                self._resize(self.new, target)
                return
        self._shrink_old()

    def _new_size(self, current: int) -> int:
        """How many pods the new set may have now."""
        if self.recreate:
            return self.replicas
        room = self.replicas + self.surge - sum(s.replicas for s in self.all)
        if room <= 0:
            return current
        return current + min(room, self.replicas - current)

    def _shrink_old(self) -> None:
        if not any(s.replicas for s in self.old):
            return
        assert self.new is not None
        least = self.replicas - self.unavailable
        new_unavailable = self.new.replicas - self.new.available
        may_go = sum(s.replicas for s in self.all) - least - new_unavailable
        if may_go <= 0:
            return
        for old in self.old:  # pods that serve nobody go first
            if may_go > 0 and old.replicas > old.available:
                gone = min(may_go, old.replicas - old.available)
                may_go -= gone
                self._resize(old, old.replicas - gone)
        # Pods beyond a set's size are on their way out, whatever its status still says (upstream counts them).
        spare = sum(min(s.available, s.replicas) for s in self.all) - least
        for old in self.old:
            if spare > 0 and old.replicas:
                gone = min(spare, old.replicas)
                spare -= gone
                self._resize(old, old.replicas - gone)

    def _recreate(self) -> None:
        self._sync_new(create=False)
        if any(s.replicas for s in self.old):
            for old in self.old:
                self._resize(old, 0)
            return
        if self.old_pods_run or any(s.actual for s in self.old):
            return
        self._sync_new(create=True)
        assert self.new is not None
        self._resize(self.new, self.replicas)

    # -- scaling -------------------------------------------------------------------------------------------------

    def _is_scaling(self) -> bool:
        """The number of replicas was changed since the sets were last sized."""
        for each in self.all:
            desired = each.annotations.get(DESIRED, "")
            if each.replicas and desired.lstrip("-").isdigit() and int(desired) != self.replicas:
                return True
        return False

    def _scale(self) -> None:
        active = [s for s in self.all if s.replicas]
        if len(active) <= 1:
            only = active[0] if active else self.new or max(self.old, key=lambda s: s.order, default=None)
            if only is not None and only.replicas != self.replicas:
                self._resize(only, self.replicas)
            elif only is not None:
                self._annotate_size(only)
            return
        if self._is_saturated():
            for old in self.old:
                self._resize(old, 0)
            return
        if self.recreate:
            return
        self._scale_in_proportion(active)

    def _is_saturated(self) -> bool:
        new = self.new
        return new is not None and (
            new.replicas == self.replicas
            and new.annotations.get(DESIRED) == str(self.replicas)
            and new.available == self.replicas
        )

    def _scale_in_proportion(self, active: list[_Set]) -> None:
        total = sum(s.replicas for s in active)
        allowed = self.replicas + self.surge if self.replicas > 0 else 0
        change = allowed - total
        if change > 0:  # the largest first, the newer of equals
            active.sort(key=lambda s: s.order, reverse=True)
        else:
            active.sort(key=lambda s: s.order)
        active.sort(key=lambda s: s.replicas, reverse=True)
        sizes, added = [], 0
        for each in active:
            share = self._share(each, change, added) if change else 0
            sizes.append(each.replicas + share)
            added += share
        if change:
            sizes[0] = max(0, sizes[0] + change - added)
        for each, size in zip(active, sizes, strict=True):
            self._resize(each, size)

    def _share(self, each: _Set, change: int, added: int) -> int:
        if not each.replicas or change == added:
            return 0
        if not self.replicas:
            fraction = -each.replicas
        else:
            annotated = each.annotations.get(MAXIMUM, "")
            base = int(annotated) if annotated.isdigit() else 0
            base = base or int((self.deployment.get("status") or {}).get("replicas", 0)) or each.replicas
            fraction = _round(each.replicas * (self.replicas + self.surge) / base) - each.replicas
        left = change - added
        return min(fraction, left) if change > 0 else max(fraction, left)

    # -- the sets ------------------------------------------------------------------------------------------------

    def _sync_new(self, *, create: bool) -> None:
        """Keep the new set's annotations and revision, or make it."""
        revision = max((revision_of(s.before) for s in self.old), default=0) + 1
        if self.new is None:
            if not create:
                return
            self.new = self._make(revision)
        else:
            self.found = True
            self._annotate(self.new, revision)
            self.new.min_ready = self.spec.get("minReadySeconds")
        shown = (self.deployment["metadata"].get("annotations") or {}).get(REVISION)
        if shown != self.new.annotations[REVISION]:
            self.result.revision = self.new.annotations[REVISION]

    def _annotate(self, new: _Set, revision: int) -> None:
        wanted = {
            k: v for k, v in (self.deployment["metadata"].get("annotations") or {}).items() if k not in _OWN_ANNOTATIONS
        }
        new.annotations.update(wanted)
        before = new.annotations.get(REVISION, "")
        if not before.isdigit() or int(before) < revision:
            new.annotations[REVISION] = str(revision)
            if before.isdigit():
                history = [h for h in new.annotations.get(HISTORY, "").split(",") if h]
                history.append(before)
                while len(",".join(history)) > _HISTORY_LIMIT:
                    history.pop(0)
                new.annotations[HISTORY] = ",".join(history)

    def _make(self, revision: int) -> _Set:
        metadata, template = self.deployment["metadata"], self.spec["template"]
        collisions = int((self.deployment.get("status") or {}).get("collisionCount") or 0)
        hashed = template_hash(template, collisions)
        template_metadata = template.get("metadata") or {}
        labels = {**(template_metadata.get("labels") or {}), HASH: hashed}
        selector = self.spec["selector"]
        obj: Object = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{metadata['name']}-{hashed}",
                "namespace": metadata["namespace"],
                "labels": labels,
                "annotations": {},
                "ownerReferences": [owners.controller_reference(self.deployment, DEPLOYMENTS)],
            },
            "spec": {
                "replicas": 0,
                "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH: hashed}},
                "template": {**template, "metadata": {**template_metadata, "labels": labels}},
            },
        }
        if self.spec.get("minReadySeconds"):
            obj["spec"]["minReadySeconds"] = self.spec["minReadySeconds"]
        made = _Set(obj, is_new=True)
        self._annotate(made, revision)
        made.replicas = self._new_size(0)
        self._annotate_size(made)
        if made.replicas:
            self._tell(made, 0, made.replicas)
        return made

    def _resize(self, each: _Set, replicas: int) -> None:
        before, each.replicas = each.replicas, replicas
        self._annotate_size(each)
        if before != replicas:
            self._tell(each, before, replicas)

    def _annotate_size(self, each: _Set) -> None:
        each.annotations[DESIRED] = str(self.replicas)
        each.annotations[MAXIMUM] = str(self.replicas + self.surge)

    def _tell(self, each: _Set, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        message = f"Scaled {way} replica set {each.name} from {before} to {after}"
        self.result.events.append(("ScalingReplicaSet", message))

    def _finish(self) -> None:
        result = self.result
        for each in self.all:
            if each.is_created:
                result.create = each.after()
            elif each.changed():
                result.update.append(each.after())
        facts = DeploymentFacts(
            self.deployment,
            [(s.before, s.replicas) for s in self.all],
            self.new.before if self.new is not None else None,
            self.unavailable,
            found=self.found,
            created=self.new is not None and self.new.is_created,
        )
        result.status, result.again_in = status_of(facts, self.now)
        if is_complete(self.deployment, result.status) and not self.spec.get("paused"):
            self._clean_up()

    def _clean_up(self) -> None:
        """Old sets beyond revisionHistoryLimit go, the oldest revisions first."""
        limit = self.spec.get("revisionHistoryLimit")
        if limit is None or limit == 2**31 - 1 or is_terminating(self.deployment):
            return
        kept = sorted((s.before for s in self.old if not is_terminating(s.before)), key=revision_of)
        for obj in kept[: max(0, len(kept) - limit)]:
            status = obj.get("status") or {}
            idle = not status.get("replicas") and not obj["spec"].get("replicas")
            if idle and obj["metadata"].get("generation", 0) <= status.get("observedGeneration", 0):
                self.result.delete.append(obj)


def _round(value: float) -> int:
    """Half away from zero, as upstream's RoundToInt32."""
    return int(value - 0.5) if value < 0 else int(value + 0.5)
