"""Which nodes' kernels know what of this node's pods: reachable everywhere, or out of the way everywhere. ◆ Pure.

Every node that confirms keeps a Lease whose annotation says up to which resourceVersion its kernel has the
EndpointSlices. Folded here with the Services' selectors and the slices, it answers a kubelet's two questions: does
every node send new connections to this pod, and does none any more? Invariants: the answer "yes" is given only for
what the slices say now; a node that never confirmed anything is not waited for (it is none of ours); before the first
complete list the answer is "not yet". resourceVersions are compared as numbers (KEP-5504), of one resource only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairlead.api.events import WatchEvent
from fairlead.discovery.parse import object_key, slice_owner

Object = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"
LEASE_PREFIX = "fairlead-proxy-"
LEASE_LABELS = {"fairlead.dev/confirms": "endpointslices"}
LEASE_SELECTOR = "fairlead.dev/confirms=endpointslices"
APPLIED = "fairlead.dev/applied-endpointslices"
"""Annotation of the Lease: the resourceVersion of the newest EndpointSlice that the node's kernel has."""

REACHABLE = "fairlead.dev/Reachable"
"""Condition of a pod: every node that confirms sends new connections to it. Absent: no Service selects the pod."""


def lease(node: str, revision: int, owner_uid: str = "") -> Object:
    """A node's confirmation, as the object that carries it. It goes when its Node goes."""
    owners = [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": owner_uid}] if owner_uid else []
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": LEASE_PREFIX + node,
            "namespace": LEASE_NAMESPACE,
            "labels": dict(LEASE_LABELS),
            "annotations": {APPLIED: str(revision)},
            "ownerReferences": owners,
        },
        "spec": {"holderIdentity": node},
    }


def revision_of(obj: Object) -> int:
    """An object's resourceVersion as a number; 0 if it is none."""
    text = str(obj["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdecimal() else 0


def newest_slice(events: Iterable[WatchEvent]) -> int:
    """The highest resourceVersion of an EndpointSlice among these events; 0 without one."""
    return max((revision_of(e.object) for e in events if e.resource.plural == "endpointslices"), default=0)


class Standing:
    """Of the pods of one node, by UID. `take` and `confirm` feed it."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.synced = False
        self._applied: dict[str, int] = {}
        self._selectors: dict[str, dict[str, dict[str, str]]] = {}  # namespace → Service → selector
        self._slices: dict[tuple[str, str], dict[str, bool]] = {}  # slice → pod → whether it is offered
        self._changed: dict[str, int] = {}  # pod → when a slice last said something else of it

    def take(self, events: Iterable[WatchEvent], synced: bool) -> set[str]:
        """Fold events of Services and EndpointSlices; others are passed over. Returns the pods told of."""
        touched: set[str] = set()
        for event in events:
            if event.resource.plural == "endpointslices":
                touched |= self._take_slice(event)
            elif event.resource.plural == "services":
                self._take_service(event)
        self.synced = self.synced or synced
        return touched

    def confirm(self, node: str, revision: int) -> None:
        """The node's kernel has the slices up to here."""
        self._applied[node] = max(revision, self._applied.get(node, 0))

    def take_lease(self, event: WatchEvent) -> None:
        """A node's confirmation came, changed or went."""
        metadata = event.object["metadata"]
        node = str((event.object.get("spec") or {}).get("holderIdentity") or "")
        text = str((metadata.get("annotations") or {}).get(APPLIED) or "")
        if not node or (metadata.get("labels") or {}).items() < LEASE_LABELS.items():
            return
        if event.type == "DELETED":
            self._applied.pop(node, None)
        elif text.isdecimal():
            self.confirm(node, int(text))

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._changed.pop(uid, None)

    def known(self, uid: str) -> bool:
        """A slice told of the pod, now or earlier."""
        return uid in self._changed

    def selected(self, pod: Object) -> bool:
        """A Service with a virtual IP takes the pod."""
        labels = pod["metadata"].get("labels") or {}
        found = self._selectors.get(pod["metadata"].get("namespace", ""), {})
        return any(selector.items() <= labels.items() for selector in found.values())

    def not_withdrawn(self, uid: str, nodes: Iterable[str]) -> str:
        """What may still send new connections to the pod that is being deleted; "" if nothing does."""
        if not self.synced:
            return "the Services have not been listed yet"
        for (namespace, name), offered in self._slices.items():
            if offered.get(uid):
                return f"EndpointSlice {namespace}/{name} offers it"
        return self._lagging(uid, nodes)

    def not_reachable(self, pod: Object, nodes: Iterable[str]) -> str:
        """Why the pod, which is ready, is not yet reached from everywhere; "" if it is. Of a pod that no Service
        selects there is nothing to wait for."""
        if not self.synced:
            return "the Services have not been listed yet"
        uid = pod["metadata"]["uid"]
        if not any(offered.get(uid) for offered in self._slices.values()):
            return "no EndpointSlice offers it yet" if self.selected(pod) else ""
        return self._lagging(uid, nodes)

    def _lagging(self, uid: str, nodes: Iterable[str]) -> str:
        needed = self._changed.get(uid, 0)
        late = sorted(node for node in nodes if self._applied.get(node, needed) < needed)
        return f"not confirmed by {', '.join(late)}" if late else ""

    def _take_service(self, event: WatchEvent) -> None:
        namespace, name = object_key(event.object)
        spec = event.object.get("spec") or {}
        named = self._selectors.setdefault(namespace, {})
        virtual = spec.get("clusterIP") not in (None, "", "None") and spec.get("type") != "ExternalName"
        if event.type != "DELETED" and spec.get("selector") and virtual:
            named[name] = dict(spec["selector"])
            return
        named.pop(name, None)
        if not named:
            del self._selectors[namespace]

    def _take_slice(self, event: WatchEvent) -> set[str]:
        key = object_key(event.object)
        before = self._slices.get(key, {})
        after: dict[str, bool] = {}
        if event.type != "DELETED" and slice_owner(event.object) is not None:
            for endpoint in event.object.get("endpoints") or ():
                if endpoint.get("nodeName", self.node) == self.node:
                    uid = str((endpoint.get("targetRef") or {}).get("uid") or "")
                    said = endpoint.get("conditions") or {}
                    after[uid] = said.get("ready") is not False and not said.get("terminating")
            after.pop("", None)
        if after:
            self._slices[key] = after
        else:
            self._slices.pop(key, None)
        touched = {uid for uid in before.keys() | after.keys() if before.get(uid) != after.get(uid)}
        for uid in touched:
            self._changed[uid] = max(self._changed.get(uid, 0), revision_of(event.object))
        return touched
