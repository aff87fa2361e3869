"""What a pod's status says for what its containers do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.kubelet.runtime import Exit, Record
from fairlead.kubelet.status import ContainerView, PodView, container_id, patch_of, phase, pod_status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNNING = ContainerView(current=Record("c", 0, 10**18), ready=True, started=True)
UNREADY = ContainerView(current=Record("c", 0, 10**18), started=True)
NEW = ContainerView()
BACKOFF = ContainerView(current=Record("c", 1, 1, Exit(1)), waiting=("CrashLoopBackOff", "back-off"))


def ended(code: int, **more: Any) -> ContainerView:
    return ContainerView(current=Record("c", 0, 10**18, Exit(code, 0, 10**18, 2 * 10**18, **more)))


def pod(policy: str = "Always", containers: int = 1, init: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {
            "restartPolicy": policy,
            "containers": [{"name": f"c{n}", "image": "fairlead/host"} for n in range(containers)],
            "initContainers": [{"name": f"i{n}", "image": "fairlead/host", **c} for n, c in enumerate(init)],
        },
    }


def view(*containers: ContainerView, init: tuple[ContainerView, ...] = ()) -> PodView:
    named = {f"c{n}": c for n, c in enumerate(containers)} | {f"i{n}": c for n, c in enumerate(init)}
    return PodView(named, ("10.1.1.1",), ("172.16.0.1",), True, NOW)


@pytest.mark.parametrize(
    ("policy", "containers", "expected"),
    [
        ("Always", (NEW,), "Pending"),
        ("Always", (RUNNING,), "Running"),
        ("Always", (RUNNING, NEW), "Pending"),
        ("Always", (ended(0),), "Running"),
        ("Always", (BACKOFF,), "Running"),
        ("OnFailure", (BACKOFF,), "Running"),
        ("OnFailure", (ended(1),), "Running"),
        ("OnFailure", (ended(0),), "Succeeded"),
        ("Never", (ended(0), ended(0)), "Succeeded"),
        ("Never", (ended(0), ended(1)), "Failed"),
        ("Never", (RUNNING, ended(1)), "Running"),
    ],
)
def test_phases(policy: str, containers: tuple[ContainerView, ...], expected: str) -> None:
    """Upstream's getPhase."""
    assert phase(pod(policy, len(containers)), view(*containers)) == expected


@pytest.mark.parametrize(
    ("policy", "init", "spec", "expected"),
    [
        ("Always", RUNNING, {}, "Pending"),
        ("Always", BACKOFF, {}, "Pending"),
        ("Never", ended(1), {}, "Failed"),
        ("Always", ended(0), {}, "Pending"),
        ("Always", RUNNING, {"restartPolicy": "Always"}, "Pending"),
    ],
)
def test_phases_while_initializing(policy: str, init: ContainerView, spec: dict[str, Any], expected: str) -> None:
    """Pending until a main container was started; Failed if an init container fails for good."""
    assert phase(pod(policy, init=(spec,)), view(NEW, init=(init,))) == expected


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in status["conditions"]}


def test_a_ready_pod() -> None:
    """All five conditions are True; addresses, times and identifiers are there."""
    status = pod_status(pod(), view(RUNNING), NOW)
    assert set(conditions(status).values()) == {("True", "")}
    assert status["podIPs"] == [{"ip": "10.1.1.1"}]
    assert status["hostIP"] == "172.16.0.1"
    assert status["startTime"] == "2026-01-02T03:04:05Z"
    (container,) = status["containerStatuses"]
    assert container["state"] == {"running": {"startedAt": "2001-09-09T01:46:40Z"}}
    assert container["containerID"] == container_id("u", "c0", 0)
    assert container["started"] is True


def test_an_unready_pod_names_its_containers() -> None:
    """ContainersNotReady, with upstream's message."""
    status = pod_status(pod(containers=2), view(RUNNING, UNREADY), NOW)
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [c1]"


def test_readiness_gates() -> None:
    """ContainersReady without Ready until the gate's condition is True."""
    subject = pod()
    subject["spec"]["readinessGates"] = [{"conditionType": "example.com/go"}]
    found = conditions(pod_status(subject, view(RUNNING), NOW))
    assert found["ContainersReady"] == ("True", "")
    assert found["Ready"] == ("False", "ReadinessGatesNotReady")
    subject["status"] = {"conditions": [{"type": "example.com/go", "status": "True"}]}
    assert conditions(pod_status(subject, view(RUNNING), NOW))["Ready"] == ("True", "")


def test_transition_times_move_only_with_the_status() -> None:
    """The old time is kept while the status is the same."""
    subject = pod()
    old = "2020-01-01T00:00:00Z"
    subject["status"] = {
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": old},
            {"type": "ContainersReady", "status": "False", "lastTransitionTime": old},
        ]
    }
    times = {c["type"]: c["lastTransitionTime"] for c in pod_status(subject, view(RUNNING), NOW)["conditions"]}
    assert times["Ready"] == old
    assert times["ContainersReady"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("one", "state", "last"),
    [
        (NEW, {"waiting": {"reason": "ContainerCreating"}}, None),
        (BACKOFF, {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, 1),
    ],
)
def test_waiting_states(one: ContainerView, state: dict[str, Any], last: int | None) -> None:
    """The reason stands in state, the end of the last attempt in lastState."""
    (container,) = pod_status(pod(), view(one), NOW)["containerStatuses"]
    assert container["state"] == state
    assert (container["lastState"].get("terminated") or {}).get("exitCode") == last


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (ended(0), "Completed"),
        (ended(3), "Error"),
        (ended(128, failure="exec: no"), "StartError"),
        (ended(137, lost=True), "ContainerStatusUnknown"),
    ],
)
def test_terminated_reasons(one: ContainerView, reason: str) -> None:
    """As containerd and the kubelet name them."""
    (container,) = pod_status(pod("Never"), view(one), NOW)["containerStatuses"]
    assert container["state"]["terminated"]["reason"] == reason
    assert ("1970" in container["state"]["terminated"]["startedAt"]) == (reason == "StartError")


def test_the_patch_holds_what_differs_and_the_uid() -> None:
    """Nothing differs: no patch. Conditions of others are never sent. Changed addresses replace the list."""
    subject = pod()
    status = pod_status(subject, view(RUNNING), NOW)
    patch = patch_of(subject, status, {})
    assert patch is not None
    assert patch["metadata"] == {"uid": "u"}
    assert patch_of(subject, status, status) is None
    moved = {**status, "podIP": "10.1.1.2", "podIPs": [{"ip": "10.1.1.2"}]}
    patch = patch_of(subject, moved, status)
    assert patch is not None
    assert patch["status"] == {"podIP": "10.1.1.2", "podIPs": [{"$patch": "replace"}, {"ip": "10.1.1.2"}]}


def test_a_reason_that_is_over_is_taken_back() -> None:
    """A strategic merge patch keeps what it does not name: a condition's old reason and message go by name."""
    subject = pod()
    before = pod_status(subject, PodView({"c0": UNREADY}), NOW)
    after = pod_status(subject, PodView({"c0": RUNNING}), NOW)
    patch = patch_of(subject, after, before)
    assert patch is not None
    ready = next(c for c in patch["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("True", None, None)
