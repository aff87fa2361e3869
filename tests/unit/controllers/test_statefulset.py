"""What is done next for a StatefulSet, and what history keeps."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.api import times
from fairlead.api.kinds import STATEFULSETS
from fairlead.controllers import revisions, statefulset_plan
from fairlead.controllers.revisions import HASH

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
OLD, NEW = "web-old", "web-new"


def revision(name: str) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": name}]}, "$patch": "replace"}
    return {"metadata": {"name": name}, "data": {"spec": {"template": template}}, "revision": 1}


def stateful_set(replicas: int, **spec: Any) -> Object:
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "s", "generation": 3},
        "spec": {"replicas": replicas, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}}, **spec},
        "status": {},
    }


def pod(text: str) -> Object:
    """`2 new ready`: ordinal, revision, and pending, unready, ready, terminating or failed."""
    ordinal, of, state = text.split()
    name = f"web-{ordinal}"
    labels = {"app": "web", HASH: f"web-{of}", statefulset_plan.POD_NAME: name, statefulset_plan.POD_INDEX: ordinal}
    phase = {"pending": "Pending", "failed": "Failed"}.get(state, "Running")
    ready = "True" if state in {"ready", "terminating"} else "False"
    since = times.render(NOW - datetime.timedelta(seconds=30))
    metadata: Object = {"name": name, "namespace": "shop", "uid": text, "labels": labels}
    if state == "terminating":
        metadata["deletionTimestamp"] = since
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": since}]
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "conditions": conditions}}


PARALLEL = {"podManagementPolicy": "Parallel"}
ON_DELETE = {"updateStrategy": {"type": "OnDelete"}}
ROWS = [
    ("the first is made alone", {}, 3, [], ["0 new"], []),
    ("the next waits for the one before", {}, 3, ["0 new unready"], [], []),
    ("… and is made once that is ready", {}, 3, ["0 new ready"], ["1 new"], []),
    ("… and available", {"minReadySeconds": 60}, 3, ["0 new ready"], [], []),
    ("nothing is made while one goes", {}, 3, ["0 new ready", "1 new terminating"], [], []),
    ("all at once when parallel", PARALLEL, 3, ["1 new unready"], ["0 new", "2 new"], []),
    ("a gap is filled first", {}, 2, ["1 new ready"], ["0 new"], []),
    ("a failed pod is replaced", {}, 2, ["0 new failed", "1 new ready"], [], ["0"]),
    ("the highest goes first", {}, 1, ["0 new ready", "1 new ready", "2 new ready"], [], ["2"]),
    ("… one at a time", {}, 0, ["0 new ready", "1 new terminating"], [], []),
    ("… unless parallel", PARALLEL, 0, ["0 new ready", "1 new ready"], [], ["1", "0"]),
    ("an update begins at the top", {}, 3, ["0 old ready", "1 old ready", "2 old ready"], [], ["2"]),
    ("… waits for what it replaced", {}, 3, ["0 old ready", "1 old ready", "2 new unready"], [], []),
    ("… goes on", {}, 3, ["0 old ready", "1 old ready", "2 new ready"], [], ["1"]),
    ("ordinals start where they are told", {"ordinals": {"start": 5}}, 2, ["5 new ready"], ["6 new"], []),
    ("OnDelete leaves old pods alone", ON_DELETE, 2, ["0 old ready", "1 old ready"], [], []),
    ("OnDelete makes new ones new", ON_DELETE, 2, ["0 old ready"], ["1 new"], []),
]


@pytest.mark.parametrize(
    ("spec", "replicas", "there", "made", "ended"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_steps(spec: Object, replicas: int, there: list[str], made: list[str], ended: list[str]) -> None:
    """One step, from what there is."""
    decided = statefulset_plan.plan(
        stateful_set(replicas, **spec), [pod(p) for p in there], revision(OLD), revision(NEW), NOW
    )
    created = [f"{statefulset_plan.ordinal_of(p)} {p['metadata']['labels'][HASH][4:]}" for p in decided.create]
    assert (created, [p["metadata"]["name"][4:] for p in decided.delete]) == (made, ended)


def test_partition_keeps_the_lower_ordinals_old() -> None:
    """Below the partition pods stay, and are made again, of the old revision."""
    spec = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
    decided = statefulset_plan.plan(stateful_set(2, **spec), [pod("1 new ready")], revision(OLD), revision(NEW), NOW)
    assert [p["metadata"]["labels"][HASH] for p in decided.create] == [OLD]
    there = [pod("0 old ready"), pod("1 new ready")]
    decided = statefulset_plan.plan(stateful_set(2, **spec), there, revision(OLD), revision(NEW), NOW)
    assert (decided.create, decided.delete, decided.status["currentRevision"]) == ([], [], OLD)


def test_a_pod_has_a_name_of_its_own() -> None:
    """Name, hostname and subdomain are what DNS makes its name of."""
    made = statefulset_plan.new_pod(stateful_set(1), 4, revision(NEW))
    assert made["metadata"]["name"] == made["spec"]["hostname"] == "web-4"
    assert made["spec"]["subdomain"] == "web"
    assert made["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "4"
    assert "generateName" not in made["metadata"]


def test_the_status_counts_and_completes() -> None:
    """When all are new and ready the rollout is over: the new revision is the current one."""
    there = [pod("0 new ready"), pod("1 new ready")]
    status = statefulset_plan.plan(stateful_set(2), there, revision(OLD), revision(NEW), NOW).status
    assert (status["currentRevision"], status["currentReplicas"], status["readyReplicas"]) == (NEW, 2, 2)
    assert status["observedGeneration"] == 3


def test_it_looks_again_when_a_pod_becomes_available() -> None:
    """minReadySeconds is waited for, not polled."""
    decided = statefulset_plan.plan(
        stateful_set(1, minReadySeconds=40), [pod("0 new ready")], revision(NEW), revision(NEW), NOW
    )
    assert decided.again_in == pytest.approx(10)


def owner(image: str) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": image}]}}
    return {**stateful_set(1), "spec": {**stateful_set(1)["spec"], "template": template}}


def test_history_is_made_kept_and_renumbered() -> None:
    """A new template makes a revision, the same one none, an older one is given the next number."""
    first = revisions.choose(owner("a"), STATEFULSETS, [], 0)
    assert first.create
    assert first.revision["revision"] == 1
    second = revisions.choose(owner("b"), STATEFULSETS, [first.revision], 0)
    assert (second.create, second.revision["revision"]) == (True, 2)
    assert second.revision["metadata"]["name"] != first.revision["metadata"]["name"]
    both = [first.revision, second.revision]
    assert not revisions.choose(owner("b"), STATEFULSETS, both, 0).create
    back = revisions.choose(owner("a"), STATEFULSETS, both, 0)
    assert (back.renumber, back.revision["revision"]) == (True, 3)
    assert revisions.template_of(back.revision) == owner("a")["spec"]["template"]


def test_a_collision_gives_another_name() -> None:
    """The collision count goes into the hash."""
    names = {revisions.choose(owner("a"), STATEFULSETS, [], n).revision["metadata"]["name"] for n in range(3)}
    assert len(names) == 3


def test_old_revisions_go_but_not_those_in_use() -> None:
    """The oldest beyond the limit; pods may still run one of them."""
    history = [{**revision(f"web-{n}"), "revision": n} for n in range(5)]
    gone = revisions.surplus(history, {"web-0", "web-4"}, 1)
    assert [r["metadata"]["name"] for r in gone] == ["web-1", "web-2"]
