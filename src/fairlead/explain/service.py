"""The hop of the Service object: is it there, has it the port, is it reached by this way at all? Pure."""

from __future__ import annotations

import difflib
import ipaddress

from fairlead.announce.election import addresses_of, eligible, may_announce
from fairlead.controllers.loadbalancer_plan import CLASS
from fairlead.discovery.model import ServicePort
from fairlead.discovery.parse import LABEL_NO_BALANCER
from fairlead.explain.evidence import Evidence, Object
from fairlead.explain.question import Question
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene, port_text


def find_service(evidence: Evidence, question: Question, hop: Hop) -> Object | None:
    """The Service, or None with the reason found."""
    name, namespace = question.name, question.namespace
    found = evidence.service(namespace, name)
    if found is not None:
        return found
    elsewhere = sorted(s["metadata"]["namespace"] for s in evidence.services if s["metadata"]["name"] == name)
    if evidence.snapshot.namespaces and namespace not in evidence.snapshot.namespaces:
        close = difflib.get_close_matches(namespace, sorted(evidence.snapshot.namespaces), 1)
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else f"; did you mean {close[0]}?" if close else ""
        hop.find(
            "FL004", f"there is no namespace {namespace}{hint}", "ask for the Service where it is: kubectl get svc -A"
        )
        return None
    if elsewhere:
        hop.find(
            "FL002",
            f"there is no Service {name} in namespace {namespace}, but there is one in {', '.join(elsewhere)}",
            f"call it {name}.{elsewhere[0]}",
        )
        return None
    here = sorted(s["metadata"]["name"] for s in evidence.services if s["metadata"]["namespace"] == namespace)
    close = difflib.get_close_matches(name, here, 1, 0.6)
    if close:
        hop.find("FL003", f"there is no Service {name} in namespace {namespace}", f"did you mean {close[0]}?")
        return None
    listed = f" (it has {', '.join(here[:5])})" if here else " (it has none)"
    hop.find(
        "FL001",
        f"there is no Service {name} in namespace {namespace}{listed}",
        f"create it, e.g.: kubectl -n {namespace} expose deployment {name} --port=80",
    )
    return None


def describe(scene: Scene, hop: Hop) -> None:
    """What the Service is, in a line or two."""
    service = scene.service
    ips = ", ".join(service.cluster_ips) or ("None (headless)" if service.headless else "none")
    hop.say(f"Service {service.key}: type {service.type}, cluster IP {ips}")
    selector = (scene.raw.get("spec") or {}).get("selector") or {}
    hop.say("selector " + (", ".join(f"{k}={v}" for k, v in sorted(selector.items())) or "none"))
    policies = [f"internalTrafficPolicy {'Local' if service.internal_local else 'Cluster'}"]
    if service.type in ("NodePort", "LoadBalancer"):
        policies.append(f"externalTrafficPolicy {'Local' if service.external_local else 'Cluster'}")
    hop.say(", ".join(policies))
    if service.affinity_seconds:
        hop.find(
            "FL022",
            f"a client stays with one endpoint for {service.affinity_seconds} s after its last connection",
            "count clients, not requests, when you look at how load is spread",
        )


def chosen_ports(scene: Scene, hop: Hop) -> list[ServicePort]:
    """The ports asked for; empty with the reason found."""
    wanted, protocol = scene.question.port, scene.question.protocol
    every = [p for p in scene.service.ports if not wanted or wanted in (p.name, str(p.port))]
    ports = [p for p in every if not protocol or p.protocol == protocol]
    has = ", ".join(port_text(p) for p in scene.service.ports) or "none"
    if scene.service.headless and not scene.service.ports:
        hop.say("no ports: its name gives the pods' addresses, and the client chooses the port")
        return []
    if ports:
        for port in ports:
            at = f", node port {port.node_port}" if port.node_port else ""
            hop.say(f"port {port_text(port)} → target port {port.target_port}{at}")
        return ports
    if every:
        hop.find(
            "FL006",
            f"{scene.service.key} has port {wanted} for {every[0].protocol} only, not {protocol}",
            f"use {every[0].protocol}, or add a port with protocol: {protocol}",
        )
        return []
    near = next((p for p in scene.service.ports if wanted == str(p.target_port)), None)
    hint = f"use {near.port}: {wanted} is the target port" if near else "use one of them, or add the port"
    asked = wanted or (protocol.lower() if protocol else "")
    if scene.service.type == "ExternalName" and not scene.service.ports:
        return [ServicePort("", protocol or "TCP", int(wanted) if wanted.isdigit() else 0, 0)]
    hop.find("FL005", f"{scene.service.key} has no port {asked} (it has {has})", hint)
    return []


