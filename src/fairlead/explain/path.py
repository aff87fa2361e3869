"""The whole way of a packet to a Service, hop by hop. Pure: evidence in, report out.

In: a `Question` of kind svc and the `Evidence`. Out: a `Report`. Invariant: hops come in the order of the way, and the
first error in that order is the cause; what follows from it is not said twice.
"""

from __future__ import annotations

import difflib

import msgspec

from fairlead.discovery.choose import Backend, Choice
from fairlead.discovery.model import Service, ServiceKey, ServicePort
from fairlead.explain import elsewhere, endpoints, entrance, listening, names, rules, service, way
from fairlead.explain.evidence import Evidence, Object
from fairlead.explain.question import Origin, Question, Via
from fairlead.explain.report import Finding, Hop, Report
from fairlead.explain.scene import (
    Client,
    Scene,
    Target,
    host,
    lan_node,
    on_node_network,
    pod_ip,
    pod_ips,
    port_text,
    primary_address,
)

_DNS = ServiceKey("kube-system", "kube-dns")


def explain(evidence: Evidence, question: Question) -> Report:
    """Why the origin can, or cannot, reach the Service."""
    start = Hop("client")
    hops = [start]
    if evidence.api_problem:
        _no_api(evidence, start)
        return _report(evidence, question, hops)
    client = find_client(evidence, question.origin or Origin("outside"), start)
    question = entrance.settled(evidence, question)
    if question.via == "ingress" and client is not None:
        return _by_ingress(evidence, question, hops)
    place = Hop("Service")
    raw = service.find_service(evidence, question, place)
    if client is None or raw is None:
        return _report(evidence, question, [start, place] if client else [start])
    key = ServiceKey(question.namespace, question.name)
    known = evidence.snapshot.services.get(key, Service(key))
    outside: Via = "lb" if known.load_balancer else "nodeport"
    via: Via = question.via or ("dns" if client.resolver is not None else outside if client.outside else "clusterip")
    family = question.family or (known.ip_families[0] if known.ip_families else "IPv4")
    scene = Scene(question, evidence, via, of_family(evidence, client, family), raw, known, family)
    _cluster_warnings(scene, start)
    settled = False
    if via == "dns" and client.resolver is not None:
        hop = Hop("name")
        hops.append(hop)
        settled = _look_up(scene, hop)
    hops.append(place)
    service.describe(scene, place)
    ports = service.chosen_ports(scene, place)
    service.check_way(scene, place)
    if not place.broken:
        _check_family(scene, place)
    if known.type == "ExternalName" and not place.broken and not settled:
        return _report(evidence, question, hops, answer=f"{known.external_name} is another name for it")
    if known.headless and not known.ports and not place.broken and not settled:
        return _portless(scene, hops)
    if place.broken or settled or not ports or known.type == "ExternalName":
        return _report(evidence, question, hops)
    return _follow(scene, ports, hops)


def _by_ingress(evidence: Evidence, question: Question, hops: list[Hop]) -> Report:
    """From the rule of an Ingress on: the ingress' pods connect to endpoints themselves."""
    hop, place = Hop("Ingress"), Hop("Service")
    hops.append(hop)
    if entrance.examine(evidence, question, hop) is None:
        return _report(evidence, question, hops, answer=hop.lines[-1] if hop.lines else "")
    asked = entrance.resolved(evidence, question)
    hops.append(place)
    raw = service.find_service(evidence, asked, place)
    if raw is None:
        return _report(evidence, question, hops)
    known = evidence.snapshot.services[ServiceKey(asked.namespace, asked.name)]
    family = question.family or (known.ip_families[0] if known.ip_families else "IPv4")
    pod = entrance.door(evidence)
    node = str(((pod or {}).get("spec") or {}).get("nodeName") or "")
    client = Client(node, pod_ip(pod), None if on_node_network(pod) else pod) if pod is not None else Client("", "")
    scene = Scene(asked, evidence, "ingress", of_family(evidence, client, family), raw, known, family)
    service.describe(scene, place)
    ports = service.chosen_ports(scene, place)
    if known.type == "ExternalName":
        answer = f"{hop.lines[0]} → {known.external_name}"
        return _report(evidence, question, hops, answer=answer)
    report = _follow(scene, ports, hops)
    return msgspec.structs.replace(report, question=str(question))


