"""Nodes outside the LAN: two networks away, behind 1:1 NAT and behind a router that lets nothing in, and all four nodes
are one cluster. The lab is `outside_lab`'s."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from fairlead.apiserver import pki
from tests.cluster.outside_explain import explain, held
from tests.cluster.outside_lab import API, N1, SITES, WAN
from tests.cluster.outside_nodes import NODES, Followed, Outside, fetch, followed, outside

__all__ = ["followed", "outside"]  # the fixtures

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-outside")]


def test_the_control_plane_sees_where_a_node_is(outside: Outside) -> None:
    """InternalIP is the machine's own, ExternalIP what the API server sees of the connection, and the network is named
    after that; nodes on the LAN have no network and the ExternalIP that was written on them."""
    for site in ("b", "c"):
        outside.wait_for(lambda site=site: outside.address(site, "ExternalIP") == SITES[site].public, "ExternalIP")
        assert outside.internal(site) == SITES[site].host
        labels = outside.cluster.get("node", site)["metadata"]["labels"]
        assert labels["fairlead.dev/network"] == "behind-" + SITES[site].public.replace(".", "-")
    outside.wait_for(lambda: outside.address("n1", "ExternalIP") == N1, "ExternalIP of n1")
    assert "fairlead.dev/network" not in outside.cluster.get("node", "n1")["metadata"]["labels"]


def test_each_pair_takes_the_way_that_works(outside: Outside) -> None:
    """To who answers at the external address straight, to who does not by the tunnel that one opened; said on the Nodes
    and by `fairlead status`."""
    straight = {"n1": "wireguard", "n2": "wireguard"}
    wanted = {
        "n1": {"b": "wireguard", "c": "tunnel"},
        "n2": {"b": "wireguard", "c": "tunnel"},
        "b": {**straight, "c": "tunnel"},
        "c": {**straight, "b": "wireguard"},
    }
    outside.wait_for(lambda: {node: outside.paths(node) for node in NODES} == wanted, "the ways")
    outside.wait_for(outside.cluster.status, "status")
    text = outside.cluster.fairlead("status", "--name", outside.cluster.name).stdout
    assert re.search(rf"b +{SITES['b'].host} .*{SITES['b'].public}.*Ready.*wireguard", text), text
    assert re.search(rf"c +{SITES['c'].host} .*{SITES['c'].public}.*Ready.*tunnel", text), text


def test_pods_reach_each_other_with_their_own_addresses(outside: Outside) -> None:
    """All twelve directions, and each server sees the client's pod address."""
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")


@pytest.mark.parametrize("node", NODES)
def test_ipv6_goes_the_same_ways(outside: Outside, node: str) -> None:
    """Pods, by their own addresses; nodes, by InternalIPs that only their own LANs know, and which they are seen with;
    through tunnels of IPv4, for no router lets IPv6 out."""
    urls = [f"http://{outside.ip6(to)}:8080/" for to in NODES]
    assert outside.from_pod(node, *urls) == [f"{to} {outside.ip6(node).strip('[]')}" for to in NODES]
    for to in NODES:
        url = f"http://[{outside.internal6(to)}]:8090/"
        assert outside.from_pod(node, url)[0].split()[0] == to
        assert outside.from_host(node, url) == f"{to} {outside.internal6(node)}"


@pytest.mark.parametrize("node", NODES)
def test_large_bodies_pass_both_ways(outside: Outside, node: str) -> None:
    """300 kB to and from every other node: packets as large as they get, in TCP."""
    for to in NODES:
        url = f"http://{outside.ip(to)}:8080/big"
        script = f"head -c 300000 /dev/zero | curl -sS --max-time 10 --data-binary @- {url} | wc -c"
        pod = outside.pods[node]["metadata"]["name"]
        assert outside.cluster.kubectl("exec", pod, "--", "sh", "-c", script).strip() == "300000", to


