"""`explain pod/x`: what a pod has to find Services with: DNS settings, variables, address, routes. Pure."""

from __future__ import annotations

from fairlead.discovery.model import Service, ServiceKey
from fairlead.explain import endpoints, hostports
from fairlead.explain.evidence import Evidence, Object, PodKernel
from fairlead.explain.question import Question
from fairlead.explain.report import Hop, Report
from fairlead.explain.scene import Client, Scene, on_node_network, pod_ip
from fairlead.explain.way import link_problems
from fairlead.kubelet.environment import service_environment
from fairlead.kubelet.resolvconf import parse


def explain(evidence: Evidence, question: Question) -> Report:
    """What the pod has, and what of it is not as it should be."""
    start = Hop("pod")
    if evidence.api_problem:
        start.find("FL063", evidence.api_problem, "fairlead status")
        return Report(question=str(question), hops=(start,), unseen=evidence.unseen)
    pod = evidence.pod(question.namespace, question.name)
    if pod is None:
        start.find(
            "FL007",
            f"there is no pod {question.name} in namespace {question.namespace}",
            f"kubectl -n {question.namespace} get pods",
        )
        return Report(question=str(question), hops=(start,), unseen=evidence.unseen)
    _status(evidence, question, pod, start)
    kernel = evidence.kernel_of(pod)
    hops = [start, _network(evidence, pod, kernel), _resolver(evidence, pod, kernel), _listening(kernel)]
    if (ports := hostports.examine(evidence, pod)) is not None:
        hops.append(ports)
    hops.append(_variables(evidence, pod, kernel))
    hops.append(_services(evidence, pod))
    return Report(
        question=str(question),
        hops=tuple(hops),
        unseen=evidence.unseen,
        answer=f"pod/{question.name} has {pod_ip(pod)} on node {(pod.get('spec') or {}).get('nodeName')}",
    )


def _status(evidence: Evidence, question: Question, pod: Object, hop: Hop) -> None:
    status = pod.get("status") or {}
    hop.say(f"{status.get('phase')}, ready: {'yes' if endpoints.ready(pod) else 'no'}, address {pod_ip(pod) or 'none'}")
    if endpoints.alive(pod) and not endpoints.ready(pod):
        scene = Scene(question, evidence, "clusterip", Client("", ""), {}, Service(ServiceKey("", "")))
        found, told, remedy = endpoints.reason(scene, pod)
        hop.find(found, told, remedy)


def _network(evidence: Evidence, pod: Object, kernel: PodKernel | None) -> Hop:
    hop = Hop("network")
    if on_node_network(pod):
        hop.say("the node's own network (hostNetwork)")
        return hop
    if kernel is None or kernel.problem:
        hop.state = "unseen"
        return hop
    for link in kernel.links:
        if link.name != "lo":
            hop.say(f"{link.name} {'up' if link.up else 'down'} mtu {link.mtu} {' '.join(link.addresses)}")
    for route in kernel.routes.values():
        via = f" via {route.gateway}" if route.gateway else ""
        hop.say(f"to {route.destination}: {route.error or f'dev {route.device}{via}'}")
    link_problems(evidence, pod, hop)
    return hop


def _resolver(evidence: Evidence, pod: Object, kernel: PodKernel | None) -> Hop:
    hop = Hop("DNS settings")
    policy = (pod.get("spec") or {}).get("dnsPolicy") or "ClusterFirst"
    hop.say(f"dnsPolicy {policy}")
    if kernel is None or kernel.resolv_conf is None:
        hop.state = "unseen"
        return hop
    conf = parse(kernel.resolv_conf)
    hop.say(f"nameserver {', '.join(conf.nameservers) or 'none'}")
    hop.say(f"search {' '.join(conf.searches) or 'none'}; options {' '.join(conf.options) or 'none'}")
    if evidence.facts.dns_ip and evidence.facts.dns_ip not in conf.nameservers:
        id_ = "FL042" if policy == "Default" else "FL041"
        hop.find(
            id_,
            f"the cluster's DNS {evidence.facts.dns_ip} is not among its name servers",
            "set dnsPolicy: ClusterFirst, unless the pod needs none of the cluster's names",
            severity="warning",
        )
    return hop


def _listening(kernel: PodKernel | None) -> Hop:
    hop = Hop("listening")
    if kernel is None or kernel.problem:
        hop.state = "unseen"
        return hop
    for entry in sorted(set(kernel.listeners), key=lambda e: (e.protocol, e.port)):
        who = f" {entry.process} (pid {entry.pid})" if entry.pid else ""
        hop.say(f"{entry.protocol} {entry.address}:{entry.port}{who}")
    if not kernel.listeners:
        hop.say("nothing")
    return hop


def _variables(evidence: Evidence, pod: Object, kernel: PodKernel | None) -> Hop:
    """Against the Services of today: what was made after the pod is not in its environment."""
    hop = Hop("variables")
    if kernel is None or kernel.environment is None:
        hop.state = "unseen"
        return hop
    spec = pod.get("spec") or {}
    wanted = dict(
        service_environment(
            evidence.snapshot, pod["metadata"].get("namespace", ""), spec.get("enableServiceLinks") is not False
        )
    )
    have = {key: value for key, value in kernel.environment.items() if key in wanted}
    hosts = sorted(k for k in wanted if k.endswith("_SERVICE_HOST"))
    for name in hosts:
        if name in have:
            hop.say(f"{name}={have[name]}")
    missing = [name for name in hosts if name not in have]
    changed = [name for name in hosts if name in have and have[name] != wanted[name]]
    if missing:
        names = ", ".join(name.removesuffix("_SERVICE_HOST") for name in missing)
        hop.find(
            "FL095",
            f"no variables for {names}: made after the pod started",
            "use the DNS name; or make the pod anew",
        )
    if changed:
        hop.find("FL095", f"{', '.join(changed)} hold another address: the Service was made anew", severity="warning")
    return hop


def _services(evidence: Evidence, pod: Object) -> Hop:
    """The Services that have this pod as an endpoint."""
    hop = Hop("Services it serves")
    address = pod_ip(pod)
    for key, service in sorted(evidence.snapshot.services.items()):
        for entry in service.slices:
            for endpoint in entry.endpoints:
                if endpoint.address == address and address:
                    state = "ready" if endpoint.ready else "not ready"
                    ports = ", ".join(str(p.port) for p in entry.ports)
                    hop.say(f"{key}: {state}, port {ports}" if ports else f"{key}: {state}")
    if not hop.lines:
        hop.say("none")
    return hop
