"""`fairlead loadbalancer` in a cluster that has none: with the rights of its manifest and no others."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fairlead.announce.election import rank
from tests.cluster.conftest import Cluster
from tests.cluster.test_loadbalancer import WEB, service

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-loadbalancer-alone")]

ROOT = Path(__file__).parents[2]
SPACE = "fairlead-loadbalancer"


class Alone:
    """Controllers and speakers as processes with their accounts' tokens; speakers are in the nodes' namespaces."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster, self.directory = cluster, directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        cluster.up("--load-balancer-pool=none", "--no-ingress", "--no-localhost-node-ports")
        cluster.apply(WEB)
        manifests = list(yaml.safe_load_all((ROOT / "deploy" / "loadbalancer.yaml").read_text()))
        rights = [m for m in manifests if m["kind"] not in ("Deployment", "DaemonSet")]
        cluster.apply(yaml.safe_dump_all(rights))
        lan = ipaddress.ip_network(cluster.status()["lan"])
        self.pool = f"{lan[211]}-{lan[212]}"
        self.of_n1 = next((str(a) for a in (lan[211], lan[212]) if rank(a, ("n1", "n2"))[0] == "n1"), str(lan[211]))

    def start(self, name: str, role: str, node: str) -> None:
        """A process with its account's kubeconfig; a speaker runs in its node's namespace."""
        file = self.directory / f"{role}.kubeconfig"
        if not file.exists():
            token = self.cluster.kubectl("-n", SPACE, "create", "token", role).strip()
            config = yaml.safe_load(Path(self.cluster.environment["KUBECONFIG"]).read_text())
            lan = ipaddress.ip_network(self.cluster.status()["lan"])
            config["clusters"][0]["cluster"]["server"] = f"https://{lan[2]}:6443"
            config["users"][0]["user"] = {"token": token}
            file.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "fairlead", "loadbalancer", f"--role={role}", f"--pool={self.pool}"]
        command += [f"--kubeconfig={file}", f"--namespace={SPACE}", f"--hostname-override={node}"]
        if role == "speaker":
            command = ["ip", "netns", "exec", f"fl-{self.cluster.name}-{node}", *command]
        with (self.directory / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, name: str, number: int) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(30)

    def said(self) -> str:
        return "\n".join(f"== {f.name}\n{f.read_text()}" for f in sorted(self.directory.glob("*.log")))

    def curl(self, address: str) -> str:
        command = ["curl", "-sS", "--fail", "--max-time", "3", f"http://{address}"]

        def asked() -> str:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        try:
            return str(self.cluster.wait_for(asked, f"an answer from {address}"))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from error

    def pending(self, name: str) -> bool:
        return "<pending>" in self.cluster.kubectl("get", "svc", name, "--no-headers")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    cluster = Cluster(tmp_path_factory.mktemp("alone"))
    made = None
    try:
        made = Alone(cluster, tmp_path_factory.mktemp("processes"))
        yield made
    finally:
        for process in made.processes.values() if made else ():
            process.kill()
            process.wait()
        cluster.down()


def test_without_it_services_stay_pending(alone: Alone) -> None:
    """--load-balancer-pool none leaves them to others, and explain says that nobody has taken it."""
    alone.cluster.apply(service("web", loadBalancerIP=alone.of_n1))
    alone.cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert alone.pending("web")
    told = alone.cluster.fairlead("explain", "svc/web", "--via", "lb", check=False).stdout
    assert "FL035" in told
    assert "no load balancer has taken it" in told


def test_it_gives_addresses_and_answers(alone: Alone) -> None:
    """With the rights of the manifest, a controller and a speaker on each node are enough."""
    alone.start("controller-a", "controller", "a")
    for node in ("n1", "n2"):
        alone.start(f"speaker-{node}", "speaker", node)
    assert alone.curl(alone.of_n1)
    assert not alone.pending("web")
    lease = alone.cluster.get("-n", SPACE, "lease", "fairlead-loadbalancer")
    assert lease["spec"]["holderIdentity"].startswith("a_")
    assert "forbidden" not in alone.said()


def test_another_controller_takes_over(alone: Alone) -> None:
    """A second one waits; when the first ends it goes on, and what was given stays."""
    alone.start("controller-b", "controller", "b")
    alone.end("controller-a", signal.SIGTERM)
    alone.cluster.apply(service("second"))
    alone.cluster.wait_for(lambda: not alone.pending("second"), "an address from the second controller")
    assert alone.cluster.get("svc", "web")["status"]["loadBalancer"]["ingress"][0]["ip"] == alone.of_n1
    assert "forbidden" not in alone.said()


def test_a_killed_speaker_is_replaced(alone: Alone) -> None:
    """Whichever answered, the other one does after it is killed."""
    events = alone.cluster.get("events", "--field-selector", "reason=nodeAssigned,involvedObject.name=web")["items"]
    owner = max(events, key=lambda e: e["lastTimestamp"])["message"].split('"')[1]
    alone.end(f"speaker-{owner}", signal.SIGKILL)
    subprocess.run(["ip", "neigh", "flush", "to", alone.of_n1], check=True)
    assert alone.curl(alone.of_n1)


def test_without_the_capability_it_says_so(alone: Alone) -> None:
    """One line that names it, and no traceback."""
    command = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-m", "fairlead"]
    command += ["loadbalancer", "--role=speaker", f"--pool={alone.pool}"]
    command += [f"--kubeconfig={alone.directory / 'speaker.kubeconfig'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=60)
    assert done.returncode == 1
    assert "answering ARP needs CAP_NET_RAW" in done.stderr
    assert "Traceback" not in done.stderr