@pytest.mark.parametrize("node", NODES)
def test_a_service_spreads_over_all_four_nodes(outside: Outside, node: str) -> None:
    """From a pod on any node, by the ClusterIP and by name, every node's pod answers, and sees the client."""
    vip = outside.cluster.get("svc", "web")["spec"]["clusterIP"]
    answers = outside.from_pod(node, *[f"http://{vip}"] * 70, *["http://web.default.svc.cluster.local"] * 10)
    assert {line.split()[0] for line in answers} == set(NODES)
    # Only a pod that turns out to be its own server is masqueraded, as it must be.
    assert {seen for to, seen in map(str.split, answers) if to != node} == {outside.ip(node)}


@pytest.mark.parametrize("node", NODES)
def test_names_of_headless_endpoints(outside: Outside, node: str) -> None:
    """The DNS gives all four pods' addresses, wherever it is asked."""
    pod = outside.pods[node]["metadata"]["name"]
    found = outside.cluster.kubectl("exec", pod, "--", "dig", "+short", "+search", "each")
    assert set(found.split()) == {outside.ip(to) for to in NODES}


@pytest.mark.parametrize("node", NODES)
def test_a_service_of_processes_on_the_nodes_themselves(outside: Outside, node: str) -> None:
    """Endpoints that are nodes' InternalIPs: the proxy leads them to what stands for the node here, at once."""
    vip = outside.cluster.get("svc", "host")["spec"]["clusterIP"]
    answers = outside.from_pod(node, *[f"http://{vip}"] * 80)
    assert {line.split()[0] for line in answers} == set(NODES)
    assert {outside.from_host(node, f"http://{vip}").split()[0] for _ in range(80)} == set(NODES)


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_reached_at_its_internal_address_from_everywhere(outside: Outside, node: str) -> None:
    """From pods and from hosts, and a host that asks is seen with its InternalIP: it keeps its identity."""
    for to in NODES:
        if to == node:
            continue
        url = f"http://{outside.internal(to)}:8090/"
        assert outside.from_pod(node, url)[0].split()[0] == to
        assert outside.from_host(node, url) == f"{to} {outside.internal(node)}"


@pytest.mark.parametrize("node", NODES)
def test_node_ports_in_all_directions(outside: Outside, node: str) -> None:
    """Any node's port, at its InternalIP, from pods and hosts everywhere; with the policy Local the node's own pod
    answers, and sees the node the pod is on (pods that speak to a node are masqueraded, as on the LAN)."""
    for to in NODES:
        if to == node:
            continue
        internal = outside.internal(to)
        assert outside.from_host(node, f"http://{internal}:30080/").split()[0] in NODES
        answers = outside.from_pod(node, f"http://{internal}:30080/", f"http://{internal}:30081/")
        assert answers[0].split()[0] in NODES
        seen = outside.internal(node) if {node, to} == {"n1", "n2"} else outside.inner(node)
        assert answers[1] == f"{to} {seen}"


def test_node_ports_from_the_internet(outside: Outside) -> None:
    """Who is nobody's pod or node reaches the ports of the node behind 1:1 NAT at its public address; with the policy
    Local it is seen with its own."""
    public = SITES["b"].public
    ask = ("curl", "-sS", "--max-time", "5")
    assert outside.lab.run(outside.lab.wan, *ask, f"http://{public}:30080/").stdout.split()[0] in NODES
    assert outside.lab.run(outside.lab.wan, *ask, f"http://{public}:30081/").stdout == f"b {WAN}.254\n"


@pytest.mark.parametrize("node", ["b", "c"])
def test_kubectl_reaches_into_pods_elsewhere(outside: Outside, node: str) -> None:
    """Logs, exec, and the API server's proxy to the pod."""
    outside.from_pod("n1", f"http://{outside.ip(node)}:8080/")
    name = outside.pods[node]["metadata"]["name"]
    assert f"asked by {outside.ip('n1')}" in outside.cluster.kubectl("logs", name)
    assert outside.cluster.kubectl("exec", name, "--", "sh", "-c", "echo $NODE") == f"{node}\n"
    assert outside.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{name}:8080/proxy/").startswith(
        node
    )


