"""The tables of StatefulSets, DaemonSets, ReplicationControllers and ControllerRevisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.kinds import by_kind
from fairlead.api.tables.cells import AGE, NAME, NONE, Column, Printer, age, containers, name

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
