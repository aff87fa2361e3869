"""A small healthy world as evidence: two nodes, a client, a Service with one endpoint on each node."""

from __future__ import annotations

from typing import Any

import msgspec

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, NAMESPACES, NODES, SERVICES
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.explain import lookups, path
from fairlead.explain.evidence import (
    DNSAnswer,
    Evidence,
    Facts,
    LinkView,
    Listener,
    NodeKernel,
    PodKernel,
    RouteAnswer,
)
from fairlead.explain.question import parse_origin, parse_target
from fairlead.explain.report import Report
from fairlead.podnetwork.plan import link_name
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables.show import state_of
from fairlead.proxy.options import ProxyOptions

Object = dict[str, Any]
VIP = "10.96.0.5"
CONF = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"


def a_pod(name: str, node: str, ip: str, labels: Object | None = None, *, ready: bool = True) -> Object:
    """A running pod."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": labels or {}},
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": conditions},
    }


def a_node(number: int, *, ready: bool = True) -> Object:
    """A node."""
    return {
        "metadata": {"name": f"n{number}"},
        "spec": {"podCIDRs": [f"10.244.{number}.0/24"]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": f"172.29.0.{number}"}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


WEB: Object = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "type": "ClusterIP",
        "clusterIP": VIP,
        "clusterIPs": [VIP],
        "ipFamilies": ["IPv4"],
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    },
}
PODS = (
    a_pod("client", "n1", "10.244.1.2"),
    a_pod("web-1", "n1", "10.244.1.3", {"app": "web"}),
    a_pod("web-2", "n2", "10.244.2.3", {"app": "web"}),
)


def a_slice(*ips: tuple[str, str]) -> Object:
    """The Service's EndpointSlice."""
    return {
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "nodeName": node, "conditions": {"ready": True}} for ip, node in ips],
    }


SLICE = a_slice(("10.244.1.3", "n1"), ("10.244.2.3", "n2"))


def snapshot(*, service: Object = WEB, slices: tuple[Object, ...] = (SLICE,), ready: bool = True) -> ServiceSnapshot:
    """What discovery makes of it."""
    told = [WatchEvent("ADDED", NAMESPACES, {"metadata": {"name": "shop"}}), WatchEvent("ADDED", SERVICES, service)]
    told += [WatchEvent("ADDED", NODES, a_node(number, ready=ready)) for number in (1, 2)]
    told += [WatchEvent("ADDED", ENDPOINTSLICES, each) for each in slices]
    return fold(ServiceSnapshot(), told, True)[0]


def node_kernel(number: int, rules: ServiceSnapshot | None = None) -> NodeKernel:
    """A node as it should be."""
    options = ProxyOptions(node_name=f"n{number}")
    state = state_of("IPv4", options, compile_table(rules or snapshot(), options)[0])
    own = [pod for pod in PODS if pod["spec"]["nodeName"] == f"n{number}"]
    ends = tuple(LinkView(link_name(pod["metadata"]["uid"]), True, 1500, "fl0", True) for pod in own)
    routes = {}
    for pod in PODS:
        ip = pod["status"]["podIP"]
        here = pod in own
        routes[ip] = RouteAnswer(ip, "fl0" if here else "eth0", "" if here else f"172.29.0.{3 - number}")
    return NodeKernel(
        tables={"IPv4": state},
        links=(LinkView("eth0", True, 1500, addresses=(f"172.29.0.{number}/24",)), LinkView("fl0", True, 1500), *ends),
        routes=routes,
        sysctls={"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"},
    )


def pod_kernel(pod: Object) -> PodKernel:
    """A pod as it should be."""
    ip = pod["status"]["podIP"]
    listening = (Listener("TCP", "0.0.0.0", 8080, 7, "web", "S"),) if "web" in pod["metadata"]["name"] else ()
    return PodKernel(
        links=(LinkView("eth0", True, 1500, addresses=(f"{ip}/24",)),), listeners=listening, resolv_conf=CONF
    )


def evidence(**more: Any) -> Evidence:
    """The whole world; `more` replaces parts of it."""
    made = Evidence(
        facts=Facts("lab", dns_ip="10.96.0.10", pod_cidrs=("10.244.0.0/16",), local=True),
        snapshot=snapshot(),
        services=(WEB,),
        slices=(SLICE,),
        pods=PODS,
        nodes=(a_node(1), a_node(2)),
        kernels={"n1": node_kernel(1), "n2": node_kernel(2)},
        pod_kernels={pod["metadata"]["uid"]: pod_kernel(pod) for pod in PODS},
        answers=(DNSAnswer("10.96.0.10", "web.shop.svc.cluster.local.", "NOERROR", (VIP,)),),
        processes={"node-n1": "running", "node-n2": "running"},
    )
    return msgspec.structs.replace(made, **more)


def explain(world: Evidence, target: str = "svc/web", origin: str = "pod/client") -> Report:
    """The answer to the usual question."""
    question = parse_target(tuple(target.split()), "shop")
    by = {"svc": path.explain, "dns": lookups.explain}[question.kind]
    return by(world, msgspec.structs.replace(question, origin=parse_origin(origin, "shop")))
