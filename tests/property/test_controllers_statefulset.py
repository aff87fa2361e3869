"""A StatefulSet under any order of events: ordered, one at a time, and it gets there."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.controllers import pods, statefulset_plan
from fairlead.controllers.revisions import HASH

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def revision(number: int) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": f"v{number}"}]}}
    return {"metadata": {"name": f"web-r{number}"}, "data": {"spec": {"template": template}}, "revision": number}


class World:
    """The set and its pods; pods become ready, fail and go when the test says so."""

    def __init__(self, replicas: int) -> None:
        self.replicas, self.update, self.current = replicas, 1, 1
        self.pods: dict[str, Object] = {}
        self.status: Object = {}

    def step(self) -> bool:
        """The controller once. False if there was nothing to do."""
        stateful_set = {
            "metadata": {"name": "web", "namespace": "shop", "uid": "s", "generation": 1},
            "spec": {"replicas": self.replicas},
            "status": self.status,
        }
        decided = statefulset_plan.plan(
            stateful_set, list(self.pods.values()), revision(self.current), revision(self.update), NOW
        )
        assert len(decided.create) + len(decided.delete) <= 1
        if decided.create or decided.delete:
            going = [p for p in self.pods.values() if pods.is_terminating(p)]
            assert not going
        for pod in decided.create:
            name = pod["metadata"]["name"]
            assert name not in self.pods
            below = [self.pods[f"web-{n}"] for n in range(statefulset_plan.ordinal_of(pod))]
            assert all(pods.is_ready(p) for p in below)
            self.pods[name] = {**pod, "status": {"phase": "Running"}}
        for pod in decided.delete:
            metadata = {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
            self.pods[pod["metadata"]["name"]] = {**pod, "metadata": metadata}
        self.status = decided.status
        self.current = int(decided.status["currentRevision"].removeprefix("web-r"))
        return bool(decided.create or decided.delete)

    def advance(self, name: str) -> None:
        """A pod goes on its way: ready, or gone."""
        pod = self.pods[name]
        if pods.is_terminating(pod):
            del self.pods[name]
        else:
            conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
            self.pods[name] = {**pod, "status": {"phase": "Running", "conditions": conditions}}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_gets_there_one_pod_at_a_time(data: st.DataObject) -> None:
    """Whatever is scaled, updated or delayed on the way: in the end all pods are there, new and in order."""
    world = World(data.draw(st.integers(0, 4)))
    for _ in range(data.draw(st.integers(0, 25))):
        what = data.draw(st.sampled_from(["step", "advance", "scale", "update"]))
        if what == "step":
            world.step()
        elif what == "advance" and world.pods:
            world.advance(data.draw(st.sampled_from(sorted(world.pods))))
        elif what == "scale":
            world.replicas = data.draw(st.integers(0, 4))
        elif what == "update":
            world.update += 1
    for _ in range(200):
        world.step()
        for name in sorted(world.pods):
            world.advance(name)
    assert sorted(world.pods) == [f"web-{n}" for n in range(world.replicas)]
    hashes = {p["metadata"]["labels"][HASH] for p in world.pods.values()}
    assert hashes <= {f"web-r{world.update}"}
    assert not world.step()
