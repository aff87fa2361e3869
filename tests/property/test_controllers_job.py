"""Each pod of a Job is counted exactly once, whatever is repeated, delayed or lost on the way."""

from __future__ import annotations

import copy
import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.controllers import job_plan, job_pods

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


class World:
    """A Job and its pods. Writes may be lost half way: the controller is killed between two of them."""

    def __init__(self, completions: int, parallelism: int, **more: Any) -> None:
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}
        spec = {"completions": completions, "parallelism": parallelism, "backoffLimit": 1000, "template": template}
        spec |= more
        self.job: Object = {"metadata": {"name": "j", "namespace": "n", "uid": "j"}, "spec": spec, "status": {}}
        self.pods: dict[str, Object] = {}
        self.serial = 0
        self.ended = {"Succeeded": 0, "Failed": 0}

    def step(self, writes: int) -> None:
        """The controller once; only so many of its writes come to pass."""
        plan = job_plan.plan(copy.deepcopy(self.job), copy.deepcopy(list(self.pods.values())), NOW)
        if writes <= 0:
            return
        self.job["status"] = plan.status
        writes -= 1
        for pod in plan.untrack:
            if writes <= 0:
                return
            self.pods[pod["metadata"]["name"]]["metadata"].pop("finalizers", None)
            writes -= 1
        assert not plan.kill
        for index in plan.create[: max(0, writes)]:
            made = job_pods.new_pod(self.job, index, plan.tries.get(index))
            self.serial += 1
            made["metadata"] |= {"name": f"p{self.serial}", "uid": f"p{self.serial}"}
            self.pods[made["metadata"]["name"]] = {**made, "status": {"phase": "Running"}}

    def end(self, name: str, phase: str) -> None:
        """A pod ends."""
        if self.pods[name]["status"]["phase"] == "Running":
            self.pods[name]["status"] = {"phase": phase}
            self.ended[phase] += 1

    def collect(self, name: str) -> None:
        """A pod that is over and let go is deleted by someone."""
        if "finalizers" not in self.pods[name]["metadata"]:
            del self.pods[name]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.data())
def test_each_pod_is_counted_once(completions: int, parallelism: int, data: st.DataObject) -> None:
    """Counts never exceed what ended, and in the end they are equal."""
    world = World(completions, parallelism)
    for _ in range(data.draw(st.integers(0, 40))):
        world.step(data.draw(st.integers(0, 6)))
        if world.pods:
            name = data.draw(st.sampled_from(sorted(world.pods)))
            what = data.draw(st.sampled_from(["Succeeded", "Failed", "collect", "nothing"]))
            if what in world.ended:
                world.end(name, what)
            elif what == "collect":
                world.collect(name)
        status = world.job["status"]
        assert status.get("succeeded", 0) <= world.ended["Succeeded"]
        assert status.get("failed", 0) <= world.ended["Failed"]
        running = [p for p in world.pods.values() if p["status"]["phase"] == "Running"]
        assert len(running) <= parallelism
    for _ in range(30):
        world.step(100)
        for name in list(world.pods):
            world.end(name, "Succeeded")
    status = world.job["status"]
    assert job_plan.finished(world.job)
    assert (status.get("succeeded", 0), status.get("failed", 0)) == (world.ended["Succeeded"], world.ended["Failed"])
    assert status["succeeded"] >= completions
    assert status["uncountedTerminatedPods"] == {}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.data())
def test_each_index_fails_as_often_as_it_may(
    completions: int, parallelism: int, limit: int, data: st.DataObject
) -> None:
    """No index is tried once more than it may, and none is given up before, whoever deletes what was let go."""
    world = World(completions, parallelism, completionMode="Indexed", backoffLimitPerIndex=limit)
    failures = dict.fromkeys(range(completions), 0)

    def end(name: str, phase: str) -> None:
        if world.pods[name]["status"]["phase"] == "Running" and phase == "Failed":
            failures[job_pods.index_of(world.pods[name])] += 1
        world.end(name, phase)

    for _ in range(data.draw(st.integers(0, 40))):
        world.step(data.draw(st.integers(0, 6)))
        if world.pods:
            name = data.draw(st.sampled_from(sorted(world.pods)))
            what = data.draw(st.sampled_from(["Succeeded", "Failed", "Failed", "collect", "nothing"]))
            if what in world.ended:
                end(name, what)
            elif what == "collect":
                world.collect(name)
        assert max(failures.values()) <= limit + 1
        lost = job_pods.parse_indexes(world.job["status"].get("failedIndexes") or "")
        assert all(failures[index] == limit + 1 for index in lost)
    for _ in range(30):
        world.step(100)
        for name in list(world.pods):
            end(name, "Succeeded")
    status = world.job["status"]
    assert job_plan.finished(world.job)
    lost = {index for index, number in failures.items() if number == limit + 1}
    assert job_pods.parse_indexes(status.get("failedIndexes") or "") == lost
    assert job_pods.parse_indexes(status.get("completedIndexes") or "") == set(failures) - lost
    assert (status.get("failed", 0), status["uncountedTerminatedPods"]) == (world.ended["Failed"], {})
