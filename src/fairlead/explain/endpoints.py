"""The hop of the endpoints: which qualify from here, and why the others don't. Pure.

Asks `discovery.choose`, so it cannot disagree with the proxy; the pods say why an endpoint is missing. Invariant: of
several reasons the one that comes first in a pod's life is named.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

from fairlead.discovery.choose import Backend, Choice, backends, categorize, choose
from fairlead.discovery.model import ServicePort
from fairlead.explain import hostports, policies
from fairlead.explain.evidence import Object
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene, Target, backend_text, label, port_text

_CANNOT_START = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "StartError",
        "ContainerCannotRun",
    }
)


_NO_SANDBOX = ("FailedCreatePodSandBox", "FailedMount")
_MOVE = "take another hostPort, or none: a Service of type NodePort gives one on every node"


def expected(scene: Scene, port: ServicePort, target: Target) -> Choice:
    """Where discovery says such a packet goes, arriving at the target's node."""
    node = scene.evidence.snapshot.nodes.get(target.at)
    zone = node.zone if node else ""
    arguments = {"node": target.at, "zone": zone}
    if scene.external and scene.service.external_local and not scene.client.outside:
        # kube-proxy's short cut: pods and the node itself reach a Local service by the policy Cluster.
        found = categorize(scene.service, port, scene.family, **arguments).cluster
        return Choice(found, "forward") if found else Choice((), "reject")
    return choose(scene.service, port, scene.family, external=scene.external, **arguments)


def selected_pods(scene: Scene) -> list[Object]:
    """The pods the selector matches, ended ones included."""
    selector = (scene.raw.get("spec") or {}).get("selector") or {}
    if not selector:
        return []
    namespace = scene.service.key.namespace
    return [
        pod
        for pod in scene.evidence.pods
        if pod["metadata"].get("namespace") == namespace
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
    ]


def examine(scene: Scene, port: ServicePort, target: Target, hop: Hop) -> Choice:
    """Which endpoints take this packet; findings if none does, or some should and don't."""
    pods = selected_pods(scene)
    every = backends(scene.service, port, scene.family)
    choice = expected(scene, port, target)
    for backend in choice.endpoints:
        share = f"  {100 / len(choice.endpoints):.0f} %" if len(choice.endpoints) > 1 else ""
        hop.say(f"✓ {backend_text(scene, backend)}{share}")
    for backend in every:
        if backend not in choice.endpoints:
            hop.say(f"- {backend_text(scene, backend)}: {_why_not(scene, backend)}")
    if choice.endpoints:
        _check_partly(scene, pods, every, choice, hop)
    elif not every or not any(b.endpoint.ready or (b.endpoint.serving and b.endpoint.terminating) for b in every):
        _explain_none(scene, port, pods, every, hop)
    else:
        kind = "external" if scene.external else "internal"
        where = sorted({b.endpoint.node for b in every if b.endpoint.ready})
        hop.find(
            "FL021" if scene.external else "FL020",
            f"{kind}TrafficPolicy is Local and node {target.at} has no ready endpoint (they are on {', '.join(where)})",
            f"run a pod on {target.at}, or set spec.{kind}TrafficPolicy: Cluster",
        )
    policies.examine(scene, port, choice, hop)
    return choice


def portless(scene: Scene, hop: Hop) -> list[str]:
    """The ready addresses of a Service without ports; findings if there is none."""
    every = [e for s in scene.service.slices if s.address_type == scene.family for e in s.endpoints]
    pods = selected_pods(scene)
    for endpoint in every:
        mark = "✓" if endpoint.ready else "-"
        hop.say(f"{mark} {endpoint.address} ({endpoint.target[2] or 'no pod'} on {endpoint.node or 'no node'})")
    ready_ones = sorted(endpoint.address for endpoint in every if endpoint.ready)
    if not ready_ones:
        _explain_none(scene, ServicePort("", "TCP", 0, 0), pods, (), hop)
    return ready_ones