@pytest.mark.parametrize("node", ["b", "c"])
def test_streams_into_pods_elsewhere(outside: Outside, node: str, tmp_path: Path) -> None:
    """port-forward, attach and cp both ways: what is carried is what was sent."""
    cluster, name = outside.cluster, outside.pods[node]["metadata"]["name"]
    with cluster.running("port-forward", name, ":8080") as forwarding, cluster.running("attach", name) as attached:
        outside.wait_for(lambda: "Forwarding from 127.0.0.1" in forwarding.read_text(), "a port")
        found = re.search(r"127\.0\.0\.1:(\d+) -> 8080", forwarding.read_text())
        assert found
        local = f"http://127.0.0.1:{found[1]}"
        for _ in range(3):
            assert fetch(f"{local}/").split()[0] == node.encode()
            assert fetch(f"{local}/big") == bytes(300000)
        outside.wait_for(lambda: fetch(local) and "asked by 127.0.0.1" in attached.read_text(), "attached")
    data = bytes(range(256)) * 2000
    (tmp_path / "there").write_bytes(data)
    cluster.kubectl("cp", str(tmp_path / "there"), f"{name}:/tmp/there")
    cluster.kubectl("cp", f"{name}:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize("node", ["b", "c"])
def test_pods_elsewhere_reach_the_api_server(outside: Outside, node: str) -> None:
    """By the Service `kubernetes`, whose endpoint is an address of the cluster's own LAN."""
    answer = outside.from_pod(node, "-k https://kubernetes.default/version")
    assert "gitVersion" in "".join(outside.from_pod(node, "-k https://kubernetes.default/version")), answer


@pytest.mark.parametrize("node", ["n1", "b"])
def test_explain_follows_packets_to_other_networks(outside: Outside, node: str) -> None:
    """To pods, to processes on nodes, and to another node's port: no alarm, the tunnels are shown, and real requests
    go where it says."""
    for target in ("svc/web", "svc/host", "svc/each"):
        report = explain(outside, target, node, "--probe")
        assert report.works and not set(report.found) - {"FL030"}, report.verdict
    far = "b" if node == "n1" else "n1"
    report = explain(outside, "svc/web", node, "--via", "nodeport", "--to", outside.internal(far), "--probe")
    assert report.works and not report.found, report.verdict
    assert f"{node}: {outside.internal(far)} of {far} is {outside.inner(far)} here" in report.lines
    assert any(line.startswith(f"{node}: tunnel {outside.tunnel(node)} to {far} at ") for line in report.lines)


WRITER = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: NAME}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  nodeSelector: SELECTOR
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1234}
  containers:
  - {name: c, image: fairlead/host, command: [sleep, infinity], volumeMounts: [{name: d, mountPath: /data}]}
  volumes: [{name: d, persistentVolumeClaim: {claimName: NAME}}]