def find_client(evidence: Evidence, origin: Origin, hop: Hop) -> Client | None:
    """Who asks; None with the reason found."""
    if origin.kind == "outside":
        hop.say(f"outside of the cluster{', ' + evidence.facts.outside_ip if evidence.facts.outside_ip else ''}")
        return Client("", evidence.facts.outside_ip)
    if origin.kind == "node":
        if evidence.nodes and evidence.node(origin.name) is None:
            has = ", ".join(sorted(n["metadata"]["name"] for n in evidence.nodes))
            hop.find("FL007", f"there is no node {origin.name} (there are {has})", "see: kubectl get nodes")
            return None
        address = primary_address(evidence, origin.name)
        hop.say(f"a process on node {origin.name}, {address}")
        return Client(origin.name, address)
    pod = evidence.pod(origin.namespace, origin.name)
    if pod is None:
        hop.find(
            "FL007",
            f"there is no pod {origin.name} in namespace {origin.namespace}{_near(evidence, origin)}",
            f"kubectl -n {origin.namespace} get pods",
        )
        return None
    status, node = pod.get("status") or {}, (pod.get("spec") or {}).get("nodeName") or ""
    if status.get("phase") != "Running" or not pod_ip(pod):
        hop.find(
            "FL008",
            f"pod/{origin.name} does not run: it is {status.get('phase') or 'Pending'}",
            f"kubectl -n {origin.namespace} describe pod {origin.name}",
        )
        return None
    hop.say(f"pod/{origin.name}.{origin.namespace}, {pod_ip(pod)}, on node {node}")
    if on_node_network(pod):
        return Client(node, pod_ip(pod), None, origin.namespace, pod)
    return Client(node, pod_ip(pod), pod, origin.namespace, pod)