def _why_not(scene: Scene, backend: Backend) -> str:
    endpoint = backend.endpoint
    if not endpoint.ready:
        if endpoint.terminating:
            return "terminating" + (", still serving" if endpoint.serving else "")
        return "not ready"
    local = scene.service.external_local if scene.external else scene.service.internal_local
    if local:
        return f"on {endpoint.node or 'no node'}, and the policy is Local"
    if endpoint.node_hints or endpoint.zone_hints:
        return f"hinted for {', '.join(endpoint.node_hints or endpoint.zone_hints)}"
    return "not chosen"


def _check_partly(scene: Scene, pods: list[Object], every: tuple[Backend, ...], choice: Choice, hop: Hop) -> None:
    left_out = [b for b in every if b.endpoint.ready and b not in choice.endpoints]
    local = scene.service.external_local if scene.external else scene.service.internal_local
    if left_out and not local:
        hop.find("FL023", f"topology hints keep {len(left_out)} of {len(every)} endpoints for other zones or nodes")
    unready = [pod for pod in pods if alive(pod) and not ready(pod)]
    if unready and not scene.service.publish_not_ready:
        told = _told([(pod, reason(scene, pod)[1]) for pod in unready])
        hop.find("FL018", f"{len(unready)} of {sum(map(alive, pods))} pods are not ready: {told}")
    for backend in choice.endpoints:
        _check_address(scene, backend, hop)


def _check_address(scene: Scene, backend: Backend, hop: Hop) -> None:
    """An address among the pods' that is no pod's."""
    address = ipaddress.ip_address(backend.endpoint.address)
    inside = any(
        address in ipaddress.ip_network(cidr)
        for cidr in scene.evidence.facts.pod_cidrs
        if ipaddress.ip_network(cidr).version == address.version
    )
    if inside and scene.evidence.pod_at(str(address)) is None:
        hop.find(
            "FL019",
            f"endpoint {address} is the address of no pod",
            f"mend the EndpointSlice: kubectl -n {scene.service.key.namespace} get endpointslices "
            f"-l kubernetes.io/service-name={scene.service.key.name}",
        )


def _explain_none(scene: Scene, port: ServicePort, pods: list[Object], every: tuple[Backend, ...], hop: Hop) -> None:
    """Why there is no ready endpoint at all."""
    key = scene.service.key
    other = [s for s in scene.service.slices if s.address_type != scene.family and s.endpoints]
    if other and not every and not any(s.address_type == scene.family and s.endpoints for s in scene.service.slices):
        hop.find(
            "FL024",
            f"{key} is asked for by {scene.family}, and its endpoints are {other[0].address_type} only",
            "make them of one family: spec.ipFamilies of the Service, addressType of the EndpointSlices",
        )
        return
    if not (scene.raw.get("spec") or {}).get("selector"):
        hop.find(
            "FL010",
            f"{key} has no selector, and no EndpointSlice of it has a ready endpoint for port {port_text(port)}",
            f"add spec.selector, or make an EndpointSlice with the label kubernetes.io/service-name: {key.name}",
        )
        return
    living = [pod for pod in pods if alive(pod)]
    if not living:
        _explain_no_pods(scene, pods, hop)
        return
    if isinstance(port.target_port, str) and not any(_has_port(p, port.target_port, port.protocol) for p in living):
        named = [p for pod in living for p in _ports(pod) if p.get("name") == port.target_port]
        if named:
            has = named[0].get("protocol") or "TCP"
            hop.find(
                "FL016",
                f"target port {port.target_port!r} is the name of a {has} port of the pods, and the Service's port is "
                f"{port.protocol}",
                f"make the Service's port protocol: {has}, or name a {port.protocol} port of the containers so",
            )
            return
        names = sorted({p.get("name", "") for pod in living for p in _ports(pod)} - {""})
        hop.find(
            "FL016",
            f"target port {port.target_port!r} is the name of no {port.protocol} port of the pods "
            f"(they have {', '.join(names) or 'none with a name'})",
            f"name the container's port {port.target_port}, or give targetPort one of their names or a number",
        )
        return
    if all(ready(pod) for pod in living):
        hop.find(
            "FL017",
            f"{len(living)} pods are ready, but the EndpointSlices of {key} do not have them",
            "see whether the control plane's endpointslice controller runs",
        )
        return
    unready = [pod for pod in living if not ready(pod)]
    reasons = [reason(scene, pod) for pod in unready]
    first = Counter(id_ for id_, _, _ in reasons).most_common(1)[0][0]
    alike = [(pod, why) for pod, (id_, why, _) in zip(unready, reasons, strict=True) if id_ == first]
    remedy = next(remedy for id_, _, remedy in reasons if id_ == first)
    hop.find(first, f"none of {len(living)} pods is ready: {_told(alike)}", remedy)


