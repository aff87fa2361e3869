"""The kubelet with real pods: processes in namespaces, on a real pod network, against an API in memory."""

from __future__ import annotations

import os
import secrets

import pytest
from immutables import Map

from fairlead.api.kinds import PODS
from fairlead.discovery.model import Service, ServiceKey, ServicePort, ServiceSnapshot
from fairlead.kubelet.containers import run_and_read
from tests.kernel.kubelet_lab import Lab, object_of, phase_is, python, ready, running, state_of

pytestmark = pytest.mark.kernel


async def test_a_pod_runs_is_ready_and_is_gone_when_deleted(lab: Lab) -> None:
    """Bound → Running and Ready with an address; deleted → SIGTERM, then gone from the API and the machine."""
    await lab.start()
    marker = secrets.token_hex(8)
    script = f"trap 'exit 0' TERM; echo up {marker}; while true; do sleep 0.05; done"
    lab.pod("web", "sh", "-c", script)
    pod = await lab.wait("web", ready)
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("10.244.77.")
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["qosClass"] == "BestEffort"
    assert state_of(pod)["containerID"].startswith("fairlead://")
    assert state_of(pod)["restartCount"] == 0
    assert {c["type"] for c in status["conditions"]} >= {
        "PodScheduled",
        "Initialized",
        "ContainersReady",
        "Ready",
        "PodReadyToStartContainers",
    }
    await lab.until(lambda: f"up {marker}" in lab.log(pod))
    await lab.event("web", "Started")
    await lab.client.delete(PODS, "web", "default")
    await lab.gone("web")
    await lab.event("web", "Killing", "Stopping container main")
    assert not lab.kubelet.runtime.pod_dir(pod["metadata"]["uid"]).exists()
    assert lab.network.attached() == set()
    await lab.stop()


async def test_the_root_is_the_machine_read_only_and_private(lab: Lab) -> None:
    """Files of the machine are seen and can't be written; /tmp is the pod's own; cluster secrets are not seen."""
    hidden = lab.base / "cluster-secrets"
    hidden.mkdir()
    (hidden / "ca.key").write_text("secret")
    await lab.start()
    script = f"""
        hostname; cat /etc/hostname; ls {hidden} | wc -l; ls {lab.root_dir} | wc -l; ls {lab.runtime_dir} 2>&1 | wc -l
        touch /usr/written 2>/dev/null && echo WROTE-USR; touch /written 2>/dev/null && echo WROTE-ROOT
        touch /etc/written 2>/dev/null && echo WROTE-ETC; mount -o remount,rw / 2>/dev/null && echo REMOUNTED
        echo x > /proc/sys/kernel/domainname 2>/dev/null && echo WROTE-SYSCTL
        mknod /tmp/disk b 8 0 2>/dev/null && echo MADE-DEVICE
        touch /tmp/mine && ls /tmp; ps -e -o pid=,comm= | head -1; echo $HOSTNAME; cat /proc/1/comm
        cat /etc/resolv.conf /etc/hosts; cat /dev/null; echo done
    """
    lab.pod("box", "sh", "-c", script, spec={"restartPolicy": "Never"})
    pod = await lab.wait("box", phase_is("Succeeded"))
    lines = lab.log(pod).splitlines()
    assert lines[:2] == ["box", "box"]
    assert lines[2:5] == ["0", "0", "1"]  # the last: ls says that there is none
    assert "mine" in lines
    assert lines[lines.index("mine") + 1].split() == ["1", "sh"]
    assert "nameserver 10.96.0.10" in lines
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in lines[lines.index("sh") + 1]
    assert f"{pod['status']['podIP']}\tbox" in lines
    assert not [line for line in lines if "WROTE" in line or "MADE" in line or line == "REMOUNTED"]
    assert lines[-1] == "done"
    assert not os.path.exists("/tmp/mine")  # noqa: ASYNC240, PTH110
    assert state_of(pod)["state"]["terminated"]["reason"] == "Completed"
    await lab.stop()