def _near(evidence: Evidence, origin: Origin) -> str:
    """A pod that may be meant: of that name in another namespace, or of a name close by in this one."""
    others = sorted(p["metadata"]["namespace"] for p in evidence.pods if p["metadata"]["name"] == origin.name)
    if others:
        return f"; there is one in {others[0]}"
    here = [p["metadata"]["name"] for p in evidence.pods if p["metadata"]["namespace"] == origin.namespace]
    close = difflib.get_close_matches(origin.name, here, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def of_family(evidence: Evidence, client: Client, family: str) -> Client:
    """The client with its address of that family; without one its address is empty."""
    if not client.address or (":" in client.address) == (family == "IPv6"):
        return client
    if client.resolver is not None:
        every = pod_ips(client.resolver)
        address = next((ip for ip in every if (":" in ip) == (family == "IPv6")), "")
    else:
        address = primary_address(evidence, client.node, family)
    return msgspec.structs.replace(client, address=address)


def _no_api(evidence: Evidence, hop: Hop) -> None:
    state = evidence.processes.get("control-plane")
    why = f" (its process is {state})" if state and state != "running" else ""
    remedy = f"fairlead status --name {evidence.facts.name}" if evidence.facts.local else "kubectl cluster-info"
    if " is forbidden: " in evidence.api_problem:
        remedy = "ask for the right to list Services, EndpointSlices and Pods in these namespaces"
    hop.find("FL063", f"{evidence.api_problem}{why}", remedy)


def _cluster_warnings(scene: Scene, hop: Hop) -> None:
    """What is wrong with the nodes on the way, though packets may still pass."""
    for process, state in sorted(scene.evidence.processes.items()):
        node = process.removeprefix("node-")
        if process.startswith("node-") and state != "running" and node == scene.client.node:
            hop.find(
                "FL061",
                f"the agent of {node} is {state}: its rules are those of when it last ran",
                "let it run again",
                severity="warning",
            )
    known = scene.evidence.snapshot.nodes.get(scene.client.node)
    if known is not None and not known.ready:
        hop.find("FL060", f"the client's node {known.name} is not ready", severity="warning")
    elsewhere.silent(scene, scene.client.node, hop)


def _check_family(scene: Scene, hop: Hop) -> None:
    families = scene.service.ip_families
    if families and scene.family not in families:
        hop.find(
            "FL024",
            f"{scene.service.key} has no {scene.family} address (ipFamilies: {', '.join(families)})",
            "ask by one of its families, or set spec.ipFamilyPolicy: PreferDualStack in a dual-stack cluster",
        )


def _look_up(scene: Scene, hop: Hop) -> bool:
    """The hop of the name. True: it says why nothing can work."""
    pod = scene.client.resolver
    assert pod is not None
    name = scene.question.host or names.usual_name(scene.service.key, scene.client.namespace)
    looked = names.examine(scene.evidence, pod, name, hop, scene.family)
    if looked.down:
        why_no_answer(scene.evidence, scene.client, hop)
        return True
    if any(f.id == "FL044" for f in hop.findings):
        why_wrong(scene.evidence, scene.client, hop)
    if scene.service.type == "ExternalName" and not hop.broken and hop.state != "unseen":
        addresses = looked.answer.addresses if looked.answer else ()
        if not addresses and not _is_address(scene.service.external_name):
            hop.find(
                "FL031",
                f"{scene.service.external_name}, the externalName of {scene.service.key}, does not resolve",
                "mend spec.externalName, or the DNS it is in",
            )
    return looked.settled


def _is_address(text: str) -> bool:
    return bool(text) and all(c in "0123456789.:" for c in text)


def why_no_answer(evidence: Evidence, client: Client, hop: Hop) -> None:
    """No name server answered: follow the way to the cluster's DNS itself and take over what is found there."""
    raw, known = evidence.service(*_DNS), evidence.snapshot.services.get(_DNS)
    if raw is None or known is None:
        hop.find("FL040", f"there is no Service {_DNS}", "start the cluster's DNS")
        return
    report = way_to_dns(evidence, client, raw, known)
    cause = report.cause
    if cause is None:
        hop.find("FL045", f"{evidence.facts.dns_ip} does not answer", "kubectl -n kube-system get pods -o wide")
        return
    if any(cause in h.findings for h in report.hops if h.name.startswith("endpoints")):
        hop.find(
            "FL040",
            f"the cluster's DNS has no ready endpoints: {cause.text}",
            cause.remedy or "kubectl -n kube-system get pods -l k8s-app=kube-dns",
            evidence=(cause.id,),
        )
        return
    for finding in report.findings:
        if finding.severity == "error":
            hop.findings.append(Finding(finding.id, f"the way to the DNS: {finding.text}", finding.remedy))
    hop.state = "broken"
    hop.find("FL045", f"{evidence.facts.dns_ip} does not answer", cause.remedy)


def way_to_dns(evidence: Evidence, client: Client, raw: Object, known: Service) -> Report:
    """The path of the client's queries."""
    question = Question(kind="svc", name=_DNS.name, namespace=_DNS.namespace, protocol="UDP")
    family = known.ip_families[0] if known.ip_families else "IPv4"
    scene = Scene(question, evidence, "clusterip", of_family(evidence, client, family), raw, known, family)
    return _follow(scene, [p for p in known.ports if p.protocol == "UDP"], [])


def why_wrong(evidence: Evidence, client: Client, hop: Hop) -> None:
    """An answer that the cluster's DNS would not give: was it asked at all? If queries don't get there, that is why."""
    raw, known = evidence.service(*_DNS), evidence.snapshot.services.get(_DNS)
    if raw is None or known is None:
        return
    report = way_to_dns(evidence, client, raw, known)
    errors = [f for f in report.findings if f.severity == "error"]
    found = [Finding(f.id, f"somebody else answered: {f.text}", f.remedy) for f in errors]
    hop.findings[:0] = found


def _targets(scene: Scene, port: ServicePort) -> list[Target]:
    """Where the packet is sent: one, or every node's address from outside."""
    evidence, question = scene.evidence, scene.question
    if scene.via == "nodeport":
        every = evidence.snapshot.nodes
        owner = {ip: n.name for n in every.values() for ip in n.internal_ips}
        if question.to:
            return [Target(question.to, port.node_port, owner.get(question.to, ""))]
        # From outside: whose InternalIPs mean something there.
        nodes = [scene.client.node] if scene.client.node else sorted(n.name for n in every.values() if not n.network)
        found = [(n, primary_address(evidence, n, scene.family)) for n in nodes]
        return [Target(address, port.node_port, n) for n, address in found if address]
    if scene.via == "lb":
        known = [lb.ip for lb in scene.service.load_balancer if (":" in lb.ip) == (scene.family == "IPv6")]
        return [Target(ip, port.port, scene.client.node or lan_node(evidence, scene.service, ip)) for ip in known]
    wanted = [ip for ip in scene.service.cluster_ips if (":" in ip) == (scene.family == "IPv6")]
    return [Target(ip, port.port, scene.client.node) for ip in wanted[:1]]


def _follow(scene: Scene, ports: list[ServicePort], hops: list[Hop]) -> Report:
    """Endpoints, rules, way and process, for each port and each address it is asked at."""
    reached: set[str] = set()
    outcomes: set[str] = set()
    good = bad = 0
    partly = ""
    for port in ports:
        targets = [Target("", port.port, scene.client.node)] if scene.direct else _targets(scene, port)
        for target in targets:
            mark = _mark(scene, ports, targets, port, target)
            fine, broken, ends, what = _one(scene, port, target, hops, mark)
            outcomes.add(what)
            reached |= ends
            good, bad = good + fine, bad + broken
    if good and bad:
        partly = f"for {good} of {good + bad}"
    ports_text = ", ".join(port_text(p) for p in ports)
    shown = ", ".join(sorted(reached)[:4]) + (f" and {len(reached) - 4} more" if len(reached) > 4 else "")
    answer = f"{scene.service.key} {ports_text} → {shown or 'no address to ask at is known'}"
    return _report(
        scene.evidence,
        scene.question,
        hops,
        partly=partly,
        answer=answer,
        endpoints=tuple(sorted(reached)),
        outcome="/".join(sorted(outcomes)),
    )


def _mark(scene: Scene, ports: list[ServicePort], targets: list[Target], port: ServicePort, target: Target) -> str:
    parts = [port_text(port)] if len(ports) > 1 else []
    if len(targets) > 1:
        parts.append(f"at {host(target.address)}")
    return f" ({' '.join(parts)})" if parts else ""


def _one(scene: Scene, port: ServicePort, target: Target, hops: list[Hop], mark: str) -> tuple[int, int, set[str], str]:
    """One port at one address: (endpoints that work, that don't, which are reached, the packet's fate)."""
    ends, table = Hop(f"endpoints{mark}"), Hop(f"rules{mark}")
    hops.append(ends)
    if scene.via == "nodeport" and not target.at:
        served = ", ".join(sorted(primary_address(scene.evidence, n) for n in scene.evidence.snapshot.nodes))
        ends.find(
            "FL034",
            f"{target.address} is no address that serves node ports (those are {served})",
            f"use one of them, port {target.port}",
        )
        return 0, 1, set(), "pass"
    if scene.via == "lb" and scene.client.outside and scene.evidence.facts.name:
        ends.say(f"node {target.at} answers for {target.address} on the LAN")
    choice = endpoints.examine(scene, port, target, ends)
    if scene.direct:
        if scene.service.headless and scene.via != "ingress":
            _headless(scene, port, choice, ends)
        found = None
    else:
        hops.append(table)
        found = rules.examine(scene, port, target, choice, table)
    what = "/".join(sorted({o.verdict for o in found})) if found else choice.verdict
    if ends.broken or table.broken or not choice.endpoints:
        return 0, 1, set(), what
    passage, process = Hop(f"way{mark}"), Hop(f"process{mark}")
    hops += [passage, process]
    if not scene.direct:
        way.leave_client(scene, port, target, passage)
    if not scene.direct and not passage.broken:
        way.to_the_node(scene, target, passage)
    ends_at = rules.leads(scene, target, choice)
    masks = {(o.destination, o.port): o.masquerade for o in found or ()}
    if not scene.direct:
        way.stale_flows(scene, port, target, set(ends_at), passage)
    if passage.broken:
        return 0, len(choice.endpoints), set(), what
    good = 0
    for backend, end in zip(choice.endpoints, ends_at, strict=True):
        good += _leg(scene, port, target, backend, hops, masked=masks.get(end, False))
    reached = {f"{host(address)}:{number}" for address, number in ends_at}
    return good, len(choice.endpoints) - good, reached, what


def _leg(scene: Scene, port: ServicePort, target: Target, backend: Backend, hops: list[Hop], *, masked: bool) -> bool:
    """One endpoint, on the last two hops. True: nothing is in the way."""
    passage, process = Hop(hops[-2].name), Hop(hops[-1].name)
    way.examine(scene, port, target, backend, passage, masqueraded=masked)
    way.missing_peer_route(scene, target, backend, passage)
    if not passage.broken:
        listening.examine(scene, port, backend, process)
    for part, whole in ((passage, hops[-2]), (process, hops[-1])):
        for line in part.lines:
            if line not in whole.lines:
                whole.say(line)
        for finding in part.findings:
            if finding not in whole.findings:
                whole.findings.append(finding)
        order = ("ok", "skipped", "unseen", "warning", "partly", "broken")
        whole.state = max(whole.state, part.state, key=order.index)
    return not (passage.broken or process.broken)


def _portless(scene: Scene, hops: list[Hop]) -> Report:
    """A headless Service without ports: its name is all there is to it."""
    hop = Hop("endpoints")
    hops.append(hop)
    ready = endpoints.portless(scene, hop)
    answer = f"the name of {scene.service.key} gives {', '.join(ready[:4])}"
    answer += f" and {len(ready) - 4} more" if len(ready) > 4 else ""
    return _report(scene.evidence, scene.question, hops, answer=answer)


def _headless(scene: Scene, port: ServicePort, choice: Choice, hop: Hop) -> None:
    """Clients of a headless Service talk to the pods: nothing translates the port."""
    wrong = sorted({b.port for b in choice.endpoints if b.port != port.port})
    if wrong:
        hop.find(
            "FL030",
            f"{scene.service.key} is headless: its name gives the pods' addresses, and there the port is "
            f"{wrong[0]}, not {port.port}",
            f"connect to port {wrong[0]}, or make port and targetPort the same",
        )
    elif choice.endpoints:
        hop.find("FL030", f"{scene.service.key} is headless: the client talks to the pods directly", severity="note")


def _report(
    evidence: Evidence,
    question: Question,
    hops: list[Hop],
    *,
    partly: str = "",
    answer: str = "",
    endpoints: tuple[str, ...] = (),
    outcome: str = "",
) -> Report:
    return Report(
        question=str(question),
        hops=tuple(hops),
        unseen=evidence.unseen,
        partly=partly,
        answer=answer,
        endpoints=endpoints,
        outcome=outcome,
    )


def pods_of_interest(evidence: Evidence, question: Question) -> list[Object]:
    """The pods whose namespaces the survey should look into: the client and all that may be endpoints."""
    key = ServiceKey(question.namespace, question.name)
    known, raw = evidence.snapshot.services.get(key), evidence.service(*key)
    wanted: list[Object] = []
    if known is not None:
        for entry in known.slices:
            wanted += [p for e in entry.endpoints if (p := evidence.pod_at(e.address)) is not None]
    if raw is not None and known is not None:
        client = Client("", "")
        scene = Scene(question, evidence, "clusterip", client, raw, known)
        wanted += [p for p in endpoints.selected_pods(scene) if endpoints.alive(p)]
    return wanted