def _told(pods: list[tuple[Object, str]]) -> str:
    """Of pods that have a trouble in common: one, and how many more."""
    pod, why = pods[0]
    more = f" (and {len(pods) - 1} more of this kind)" if len(pods) > 1 else ""
    return f"{label(pod)}: {why}{more}"


def _explain_no_pods(scene: Scene, pods: list[Object], hop: Hop) -> None:
    key = scene.service.key
    selector = (scene.raw.get("spec") or {}).get("selector") or {}
    text = ", ".join(f"{k}={v}" for k, v in sorted(selector.items()))
    if pods:
        phases = ", ".join(sorted({str((p.get("status") or {}).get("phase")) for p in pods}))
        hop.find(
            "FL013",
            f"all {len(pods)} pods that {text} matches have ended ({phases})",
            f"see why: kubectl -n {key.namespace} logs {pods[0]['metadata']['name']}",
        )
        return
    near = ""
    for pod in scene.evidence.pods:
        if pod["metadata"].get("namespace") != key.namespace or not alive(pod):
            continue
        labels = pod["metadata"].get("labels") or {}
        shared = {k for k in selector if k in labels}
        if shared:
            near = f"; {label(pod)} has {', '.join(f'{k}={labels[k]}' for k in sorted(shared))}"
            break
    remedy = f"mend spec.selector of {key}, or start pods with these labels" + " (a Deployment scaled to 0?)" * (
        not near
    )
    hop.find("FL011", f"the selector {text} matches no pods in namespace {key.namespace}{near}", remedy)


