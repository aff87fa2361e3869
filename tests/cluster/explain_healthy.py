"""Set-ups that work, each in a way that a hasty judge might take for broken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from fairlead.api.kinds import ENDPOINTSLICES, INGRESSES, PODS, SERVICES
from tests.cluster.explain_lab import Lab, endpoint_slice, is_ready, pod, service


class Setup(NamedTuple):
    """Something that works."""

    name: str
    prepare: Callable[[Lab], AbstractContextManager[None]]
    target: str
    origin: str
    more: dict[str, Any]


SETUPS: list[Setup] = []


def works(
    target: str = "svc/web", origin: str = "pod/client-1", **more: Any
) -> Callable[[Callable[[Lab], Iterator[None]]], None]:
    """Add a set-up to the list."""

    def add(function: Callable[[Lab], Iterator[None]]) -> None:
        made = contextlib.contextmanager(function)
        SETUPS.append(Setup(function.__name__.strip("_"), made, target, origin, more))

    return add


def _nothing(name: str, target: str, origin: str, **more: Any) -> None:
    def prepare(lab: Lab) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    SETUPS.append(Setup(name, prepare, target, origin, more))


for _name, _target, _origin, _more in (
    ("by_name", "svc/web", "pod/client-1", {}),
    ("by_cluster_ip", "svc/web:80", "pod/client-2", {"via": "clusterip"}),
    ("by_port_name", "svc/web:http", "pod/client-2", {}),
    ("from_a_node", "svc/web", "node/n1", {}),
    ("from_outside_by_node_port", "svc/web", "outside", {}),
    ("from_a_pod_by_node_port", "svc/web", "pod/client-1", {"via": "nodeport"}),
    ("udp", "svc/udp:9053/udp", "pod/client-1", {}),
    ("from_another_namespace", "svc/web.lab", "pod/guest.annex", {}),
    ("the_api_server", "svc/kubernetes.default", "pod/client-1", {}),
    ("the_dns_itself", "svc/kube-dns.kube-system", "pod/client-1", {}),
    ("itself_by_hairpin", "svc/web", "pod/web-1", {}),
    ("a_url", "http://web/", "pod/client-1", {}),
    ("a_pod", "pod/web-1", "pod/web-1", {}),
    ("a_name", "dns web.lab.svc.cluster.local.", "pod/client-1", {}),
    ("a_short_name", "dns web", "pod/client-2", {}),
    ("with_real_requests", "svc/web", "pod/client-1", {"probe": 3}),
):
    _nothing(_name, _target, _origin, **_more)


@works("svc/bodies")
def _headless(lab: Lab) -> Iterator[None]:
    spec = {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 8080}]}
    with lab.made(SERVICES, service("bodies", spec)):
        lab.until(lambda: len(lab.endpoints("bodies")) == 2, "endpoints")
        yield


@works("svc/alias")
def _external_name(lab: Lab) -> Iterator[None]:
    made = service("alias", {"type": "ExternalName", "externalName": "web.lab.svc.cluster.local"})
    del made["spec"]["selector"], made["spec"]["ports"]
    with lab.made(SERVICES, made):
        yield


@works("svc/sticky")
def _affinity(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, service("sticky", {"selector": {"app": "web"}, "sessionAffinity": "ClientIP"})):
        lab.until(lambda: len(lab.endpoints("sticky")) == 2, "endpoints")
        yield


@works("svc/near")
def _internal_policy_local_with_one_here(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, service("near", {"selector": {"app": "web"}, "internalTrafficPolicy": "Local"})):
        lab.until(lambda: len(lab.endpoints("near")) == 2, "endpoints")
        yield


@works("svc/door", "outside")
def _external_policy_local_with_one_on_each(lab: Lab) -> Iterator[None]:
    spec = {"selector": {"app": "web"}, "type": "NodePort", "externalTrafficPolicy": "Local"}
    with lab.made(SERVICES, service("door", spec)):
        lab.until(lambda: len(lab.endpoints("door")) == 2, "endpoints")
        yield


@works("svc/manual")
def _endpoints_by_hand(lab: Lab) -> Iterator[None]:
    address = lab.pod("web-1")["status"]["podIP"]
    by_hand = endpoint_slice("manual-1", "manual", address, 8080)
    with lab.made(SERVICES, service("manual", {"selector": None})), lab.made(ENDPOINTSLICES, by_hand):
        lab.until(lambda: lab.in_kernel("manual"), "rules")
        yield


@works("svc/both")
def _two_ports(lab: Lab) -> Iterator[None]:
    ports = [
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "echo", "port": 9053, "protocol": "UDP", "targetPort": 9053},
    ]
    with lab.made(SERVICES, service("both", {"selector": {"app": "web"}, "ports": ports})):
        lab.until(lambda: len(lab.endpoints("both")) == 2, "endpoints")
        yield


@works()
def _a_firewall_that_lets_it_pass(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.node("n1"), "forward", "tcp dport 22 drop"):
        yield


@works()
def _a_firewall_with_a_drop_policy_that_lets_it_pass(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.node("n1"), "forward", "ip saddr 10.244.0.0/16 accept", policy="drop"):
        yield


@works("svc/web")
def _one_pod_of_three_not_ready(lab: Lab) -> Iterator[None]:
    probe = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
    with lab.made(PODS, pod("web-3", "n1", "web", container=probe)):
        lab.until(lambda: lab.pod("web-3")["status"]["phase"] == "Running", "the pod")
        yield


@works("svc/early")
def _not_ready_and_published_all_the_same(lab: Lab) -> Iterator[None]:
    probe = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
    with lab.serving("early", {"publishNotReadyAddresses": True}, [pod("early", "n2", "early", container=probe)]):
        lab.until(lambda: lab.explain("svc/early", via="clusterip").works, "a program that listens")
        yield


@works("svc/web", "pod/plain", via="clusterip")
def _dns_policy_default_by_address(lab: Lab) -> Iterator[None]:
    with lab.made(PODS, pod("plain", "n1", listen="", dnsPolicy="Default")):
        lab.until(lambda: lab.pod("plain")["status"]["phase"] == "Running", "the pod")
        yield


@works("http://shop.test/cart", "outside", probe=2)
def _by_ingress(lab: Lab) -> Iterator[None]:
    to = {"service": {"name": "web", "port": {"name": "http"}}}
    rule = {"host": "shop.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": to}]}}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "door"}}
    with lab.made(INGRESSES, {**kind, "spec": {"rules": [rule]}}):
        lab.until(lambda: lab.get(INGRESSES, "door")["status"]["loadBalancer"]["ingress"], "its address")
        lab.until(lambda: lab.explain("http://shop.test/cart", "outside", probe=1).works, "the ingress")
        yield


@works("svc/balanced", "outside", probe=2)
def _by_load_balancer_under_local(lab: Lab) -> Iterator[None]:
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    with lab.serving("balanced", spec, [pod("balanced", "n2", "balanced")]):
        lab.until(lambda: lab.get(SERVICES, "balanced")["status"]["loadBalancer"]["ingress"], "its address")
        yield


@works("svc/web", "outside", via="nodeport")
def _beside_a_host_port(lab: Lab) -> Iterator[None]:
    ports = [{"containerPort": 8080, "hostPort": 8888}]
    with lab.made(PODS, pod("hosted", "n1", container={"ports": ports})):
        lab.until(lambda: lab.pod("hosted")["status"].get("podIP"), "the pod")
        yield


@works("svc/bare")
def _headless_without_ports(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, service("bare", {"clusterIP": "None", "ports": [], "selector": {"app": "web"}})):
        lab.until(lambda: len(lab.endpoints("bare")) == 2, "endpoints")
        lab.until(lambda: lab.explain("svc/bare").works, "its name")
        yield


@works("svc/host", probe=2)
def _pods_on_the_nodes_networks(lab: Lab) -> Iterator[None]:
    pods = [pod(f"host-{n}", f"n{n}", "host", "tcp:0.0.0.0:18080", hostNetwork=True) for n in (1, 2)]
    spec = {"ports": [{"port": 80, "targetPort": 18080}]}
    with lab.serving("host", spec, pods):
        yield


@works("pod/hosted")
def _a_host_port(lab: Lab) -> Iterator[None]:
    with lab.made(PODS, pod("hosted", "n1", container={"ports": [{"containerPort": 8080, "hostPort": 8888}]})):
        lab.until(lambda: is_ready(lab, "hosted"), "the pod")
        yield
