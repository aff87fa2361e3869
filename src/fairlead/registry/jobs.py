"""Jobs: the selector and labels that tell a Job's pods from all others are made of its uid.

Source: upstream's `pkg/registry/batch/job/strategy.go`.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.validation.jobs import JOB_NAME, JOB_UID, OLD_JOB_NAME, OLD_JOB_UID
from fairlead.registry.requests import RequestContext
from fairlead.registry.strategy import Workloads

Object = dict[str, Any]


class Jobs(Workloads):
    """The strategy of the kind."""

    orphans_dependents = True
    deletion_warning = (
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or "
        "set propagationPolicy=Orphan to suppress this warning"
    )

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        super().prepare_for_create(obj, ctx)
        if not obj.setdefault("spec", {}).get("manualSelector"):
            generate_selector(obj)


def generate_selector(job: Object) -> None:
    """Select by uid. A label that is there already stays, for validation to refuse if it says another uid."""
    metadata, spec = job["metadata"], job["spec"]
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for key, value in (
        (OLD_JOB_NAME, metadata.get("name", "")),
        (JOB_NAME, metadata.get("name", "")),
        (OLD_JOB_UID, metadata["uid"]),
        (JOB_UID, metadata["uid"]),
    ):
        labels.setdefault(key, value)
    selector = spec.setdefault("selector", {})
    selector.setdefault("matchLabels", {}).setdefault(JOB_UID, metadata["uid"])