"""


@pytest.mark.parametrize("node", ["n1", "b"])
def test_pods_follow_their_volumes(outside: Outside, node: str) -> None:
    """A volume is on the machine of its first pod's node, anybody may write there, the next pod comes to that machine,
    and when the claim goes, so does the directory."""
    cluster, name = outside.cluster, f"data-{node}"
    manifest = WRITER.replace("NAME", name)
    cluster.apply(manifest.replace("SELECTOR", f"{{kubernetes.io/hostname: {node}}}"))
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    cluster.kubectl("exec", name, "--", "sh", "-c", "echo kept >/data/file")
    volume = cluster.get("pv", cluster.get("pvc", name)["spec"]["volumeName"])
    directory = Path(volume["spec"]["hostPath"]["path"])
    home = cluster.state / (f".nodes/{node}" if node == "b" else cluster.name)
    assert directory.parent == home / "volumes"
    cluster.kubectl("delete", "pod", name)
    cluster.apply(manifest.replace("SELECTOR", "{}"))
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    assert cluster.kubectl("exec", name, "--", "cat", "/data/file") == "kept\n"
    assert cluster.get("pod", name)["spec"]["nodeName"] in ({"n1", "n2"} if node == "n1" else {node})
    cluster.kubectl("delete", f"pod/{name}", f"pvc/{name}")
    outside.wait_for(lambda: volume["metadata"]["name"] not in cluster.kubectl("get", "pv", "-o", "name"), "its end")
    assert not directory.exists()
    pods = ("-n", "kube-system", "get", "pods", "-o", "name")
    outside.wait_for(lambda: "pvc-" not in cluster.kubectl(*pods), "the pods that made and removed it are gone")


# ---- what breaks, is explained, and heals


@pytest.mark.parametrize(
    ("fault", "cause", "says"),
    [
        ("ip link set {link} down", "FL064", "on n1 the tunnels' link"),
        ("{wg} set {link} peer {key} remove", "FL065", "does not know node b"),
        ("ip route delete {pods}", "FL070", "node n1 has no route to"),
        ("nft flush chain ip fairlead-nodes prerouting", "FL066", "is not translated to"),
    ],
)
def test_explain_names_what_is_broken_between_networks(outside: Outside, fault: str, cause: str, says: str) -> None:
    """Broken for real on n1, while its agent can't put it back; it does as soon as it can."""
    key = outside.cluster.get("node", "b")["metadata"]["annotations"]["fairlead.dev/wireguard-public-key"]
    pods = f"{outside.ip('b').rpartition('.')[0]}.0/24"
    command = fault.format(link=outside.tunnel("n1"), wg=outside.wg("n1")[0], key=key, pods=pods)
    with held(outside, "n1"):
        outside.lab.run(outside.lab.machine("n1"), *command.split())
        report = explain(outside, "svc/web", "n1", "--via", "nodeport", "--to", outside.internal("b"))
        if cause == "FL070":  # of b's pods; the node itself is still reached
            report = explain(outside, "svc/web", "n1")
    assert report.cause == cause and says in report.verdict, report.verdict
    outside.wait_for(lambda: explain(outside, "svc/web", "n1").works, "it works again")


def test_explain_says_that_an_agent_elsewhere_does_not_answer(outside: Outside) -> None:
    """What is on that node is not seen, which is no proof that it is broken."""
    with held(outside, "b"):
        report = explain(outside, "svc/web", "n1")
    assert report.works and "the agent of b does not answer" in report.verdict, report.verdict
    assert "FL067" in report.found
    outside.wait_for(lambda: not explain(outside, "svc/web", "n1").found, "it is seen again")


def test_rules_and_routes_that_somebody_removes_come_back(outside: Outside) -> None:
    """A rule deleted by hand, a route: everything works again."""
    lab = outside.lab
    table = ("nft", "list", "table", "ip", "fairlead-nodes")
    before = lab.run(lab.machine("b"), *table).stdout
    lab.run(lab.machine("b"), "nft", "flush", "chain", "ip", "fairlead-nodes", "output")
    outside.wait_for(lambda: lab.run(lab.machine("b"), *table).stdout == before, "the rule is back")
    lab.run(lab.machine("n1"), "ip", "route", "delete", f"{outside.ip('b').rpartition('.')[0]}.0/24")
    outside.wait_for(outside.all_reach_all, "every pod reaches every other again")


def test_a_router_that_forgets_its_state(outside: Outside) -> None:
    """The tunnel from behind it opens anew."""
    outside.lab.forget("c")
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")


def test_a_public_address_that_changes(outside: Outside) -> None:
    """The Node follows, and so do the tunnels, behind either kind of router."""
    for site, public in (("b", f"{WAN}.34"), ("c", f"{WAN}.45")):
        outside.lab.move(site, public)
        outside.wait_for(lambda site=site, public=public: outside.address(site, "ExternalIP") == public, "ExternalIP")
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")
    outside.wait_for(lambda: outside.paths("n1") == {"b": "wireguard", "c": "tunnel"}, "the ways")


def test_the_api_server_restarts(outside: Outside) -> None:
    """Pods go on meanwhile; afterwards all nodes are Ready, and it reaches into their pods."""
    os.kill(outside.cluster.status()["processes"]["control-plane"], signal.SIGKILL)
    outside.wait_for(lambda: all(outside.ready(node) for node in NODES), "all nodes Ready")
    for node in NODES:
        name = outside.pods[node]["metadata"]["name"]
        outside.wait_for(
            lambda name=name, node=node: outside.cluster.kubectl("exec", name, "--", "printenv", "NODE") == f"{node}\n",
            "exec",
        )
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")


