"""Users, init containers, sidecars, hooks, service account tokens, and what else a pod's spec asks of a kubelet."""

from __future__ import annotations

import asyncio
import sys

import pytest

import fairlead.cli
from fairlead.api.kinds import CONFIGMAPS, LEASES, NODES, PODS
from fairlead.kubelet import podworker
from fairlead.linux import podcgroups
from tests.kernel.kubelet_lab import Lab, object_of, phase_is, ready, running, state_of

pytestmark = pytest.mark.kernel
FOREVER = "while true; do sleep 0.05; done"


async def test_the_user_and_its_rights(lab: Lab) -> None:
    """runAsUser, runAsGroup, fsGroup; no capabilities for others than root; a read-only root's /tmp too."""
    await lab.start()
    script = "id -u; id -g; id -G; grep CapEff /proc/self/status; touch /v/x && echo wrote; touch /tmp/x || echo no-tmp"
    spec = {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456},
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    container = {
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "securityContext": {"readOnlyRootFilesystem": True},
    }
    lab.pod("user", "sh", "-c", script, spec=spec, container=container)
    pod = await lab.wait("user", phase_is("Succeeded"))
    lines = lab.log(pod).splitlines()
    assert lines[:2] == ["1234", "2345"]
    assert lines[2] == "2345 3456"
    assert lines[3].split() == ["CapEff:", "0" * 16]
    assert "wrote" in lines
    assert "no-tmp" in lines
    await lab.stop()


async def test_init_containers_run_in_turn_before_the_others(lab: Lab) -> None:
    """Each to its end; a failing one is retried; Initialized and the waiting reason tell."""
    await lab.start()
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    init = [
        {"name": "one", "command": ["sh", "-c", "sleep 0.3; echo 1 > /v/one"]},
        {"name": "two", "command": ["sh", "-c", "test -e /v/tried && exit 0; touch /v/tried; cat /v/one; exit 1"]},
    ]
    spec = {
        "volumes": volumes,
        "initContainers": [{"image": "fairlead/host", "volumeMounts": mounts, **c} for c in init],
    }
    lab.pod("steps", "sh", "-c", f"cat /v/one; {FOREVER}", spec=spec, container={"volumeMounts": mounts})
    pod = await lab.wait("steps", lambda p: bool(state_of(p, "one").get("state", {}).get("running")))
    assert pod["status"]["phase"] == "Pending"
    assert state_of(pod)["state"] == {"waiting": {"reason": "PodInitializing"}}
    pod = await lab.wait("steps", ready)
    assert state_of(pod, "two")["restartCount"] == 1
    assert state_of(pod, "one")["state"]["terminated"]["exitCode"] == 0
    assert state_of(pod, "two")["ready"] is True
    await lab.stop()


async def test_a_sidecar_starts_first_and_ends_last(lab: Lab) -> None:
    """An init container with restartPolicy Always runs beside the others and does not keep the pod from succeeding."""
    await lab.start()
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    sidecar = {
        "name": "side",
        "image": "fairlead/host",
        "restartPolicy": "Always",
        "volumeMounts": mounts,
        "command": ["sh", "-c", f"touch /v/side; {FOREVER}"],
        "startupProbe": {"exec": {"command": ["test", "-e", "/v/side"]}, "periodSeconds": 1},
    }
    spec = {
        "restartPolicy": "Never",
        "volumes": volumes,
        "initContainers": [sidecar],
        "terminationGracePeriodSeconds": 1,
    }
    lab.pod("car", "sh", "-c", "test -e /v/side && echo beside", spec=spec, container={"volumeMounts": mounts})
    pod = await lab.wait("car", phase_is("Succeeded"))
    assert lab.log(pod) == "beside\n"
    await lab.stop()


