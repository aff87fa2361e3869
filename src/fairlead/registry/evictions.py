"""Evictions: deletions that ask first. A PodDisruptionBudget may refuse them.

Source: upstream's `pkg/registry/core/pod/storage/eviction.go`. Invariant: what a budget allows is taken from its status
in one compare-and-swap before the pod goes, so that no two evictions are allowed by the same number.
"""

from __future__ import annotations

from typing import Any

from fairlead.api import times
from fairlead.api.errors import StatusError, access_forbidden, bad_request
from fairlead.api.kinds import PODDISRUPTIONBUDGETS, PODS
from fairlead.api.selectors import LabelSelector
from fairlead.registry import deleting
from fairlead.registry.listing import list_objects
from fairlead.registry.requests import DeleteOptions, ListOptions, Preconditions, RequestContext
from fairlead.registry.writing import Writer, read

Object = dict[str, Any]

_MOST_DISRUPTED = 2000
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_SEVERAL = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


async def evict(writer: Writer, namespace: str, name: str, eviction: Object, ctx: RequestContext) -> None:
    """Delete the pod if its budget allows it. Errors: 429 if not, and 500 if it has two budgets, as upstream."""
    given = (eviction.get("metadata") or {}).get("name")
    if given and given != name:
        raise bad_request(f"name in URL does not match name in Eviction object: {name} against {given}")
    options = DeleteOptions.of(eviction.get("deleteOptions") or {})
    _, pod = await read(writer.store, PODS, namespace, name)
    if not _goes_anyway(pod):
        budgets = await _budgets(writer, namespace, pod)
        if len(budgets) > 1:
            raise StatusError(500, "InternalError", _SEVERAL)
        if budgets and not _is_spare(budgets[0], pod):
            await _take(writer, budgets[0], pod, ctx)
        if not ctx.dry_run:
            await _announce(writer, pod, ctx)
        wanted = options.preconditions
        if not wanted.uid:
            preconditions = Preconditions(pod["metadata"]["uid"], wanted.resource_version)
            options = DeleteOptions(
                options.grace_period_seconds, options.propagation_policy, options.orphan_dependents, preconditions
            )
    await deleting.delete(writer, PODS, namespace, name, options, ctx=ctx)


def _goes_anyway(pod: Object) -> bool:
    """It serves nobody: not yet, or not any more."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in {"Succeeded", "Failed", "Pending"} or bool(pod["metadata"].get("deletionTimestamp"))


async def _budgets(writer: Writer, namespace: str, pod: Object) -> list[Object]:
    found = await list_objects(writer.store, PODDISRUPTIONBUDGETS, namespace, ListOptions())
    labels = pod["metadata"].get("labels")
    return [b for b in found.items if LabelSelector.of((b.get("spec") or {}).get("selector")).matches(labels)]


def _is_spare(budget: Object, pod: Object) -> bool:
    """A pod that is not ready counts for nothing, so that it may go when enough others do, or always if told so."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    if any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy") or 0
    return desired > 0 and (status.get("currentHealthy") or 0) >= desired


async def _take(writer: Writer, budget: Object, pod: Object, ctx: RequestContext) -> None:
    metadata = budget["metadata"]
    await writer.change(
        PODDISRUPTIONBUDGETS,
        metadata["namespace"],
        metadata["name"],
        lambda current: take(current, pod["metadata"]["name"], times.render(ctx.now)),
        ctx,
        subresource="status",
    )


def take(budget: Object, pod: str, now: str) -> Object:
    """The budget with one disruption less to allow. Errors: 429 if there is none, 403 if its status makes no sense."""
    metadata, status = budget["metadata"], budget.setdefault("status", {})
    name, allowed = metadata["name"], status.get("disruptionsAllowed") or 0
    if (status.get("observedGeneration") or 0) < (metadata.get("generation") or 0):
        raise _too_many(f"The disruption budget {name} is still being processed by the server.", 10)
    disrupted = status.get("disruptedPods") or {}
    if allowed < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative")
    if len(disrupted) > _MOST_DISRUPTED:
        raise _forbidden(name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    if not allowed:
        desired, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
        raise _too_many(f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently", 0)
    status["disruptionsAllowed"] = allowed - 1
    status["disruptedPods"] = {**disrupted, pod: now}
    if allowed == 1:
        condition = {"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": ""}
        generation = status.get("observedGeneration") or 0
        others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionAllowed"]
        status["conditions"] = [*others, {**condition, "observedGeneration": generation, "lastTransitionTime": now}]
    return budget


def _too_many(cause: str, retry_after: int) -> StatusError:
    causes = [{"reason": "DisruptionBudget", "message": cause}]
    return StatusError(429, "TooManyRequests", _REFUSED, causes=causes, retry_after=retry_after or None)


def _forbidden(name: str, why: str) -> StatusError:
    plural, group = PODDISRUPTIONBUDGETS.plural, PODDISRUPTIONBUDGETS.group
    return access_forbidden(f'{plural}.{group} "{name}" is forbidden: {why}', plural, group, name)


async def _announce(writer: Writer, pod: Object, ctx: RequestContext) -> None:
    """Say on the pod why it goes: a Job's failure policy may ask."""
    at = times.render(ctx.now)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}

    def change(current: Object) -> Object:
        status = current.setdefault("status", {})
        others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionTarget"]
        said = {**condition, "message": "Eviction API: evicting", "lastTransitionTime": at}
        status["conditions"] = [*others, said]
        return current

    metadata = pod["metadata"]
    await writer.change(PODS, metadata["namespace"], metadata["name"], change, ctx, subresource="status")