def check_way(scene: Scene, hop: Hop) -> None:
    """Whether the Service can be reached by the way that is asked for."""
    service, client, via = scene.service, scene.client, scene.via
    if service.type == "ExternalName":
        _check_external_name(scene, hop)
        return
    if service.headless and via == "clusterip":
        hop.find(
            "FL030",
            f"{service.key} is headless: it has no cluster IP",
            "use its name, which gives the pods' addresses; or make a Service without clusterIP: None",
        )
    if service.ignored_by_proxy and not service.headless:
        hop.find(
            "FL025",
            f"{service.key} has the label service.kubernetes.io/service-proxy-name: this proxy leaves it alone",
            f"kubectl -n {service.key.namespace} label svc {service.key.name} "
            "service.kubernetes.io/service-proxy-name-",
        )
    if client.outside and via in ("clusterip", "dns"):
        hop.find(
            "FL037",
            f"from outside of the cluster nothing leads to the cluster IP {', '.join(service.cluster_ips) or 'None'}",
            "ask --via nodeport, or make the Service's type NodePort or LoadBalancer",
        )
    if via == "nodeport" and not any(p.node_port for p in service.ports):
        hop.find(
            "FL033",
            f"{service.key} is of type {service.type} and has no node port",
            f'kubectl -n {service.key.namespace} patch svc {service.key.name} -p \'{{"spec":{{"type":"NodePort"}}}}\'',
        )
    if via == "lb":
        _check_load_balancer(scene, hop)


def _check_load_balancer(scene: Scene, hop: Hop) -> None:
    service = scene.service
    if not service.load_balancer:
        why, remedy = _why_pending(scene)
        hop.find("FL035", f"{service.key} has no load balancer's address: {why}", remedy)
        return
    _check_announcers(scene, hop)
    if not service.source_ranges or not scene.client.address:
        return
    address = ipaddress.ip_address(scene.client.address)
    ranges = [ipaddress.ip_network(r, strict=False) for r in service.source_ranges]
    if not any(address in r for r in ranges if r.version == address.version):
        hop.find(
            "FL036",
            f"loadBalancerSourceRanges {', '.join(service.source_ranges)} do not contain the client {address}",
            f"add {address}/32 to spec.loadBalancerSourceRanges",
        )


def _why_pending(scene: Scene) -> tuple[str, str]:
    """Why the Service has no load balancer's address, and what to do."""
    service = scene.service
    if service.type != "LoadBalancer":
        return f"its type is {service.type}", "use a node port, or make its type LoadBalancer"
    told = _last_event(scene, "AllocationFailed")
    if told:
        return told, "do what the message says; the Service gets an address as soon as it can"
    if service.load_balancer_class not in ("", CLASS):
        return (
            f"its loadBalancerClass is {service.load_balancer_class}, and no controller of that class has taken it",
            f"run that controller, or make the Service anew with the class {CLASS} or none",
        )
    return (
        "no load balancer has taken it",
        "use a node port, or run a controller that gives addresses: fairlead up without --load-balancer-pool none, or "
        "fairlead loadbalancer --pool …",
    )


def _last_event(scene: Scene, reason: str) -> str:
    """The newest such Event's message about the Service."""
    told = [
        event
        for event in scene.evidence.events
        if (event.get("involvedObject") or {}).get("uid") == scene.service.uid and event.get("reason") == reason
    ]
    told.sort(key=lambda event: str(event.get("lastTimestamp") or ""))
    return str(told[-1]["message"]) if told else ""


def _check_announcers(scene: Scene, hop: Hop) -> None:
    """Whether there is a node that may answer for the address. Where there are no endpoints, their own hop says why."""
    service, nodes = scene.service, scene.evidence.snapshot.nodes.values()
    if service.load_balancer_class not in ("", CLASS) or not nodes or not any(addresses_of(service)):
        return
    able = frozenset(node.name for node in nodes if may_announce(node))
    if not able:
        hop.find(
            "FL038",
            f"no node may answer for {service.load_balancer[0].ip}: all leave the cluster, are on another network, or "
            f"have the label {LABEL_NO_BALANCER}",
            f"take the label from a node: kubectl label node {min(node.name for node in nodes)} {LABEL_NO_BALANCER}-",
        )
        return
    everyone = frozenset(node.name for node in nodes)
    for address in addresses_of(service):
        with_endpoints = eligible(service, address, everyone)
        if with_endpoints and not with_endpoints & able:
            hop.find(
                "FL038",
                f"no node may answer for {address}: the policy is Local, and the nodes with endpoints, "
                f"{', '.join(sorted(with_endpoints))}, leave, are on another network, or have the label "
                f"{LABEL_NO_BALANCER}",
                "run endpoints on another node, or set externalTrafficPolicy to Cluster",
            )


def _check_external_name(scene: Scene, hop: Hop) -> None:
    service = scene.service
    hop.say(f"ExternalName {service.external_name}")
    try:
        ipaddress.ip_address(service.external_name)
    except ValueError:
        return
    hop.find(
        "FL032",
        f"the externalName of {service.key} is the address {service.external_name}; a CNAME needs a name",
        "make a Service without selector and an EndpointSlice with the address",
    )
