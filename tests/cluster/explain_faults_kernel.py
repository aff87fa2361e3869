"""Faults of kernels and processes, beside those of objects and names in `explain_faults`: importing this adds them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from fairlead.api.kinds import PODS, SERVICES
from fairlead.linux.namespaces import entered
from fairlead.survey import sight
from tests.cluster.explain_faults import client, fault, web_pod
from tests.cluster.explain_lab import Lab, Object, is_ready, pod, service

# -- kernel ----------------------------------------------------------------------------------------------------------


@fault("FL061")
def _rules_flushed_and_agent_stopped(lab: Lab) -> Iterator[None]:
    with lab.stopped_process("node-n1"):
        lab.on_node("n1", "nft", "delete", "table", "ip", "fairlead")
        yield
    lab.until(lambda: lab.in_kernel("web"), "rules again")


@fault("FL061", "svc/late", via="clusterip")
def _agent_stopped_before_a_new_service(lab: Lab) -> Iterator[None]:
    with lab.stopped_process("node-n1"), lab.made(SERVICES, service("late", {"selector": {"app": "web"}})):
        lab.until(lambda: lab.in_kernel("late", "n2"), "the other node's rules")
        yield


@fault("FL061", via="clusterip", quick=False)
def _element_removed_and_agent_stopped(lab: Lab) -> Iterator[None]:
    vip = lab.get(SERVICES, "web")["spec"]["clusterIP"]
    with lab.stopped_process("node-n1"):
        lab.on_node("n1", "nft", f"delete element ip fairlead svc-8 {{ {vip} . tcp . 80 }}")
        yield
    lab.until(lambda: lab.in_kernel("web"), "rules again")


@fault("FL052")
def _stranger_drops_in_forward(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.node("n1"), "forward", "tcp dport 8080 drop"):
        yield


@fault("FL052", quick=False)
def _stranger_drops_on_the_other_node(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.node("n2"), "forward", "ip saddr 10.244.0.0/16 tcp dport 8000-9000 drop"):
        yield


@fault("FL052", quick=False)
def _stranger_rejects_before_translation(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.node("n1"), "prerouting", "ip daddr 10.96.0.0/16 tcp dport 80 drop", priority="-150"):
        yield


@fault("FL052", quick=False)
def _policy_drop(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.node("n1"), "forward", "udp dport 53 accept", policy="drop"):
        yield


@fault("FL052")
def _wall_in_theclient(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.inside("client-1"), "output", "tcp dport 80 drop"):
        yield


@fault("FL052")
def _wall_in_an_endpoint(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.inside("web-1"), "input", "tcp dport 8080 drop"):
        yield


@fault("FL052", quick=False)
def _answers_dropped(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.inside("web-2"), "output", "tcp sport 8080 drop"):
        yield


@fault("FL053", via="clusterip")
def _stranger_translates_first(lab: Lab) -> Iterator[None]:
    vip = lab.get(SERVICES, "web")["spec"]["clusterIP"]
    rule = f"ip daddr {vip} tcp dport 80 dnat ip to 192.0.2.1:80"
    with lab.stranger(lab.node("n1"), "prerouting", rule, kind="nat", priority="-110"):
        yield


def _sysctl(lab: Lab, node: str, name: str, wrong: str, right: str) -> AbstractContextManager[None]:
    return lab.done(lab.node(node), f"sysctl -qw {name}={wrong}", f"sysctl -qw {name}={right}")


@fault("FL071", via="clusterip")
def _no_forwarding(lab: Lab) -> Iterator[None]:
    with _sysctl(lab, "n1", "net.ipv4.ip_forward", "0", "1"):
        yield


@fault("FL071", quick=False)
def _no_forwarding_on_the_other_node(lab: Lab) -> Iterator[None]:
    with _sysctl(lab, "n2", "net.ipv4.ip_forward", "0", "1"):
        yield


@fault("FL072")
def _bridge_passes_by(lab: Lab) -> Iterator[None]:
    with _sysctl(lab, "n1", "net.bridge.bridge-nf-call-iptables", "0", "1"):
        yield


def _peer_route(lab: Lab) -> str:
    lines = lab.on_node("n1", "ip", "route").splitlines()
    return next(line.strip() for line in lines if line.startswith("10.244.") and " via " in line)


@fault("FL070")
def _route_to_the_peer_removed(lab: Lab) -> Iterator[None]:
    route = _peer_route(lab)
    with lab.done(lab.node("n1"), f"ip route del {route}", f"ip route replace {route}"):
        yield


@fault("FL070")
def _blackhole(lab: Lab) -> Iterator[None]:
    address = lab.pod("web-2")["status"]["podIP"]
    with lab.done(lab.node("n1"), f"ip route add blackhole {address}/32", f"ip route del blackhole {address}/32"):
        yield


@fault("FL070", quick=False)
def _no_route_back(lab: Lab) -> Iterator[None]:
    address = lab.pod("client-1")["status"]["podIP"]
    with lab.done(lab.node("n2"), f"ip route add unreachable {address}/32", f"ip route del unreachable {address}/32"):
        yield


@fault("FL074", via="clusterip")
def _bridge_down(lab: Lab) -> Iterator[None]:
    with lab.done(lab.node("n1"), "ip link set fl0 down", "ip link set fl0 up"):
        yield


@fault("FL075", quick=False)
def _link_of_an_endpoint_down(lab: Lab) -> Iterator[None]:
    link = lab.link("web-2")
    with lab.done(lab.node("n2"), f"ip link set {link} down", f"ip link set {link} up"):
        yield


@fault("FL075")
def _link_off_the_bridge(lab: Lab) -> Iterator[None]:
    link = lab.link("web-1")
    with lab.done(lab.node("n1"), f"ip link set {link} nomaster", f"ip link set {link} master fl0"):
        yield
    lab.on_node("n1", "bridge", "link", "set", "dev", link, "hairpin", "on")


@fault("FL076", "svc/web", "pod/bare", via="clusterip")
def _client_without_a_route(lab: Lab) -> Iterator[None]:
    with client(lab, "bare"):
        lab.in_pod("bare", "ip", "route", "del", "default")
        yield


@fault("FL076", "svc/web", "pod/bare", via="clusterip", quick=False)
def _client_with_its_link_down(lab: Lab) -> Iterator[None]:
    with client(lab, "bare"):
        lab.in_pod("bare", "ip", "link", "set", "eth0", "down")
        yield


@fault("FL076", "svc/naked", via="clusterip", quick=False)
def _endpoint_without_its_address(lab: Lab) -> Iterator[None]:
    with lab.serving("naked", {}, [pod("naked", "n2", "naked", container={"readinessProbe": None})]):
        address = lab.pod("naked")["status"]["podIP"]
        lab.in_pod("naked", "ip", "address", "del", f"{address}/24", "dev", "eth0")
        yield


@fault("FL077", "svc/web", "pod/web-1", via="clusterip")
def _no_hairpin(lab: Lab) -> Iterator[None]:
    link = lab.link("web-1")
    with lab.done(lab.node("n1"), f"bridge link set dev {link} hairpin off", f"bridge link set dev {link} hairpin on"):
        yield


@fault("FL090", "svc/udp", via="clusterip")
def _stale_flow(lab: Lab) -> Iterator[None]:
    vip = lab.get(SERVICES, "udp")["spec"]["clusterIP"]
    namespace = f"/run/netns/{lab.layout.node_namespace('n1')}"
    rule = f"ip daddr {vip} udp dport 9053 dnat ip to 10.244.1.251:9053"
    with entered(f"/proc/{lab.pid(lab.pod('client-1'))}/ns/net"):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.bind(("0.0.0.0", 40053))

        def astray() -> bool:
            """Whether the flow leads to the wrong endpoint. The proxy forgets it, rightly, whenever the Service's
            endpoints change, so it is begun again until it stays."""
            with entered(namespace):
                if any(f.endpoint == "10.244.1.251" for f in sight.flows(("UDP",), (vip,))):
                    return True
                forget(vip)
            with lab.stranger(lab.node("n1"), "prerouting", rule, kind="nat", priority="-110"):
                sender.sendto(b"x", (vip, 9053))
            return False

        lab.until(astray, "the flow")
        yield
    with entered(namespace):
        forget(vip)


def forget(vip: str) -> None:
    """Delete the tracked UDP flows to an address."""
    from fairlead.linux.conntrack import UDP, ConntrackSocket

    with ConntrackSocket() as table:
        for flow in table.flows(socket.AF_INET, UDP, vip):
            table.delete(flow)


# -- processes -------------------------------------------------------------------------------------------------------


@fault("FL080", "svc/deaf")
def _nothing_listens(lab: Lab) -> Iterator[None]:
    with lab.serving("deaf", {}, [web_pod("deaf", listen="")]):
        yield


@fault("FL081", "svc/shy")
def _listens_on_localhost(lab: Lab) -> Iterator[None]:
    with lab.serving("shy", {}, [web_pod("shy", listen="tcp:127.0.0.1:8080")]):
        _listening(lab, "shy")
        yield


@fault("FL082", "svc/astray")
def _listens_on_another_port(lab: Lab) -> Iterator[None]:
    with lab.serving("astray", {"ports": [{"port": 80, "targetPort": 8000}]}, [web_pod("astray")]):
        _listening(lab, "astray")
        yield


@fault("FL083", "svc/mixed", quick=False)
def _listens_with_another_protocol(lab: Lab) -> Iterator[None]:
    with lab.serving("mixed", {}, [web_pod("mixed", listen="udp:0.0.0.0:8080")]):
        _listening(lab, "mixed")
        yield


def _listening(lab: Lab, name: str) -> None:
    made = lab.pod(name)
    lab.until(lambda: sight.listeners(lab.pid(made), ()), f"a socket in {name}")


@fault("FL085", "svc/frozen")
def _process_stopped(lab: Lab) -> Iterator[None]:
    with lab.serving("frozen", {}, [web_pod("frozen", container={"readinessProbe": None})]):
        _listening(lab, "frozen")
        with lab.stopped(*lab.programs(lab.pod("frozen"))):
            yield


@fault("FL063", quick=False)
def _control_plane_stopped(lab: Lab) -> Iterator[None]:
    with lab.stopped_process("control-plane"):
        yield
    lab.until(lambda: lab.explain("svc/web").works, "the API again")


@fault("FL074", quick=False)
def _bridge_down_on_the_other_node(lab: Lab) -> Iterator[None]:
    with lab.done(lab.node("n2"), "ip link set fl0 down", "ip link set fl0 up"):
        yield


# -- ports of a node -------------------------------------------------------------------------------------------------


def ported(name: str, port: int = 31999, **more: Any) -> Object:
    """A pod of n1 with a port of its node."""
    ports = [{"containerPort": 8080, "hostPort": port}]
    return pod(name, "n1", name, container={"ports": ports}, **more)


@fault("FL086", "pod/ported")
def _rules_of_a_host_port_gone(lab: Lab) -> Iterator[None]:
    with lab.made(PODS, ported("ported")):
        lab.until(lambda: is_ready(lab, "ported"), "the pod")
        with lab.stopped_process("node-n1"):
            lab.on_node("n1", "nft", "delete", "table", "ip", "fairlead-hostports")
            yield


@fault("FL087", "svc/second")
def _host_port_taken_on_its_node(lab: Lab) -> Iterator[None]:
    with lab.made(PODS, ported("first")), lab.made(SERVICES, service("second")):
        lab.until(lambda: is_ready(lab, "first"), "the pod")
        with lab.made(PODS, ported("second")):
            lab.until(lambda: lab.events("second", "FailedCreatePodSandBox"), "an Event")
            yield


@fault("FL087", "svc/second", quick=False)
def _host_port_taken_on_every_node(lab: Lab) -> Iterator[None]:
    second = ported("second")
    second["spec"] |= {"nodeName": None, "nodeSelector": {"kubernetes.io/hostname": "n1"}}
    with lab.made(PODS, ported("first")), lab.made(SERVICES, service("second")), lab.made(PODS, second):
        lab.until(lambda: lab.events("second", "FailedScheduling"), "an Event")
        yield


@fault("FL088", "svc/web", "pod/client-1", via="nodeport", quick=False)
def _host_port_on_the_node_port(lab: Lab) -> Iterator[None]:
    number = lab.get(SERVICES, "web")["spec"]["ports"][0]["nodePort"]
    with lab.made(PODS, ported("greedy", number)):
        lab.until(lambda: is_ready(lab, "greedy"), "the pod")
        yield
