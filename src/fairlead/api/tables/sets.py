"""The tables of StatefulSets, DaemonSets, ReplicationControllers and ControllerRevisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.kinds import by_kind
from fairlead.api.tables.cells import AGE, NAME, NONE, Column, Printer, age, containers, name, pairs, selector

CONTAINERS = Column("Containers", "The names of the template's containers.", 1)
IMAGES = Column("Images", "The images of the template's containers.", 1)
SELECTOR = Column("Selector", "The labels of the pods that belong to it.", 1)


def _statefulset(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}"
    return [name(obj), ready, age(obj, now), *containers(spec.get("template"))]


STATEFULSETS = Printer(
    (NAME, Column("Ready", "How many of the wanted pods are ready."), AGE, CONTAINERS, IMAGES), _statefulset
)


def _revision(obj: dict[str, Any], now: datetime) -> list[Any]:
    owners = (obj.get("metadata") or {}).get("ownerReferences") or ()
    controller = next((o for o in owners if o.get("controller")), None)
    shown = NONE
    if controller is not None:
        resource = by_kind(controller.get("apiVersion") or "", controller.get("kind") or "")
        kind = str(controller.get("kind") or "").lower()
        group = str(controller.get("apiVersion") or "").rpartition("/")[0]
        singular = resource.singular if resource is not None else kind
        shown = f"{singular}{'.' + group if group else ''}/{controller.get('name')}"
    return [name(obj), shown, obj.get("revision") or 0, age(obj, now)]


CONTROLLERREVISIONS = Printer(
    (
        NAME,
        Column("Controller", "What the revision is of."),
        Column("Revision", "The revision's place in history.", type="integer"),
        AGE,
    ),
    _revision,
)


def _daemonset(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    template = spec.get("template") or {}
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    return [
        name(obj),
        *(status.get(count) or 0 for count in counts),
        pairs((template.get("spec") or {}).get("nodeSelector")),
        age(obj, now),
        *containers(template),
        selector(spec.get("selector")),
    ]


DAEMONSETS = Printer(
    (
        NAME,
        Column("Desired", "How many nodes should have a pod.", type="integer"),
        Column("Current", "How many nodes that should have one do.", type="integer"),
        Column("Ready", "On how many nodes it is ready.", type="integer"),
        Column("Up-to-date", "On how many nodes it is of the present template.", type="integer"),
        Column("Available", "On how many nodes it has been ready long enough.", type="integer"),
        Column("Node Selector", "The labels of the nodes that should have a pod."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    _daemonset,
)


def _replicationcontroller(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        name(obj),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(obj, now),
        *containers(spec.get("template")),
        pairs(spec.get("selector")),
    ]


REPLICATIONCONTROLLERS = Printer(
    (
        NAME,
        Column("Desired", "How many pods there should be.", type="integer"),
        Column("Current", "How many pods there are.", type="integer"),
        Column("Ready", "How many pods are ready.", type="integer"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    _replicationcontroller,
)
