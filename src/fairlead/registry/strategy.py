"""What differs from kind to kind, behind one set of questions.

`Strategy` is the answer for an ordinary kind; a module of its own overrides it where a kind is special (pods.py,
services.py, namespaces.py). Strategies are handed the clock, the dice and readers of the store; they write nothing.
Invariant: a spec never changes through the status subresource, nor a status through the main one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from fairlead.api import defaults, validation
from fairlead.api.errors import FieldError
from fairlead.api.kinds import Resource
from fairlead.registry.metadata import bump_generation
from fairlead.registry.requests import DeleteOptions, RegistryOptions, RequestContext
from fairlead.store.interface import CompareFailed, Operation, Record, Store

Object = dict[str, Any]


class Rules(msgspec.Struct, frozen=True):
    """The pure part of a kind: defaults and validation. Tests of the verbs put their own in."""

    default: Callable[[Resource, Object], None]
    check_create: Callable[[Resource, Object], list[FieldError]]
    check_update: Callable[[Resource, Object, Object], list[FieldError]]
    check_status_update: Callable[[Resource, Object, Object], list[FieldError]]


def upstream_rules() -> Rules:
    """As Kubernetes has them."""
    return Rules(
        defaults.apply, validation.validate_create, validation.validate_update, validation.validate_status_update
    )


class Surroundings(msgspec.Struct, frozen=True):
    """What a strategy may look at besides the object."""

    store: Store
    options: RegistryOptions
    wait_for: Callable[[str, float], Awaitable[Record | None]]  # a key to exist, for so many seconds


class Strategy:
    """How objects of one resource are prepared, and what else is written with them."""

    create_on_update = False  # PUT of what is not there creates it
    unconditional_update = True  # PUT without a resourceVersion is taken
    returns_deleted = False  # DELETE answers with the object, not with a Status
    orphans_dependents = False  # a deletion that says nothing of dependents lets them go
    deletion_warning = ""  # told to a client whose deletion says nothing of dependents

    def __init__(self, resource: Resource, around: Surroundings) -> None:
        self.resource, self.around = resource, around
        self.has_status = "status" in resource.subresources

    async def admit_create(self, obj: Object, ctx: RequestContext) -> None:
        """Add what the cluster adds (after defaulting, before validation). Raises StatusError to refuse."""

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        """Clear what a client may not set on a new object."""
        if self.has_status:
            obj.pop("status", None)

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        """Put back what an update may not change."""
        if self.has_status:
            keep(new, old, "status")

    def prepare_for_status_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        """Put back all but the status."""
        keep(new, old, "spec")

    async def allocate(self, new: Object, old: Object | None) -> list[Operation]:
        """Fill in what must be unique in the cluster; the operations that claim and release it."""
        return []

    async def release(self, old: Object) -> list[Operation]:
        """The operations that go with the removal of an object."""
        return []

    def retry_allocation(self, failed: CompareFailed) -> bool:
        """Whether a commit that failed at this key is worth another `allocate`."""
        return False

    def grace_seconds(self, obj: Object, options: DeleteOptions) -> int | None:
        """For how long a deletion lingers; None for kinds without graceful deletion."""
        return None

    def begin_deletion(self, obj: Object) -> None:
        """Change what else shows that a deletion has begun."""

    def is_finished(self, obj: Object) -> bool:
        """Asked when metadata holds nothing back any more: may the object go?"""
        return True


def keep(new: Object, old: Object, *path: str) -> None:
    """Make the member at `path` of `new` what it is in `old` (absent, if it is absent there)."""
    for name in path[:-1]:
        old = old.get(name) or {}
        if name not in new and not old:
            return
        new = new.setdefault(name, {})
    if path[-1] in old:
        new[path[-1]] = old[path[-1]]
    else:
        new.pop(path[-1], None)


class Generational(Strategy):
    """Kinds whose generation counts changes of the spec."""

    watched: Sequence[str] = ("spec",)

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        obj["metadata"]["generation"] = 1

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        if any(new.get(part) != old.get(part) for part in self.watched):
            bump_generation(new["metadata"])


class Workloads(Generational):
    """Deployments and ReplicaSets."""

    def prepare_for_status_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_status_update(new, old, ctx)
        keep(new, old, "metadata", "labels")


class ReplicationControllers(Workloads):
    """The oldest workload keeps its old manners."""

    orphans_dependents = True


class EndpointSlices(Generational):
    """Every change but one of metadata alone counts; labels count too."""

    watched = ("endpoints", "ports", "addressType")

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        before = new["metadata"].get("generation")
        super().prepare_for_update(new, old, ctx)
        changed_labels = new["metadata"].get("labels") != old["metadata"].get("labels")
        if changed_labels and new["metadata"].get("generation") == before:
            bump_generation(new["metadata"])


class Nodes(Strategy):
    """A kubelet registers its node together with its status."""

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        return


class CreatedByPut(Strategy):
    """Endpoints and Events."""

    create_on_update = True


class Leases(CreatedByPut):
    """A Lease is a lock: who writes it must have read it."""

    unconditional_update = False


class ReturnedWhenDeleted(Strategy):
    """As others, but for what DELETE answers: service accounts, resource quotas."""

    returns_deleted = True
