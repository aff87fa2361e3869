"""The four nodes of `outside_lab`, joined, with a server on each, and what is asked of them."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairlead.api.nodenetworks import inner_address
from fairlead.podnetwork.wireguard import program
from tests.cluster.conftest import Cluster
from tests.cluster.outside_lab import API, N1, N2, Lab

MANIFEST = Path(__file__).with_name("outside.yaml")
NODES = ("n1", "n2", "b", "c")
MODE = os.environ.get("OUTSIDE_PROXY_MODE", "nftables")
LIFE = "90s"
"""Of nodes' certificates here: all that is tested goes on while they are renewed, every 60 s."""


def fetch(url: str) -> bytes:
    """GET, past any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return bytes(answer.read())


class Outside:
    """The lab with its four nodes, and a server on each."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.cluster = lab, lab.cluster
        self.pods: dict[str, Any] = {}
        self.first: dict[str, dict[str, bytes]] = {}
        """The certificates and keys that nodes began with: node → name of the file → what was in it."""

    def settle(self) -> None:
        """Every node's servers are ready."""
        self.cluster.apply(MANIFEST.read_text())
        self.cluster.wait_for(self._servers_ready, "a server on every node")

    def _servers_ready(self) -> bool:
        nodes = [node["metadata"]["name"] for node in self.cluster.get("nodes")["items"]]
        pods = self.cluster.get("pods", "-l", "app in (web,host)")["items"]
        pods = [pod for pod in pods if pod["spec"].get("nodeName") in nodes]  # others are about to be collected
        ready = [
            p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"]["conditions"])
        ]
        self.pods = {p["spec"]["nodeName"]: p for p in ready if p["metadata"]["labels"]["app"] == "web"}
        return len(ready) == 2 * len(nodes)

    def from_pod(self, node: str, *urls: str, check: bool = True, patience: int = 5) -> list[str]:
        """What the pod on that node gets from each URL: the answer's first line."""
        asks = "; ".join(f"curl -sS --max-time {patience} {url} || echo failed" for url in urls)
        pod = self.pods[node]["metadata"]["name"]
        return self.cluster._run(["kubectl", "exec", pod, "--", "sh", "-c", asks], check, None).stdout.splitlines()

    def from_host(self, node: str, url: str, patience: int = 5) -> str:
        """What a process in the node's own network gets."""
        done = self.lab.run(self.lab.machine(node), "curl", "-sS", "--max-time", str(patience), url, check=False)
        return done.stdout.strip() or done.stderr.strip()

    def ip(self, node: str) -> str:
        """The address of the node's pod."""
        return str(self.pods[node]["status"]["podIP"])

    def ip6(self, node: str) -> str:
        """The IPv6 address of the node's pod, as a URL has it."""
        return next(f"[{a['ip']}]" for a in self.pods[node]["status"]["podIPs"] if ":" in a["ip"])

    def internal(self, node: str) -> str:
        """The node's InternalIP."""
        return self.address(node, "InternalIP")

    def internal6(self, node: str) -> str:
        """The node's other one."""
        addresses = self.cluster.get("node", node)["status"]["addresses"]
        return next(a["address"] for a in addresses if a["type"] == "InternalIP" and ":" in a["address"])

    def inner(self, node: str) -> str:
        """The node's address in tunnels."""
        return inner_address([self.cluster.get("node", node)["spec"]["podCIDR"]])

    def address(self, node: str, kind: str) -> str:
        """One of the node's addresses."""
        addresses = self.cluster.get("node", node)["status"]["addresses"]
        return next((a["address"] for a in addresses if a["type"] == kind), "")

    def paths(self, node: str) -> dict[str, str]:
        """What the node says of its ways."""
        text = self.cluster.get("node", node)["metadata"].get("annotations", {}).get("fairlead.dev/paths", "{}")
        return dict(json.loads(text))

    def ready(self, node: str) -> bool:
        """Whether the Node is Ready."""
        conditions = self.cluster.get("node", node)["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def tunnel(self, node: str) -> str:
        """The name of the node's WireGuard link."""
        links = self.lab.run(self.lab.machine(node), "ip", "-br", "link").stdout
        return next(line.split()[0] for line in links.splitlines() if line.startswith("fl-wg"))

    def wg(self, node: str) -> tuple[str, ...]:
        """The command that shows the node's tunnels."""
        return (program("wg") or "wg", "show", self.tunnel(node))

    def tunnel_processes(self, node: str) -> list[int]:
        """Who keeps the node's WireGuard link, if it is not the kernel."""
        name = self.tunnel(node)
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if name.encode() in words:
                found.append(int(entry.name))
        return found

    def credentials(self, node: str) -> dict[str, bytes]:
        """What the node's process identifies itself with now."""
        home = self.cluster.state / self.cluster.name if node in ("n1", "n2") else self.cluster.state / ".nodes" / node
        files = (home / "kubeconfig" / f"{node}.yaml", home / "pki" / f"kubelet-{node}.crt")
        return {file.name: file.read_bytes() for file in files}

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        """As the cluster's, with the joined nodes' logs."""
        try:
            self.cluster.wait_for(condition, what)
        except AssertionError as error:
            logs = sorted(self.cluster.state.glob(".nodes/*/log/*.log"))
            texts = "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)
            raise AssertionError(f"{error}\n{texts}") from None

    def all_reach_all(self, patience: int = 5) -> bool:
        """Whether each pod gets an answer from each, which sees its true address."""
        urls = [f"http://{self.ip(to)}:8080/" for to in self.pods]
        return all(
            self.from_pod(node, *urls, patience=patience) == [f"{to} {self.ip(node)}" for to in self.pods]
            for node in self.pods
        )


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """Two nodes on the LAN, b and c elsewhere, all joined and ready."""
    cluster = Cluster(tmp_path_factory.mktemp("outside"))
    lab = Lab(cluster)
    try:
        flags = ("--no-egress", "--apiserver-cert-extra-sans", API, "--cluster-signing-duration", LIFE)
        cluster.up(*flags, "--ip-family", "dual", "--proxy-mode", MODE)
        lab.build("b", "c")
        cluster.kubectl("annotate", "node", "n1", f"fairlead.dev/external-ip={N1}")
        cluster.kubectl("annotate", "node", "n2", f"fairlead.dev/external-ip={N2}")
        for site in ("b", "c"):
            assert "Ready in" in lab.join(site).stdout
        made = Outside(lab)
        made.first = {node: made.credentials(node) for node in NODES}
        made.settle()
        yield made
    finally:
        lab.close()
        cluster.down()


class Followed(NamedTuple):
    """Where what a node's pod logs is written, and what the node identified itself with when that began."""

    said: Path
    credentials: dict[str, bytes]


@pytest.fixture(scope="module")
def followed(outside: Outside) -> Iterator[dict[str, Followed]]:
    """By node; a node renews its certificates meanwhile."""
    with contextlib.ExitStack() as stack:
        found = {}
        for node in ("n1", "b", "c"):
            name = outside.pods[node]["metadata"]["name"]
            said = stack.enter_context(outside.cluster.running("logs", "--follow", "--tail=1", name))
            found[node] = Followed(said, outside.credentials(node))
        yield found
