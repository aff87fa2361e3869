"""Packing: whatever happens to the pods, the slices say exactly what is there, with few writes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.controllers import slices

Object = dict[str, Any]
LIMIT = 4
SERVICE: Object = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "s1"},
    "spec": {
        "clusterIP": "10.96.0.5",
        "ipFamilies": ["IPv4"],
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}],
    },
}
NODES: dict[str, Object] = {"n1": {"metadata": {"name": "n1"}}}

# number → (ready, port)
pods = st.dictionaries(st.integers(0, 24), st.tuples(st.booleans(), st.sampled_from([8080, 9090])), max_size=20)


def pod(number: int, ready: bool, port: int) -> Object:
    return {
        "metadata": {"name": f"p{number}", "namespace": "shop", "uid": f"u{number}"},
        "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.244.0.{number + 1}",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


class Server:
    """Holds slices as an API server would."""

    def __init__(self) -> None:
        self.slices: dict[str, Object] = {}
        self._serial = 0

    def apply(self, plan: slices.SlicePlan) -> None:
        for each in plan.delete:
            del self.slices[each["metadata"]["name"]]
        for each in plan.update:
            before = self.slices[each["metadata"]["name"]]
            assert before["addressType"] == each["addressType"]
            self.slices[each["metadata"]["name"]] = each
        for each in plan.create:
            self._serial += 1
            name = f"web-{self._serial}"
            self.slices[name] = {**each, "metadata": {**each["metadata"], "name": name, "uid": name}}


def content(each: list[Object]) -> list[tuple[str, int, bool]]:
    found = []
    for one in each:
        for endpoint in one["endpoints"]:
            (port,) = one["ports"]
            found.append((endpoint["targetRef"]["name"], port["port"], endpoint["conditions"]["ready"]))
    return sorted(found)


@settings(max_examples=150, deadline=None)
@given(st.lists(pods, min_size=1, max_size=6))
def test_slices_say_what_is_there(states: list[dict[int, tuple[bool, int]]]) -> None:
    """Each endpoint exactly once, no slice over the limit or empty beside others, and settled after one step."""
    server = Server()
    for state in states:
        members = [pod(n, *rest) for n, rest in state.items()]
        existing = list(server.slices.values())
        plan = slices.plan(SERVICE, members, NODES, existing, limit=LIMIT)
        names = [s["metadata"]["name"] for s in plan.update + plan.delete]
        assert len(names) == len(set(names))
        untouched = [s for s in existing if s["metadata"]["name"] not in names]
        server.apply(plan)
        assert all(s in server.slices.values() for s in untouched)
        after = list(server.slices.values())
        assert content(after) == sorted((f"p{n}", port, ready) for n, (ready, port) in state.items())
        assert all(len(s["endpoints"]) <= LIMIT for s in after)
        assert len(after) == 1 or all(s["endpoints"] for s in after)
        again = slices.plan(SERVICE, members, NODES, after, limit=LIMIT)
        assert not (again.create or again.update or again.delete)


@settings(max_examples=100, deadline=None)
@given(pods, st.sets(st.integers(0, 24), max_size=8))
def test_writes_are_few(state: dict[int, tuple[bool, int]], added: set[int]) -> None:
    """Adding n pods writes no more slices than the new ones they fill, plus one, for each set of ports."""
    server = Server()
    server.apply(slices.plan(SERVICE, [pod(n, *r) for n, r in state.items()], NODES, [], limit=LIMIT))
    more = {n: (True, 8080) for n in added if n not in state}
    members = [pod(n, *r) for n, r in {**state, **more}.items()]
    plan = slices.plan(SERVICE, members, NODES, list(server.slices.values()), limit=LIMIT)
    assert not plan.delete
    assert len(plan.create) + len(plan.update) <= len(more) // LIMIT + 1