def alive(pod: Object) -> bool:
    """Neither ended nor on its way out."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Succeeded", "Failed") and not pod["metadata"].get("deletionTimestamp")


def ready(pod: Object) -> bool:
    """Its condition Ready."""
    return _condition(pod, "Ready").get("status") == "True"


def _condition(pod: Object, kind: str) -> Object:
    found: Object = next((c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] == kind), {})
    return found


def reason(scene: Scene, pod: Object) -> tuple[str, str, str]:
    """Why a pod is not ready: (finding, text, remedy)."""
    name, namespace = pod["metadata"]["name"], pod["metadata"].get("namespace", "")
    node = (pod.get("spec") or {}).get("nodeName") or ""
    if not node:
        why = _condition(pod, "PodScheduled").get("message") or "no node was chosen yet"
        if hostports.TAKEN[0] in why and hostports.wanted(pod):
            return "FL087", f"not scheduled: {_host_ports(pod)} is another pod's on every node that would do", _MOVE
        return "FL014", f"not scheduled: {why}", f"kubectl -n {namespace} describe pod {name}"
    known = scene.evidence.snapshot.nodes.get(node)
    if known is not None and not known.ready:
        return "FL060", f"its node {node} is not ready", f"kubectl describe node {node}"
    agent = scene.evidence.processes.get(f"node-{node}", "running")
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    statuses = [*((pod.get("status") or {}).get("initContainerStatuses") or []), *statuses]
    for status in statuses:
        state: dict[str, Any] = status.get("state") or {}
        waiting, last = state.get("waiting") or {}, (status.get("lastState") or {}).get("terminated") or {}
        ended = state.get("terminated") or {}
        why = waiting.get("reason") or ""
        if why in _CANNOT_START or last.get("reason") in _CANNOT_START or ended.get("reason") in _CANNOT_START:
            message = waiting.get("message") if why in _CANNOT_START else last.get("message") or ended.get("message")
            text = f"container {status['name']}: {why or last.get('reason')}: {message or ''}".strip(": ")
            return "FL015", text, f"mend the image or the command: kubectl -n {namespace} describe pod {name}"
        if why == "CrashLoopBackOff" or (ended and ended.get("exitCode")) or status.get("restartCount", 0) > 1:
            code = last.get("exitCode", ended.get("exitCode"))
            text = f"container {status['name']} ended with code {code}, {status.get('restartCount', 0)} restarts"
            return "FL013", text, f"see why: kubectl -n {namespace} logs {name} --previous"
    if agent != "running" and not statuses:
        return "FL061", f"the agent of its node {node} is {agent}", f"start it again (node-{node})"
    if not any((status.get("state") or {}).get("running") or status.get("restartCount") for status in statuses):
        told = _last_event(scene, pod, _NO_SANDBOX)
        if hostports.TAKEN[1] in told:
            return "FL087", f"{told.partition(': ')[2] or told} ({node})", _MOVE
        if told:
            return "FL015", told, f"kubectl -n {namespace} describe pod {name}"
    probe = _probe(pod)
    said = _last_event(scene, pod, saying="eadiness probe")
    if probe:
        since = _condition(pod, "Ready").get("lastTransitionTime")
        text = f"readiness probe ({probe}) fails" + (f", not ready since {since}" if since else "")
        text += f": {said.removeprefix('Readiness probe failed: ')}" if said else ""
    else:
        text = str(_condition(pod, "Ready").get("message") or "not ready yet")
    remedy = "mend the readiness probe, or what it asks" if probe else f"kubectl -n {namespace} describe pod {name}"
    return "FL012", text, remedy


def _probe(pod: Object) -> str:
    for container in (pod.get("spec") or {}).get("containers") or ():
        probe = container.get("readinessProbe")
        if not probe:
            continue
        if get := probe.get("httpGet"):
            return f"GET :{get.get('port')}{get.get('path') or '/'}"
        if tcp := probe.get("tcpSocket"):
            return f"TCP :{tcp.get('port')}"
        if command := probe.get("exec"):
            return f"exec {' '.join(command.get('command') or ())[:60]}"
        return "grpc"
    return ""


def _host_ports(pod: Object) -> str:
    return "hostPort " + ", ".join(f"{port.port}/{port.protocol}" for port in hostports.wanted(pod))


def _last_event(scene: Scene, pod: Object, reasons: tuple[str, ...] = (), saying: str = "") -> str:
    """The newest Event about a pod with such a reason (if some are given) and that in its message; empty if none."""
    uid = pod["metadata"].get("uid")
    told = [
        e
        for e in scene.evidence.events
        if (e.get("involvedObject") or {}).get("uid") == uid
        and (not reasons or e.get("reason") in reasons)
        and saying in (e.get("message") or "")
    ]
    told.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
    return " ".join(str(told[-1].get("message") or "").split())[:160] if told else ""


def _ports(pod: Object) -> list[Object]:
    spec = pod.get("spec") or {}
    return [port for c in (spec.get("containers") or []) for port in c.get("ports") or ()]


def _has_port(pod: Object, name: str, protocol: str) -> bool:
    return any(p.get("name") == name and (p.get("protocol") or "TCP") == protocol for p in _ports(pod))