def test_without_encryption_by_vxlan(outside: Outside) -> None:
    """Where both ends have it switched off; large bodies pass; switched on again, it is a tunnel again."""
    cluster = outside.cluster
    cluster.kubectl("annotate", "node", "n1", "b", "fairlead.dev/encryption=off")
    outside.wait_for(lambda: (outside.paths("n1")["b"], outside.paths("b")["n1"]) == ("vxlan", "vxlan"), "VXLAN")
    assert outside.paths("b")["n2"] == "wireguard"
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")
    report = explain(outside, "svc/web", "n1")
    assert report.works and f"n1: fl-vx to b at {outside.address('b', 'ExternalIP')}" in report.lines, report.verdict
    with held(outside, "n1"):
        fdb = outside.lab.run(outside.lab.machine("n1"), "bridge", "fdb", "show", "dev", "fl-vx").stdout.split()
        outside.lab.run(outside.lab.machine("n1"), "bridge", "fdb", "del", fdb[0], "dev", "fl-vx", "dst", fdb[2])
        report = explain(outside, "svc/web", "n1")
    assert report.cause == "FL065" and "no forwarding entry for node b" in report.verdict, report.verdict
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")
    url = f"http://{outside.ip('n1')}:8080/big"
    script = f"head -c 300000 /dev/zero | curl -sS --max-time 10 --data-binary @- {url} | wc -c"
    assert cluster.kubectl("exec", outside.pods["b"]["metadata"]["name"], "--", "sh", "-c", script).strip() == "300000"
    assert outside.from_pod("b", f"http://{outside.ip6('n1')}:8080/") == [f"n1 {outside.ip6('b').strip('[]')}"]
    assert outside.from_host("b", f"http://{outside.internal('n1')}:8090/") == f"n1 {outside.internal('b')}"
    assert outside.from_host("n1", f"http://{outside.internal('b')}:8090/") == f"b {outside.internal('n1')}"
    cluster.kubectl("annotate", "node", "n1", "b", "fairlead.dev/encryption-")
    outside.wait_for(lambda: outside.paths("n1")["b"] == "wireguard", "a tunnel again")
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")


# ---- other clusters


def test_only_the_translations(outside: Outside) -> None:
    """`fairlead node-nat` on a machine that is no node of ours leads InternalIPs to ExternalIPs, and cleans up."""
    lab = outside.lab
    lab.add("d")
    kubeconfig = next((outside.cluster.state / ".nodes" / "b").glob("kubeconfig/b.yaml"))
    command = [
        sys.executable,
        "-m",
        "fairlead",
        "node-nat",
        "--kubeconfig",
        str(kubeconfig),
        "--hostname-override",
        "n1",
    ]
    inside = ["ip", "netns", "exec", lab.machine("d"), *command]
    process = subprocess.Popen(inside, stderr=subprocess.PIPE, env=outside.cluster.environment)
    table = ("nft", "list", "table", "ip", "fairlead-nodes")
    rule = f"ip daddr {SITES['b'].host} dnat to {outside.address('b', 'ExternalIP')}"
    try:
        outside.wait_for(lambda: rule in lab.run(lab.machine("d"), *table, check=False).stdout, "the rule")
        lab.run(lab.machine("d"), "nft", "flush", "ruleset")
        outside.wait_for(lambda: rule in lab.run(lab.machine("d"), *table, check=False).stdout, "the rule again")
    finally:
        process.terminate()
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert rule in lab.run(lab.machine("d"), *table).stdout
    lab.fairlead("d", "node-nat", "--cleanup")
    assert lab.run(lab.machine("d"), *table, check=False).returncode


# ---- bad input