async def test_volumes_of_every_kind_are_where_the_pod_mounts_them(lab: Lab) -> None:
    """emptyDir is shared and writable, API content is there read-only, mount points are made where there are none."""
    lab.api.add(object_of("ConfigMap", "settings", data={"color": "blue", "size": "7"}))
    lab.api.add(object_of("Secret", "keys", data={"token": "czNjcjN0"}))
    shared = lab.base / "shared"
    shared.mkdir()
    (shared / "file").write_text("from the machine")
    await lab.start()
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys", "items": [{"key": "token", "path": "deep/er/token"}]}},
        {"name": "host", "hostPath": {"path": str(shared)}},
        {"name": "about", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    mounts = [
        {"name": "scratch", "mountPath": "/data/scratch"},
        {"name": "settings", "mountPath": "/etc/app/settings"},
        {"name": "settings", "mountPath": "/etc/color", "subPath": "color"},
        {"name": "keys", "mountPath": "/var/run/secrets/keys"},
        {"name": "host", "mountPath": "/usr/share/fairlead-test/host"},
        {"name": "about", "mountPath": "/about"},
    ]
    script = """
        cat /etc/app/settings/color /etc/color /var/run/secrets/keys/deep/er/token /about/name; echo
        cat /usr/share/fairlead-test/host/file; echo; cat /data/scratch/left
        echo x > /etc/app/settings/color || echo refused; echo y > /data/scratch/right; echo $size; ls /etc/passwd
    """
    init = {
        "name": "setup",
        "image": "fairlead/host",
        "command": ["sh", "-c", "echo prepared > /data/scratch/left"],
        "volumeMounts": mounts[:1],
    }
    spec = {"restartPolicy": "Never", "volumes": volumes, "initContainers": [init]}
    extra = {"volumeMounts": mounts, "envFrom": [{"configMapRef": {"name": "settings"}}]}
    lab.pod("files", "sh", "-c", script, spec=spec, container=extra)
    pod = await lab.wait("files", phase_is("Succeeded"))
    text = lab.log(pod)
    assert "blueblues3cr3tfiles" in text
    assert "from the machine" in text
    assert "prepared" in text
    assert "refused" in text
    assert text.splitlines()[-1] == "/etc/passwd"
    assert "7" in text.splitlines()
    await lab.stop()


async def test_a_missing_config_map_is_waited_for_and_said(lab: Lab) -> None:
    """FailedMount for a volume, CreateContainerConfigError for an environment; both mend when the object appears."""
    await lab.start()
    volumes = [{"name": "v", "configMap": {"name": "late"}}]
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "a"}}}]
    lab.pod(
        "needy",
        "sleep",
        "60",
        spec={"volumes": volumes},
        container={"env": env, "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
    )
    await lab.event("needy", "FailedMount", 'MountVolume.SetUp failed for volume "v" : configmap "late" not found')
    lab.api.add(object_of("ConfigMap", "late", data={}))
    pod = await lab.wait("needy", lambda p: "CreateContainerConfigError" in str(state_of(p).get("state")))
    assert state_of(pod)["state"]["waiting"]["message"] == 'configmap "later" not found'
    lab.api.add(object_of("ConfigMap", "later", data={"a": "1"}))
    await lab.wait("needy", running)
    await lab.stop()


async def test_another_image_is_refused_by_name(lab: Lab) -> None:
    """ErrImagePull, then ImagePullBackOff, with events that say why."""
    await lab.start()
    lab.pod("nginx", container={"image": "nginx:1.27"})
    pod = await lab.wait("nginx", lambda p: "ErrImagePull" in str(state_of(p).get("state")))
    assert "only the image fairlead/host" in state_of(pod)["state"]["waiting"]["message"]
    await lab.event("nginx", "Failed", 'Failed to pull image "nginx:1.27"')
    await lab.wait("nginx", lambda p: "ImagePullBackOff" in str(state_of(p).get("state")))
    await lab.event("nginx", "BackOff", 'Back-off pulling image "nginx:1.27"')
    await lab.stop()


async def test_a_command_that_is_not_there_is_a_start_error(lab: Lab) -> None:
    """Exit code 128, reason StartError, a message that names no program that is not there; then CrashLoopBackOff."""
    await lab.start()
    lab.pod("typo", "no-such-program")
    pod = await lab.wait("typo", lambda p: "CrashLoopBackOff" in str(state_of(p).get("state")))
    last = state_of(pod)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (128, "StartError")
    assert last["message"] == 'exec: "no-such-program": executable file not found in $PATH'
    await lab.event(
        "typo",
        "Failed",
        'Error: failed to start container: exec: "no-such-program": executable file not found in $PATH: unknown',
    )
    assert last["startedAt"] == "1970-01-01T00:00:00Z"
    assert "back-off 10s restarting failed container=main" in state_of(pod)["state"]["waiting"]["message"]
    lab.pod("once", "/no/such", spec={"restartPolicy": "Never"})
    pod = await lab.wait("once", phase_is("Failed"))
    assert "stat /no/such: no such file or directory" in state_of(pod)["state"]["terminated"]["message"]
    await lab.event("typo", "BackOff", "Back-off restarting failed container main in pod typo_default(")
    await lab.stop()


async def test_a_failing_container_is_restarted_at_once_then_backed_off(lab: Lab) -> None:
    """The first restart is immediate; restartCount and lastState tell; OnFailure ends with success."""
    await lab.start()
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    script = "test -e /v/seen && exit 0; touch /v/seen; exit 3"
    spec = {"restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}]}
    lab.pod("retry", "sh", "-c", script, spec=spec, container=mounts)
    pod = await lab.wait("retry", phase_is("Succeeded"))
    assert state_of(pod)["restartCount"] == 1
    assert state_of(pod)["lastState"]["terminated"]["exitCode"] == 3
    await lab.stop()


async def test_probes_gate_readiness_and_restart_the_unhealthy(lab: Lab) -> None:
    """tcpSocket and httpGet toward the pod's address; readiness follows at once; liveness kills."""
    await lab.start()
    server = (
        "import http.server,os,signal,threading,time;"
        "time.sleep(.1);"
        "h=http.server.SimpleHTTPRequestHandler;"
        "h.do_GET=lambda s:(s.send_response(500 if os.path.exists('/tmp/bad') else 200),s.end_headers());"
        "http.server.HTTPServer(('',8080),h).serve_forever()"
    )
    probes = {
        "ports": [{"name": "web", "containerPort": 8080}],
        "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 60},
        "readinessProbe": {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 60},
        "livenessProbe": {
            "exec": {"command": ["sh", "-c", "! test -e /tmp/bad"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = {"terminationGracePeriodSeconds": 1}
    lab.pod("served", *python(server), spec=spec, container=probes)
    pod = await lab.wait("served", ready)
    assert state_of(pod)["started"] is True
    assert state_of(pod)["restartCount"] == 0
    worker = lab.kubelet.find("default", "served")
    assert worker is not None
    assert worker.sandbox is not None
    code, output = await run_and_read(worker.sandbox, "main", 0, ["sh", "-c", "touch /tmp/bad; echo made"])
    assert (code, output) == (0, "made\n")
    pod = await lab.wait("served", lambda p: state_of(p).get("restartCount") == 1 and ready(p))
    assert state_of(pod)["lastState"]["terminated"]["exitCode"] == 137
    await lab.event("served", "Unhealthy", "Liveness probe failed")
    await lab.event("served", "Killing", "Container main failed liveness probe, will be restarted")
    await lab.stop()


async def test_containers_share_network_and_ipc_and_see_the_services(lab: Lab) -> None:
    """Two containers talk over loopback; each has service variables and the pod's address by fieldRef."""
    service = Service(
        ServiceKey("default", "redis-master"), cluster_ips=("10.0.0.11",), ports=(ServicePort("", "TCP", 6379, 6379),)
    )
    lab.snapshot = ServiceSnapshot(services=Map({service.key: service}), synced=True)
    await lab.start()
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "redis://$(REDIS_MASTER_SERVICE_HOST):$(REDIS_MASTER_SERVICE_PORT)/$(NOPE)/$$(X)"},
    ]
    other = {
        "name": "other",
        "image": "fairlead/host",
        "command": [*python("import socket;s=socket.create_server(('127.0.0.1',9));s.accept()[0].send(b'hello')")],
    }
    listen = """if True:
        import os, socket, time
        for _ in range(200):
            try:
                print(socket.create_connection(("127.0.0.1", 9)).recv(9))
                break
            except OSError:
                time.sleep(0.05)
        print(os.environ["URL"], os.environ["IP"])
    """
    main = {"name": "main", "image": "fairlead/host", "command": list(python(listen)), "env": env}
    two = lab.pod("duo", spec={"restartPolicy": "Never", "containers": [main, other]})
    found = await lab.wait("duo", phase_is("Succeeded"))
    assert "b'hello'" in lab.log(two)
    assert f"redis://10.0.0.11:6379/$(NOPE)/$(X) {found['status']['podIP']}" in lab.log(two)
    await lab.stop()