async def test_hooks(lab: Lab) -> None:
    """postStart before Ready; preStop before SIGTERM, within the grace period."""
    await lab.start()
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "sleep 0.2; echo post > /v/hooks"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /v/hooks"]}},
    }
    shared = lab.base / "shared"
    shared.mkdir()
    spec = {"volumes": [{"name": "v", "hostPath": {"path": str(shared)}}]}
    container = {"lifecycle": hooks, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    script = f"trap 'echo term >> /v/hooks; exit 0' TERM; {FOREVER}"
    lab.pod("hooked", "sh", "-c", script, spec=spec, container=container)
    await lab.wait("hooked", ready)
    assert (shared / "hooks").read_text() == "post\n"
    await lab.client.delete(PODS, "hooked", "default")
    await lab.gone("hooked")
    assert (shared / "hooks").read_text() == "post\npre\nterm\n"
    await lab.stop()


async def test_the_node_is_registered_and_its_lease_renewed(lab: Lab) -> None:
    """Addresses, every nodeInfo field, labels, conditions; Ready once the network is; a Lease with our name."""
    lab.api.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-node-lease"}})
    lab.options_extra = {"lease_renew_seconds": 0.1}
    await lab.start()

    def is_ready() -> bool:
        node = lab.api.find(NODES, "n1") or {"status": {}}
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ())

    await lab.until(is_ready)
    node = lab.api.find(NODES, "n1")
    assert node is not None
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
    assert {"type": "InternalIP", "address": "10.244.77.1"} in node["status"]["addresses"]
    assert all(isinstance(v, str) for v in node["status"]["nodeInfo"].values())
    assert len(node["status"]["nodeInfo"]) == 10
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    await lab.until(lambda: lab.api.find(LEASES, "n1", "kube-node-lease"))
    first = (lab.api.find(LEASES, "n1", "kube-node-lease") or {})["spec"]
    assert first["holderIdentity"] == "n1"
    await lab.until(
        lambda: (lab.api.find(LEASES, "n1", "kube-node-lease") or {})["spec"]["renewTime"] > first["renewTime"]
    )
    await lab.stop()


async def test_an_unsupported_field_is_refused_by_name(lab: Lab) -> None:
    """The pod waits with a reason and an event; nothing is silently ignored."""
    await lab.start()
    lab.pod("odd", "true", spec={"hostUsers": False})
    pod = await lab.wait("odd", lambda p: "CreateContainerConfigError" in str(state_of(p).get("state")))
    assert "spec.hostUsers: false is not supported" in state_of(pod)["state"]["waiting"]["message"]
    await lab.event("odd", "Failed", "hostUsers")
    await lab.stop()


async def test_host_network(lab: Lab) -> None:
    """The node's own network, address and (with ClusterFirst) resolver."""
    await lab.start()
    lab.pod(
        "node",
        "sh",
        "-c",
        "ls /sys/class/net; hostname; " + FOREVER,
        spec={"hostNetwork": True, "dnsPolicy": "ClusterFirst"},
    )
    pod = await lab.wait("node", running)
    assert pod["status"]["podIP"] == "10.244.77.1"
    await lab.until(lambda: "fl0" in lab.log(pod))
    assert lab.network.attached() == set()
    await lab.stop()


async def test_a_termination_message_is_reported(lab: Lab) -> None:
    """What the container wrote to terminationMessagePath; with FallbackToLogsOnError the log's end."""
    await lab.start()
    lab.pod("says", "sh", "-c", "echo -n goodbye > /dev/termination-log; exit 1", spec={"restartPolicy": "Never"})
    logs = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    lab.pod("logs", "sh", "-c", "echo from the log; exit 1", spec={"restartPolicy": "Never"}, container=logs)
    pod = await lab.wait("says", phase_is("Failed"))
    assert state_of(pod)["state"]["terminated"]["message"] == "goodbye"
    pod = await lab.wait("logs", phase_is("Failed"))
    assert state_of(pod)["state"]["terminated"]["message"] == "from the log\n"
    await lab.stop()


