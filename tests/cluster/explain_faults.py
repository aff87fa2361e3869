"""The faults themselves: what is broken, what is asked, and which finding names it.

Each is a generator: it breaks, yields, puts back. `expect` holds the findings that name the cause; more than one only
where one fault has two right names.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from fairlead.api.kinds import ENDPOINTSLICES, INGRESSES, NODES, PODS, SERVICES
from tests.cluster.explain_lab import SPACE, Lab, endpoint_slice, pod, scale, service


class Fault(NamedTuple):
    """One fault. `quick`: part of what runs on every change. `shared`: it breaks svc/web for pod/client-1, so it can be
    one of a pair."""

    name: str
    expect: frozenset[str]
    inject: Callable[[Lab], AbstractContextManager[None]]
    target: str
    origin: str
    more: dict[str, Any]
    quick: bool
    shared: bool


FAULTS: list[Fault] = []


def fault(
    expect: str, target: str = "svc/web", origin: str = "pod/client-1", *, quick: bool = True, **more: Any
) -> Callable[[Callable[[Lab], Iterator[None]]], None]:
    """Add a fault to the list."""

    def add(function: Callable[[Lab], Iterator[None]]) -> None:
        shared = target == "svc/web" and origin == "pod/client-1" and not more
        inject = contextlib.contextmanager(function)
        name = function.__name__.strip("_")
        FAULTS.append(Fault(name, frozenset(expect.split()), inject, target, origin, more, quick, shared))

    return add


def web_pod(name: str, **more: Any) -> dict[str, Any]:
    return pod(name, "n1", name, **more)


# -- objects: the question, the Service ------------------------------------------------------------------------------


@fault("FL001", "svc/ledger")
def _service_missing(lab: Lab) -> Iterator[None]:
    yield


@fault("FL002", "svc/web.annex", "pod/guest.annex")
def _service_in_another_namespace(lab: Lab) -> Iterator[None]:
    yield


@fault("FL003", "svc/wbe")
def _name_close_by(lab: Lab) -> Iterator[None]:
    yield


@fault("FL004", "svc/web.labb")
def _namespace_missing(lab: Lab) -> Iterator[None]:
    yield


@fault("FL005", "svc/web:8080")
def _target_port_asked_for(lab: Lab) -> Iterator[None]:
    yield


@fault("FL006", "svc/web:80/udp")
def _other_protocol_asked_for(lab: Lab) -> Iterator[None]:
    yield


@fault("FL007", "svc/web", "pod/nobody")
def _client_missing(lab: Lab) -> Iterator[None]:
    yield


@fault("FL008", "svc/web", "pod/pending")
def _client_does_not_run(lab: Lab) -> Iterator[None]:
    with lab.made(PODS, pod("pending", listen="", nodeSelector={"no": "such"})):
        yield


@fault("FL010", "svc/empty")
def _no_selector_and_no_endpoints(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, service("empty", {"selector": None})):
        lab.until(lambda: lab.get(SERVICES, "empty"), "the Service")
        yield


@fault("FL011")
def _selector_matches_nothing(lab: Lab) -> Iterator[None]:
    with lab.patched(SERVICES, "web", {"spec": {"selector": {"app": "wbe"}}}, {"spec": {"selector": {"app": "web"}}}):
        lab.until(lambda: not lab.endpoints("web"), "no endpoints")
        yield
    lab.until(lambda: len(lab.endpoints("web")) == 2 and lab.in_kernel("web"), "endpoints again")


@fault("FL012", "svc/notready")
def _readiness_probe_gets_404(lab: Lab) -> Iterator[None]:
    probe = {"httpGet": {"path": "/health", "port": 8404}, "periodSeconds": 1}
    broken = web_pod("notready", listen="tcp:0.0.0.0:8404", container={"readinessProbe": probe})
    with lab.serving("notready", {"ports": [{"port": 80, "targetPort": 8404}]}, [broken], ready=False):
        lab.until(lambda: lab.pod("notready")["status"]["phase"] == "Running", "the pod")
        yield


@fault("FL012", "svc/notready", quick=False)
def _readiness_probe_on_another_port(lab: Lab) -> Iterator[None]:
    broken = web_pod("notready", container={"readinessProbe": {"tcpSocket": {"port": 9999}, "periodSeconds": 1}})
    with lab.serving("notready", {}, [broken], ready=False):
        lab.until(lambda: lab.pod("notready")["status"]["phase"] == "Running", "the pod")
        yield


@fault("FL012", "svc/notready", quick=False)
def _readiness_command_fails(lab: Lab) -> Iterator[None]:
    broken = web_pod("notready", container={"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}})
    with lab.serving("notready", {}, [broken], ready=False):
        lab.until(lambda: lab.pod("notready")["status"]["phase"] == "Running", "the pod")
        yield


def _state(lab: Lab, name: str) -> str:
    statuses = lab.pod(name)["status"].get("containerStatuses") or [{}]
    return str(statuses[0].get("state"))


@fault("FL013", "svc/crash")
def _program_ends_at_once(lab: Lab) -> Iterator[None]:
    broken = web_pod("crash", container={"command": ["sh", "-c", "echo no database; exit 3"]})
    with lab.serving("crash", {}, [broken], ready=False):
        lab.until(lambda: "CrashLoopBackOff" in _state(lab, "crash"), "the crash loop")
        yield


@fault("FL013", "svc/over", quick=False)
def _pods_have_ended(lab: Lab) -> Iterator[None]:
    broken = web_pod("over", container={"command": ["true"]}, restartPolicy="Never")
    with lab.serving("over", {}, [broken], ready=False):
        lab.until(lambda: lab.pod("over")["status"]["phase"] == "Succeeded", "the pod's end")
        yield


@fault("FL014", "svc/homeless")
def _pods_not_scheduled(lab: Lab) -> Iterator[None]:
    with lab.serving("homeless", {}, [pod("homeless", "", "homeless", nodeSelector={"no": "such"})], ready=False):
        lab.until(lambda: lab.pod("homeless")["status"].get("conditions"), "the scheduler's word")
        yield


@fault("FL015", "svc/imageless", quick=False)
def _image_cannot_be_pulled(lab: Lab) -> Iterator[None]:
    with lab.serving("imageless", {}, [web_pod("imageless", container={"image": "nginx"})], ready=False):
        lab.until(lambda: "Pull" in _state(lab, "imageless"), "the image's error")
        yield


@fault("FL015", "svc/programless")
def _program_does_not_exist(lab: Lab) -> Iterator[None]:
    broken = web_pod("programless", container={"command": ["/no/such/program"]})
    with lab.serving("programless", {}, [broken], ready=False):
        lab.until(lambda: "no/such" in str(lab.pod("programless")["status"]), "the start's error")
        yield


@fault("FL016", "svc/named")
def _named_port_missing(lab: Lab) -> Iterator[None]:
    broken = web_pod("named", container={"ports": [{"name": "web", "containerPort": 8080}]})
    with lab.serving("named", {"ports": [{"port": 80, "targetPort": "http"}]}, [broken], ready=False):
        lab.until(lambda: "True" in str(lab.pod("named")["status"].get("conditions")), "the pod")
        lab.until(lambda: "Ready" in str(lab.pod("named")["status"]), "the pod")
        yield


@fault("FL019", "svc/manual")
def _endpoint_of_no_pod(lab: Lab) -> Iterator[None]:
    by_hand = endpoint_slice("manual-1", "manual", "10.244.0.250", 8080)
    with lab.made(SERVICES, service("manual", {"selector": None})), lab.made(ENDPOINTSLICES, by_hand):
        lab.until(lambda: lab.in_kernel("manual"), "the rules")
        yield


@fault("FL020", "svc/near", "pod/client-2")
def _internal_policy_local_elsewhere(lab: Lab) -> Iterator[None]:
    with lab.serving("near", {"internalTrafficPolicy": "Local"}, [web_pod("near")], ready=False):
        lab.until(lambda: lab.endpoints("near"), "the endpoint")
        yield


@fault("FL021", "svc/door", "outside", via="nodeport")
def _external_policy_local_elsewhere(lab: Lab) -> Iterator[None]:
    with lab.serving("door", {"type": "NodePort", "externalTrafficPolicy": "Local"}, [web_pod("door")]):
        yield


@fault("FL024", "svc/six", quick=False)
def _endpoints_of_the_other_family(lab: Lab) -> Iterator[None]:
    by_hand = endpoint_slice("six-1", "six", "fd00::1", 8080)
    with lab.made(SERVICES, service("six", {"selector": None})), lab.made(ENDPOINTSLICES, by_hand):
        lab.until(lambda: lab.endpoints("six"), "the slice")
        yield


@fault("FL024", family="IPv6", via="clusterip")
def _family_the_service_lacks(lab: Lab) -> Iterator[None]:
    yield


@fault("FL025")
def _proxy_told_to_ignore_it(lab: Lab) -> Iterator[None]:
    label = "service.kubernetes.io/service-proxy-name"
    with lab.patched(
        SERVICES, "web", {"metadata": {"labels": {label: "other"}}}, {"metadata": {"labels": {label: None}}}
    ):
        yield
    lab.until(lambda: lab.in_kernel("web"), "rules again")


@fault("FL030", "svc/bodies", via="clusterip")
def _headless_by_cluster_ip(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, service("bodies", {"clusterIP": "None", "selector": {"app": "web"}})):
        lab.until(lambda: len(lab.endpoints("bodies")) == 2, "endpoints")
        yield


@fault("FL030", "svc/bodies:80", quick=False)
def _headless_with_another_port(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, service("bodies", {"clusterIP": "None", "selector": {"app": "web"}})):
        lab.until(lambda: len(lab.endpoints("bodies")) == 2, "endpoints")
        lab.until(lambda: not lab.explain("dns bodies").cause, "the name")
        yield


@fault("FL031", "svc/alias")
def _external_name_does_not_resolve(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, _external_name("nowhere.annex.svc.cluster.local")):
        yield


@fault("FL032", "svc/alias")
def _external_name_is_an_address(lab: Lab) -> Iterator[None]:
    with lab.made(SERVICES, _external_name("10.1.2.3")):
        yield


def _external_name(target: str) -> dict[str, Any]:
    made = service("alias", {"type": "ExternalName", "externalName": target})
    del made["spec"]["selector"], made["spec"]["ports"]
    return made


@fault("FL033", "svc/udp", "outside", via="nodeport")
def _no_node_port(lab: Lab) -> Iterator[None]:
    yield


@fault("FL034", "svc/web", "node/n1", via="nodeport", to="127.0.0.1")
def _node_port_on_localhost(lab: Lab) -> Iterator[None]:
    yield


@fault("FL035", "svc/cloud", via="lb")
def _load_balancer_of_another_class(lab: Lab) -> Iterator[None]:
    spec = {"type": "LoadBalancer", "loadBalancerClass": "example.com/cloud", "selector": {"app": "web"}}
    with lab.made(SERVICES, service("cloud", spec)):
        yield


@fault("FL035", "svc/cloud", via="lb")
def _load_balancer_asks_for_the_impossible(lab: Lab) -> Iterator[None]:
    spec = {"type": "LoadBalancer", "loadBalancerIP": "198.51.100.7", "selector": {"app": "web"}}
    with lab.made(SERVICES, service("cloud", spec)):
        yield


@fault("FL036", "svc/cloud", via="lb")
def _source_ranges_exclude_theclient(lab: Lab) -> Iterator[None]:
    spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "loadBalancerSourceRanges": ["192.0.2.0/24"]}
    with lab.made(SERVICES, service("cloud", spec)):
        lab.until(lambda: _balanced(lab, "cloud"), "a load balancer's address")
        yield


@fault("FL038", "svc/cloud", via="lb")
def _no_node_may_announce(lab: Lab) -> Iterator[None]:
    label = "node.kubernetes.io/exclude-from-external-load-balancers"
    names = [node["metadata"]["name"] for node in lab.run(lab.client.list(NODES))["items"]]
    with lab.made(SERVICES, service("cloud", {"type": "LoadBalancer", "selector": {"app": "web"}})):
        lab.until(lambda: _balanced(lab, "cloud"), "a load balancer's address")
        try:
            for name in names:
                lab.run(lab.client.patch(NODES, name, {"metadata": {"labels": {label: ""}}}))
            yield
        finally:
            for name in names:
                lab.run(lab.client.patch(NODES, name, {"metadata": {"labels": {label: None}}}))


def _balanced(lab: Lab, name: str) -> bool:
    return bool(lab.run(lab.client.get(SERVICES, name, SPACE))["status"]["loadBalancer"].get("ingress"))


@fault("FL037", "svc/web", "outside", via="clusterip")
def _cluster_ip_from_outside(lab: Lab) -> Iterator[None]:
    yield


# -- names -----------------------------------------------------------------------------------------------------------


@fault("FL040", quick=False)
def _dns_scaled_to_nothing(lab: Lab) -> Iterator[None]:
    scale(lab, "kube-dns", "kube-system", 0)
    listed = lambda: lab.run(lab.client.list(PODS, "kube-system", label_selector="k8s-app=kube-dns"))["items"]  # noqa: E731
    lab.until(lambda: not listed(), "no DNS")
    try:
        yield
    finally:
        scale(lab, "kube-dns", "kube-system", 2)
        lab.until(lambda: len(lab.endpoints("kube-dns", "kube-system")) == 2, "the DNS")
        lab.until(lambda: lab.explain("svc/web").works, "names again")


@fault("FL042", "svc/web", "pod/plain")
def _dns_policy_default(lab: Lab) -> Iterator[None]:
    with client(lab, "plain", dnsPolicy="Default"):
        yield


@fault("FL041", "svc/web", "pod/lost", quick=False)
def _another_name_server(lab: Lab) -> Iterator[None]:
    with client(lab, "lost", dnsPolicy="None", dnsConfig={"nameservers": ["10.96.0.99"]}):
        yield


@fault("FL041", "svc/web", "pod/edited")
def _resolv_conf_edited(lab: Lab) -> Iterator[None]:
    with client(lab, "edited"):
        made = lab.pod("edited")
        folder = lab.layout.runtime / "nodes" / "n1" / "pods" / made["metadata"]["uid"] / "etc" / "resolv.conf"
        folder.write_text("nameserver 10.96.0.99\n")
        yield


@fault("FL047", "svc/outer", quick=False)
def _nobody_answers_the_dns(lab: Lab) -> Iterator[None]:
    outer = {
        "type": "ExternalName",
        "externalName": f"n{secrets.token_hex(4)}.example",
        "selector": None,
        "ports": None,
    }
    out = "ip daddr != { 10.244.0.0/16, 10.96.0.0/16 } meta l4proto { tcp, udp } th dport 53 drop"
    with (
        lab.stranger(lab.node("n1"), "forward", out),
        lab.stranger(lab.node("n2"), "forward", out),
        lab.made(SERVICES, service("outer", outer)),
    ):
        lab.until(lambda: (found := lab.explain("svc/outer").cause) and found.id != "FL044", "the DNS' knowledge of it")
        yield


@fault("FL043", "dns web", "pod/guest.annex")
def _short_name_from_another_namespace(lab: Lab) -> Iterator[None]:
    yield


@fault("FL043", "dns wbe")
def _name_of_nothing(lab: Lab) -> Iterator[None]:
    yield


@contextlib.contextmanager
def client(lab: Lab, name: str, **spec: Any) -> Iterator[None]:
    with lab.made(PODS, pod(name, "n1", listen="", **spec)):
        lab.until(lambda: lab.pod(name)["status"]["phase"] == "Running", f"pod {name}")
        yield


@fault("FL045 FL085 FL040", quick=False)
def _dns_processes_stopped(lab: Lab) -> Iterator[None]:
    listed = lab.run(lab.client.list(PODS, "kube-system", label_selector="k8s-app=kube-dns"))
    with lab.stopped(*(pid for each in listed["items"] for pid in lab.programs(each))):
        yield
    lab.until(lambda: len(lab.endpoints("kube-dns", "kube-system")) == 2, "the DNS")


@fault("FL052")
def _stranger_drops_dns(lab: Lab) -> Iterator[None]:
    with lab.stranger(lab.node("n1"), "prerouting", "udp dport 53 drop"):
        yield


# -- the way in --------------------------------------------------------------------------------------------------------


def _ingress(host: str = "shop.test", backend: str = "web", path: str = "/", **spec: Any) -> dict[str, Any]:
    to = {"service": {"name": backend, "port": {"name": "http"}}}
    rule = {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": to}]}}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "door"}}
    return {**kind, "spec": {"rules": [rule], **spec}}


@contextlib.contextmanager
def _door(lab: Lab, **more: Any) -> Iterator[None]:
    with lab.made(INGRESSES, _ingress(**more)):
        lab.until(lambda: lab.endpoints("fairlead-ingress", "kube-system"), "the ingress' pod")
        yield


@fault("FL101", "http://shop.tst/", "outside", via="ingress")
def _host_in_no_ingress(lab: Lab) -> Iterator[None]:
    with _door(lab):
        yield


@fault("FL102", "http://shop.test/admin", "outside", via="ingress", quick=False)
def _path_in_no_rule(lab: Lab) -> Iterator[None]:
    with _door(lab, path="/web"):
        yield


@fault("FL100", "http://shop.test/", "outside")
def _ingress_of_a_class_that_is_not_there(lab: Lab) -> Iterator[None]:
    with _door(lab, ingressClassName="nginx"):
        yield


@fault("FL103", "http://shop.test/", "outside")
def _backend_missing(lab: Lab) -> Iterator[None]:
    with _door(lab, backend="wbe"):
        yield


@fault("FL104", "https://shop.test/", "outside", quick=False)
def _secret_missing(lab: Lab) -> Iterator[None]:
    with _door(lab, tls=[{"hosts": ["shop.test"], "secretName": "cert"}]):
        yield


@fault("FL011", "http://shop.test/", "outside", quick=False)
def _no_endpoints_behind_the_ingress(lab: Lab) -> Iterator[None]:
    with (
        _door(lab, backend="bare"),
        lab.made(SERVICES, service("bare", {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]})),
    ):
        yield


# -- load balancers and host ports -----------------------------------------------------------------------------------


@fault("FL052", "svc/balanced", "outside", quick=False)
def _stranger_drops_what_a_balancer_gets(lab: Lab) -> Iterator[None]:
    with _with_balancer(lab), contextlib.ExitStack() as stack:
        for node in ("n1", "n2"):
            stack.enter_context(lab.stranger(lab.node(node), "forward", "tcp dport 8080 drop"))
        yield


@contextlib.contextmanager
def _with_balancer(lab: Lab) -> Iterator[None]:
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    with lab.serving("balanced", spec, [pod("balanced", "n2", "balanced")]):
        lab.until(lambda: lab.get(SERVICES, "balanced")["status"]["loadBalancer"]["ingress"], "its address")
        yield
