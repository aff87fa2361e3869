"""Rolling updates under any progress: never too many pods, never too few that serve, and they end."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.controllers import replicaset, rollout

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class World:
    """A Deployment, its sets and their pods; pods become ready when the test says so."""

    def __init__(self, replicas: int, surge: int, unavailable: int) -> None:
        rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
        self.deployment: Object = {
            "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
                "progressDeadlineSeconds": 600,
                "revisionHistoryLimit": 2,
            },
            "status": {},
        }
        self.sets: dict[str, Object] = {}
        self.pods: dict[str, tuple[str, bool]] = {}  # name → set, ready
        self._serial = 0
        self.use(0)

    def use(self, image: int) -> None:
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": f"v{image}"}]}}
        self.deployment["spec"]["template"] = template
        self.deployment["metadata"]["generation"] += 1

    def ready(self) -> int:
        return sum(r for _, r in self.pods.values())

    def deploy(self) -> bool:
        """The deployment controller once. False if there was nothing to do."""
        plan = rollout.plan(self.deployment, list(self.sets.values()), False, NOW)
        for each in [*plan.update, *([plan.create] if plan.create else [])]:
            name = each["metadata"]["name"]
            if name not in self.sets:
                self._serial += 1
                stamp = f"2026-01-01T00:00:{self._serial % 60:02}Z"
                each["metadata"] = {**each["metadata"], "uid": name, "creationTimestamp": stamp}
            self.sets[name] = {**each, "status": self.sets.get(name, {}).get("status", {})}
        for each in plan.delete:
            assert not self._of(each["metadata"]["name"])
            del self.sets[each["metadata"]["name"]]
        self.deployment["status"] = plan.status
        return bool(plan.create or plan.update or plan.delete)

    def _of(self, name: str) -> list[str]:
        return [p for p, (s, _) in self.pods.items() if s == name]

    def replicate(self, name: str) -> bool:
        """The replicaset controller once, for one set."""
        each = self.sets[name]
        owned = [self._pod(p) for p in self._of(name)]
        plan = replicaset.plan(each, owned, owned, NOW)
        for _ in range(plan.create):
            self._serial += 1
            self.pods[f"p{self._serial}"] = (name, False)
        for pod in plan.delete:
            del self.pods[pod["metadata"]["name"]]
        owned = [self._pod(p) for p in self._of(name)]
        status = replicaset.plan(each, owned, owned, NOW).status
        changed = status != each.get("status")
        each["status"] = status
        return bool(plan.create or plan.delete or changed)

    def _pod(self, name: str) -> Object:
        ready = {"type": "Ready", "status": str(self.pods[name][1]), "lastTransitionTime": "2026-01-01T00:00:00Z"}
        return {
            "metadata": {"name": name, "uid": name},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [ready]},
        }

    def settle(self) -> None:
        for _ in range(500):
            moved = self.deploy()
            for name in list(self.sets):
                moved = self.replicate(name) or moved
            for pod, (owner, ready) in list(self.pods.items()):
                moved = moved or not ready
                self.pods[pod] = (owner, True)
            if not moved:
                return
        raise AssertionError("it never ends")


steps = st.lists(
    st.one_of(
        st.just(("deploy", 0)),
        st.tuples(st.just("replicate"), st.integers(0, 5)),
        st.tuples(st.just("ready"), st.integers(0, 20)),
        st.tuples(st.just("image"), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 3), steps)
def test_bounds_hold_under_any_progress(
    replicas: int, surge: int, unavailable: int, progress: list[tuple[str, int]]
) -> None:
    """At most replicas + maxSurge pods; at least replicas − maxUnavailable of them serve; and in the end all do."""
    world = World(replicas, surge, unavailable)
    surge, unavailable = rollout.fenceposts(world.deployment)
    world.settle()
    assert world.ready() == replicas
    for what, number in progress:
        if what == "deploy":
            world.deploy()
        elif what == "replicate":
            world.replicate(sorted(world.sets)[number % len(world.sets)])
        elif what == "image":
            world.use(number)
        elif world.pods:
            name = sorted(world.pods)[number % len(world.pods)]
            world.pods[name] = (world.pods[name][0], True)
        assert sum(s["spec"]["replicas"] for s in world.sets.values()) <= replicas + surge
        assert world.ready() >= replicas - unavailable
    world.settle()
    assert world.ready() == len(world.pods) == replicas
    new = rollout.newest(world.deployment, list(world.sets.values()))
    assert new is not None and {s for s, _ in world.pods.values()} == {new["metadata"]["name"]}
    assert len(world.sets) <= 3
