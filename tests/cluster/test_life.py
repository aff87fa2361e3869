"""A cluster's life: kill any process, stop everything, start again, remove; and what can go wrong at the start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.linux import namespaces
from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-life")]

WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
    - name: web
      image: fairlead/host
      command: ["python3", "-m", "http.server", "8080"]
      readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: fairlead/host, command: ["sleep", "infinity"]}]
"""


def reachable(cluster: Cluster) -> bool:
    """The client pod reaches the Service by name."""
    command = ("exec", "client", "--", "curl", "-sS", "-o", "/dev/null", "--max-time", "2", "http://web")
    return cluster._run(["kubectl", *command], False, None).returncode == 0


def cut_the_power(cluster: Cluster) -> None:
    """What a power cut and a boot leave: the state directory, and nothing else."""
    for kill in Path("/sys/fs/cgroup").rglob(f"fairlead/{cluster.name}/cgroup.kill"):
        kill.write_text("1")
    cluster.wait_for(lambda: not cluster.status()["processes"], "the end of every process")
    for name in namespaces.names(f"fl-{cluster.name}"):
        namespaces.delete(name)
    runtime = f"/run/fairlead/{cluster.name}"
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if line.split()[1].startswith(f"{runtime}/"):
            subprocess.run(["umount", "-l", line.split()[1]], check=True)
    shutil.rmtree(runtime)


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Cluster:
    """A Service with a pod behind it, and a client."""
    cluster.apply(WEB)
    cluster.wait_for(lambda: reachable(cluster), "the first reply")
    return cluster


@pytest.mark.parametrize("process", ["supervisor", "standby", "control-plane", "node-n1", "node-n2"])
def test_kill_nine_heals(web: Cluster, process: str) -> None:
    """kill -9 of any process: another takes its place, and no pod was restarted for it."""
    before = {p["metadata"]["uid"]: p["status"]["containerStatuses"][0] for p in web.get("pods")["items"]}
    pid = web.status()["processes"][process]
    os.kill(pid, signal.SIGKILL)
    web.wait_for(lambda: web.status()["processes"].get(process, pid) != pid, f"a new {process}")
    web.wait_for(lambda: web.status()["ready"], "all ready again")
    web.wait_for(lambda: reachable(web), "a reply")
    after = {p["metadata"]["uid"]: p["status"]["containerStatuses"][0] for p in web.get("pods")["items"]}
    assert {u: s["containerID"] for u, s in after.items()} == {u: s["containerID"] for u, s in before.items()}
    assert all(s["restartCount"] == before[u]["restartCount"] for u, s in after.items())


def test_a_killed_dns_pod_comes_back(web: Cluster) -> None:
    """kill -9 of the processes of every DNS pod: names resolve again."""
    subprocess.run(["pkill", "-9", "-f", "fairlead dns --cluster-domain"], check=False)
    web.wait_for(lambda: reachable(web), "a reply by name")


def test_stop_everything_and_come_back_with_the_same_objects(web: Cluster) -> None:
    """As after a power cut: every process and namespace gone; `up` brings the same objects and the path back."""
    uids = {s["metadata"]["name"]: (s["metadata"]["uid"], s["spec"]["clusterIP"]) for s in web.get("svc")["items"]}
    cut_the_power(web)
    web.up()
    after = {s["metadata"]["name"]: (s["metadata"]["uid"], s["spec"]["clusterIP"]) for s in web.get("svc")["items"]}
    assert after == uids
    web.wait_for(lambda: reachable(web), "a reply after the restart")


def test_another_cluster_beside_it_and_down_without_a_trace(web: Cluster, tmp_path: Path) -> None:
    """A second cluster runs beside the first with the same addresses inside; its `down` leaves nothing of it, and the
    first goes on."""
    other = Cluster(tmp_path, nodes=1)
    try:
        other.up()
        assert other.get("svc", "kubernetes")["spec"]["clusterIP"] == "10.96.0.1"
        assert other.status()["lan"] != web.status()["lan"]
        other.apply(WEB)
        other.wait_for(lambda: reachable(other), "a reply in the second cluster")
    finally:
        other.fairlead("down", "--name", other.name)
    assert _left_of(other) == []
    assert not (other.state / other.name).exists()
    assert not Path(f"/run/fairlead/{other.name}").exists()
    assert other.name not in Path(other.environment["KUBECONFIG"]).read_text()
    left = subprocess.run(["pgrep", "-f", str(other.state)], capture_output=True, text=True, check=False).stdout
    assert left == ""
    assert reachable(web)


