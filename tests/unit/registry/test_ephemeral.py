"""The subresource pods/ephemeralcontainers: containers are added to a pod that is there, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fairlead.api import kinds

Object = dict[str, Any]
DEBUG: Object = {"name": "debug", "image": "busybox:1", "targetContainerName": "c"}


def adding(*containers: Object, **more: Any) -> Callable[[Object], Object]:
    """A change that puts these in place of the pod's ephemeral containers, and `more` into its spec."""

    def change(pod: Object) -> Object:
        pod["spec"].update(ephemeralContainers=[dict(c) for c in containers], **more)
        return pod

    return change


@pytest.fixture
async def write(cluster: Any, pod_of: Any) -> Callable[[Callable[[Object], Object]], Any]:
    """Writes the subresource of a pod `web` whose container is `c`."""
    pod = pod_of("web", initContainers=[{"name": "first", "image": "x"}])
    pod["spec"]["containers"][0]["name"] = "c"
    await cluster.create(kinds.PODS, pod)
    return lambda change: cluster.patch(kinds.PODS, "web", change, subresource="ephemeralcontainers")


async def test_containers_come(cluster: Any, write: Any) -> None:
    """They are defaulted, count as a change of the spec, and what else was sent has no effect."""
    before = await cluster.get(kinds.PODS, "web")

    def change(pod: Object) -> Object:
        pod["metadata"]["labels"] = {"sneaked": "in"}
        pod["status"] = {"phase": "Failed"}
        return adding(DEBUG, activeDeadlineSeconds=5)(pod)

    after = await write(change)
    (made,) = after["spec"].pop("ephemeralContainers")
    assert made["terminationMessagePath"] == "/dev/termination-log"
    assert made["imagePullPolicy"] == "IfNotPresent"
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert after["spec"] == before["spec"]
    assert after["status"] == before["status"]
    assert "labels" not in after["metadata"] or "sneaked" not in after["metadata"]["labels"]


async def test_none_goes_and_none_changes(write: Any, refused: Any) -> None:
    """What is there stays as it is; more may come."""
    await write(adding(DEBUG))
    assert len((await write(adding(DEBUG, {**DEBUG, "name": "second"})))["spec"]["ephemeralContainers"]) == 2
    _, _, text = await refused(write(adding(DEBUG)))
    assert 'spec.ephemeralContainers: Forbidden: existing ephemeral containers "second" may not be removed' in text
    _, _, text = await refused(write(adding({**DEBUG, "image": "other:1"}, {**DEBUG, "name": "second"})))
    assert 'existing ephemeral containers "debug" may not be changed' in text
    assert '+spec.ephemeralContainers.image: "other:1"' in text


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({**DEBUG, "name": "c"}, 'spec.ephemeralContainers[0].name: Duplicate value: "c"'),
        ({**DEBUG, "name": "first"}, 'spec.ephemeralContainers[0].name: Duplicate value: "first"'),
        (
            {**DEBUG, "targetContainerName": "no"},
            'spec.ephemeralContainers[0].targetContainerName: Not found: "no"',
        ),
        ({"name": "debug"}, "spec.ephemeralContainers[0].image: Required value"),
        (
            {**DEBUG, "ports": [{"containerPort": 80}]},
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {**DEBUG, "livenessProbe": {"exec": {"command": ["true"]}}},
            "spec.ephemeralContainers[0].livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {**DEBUG, "resources": {"limits": {"cpu": "1"}}},
            "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ],
    ids=["name of another", "name of an init container", "no such target", "no image", "ports", "probe", "resources"],
)
async def test_what_one_may_be(write: Any, refused: Any, container: Object, expected: str) -> None:
    """Upstream's rules, in its words."""
    _, reason, text = await refused(write(adding(container)))
    assert reason == "Invalid"
    assert expected in text


async def test_only_there(cluster: Any, pod_of: Any, write: Any, refused: Any) -> None:
    """Neither a new pod nor an ordinary update may have them."""
    _, _, text = await refused(cluster.create(kinds.PODS, pod_of("new", ephemeralContainers=[DEBUG])))
    assert "spec.ephemeralContainers: Forbidden: cannot be set on create" in text
    _, _, text = await refused(cluster.patch(kinds.PODS, "web", adding(DEBUG)))
    assert "pod updates may not change fields other than" in text