def test_who_may_not_join(outside: Outside) -> None:
    """A token that is wrong or has expired, another cluster's hash, a name in use: each is said in one line, nothing is
    left behind."""
    lab = outside.lab
    words = lab.invitation("--ttl", "1s").split()
    token, digest = words[words.index("--token") + 1], words[words.index("--ca-hash") + 1]
    wrong = {
        "does not take the token: it is wrong, or has expired": ("abcdef.0123456789abcdef", digest, "d"),
        "is not the cluster you mean": (token, "sha256:" + "0" * 64, "d"),
        'a Node named "n1" is part of the cluster already': (lab.invitation().split()[5], digest, "n1"),
    }
    for said, (given, ca_hash, name) in wrong.items():
        arguments = ("--token", given, "--ca-hash", ca_hash, "--node-name", name)
        done = lab.fairlead("d", "node", "join", f"https://{API}:6443", *arguments, check=False)
        assert done.returncode == 1
        assert said in done.stderr.splitlines()[-1]
    time.sleep(1.1)  # the token's life
    done = lab.join("d", check=False, command=" ".join(words))
    assert "it is wrong, or has expired" in done.stderr
    assert not (outside.cluster.state / ".nodes" / "d").exists()


def test_an_external_address_that_does_not_answer(outside: Outside) -> None:
    """Said wrongly, it is but a place where nothing answers: the node opens the tunnels itself, and an Event tells."""
    cluster = outside.cluster
    cluster.kubectl("annotate", "node", "b", "--overwrite", f"fairlead.dev/external-ip={WAN}.99")
    outside.wait_for(lambda: outside.paths("n1").get("b") == "tunnel", "a tunnel")
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")
    events = ("get", "events", "-A", "--field-selector", "reason=ExternalIPNotAnswering,involvedObject.name=b")
    outside.wait_for(lambda: f"{WAN}.99" in cluster.kubectl(*events), "an Event")
    cluster.kubectl("annotate", "node", "b", "--overwrite", "fairlead.dev/external-ip=auto")
    outside.wait_for(lambda: outside.paths("n1").get("b") == "wireguard", "the address that answers")


# ---- logs, which are followed from here to the end


def test_logs_are_followed(outside: Outside, followed: dict[str, Followed]) -> None:
    """Those of pods on the LAN and elsewhere."""
    outside.wait_for(lambda: all(stream.said.read_text() for stream in followed.values()), "what was logged last")


# ---- one more, with an internal address that is taken elsewhere, behind a second router that lets nothing in


def test_two_nodes_with_the_same_internal_address(outside: Outside) -> None:
    """d has b's address, in another network: both work. c and d, whom nobody can reach, relay through the same node."""
    outside.lab.join("d")
    outside.settle()
    assert outside.internal("d") == outside.internal("b")
    assert set(outside.pods) == {*NODES, "d"}
    outside.wait_for(lambda: outside.paths("c")["d"] == outside.paths("d")["c"] == "relay b", "c and d relay")
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")
    vip = outside.cluster.get("svc", "host")["spec"]["clusterIP"]
    for node in ("n1", "b", "d"):
        answers = outside.from_pod(node, *[f"http://{vip}"] * 100)
        assert {line.split()[0] for line in answers} == {*NODES, "d"}
    name = outside.pods["d"]["metadata"]["name"]
    assert outside.cluster.kubectl("exec", name, "--", "printenv", "NODE") == "d\n"
    assert "asked by" in outside.cluster.kubectl("logs", name)


def test_a_node_that_is_started_again(outside: Outside) -> None:
    """After a reboot (all its processes are gone, the API does not know yet): `start` is back when the node is."""
    lab = outside.lab
    reboot = "from fairlead.cluster import lifecycle, member; lifecycle.end(member.the_one('d')[0])"
    lab.run(lab.machine("d"), sys.executable, "-c", reboot)
    done = lab.fairlead("d", "node", "start", "--node-name", "d")
    assert "is Ready" in done.stdout
    assert "waiting for node d: its kubelet to register" in done.stderr
    again = lab.fairlead("d", "node", "start", "--node-name", "d", check=False)
    assert "node d is running" in again.stderr
    outside.settle()
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")