def test_down_without_control_groups(unstarted: Cluster) -> None:
    """Where there is no cgroup v2 (as in some containers), processes are found by the files they hold open."""
    unstarted.up("--nodes", "1")
    unstarted.apply(WEB)
    unstarted.wait_for(lambda: reachable(unstarted), "a reply")
    pids: list[str] = []
    for procs in Path("/sys/fs/cgroup").rglob(f"fairlead/{unstarted.name}/cgroup.procs"):
        for pid in procs.read_text().split():
            (procs.parents[2] / "cgroup.procs").write_text(pid)
            pids.append(pid)
    assert any(b"http.server" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    unstarted.fairlead("down", "--name", unstarted.name)

    def alive() -> list[str]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()]

    # the kernel ends a pod's processes after the first of its process namespace, which may take it a moment
    unstarted.wait_for(lambda: not alive(), "the end of every process")


def _left_of(cluster: Cluster) -> list[str]:
    """What of this machine still bears the cluster's name: links, routes, tables, namespaces, mounts, groups."""
    commands = (
        "ip -o link",
        "ip route",
        "nft list ruleset",
        "ip netns list",
        "cat /proc/self/mounts",
        "find /sys/fs/cgroup -maxdepth 3 -path '*fairlead*'",
    )
    lines = []
    for command in commands:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        lines += [line for line in done.stdout.splitlines() if cluster.name in line]
    return lines


def failing(cluster: Cluster, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """A command that must fail: one line on stderr, no traceback; the line."""
    cluster.environment.update(environment or {})
    done = cluster.fairlead(*arguments, check=False)
    assert done.returncode in (1, 2), done
    assert len(done.stderr.strip().splitlines()) == 1 or done.stderr.count("✗") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_the_name_of_a_running_cluster_is_in_use(web: Cluster) -> None:
    """A second `up` of a running cluster says so and what to do."""
    line = failing(web, "up", "--name", web.name)
    assert "already running" in line
    assert f"fairlead down --name {web.name}" in line


def test_the_name_of_a_cluster_with_its_state_elsewhere_is_in_use(web: Cluster, tmp_path: Path) -> None:
    """Neither `up` nor `down --all` nor `down --name` with another state directory touches a cluster that runs."""
    other = Cluster(tmp_path)
    for command in ("up", "down"):
        line = failing(other, command, "--name", web.name)
        assert f"keeps its state in {web.state / web.name}" in line
    other.fairlead("down", "--all")
    assert web.status()["ready"]


def test_a_taken_port_is_named(unstarted: Cluster) -> None:
    """--api-server-port that someone has: the port is named, and nothing is left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failing(unstarted, "up", "--name", unstarted.name, "--api-server-port", str(port))
    assert f"port {port} of 127.0.0.1 is in use" in line
    assert not namespaces.names(f"fl-{unstarted.name}")
    assert not (unstarted.state / unstarted.name).exists()


def test_without_nft_the_package_is_named(unstarted: Cluster, tmp_path: Path) -> None:
    """nft missing: the command that installs it."""
    empty = tmp_path / "bin"
    empty.mkdir()
    line = failing(unstarted, "up", "--name", unstarted.name, environment={"PATH": str(empty)})
    assert "apt-get install nftables" in line


def test_without_root_the_remedy_is_named(unstarted: Cluster) -> None:
    """As an ordinary user: which capabilities, and sudo."""
    # The tests' own interpreter may be out of an ordinary user's reach, so the user is changed after the imports.
    script = "import os, sys; from fairlead.cli import main; import fairlead.cli.up, fairlead.cluster.lifecycle; "
    script += "os.setuid(65534); main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, "up", "--name", unstarted.name],
        env=unstarted.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs root" in done.stderr
    assert "sudo fairlead up" in done.stderr


def test_a_corrupt_store_is_named_and_kept(unstarted: Cluster) -> None:
    """A store that is no database: `up` fails in one line that names the file, and touches nothing."""
    unstarted.up("--wait", "0")
    cut_the_power(unstarted)
    store = unstarted.state / unstarted.name / "store.db"
    for extra in store.parent.glob("store.db-*"):
        extra.unlink()
    store.write_bytes(b"this is not a database" * 100)
    line = failing(unstarted, "up", "--name", unstarted.name)
    assert str(store) in line
    assert store.read_bytes() == b"this is not a database" * 100


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--nodes", "0"), "--nodes 0"),
        (("--nodes", "many"), "many"),
        (("--name", "No_Good"), "No_Good"),
        (("--proxy-mode", "magic"), "magic"),
        (("--store", "mysql://x"), "mysql://x"),
        (("--service-cluster-ip-range", "10.244.0.0/16"), "overlap"),
        (("--service-node-port-range", "x"), "--service-node-port-range"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_wrong_flags_are_named(unstarted: Cluster, flags: tuple[str, ...], words: str) -> None:
    """A wrong argument is named in one line."""
    assert words in failing(unstarted, "up", "--name", unstarted.name, *flags)


def test_down_of_nothing_is_an_error(unstarted: Cluster) -> None:
    """Removing what is not there says so."""
    assert "there is no cluster named 'nobody'" in failing(unstarted, "down", "--name", "nobody")