async def test_a_config_map_change_reaches_a_running_pod(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes are made again from time to time, and swap their content at once."""
    monkeypatch.setattr(podworker, "_REFRESH_VOLUMES", 0.2)
    monkeypatch.setattr(podworker, "_RESYNC", 0.2)
    lab.api.add(object_of("ConfigMap", "cm", data={"k": "one"}))
    await lab.start()
    spec = {"volumes": [{"name": "v", "configMap": {"name": "cm"}}]}
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    pod = lab.pod("live", "sh", "-c", "while true; do cat /v/k; echo; sleep 0.05; done", spec=spec, container=mounts)
    await lab.wait("live", running)
    await lab.until(lambda: "one" in lab.log(pod))

    def change(obj: dict[str, object]) -> None:
        obj["data"] = {"k": "two"}

    lab.api.edit(CONFIGMAPS, "cm", "default", change)
    await lab.until(lambda: "two" in lab.log(pod))
    await lab.stop()


async def test_a_fairlead_command_runs_without_a_fresh_interpreter(lab: Lab) -> None:
    """The same output and exit code as `python -m fairlead`, from the warmed process that was forked."""
    await lab.start()
    spec = {"restartPolicy": "Never"}
    lab.pod("warm", sys.executable, "-m", "fairlead", "--version", spec=spec)
    lab.pod("wrong", sys.executable, "-m", "fairlead", "no-such-command", spec=spec)
    pod = await lab.wait("warm", phase_is("Succeeded"))
    assert lab.log(pod).startswith(f"fairlead {fairlead.__version__}")
    pod = await lab.wait("wrong", phase_is("Failed"))
    assert state_of(pod)["state"]["terminated"]["exitCode"] == 2
    assert "no-such-command" in lab.log(pod)
    await lab.stop()


async def test_a_pod_that_is_active_for_too_long_fails_for_good(lab: Lab) -> None:
    """activeDeadlineSeconds: its containers are told to end, and it is Failed with the reason, whatever the policy."""
    await lab.start()
    script = "trap 'echo told; exit 0' TERM; while :; do sleep 0.05; done"
    lab.pod("late", "sh", "-c", script, spec={"activeDeadlineSeconds": 1, "restartPolicy": "Always"})
    pod = await lab.wait("late", lambda p: (p.get("status") or {}).get("phase") == "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert pod["status"]["message"] == "Pod was active on the node longer than the specified deadline"
    assert lab.log(pod) == "told\n"
    await lab.event("late", "DeadlineExceeded")
    await lab.stop()
    kubelet = await lab.start()  # and the next kubelet leaves it so
    await kubelet.synced.wait()
    again = await lab.wait("late", lambda p: p["status"]["phase"] == "Failed")
    assert again["status"]["containerStatuses"][0]["restartCount"] == 0
    await lab.stop()


async def test_sidecars_end_last_in_reverse_order(lab: Lab) -> None:
    """First the main container, then the sidecars one by one, the last to start first."""
    await lab.start()
    script = "trap 'sleep 0.1; echo {} >> /v/order; exit 0' TERM; while :; do sleep 0.02; done"
    mounts = [{"name": "v", "mountPath": "/v"}]

    def container(name: str, **more: object) -> dict[str, object]:
        command = ["sh", "-c", script.format(name)]
        return {"name": name, "image": "fairlead/host", "command": command, "volumeMounts": mounts, **more}

    directory = lab.base / "order"
    spec = {
        "initContainers": [container("first", restartPolicy="Always"), container("second", restartPolicy="Always")],
        "containers": [container("main")],
        "volumes": [{"name": "v", "hostPath": {"path": str(directory), "type": "DirectoryOrCreate"}}],
    }
    lab.pod("ordered", spec=spec)
    await lab.wait("ordered", ready)
    await asyncio.sleep(0.2)  # until the shells have set their traps
    await lab.client.delete(PODS, "ordered", "default")
    await lab.gone("ordered")
    assert (directory / "order").read_text().split() == ["main", "second", "first"]
    await lab.stop()


EAT = "import time; held = []\nfor _ in range(400): held.append(bytearray(1 << 20))\ntime.sleep(60)"


async def test_a_container_over_its_memory_limit_is_killed(lab: Lab) -> None:
    """OOMKilled, exit code 137; its control group is gone."""
    if "memory" not in podcgroups.hierarchies():
        pytest.skip("needs the memory controller of control groups")
    await lab.start()
    resources = {"resources": {"limits": {"memory": "32Mi", "cpu": "500m"}}}
    made = lab.pod("eater", "python3", "-c", EAT, spec={"restartPolicy": "Never"}, container=resources)
    pod = await lab.wait("eater", phase_is("Failed"))
    ended = state_of(pod)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    uid = made["metadata"]["uid"]
    assert not [h.root for h in podcgroups.hierarchies().values() if (h.root / "fairlead-pods" / uid).exists()]
    script = 'python3 -c "$0"; exit 3'  # who lost a child to the limit may end by itself: that is why it ended
    lab.pod("parent", "sh", "-c", script, EAT, spec={"restartPolicy": "Never"}, container=resources)
    ended = state_of(await lab.wait("parent", phase_is("Failed")))["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "OOMKilled")
    lab.pod("modest", "sh", "-c", "cat /proc/self/cgroup; sleep 60", container=resources)
    pod = await lab.wait("modest", running)
    await lab.until(lambda: lab.log(pod))
    group = f"/fairlead-pods/{pod['metadata']['uid']}/main-0"
    assert sum(line.endswith(group) for line in lab.log(pod).splitlines()) >= 1
    await lab.stop()