def test_a_node_that_leaves(outside: Outside) -> None:
    """Its Node is gone, others forget its tunnel, and nothing is left on its machine: links, routes, rules, files."""
    lab = outside.lab
    key = outside.cluster.get("node", "d")["metadata"]["annotations"]["fairlead.dev/wireguard-public-key"]
    assert lab.sysctls("d")["net.ipv4.ip_forward"] == "1"
    before = outside.tunnel_processes("d")
    assert before
    lab.leave("d")
    assert "d" not in [node["metadata"]["name"] for node in outside.cluster.get("nodes")["items"]]
    outside.wait_for(lambda: key not in lab.run(lab.machine("n1"), *outside.wg("n1")).stdout, "n1 forgets it")
    links = lab.run(lab.machine("d"), "ip", "-br", "link").stdout
    assert {line.split("@")[0].split()[0] for line in links.splitlines()} == {"lo", "eth0"}
    assert "proto 241" not in lab.run(lab.machine("d"), "ip", "route").stdout
    assert not re.search("fairlead|FAIRLEAD|KUBE", lab.run(lab.machine("d"), "nft", "list", "ruleset").stdout)
    assert lab.sysctls("d") == lab.found["d"]
    assert not (outside.cluster.state / ".nodes" / "d").exists()
    assert not [p for p in before if Path(f"/proc/{p}/cmdline").exists() and Path(f"/proc/{p}/cmdline").read_bytes()]


# ---- certificates, which were renewed all the while


def test_nodes_renew_their_certificates(outside: Outside, followed: dict[str, Followed], tmp_path: Path) -> None:
    """By requests of their own, before they end, and nothing is cut off: what a node began with has ended and is taken
    by nobody, what it has now is; a log that is followed goes on, the node hears of new Services, pods are reached."""
    cluster = outside.cluster

    def let_in(node: str, credentials: bytes) -> bool:
        document = yaml.safe_load(credentials)
        user, pem = document["users"][0]["user"], tmp_path / "pair.pem"
        pem.write_bytes(b"".join(base64.b64decode(user[f"client-{kind}-data"]) for kind in ("certificate", "key")))
        url = f"{document['clusters'][0]['cluster']['server']}/api/v1/nodes/{node}"
        done = outside.lab.run(outside.lab.machine(node), "curl", "-sSk", "--cert", str(pem), url, check=False)
        return '"kind":"Node"' in done.stdout.replace(" ", "")

    def renewed(node: str) -> bool:
        now, ends = outside.credentials(node), pki.expires(outside.first[node][f"kubelet-{node}.crt"])
        before = followed[node].credentials
        return all(now[file] != text for file, text in before.items()) and datetime.now(UTC) > ends

    def goes_on(node: str, said: int) -> bool:
        outside.from_pod("n1", f"http://{outside.ip(node)}:8080/")
        return len(followed[node].said.read_text()) > said

    cluster.wait_for(lambda: all(map(renewed, followed)), "renewals", deadline=180)
    cluster.kubectl("create", "service", "clusterip", "late", "--tcp=80:8080")
    cluster.kubectl("set", "selector", "service/late", "app=web")
    requests = cluster.get("csr")["items"]
    for node, stream in followed.items():
        said = len(stream.said.read_text())
        outside.wait_for(lambda node=node, said=said: goes_on(node, said), "the log goes on")
        assert not let_in(node, outside.first[node][f"{node}.yaml"])
        assert let_in(node, outside.credentials(node)[f"{node}.yaml"])
        name = outside.pods[node]["metadata"]["name"]
        assert cluster.kubectl("exec", name, "--", "printenv", "NODE") == f"{node}\n"
        signers = [r["spec"]["signerName"] for r in requests if r["spec"]["username"] == f"system:node:{node}"]
        assert set(signers) == {f"kubernetes.io/{k}" for k in ("kube-apiserver-client-kubelet", "kubelet-serving")}
        outside.wait_for(lambda node=node: outside.from_pod(node, "http://late")[0].split()[0] in NODES, "the Service")
