"""From a pod's spec to a container's plan."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fairlead.kubelet.container import DEFAULT_CAPABILITIES
from fairlead.kubelet.plans import PlanProblem, PodPlaces, container_plan, refusal
from fairlead.kubelet.rootfs import Bind, hidden

PLACES = PodPlaces(Path("/m"), Path("/c"), Path("/l/0.log"), ("/secret",), {"v": Path("/vol")}, "host")


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [], **spec}}


def plan(container: dict[str, Any], subject: dict[str, Any] | None = None) -> Any:
    full = {"name": "c", "image": "fairlead/host", "command": ["true"], **container}
    return container_plan(subject or pod(), full, (("A", "1"), ("HOME", "/mine")), PLACES)


def test_the_environment_has_what_every_container_has() -> None:
    """PATH, HOSTNAME, HOME; an explicit entry wins."""
    env = dict(plan({}).env)
    assert env["HOSTNAME"] == "host"
    assert env["HOME"] == "/mine"
    assert env["A"] == "1"
    assert "/usr/bin" in env["PATH"]
    assert "TERM" not in env
    assert dict(plan({"tty": True}).env)["TERM"] == "xterm"


def test_command_and_args_are_expanded() -> None:
    """Both, with the container's variables."""
    assert plan({"command": ["sh", "-c"], "args": ["echo $(A) $(B) $$(A)"]}).argv == ("sh", "-c", "echo 1 $(B) $(A)")


def test_no_command_is_a_problem_that_names_the_container() -> None:
    """The image has no entrypoint."""
    with pytest.raises(PlanProblem, match='container "c" needs a command') as caught:
        plan({"command": []})
    assert caught.value.reason == "CreateContainerError"


def test_security_contexts() -> None:
    """The container's wins over the pod's; groups add up; capabilities are dropped before they are added."""
    subject = pod(
        securityContext={"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000]}
    )
    found = plan({"securityContext": {"runAsUser": 1001, "allowPrivilegeEscalation": False}}, subject)
    assert (found.uid, found.gid, found.groups) == (1001, 2000, (3000, 4000))
    assert found.no_new_privileges
    assert set(found.capabilities) == set(DEFAULT_CAPABILITIES)
    only = plan({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["CAP_NET_ADMIN"]}}})
    assert only.capabilities == ("NET_ADMIN",)
    with pytest.raises(PlanProblem, match='unknown capability "FLY"'):
        plan({"securityContext": {"capabilities": {"add": ["FLY"]}}})
    with pytest.raises(PlanProblem, match="runAsNonRoot"):
        plan({"securityContext": {"runAsNonRoot": True}})


def test_mounts() -> None:
    """The pod's /etc files unless mounted over; API volumes are read-only; subPath stays within the volume."""
    subject = pod(volumes=[{"name": "v", "configMap": {"name": "x"}}])
    binds = {
        b.target: b for b in plan({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts/"}]}, subject).root.binds
    }
    assert binds["/etc/hosts"].source == "/vol"
    assert binds["/etc/hosts"].read_only
    assert binds["/etc/resolv.conf"].source == "/m/etc/resolv.conf"
    assert binds["/dev/termination-log"].source == "/c/termination-log"
    with pytest.raises(PlanProblem, match="subPath"):
        plan({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../../etc"}]}, subject)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"hostUsers": False}, "spec.hostUsers"),
        ({"volumes": [{"name": "v", "csi": {}}]}, "csi"),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(spec: dict[str, Any], word: str) -> None:
    """Before anything is started."""
    assert word in refusal(pod(**spec))


def test_shared_namespaces() -> None:
    """Containers share PIDs with the pod, the machine, or one they look at; shared memory with the machine."""
    own = plan({})
    assert (own.shares_pids, own.target, own.root.shm) == (False, "", "/m/shm")
    assert plan({}, pod(shareProcessNamespace=True)).shares_pids
    machine = plan({}, pod(hostPID=True, hostIPC=True))
    assert machine.shares_pids
    assert machine.root.shm == "/dev/shm"
    assert plan({"targetContainerName": "c"}).target == "c"


def test_the_machine_as_an_image_has_a_shell() -> None:
    """For a container somebody can type into; another one without a command is told that it lacks one."""
    assert plan({"command": [], "stdin": True}).argv[0] in ("/bin/bash", "/bin/sh")
    with pytest.raises(PlanProblem, match="no command specified"):
        plan({"command": []})


def test_a_plain_pod_is_not_refused() -> None:
    """An empty text."""
    assert refusal(pod(containers=[{"name": "c", "ports": [{"containerPort": 80}]}])) == ""


def test_what_an_own_tmp_would_hide() -> None:
    """The cluster's own pods run the program, also from below /tmp; what is elsewhere is there anyway."""
    inside = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (inside / "link").symlink_to(inside)
        found = hidden([str(inside), str(inside / "link"), str(inside / "missing"), "/usr"])
        assert found == (Bind(str(inside), str(inside), read_only=True),)
    finally:
        shutil.rmtree(inside)
