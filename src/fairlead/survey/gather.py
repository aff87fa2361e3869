"""Puts the evidence for one question together: the API's lists first, then every namespace concerned, in threads.

Stands on the client and, for a cluster on this machine, its layout. Invariant: the same question and the same world
give the same evidence; what could not be seen is in `unseen`, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, EVENTS, NAMESPACES, NODES, PODS, SERVICES, Resource
from fairlead.client import Client
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.layout import Layout
from fairlead.cluster.supervisor import running
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.explain import names, path
from fairlead.explain.evidence import (
    Attempt,
    DNSAnswer,
    Evidence,
    Facts,
    NodeKernel,
    Object,
    PodKernel,
    ProcessState,
)
from fairlead.explain.question import Origin, Question
from fairlead.explain.scene import on_node_network, pod_ips
from fairlead.kubelet.resolvconf import parse
from fairlead.linux.namespaces import entered
from fairlead.linux.namespaces import path as namespace_path
from fairlead.linux.nft.kernel import NftSocket
from fairlead.proxy.nftables.layout import DIALECTS
from fairlead.survey import asking, sight

_POLICIES = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True)
_DNS_LABEL = "kube-dns"
_API_DEADLINE = 5.0


class Place(msgspec.Struct, frozen=True):
    """Where the cluster is: its API, and its kernels if they are on this machine."""

    facts: Facts
    layout: Layout | None = None
    config: ClusterConfig | None = None


def place_of(layout: Layout | None, config: ClusterConfig | None) -> Place:
    """What is known beforehand of a local cluster, or of one that is only a kubeconfig."""
    if layout is None or config is None:
        return Place(Facts())
    facts = Facts(
        name=config.name,
        domain=config.cluster_domain,
        dns_ip=config.dns_ip,
        pod_cidrs=config.pod_cidrs,
        service_cidrs=config.service_cidrs,
        outside_ip=config.host_ip,
        proxy_mode=config.proxy_mode,
        local=True,
    )
    return Place(facts, layout, config)


async def gather(client: Client, place: Place, question: Question) -> Evidence:
    """Everything that bears on the question."""
    processes = _processes(place)
    try:
        async with asyncio.timeout(_API_DEADLINE):
            evidence = await _objects(client, place, question)
    except (StatusError, TimeoutError) as error:
        what = str(error) or f"the API server at {client.server} does not answer within {_API_DEADLINE:.0f} s"
        return Evidence(facts=place.facts, processes=processes, api_problem=what)
    evidence = msgspec.structs.replace(evidence, processes=processes)
    if place.layout is None:
        left_out = "no node's kernel was looked at: rules, routes, connections and sockets (the cluster is not here)"
        return msgspec.structs.replace(evidence, unseen=(left_out,))
    return await _kernels(evidence, place, question)


# -- objects ---------------------------------------------------------------------------------------------------------


async def _objects(client: Client, place: Place, question: Question) -> Evidence:
    spaces = {question.namespace, "kube-system"}
    if question.origin is not None and question.origin.kind == "pod":
        spaces.add(question.origin.namespace)
    spaces.discard("")

    async def listed(resource: Resource, namespace: str = "") -> list[Object]:
        return list((await client.list(resource, namespace))["items"])

    async def optional(resource: Resource, namespace: str = "") -> list[Object]:
        try:
            return await listed(resource, namespace)
        except StatusError:
            return []

    lists = await asyncio.gather(
        listed(SERVICES),
        listed(ENDPOINTSLICES),
        listed(NODES),
        listed(NAMESPACES),
        optional(_POLICIES, question.namespace),
        optional(EVENTS, question.namespace),
        *(listed(PODS, space) for space in sorted(spaces)),
    )
    services, slices, nodes, namespaces, policies, events, *pods = lists
    kinds = ((SERVICES, services), (ENDPOINTSLICES, slices), (NODES, nodes), (NAMESPACES, namespaces))
    told = [WatchEvent("ADDED", resource, obj) for resource, objects in kinds for obj in objects]
    snapshot, _ = fold(ServiceSnapshot(), told, True)
    facts = place.facts
    if not facts.dns_ip:
        dns = snapshot.services.get(ServiceKey("kube-system", _DNS_LABEL))
        cidrs = tuple(cidr for node in snapshot.nodes.values() for cidr in node.pod_cidrs)
        facts = msgspec.structs.replace(
            facts, dns_ip=dns.cluster_ips[0] if dns and dns.cluster_ips else "", pod_cidrs=cidrs
        )
    return Evidence(
        facts=facts,
        snapshot=snapshot,
        services=tuple(services),
        slices=tuple(slices),
        nodes=tuple(nodes),
        pods=tuple(pod for some in pods for pod in some),
        policies=tuple(policies),
        events=tuple(events),
    )


def _processes(place: Place) -> dict[str, ProcessState]:
    if place.layout is None or place.config is None:
        return {}
    alive = running(place.layout)
    expected = ["supervisor", "control-plane", *(f"node-{node}" for node in place.config.node_names)]
    states: dict[str, ProcessState] = {}
    for name in expected:
        pid = alive.get(name, 0)
        letter = sight.process_state(pid) if pid else ""
        states[name] = "gone" if not letter or letter in "ZX" else "stopped" if letter in "Tt" else "running"
    return states


# -- namespaces ------------------------------------------------------------------------------------------------------


async def _kernels(evidence: Evidence, place: Place, question: Question) -> Evidence:
    """The nodes and pods on the way."""
    client = _client_pod(evidence, question.origin)
    pods = _unique([*([client] if client else []), *path.pods_of_interest(evidence, question)])
    if question.kind == "pod" and (asked := evidence.pod(question.namespace, question.name)):
        pods = _unique([asked, *pods])
    dns = _dns_pods(evidence) if client is not None else []
    nodes = _nodes(evidence, question, [*pods, *dns])
    by_namespace = await asyncio.to_thread(sight.processes_by_namespace)
    pod_views = await asyncio.gather(
        *(asyncio.to_thread(_pod, place, evidence, pod, by_namespace, question) for pod in _unique([*pods, *dns]))
    )
    seen = {pod["metadata"]["uid"]: view for pod, view in zip(_unique([*pods, *dns]), pod_views, strict=True)}
    targets = _addresses(evidence, [*pods, *dns])
    destinations = _destinations(evidence, question)
    node_views, answers = await asyncio.gather(
        asyncio.gather(*(asyncio.to_thread(_node, place, name, targets, destinations) for name in nodes)),
        asyncio.to_thread(_answers, place, evidence, question, client, seen),
    )
    attempts: tuple[Attempt, ...] = ()
    unseen = [f"node {name}: {view.problem}" for name, view in zip(nodes, node_views, strict=True) if view.problem]
    unseen += [f"{pod['metadata']['name']}: {v.problem}" for pod in pods if (v := seen[pod["metadata"]["uid"]]).problem]
    return msgspec.structs.replace(
        evidence,
        kernels=dict(zip(nodes, node_views, strict=True)),
        pod_kernels=seen,
        answers=answers,
        attempts=attempts,
        unseen=tuple(unseen),
    )


def _client_pod(evidence: Evidence, origin: Origin | None) -> Object | None:
    if origin is None or origin.kind != "pod":
        return None
    return evidence.pod(origin.namespace, origin.name)


def _unique(pods: Iterable[Object]) -> list[Object]:
    return list({pod["metadata"]["uid"]: pod for pod in pods}.values())


def _dns_pods(evidence: Evidence) -> list[Object]:
    return [p for p in evidence.pods if (p["metadata"].get("labels") or {}).get("k8s-app") == _DNS_LABEL]


def _nodes(evidence: Evidence, question: Question, pods: list[Object]) -> list[str]:
    names_ = {str((pod.get("spec") or {}).get("nodeName") or "") for pod in pods}
    origin = question.origin
    if origin is not None and origin.kind == "node":
        names_.add(origin.name)
    if question.via in ("nodeport", "lb") or (origin is not None and origin.kind == "outside"):
        names_ |= set(evidence.snapshot.nodes)
    return sorted(names_ & set(evidence.snapshot.nodes))


def _addresses(evidence: Evidence, pods: list[Object]) -> set[str]:
    """The addresses whose routes matter on each node."""
    return {ip for pod in pods for ip in pod_ips(pod)} | {
        ip for node in evidence.snapshot.nodes.values() for ip in node.internal_ips
    }


def _destinations(evidence: Evidence, question: Question) -> tuple[str, ...]:
    service = evidence.snapshot.services.get(ServiceKey(question.namespace, question.name))
    found = list(service.cluster_ips) if service is not None else []
    return tuple(found + ([question.to] if question.to else []))


def _node(place: Place, name: str, targets: set[str], destinations: tuple[str, ...]) -> NodeKernel:
    """One node's namespace; for a thread of its own."""
    assert place.layout is not None
    where = namespace_path(place.layout.node_namespace(name))
    try:
        with entered(where):
            with NftSocket() as nft:
                tables = {family: nft.read(dialect.table) for family, dialect in DIALECTS.items()}
            found, listing = sight.links(), sight.ruleset()
            return NodeKernel(
                tables={str(family): state for family, state in tables.items()},
                iptables=sight.iptables(listing),
                ipvs=sight.ipvs(),
                ruleset=listing,
                links=found,
                routes=sight.routes(targets),
                sysctls=sight.sysctls(),
                flows=sight.flows(("TCP", "UDP"), destinations),
                conntrack=sight.conntrack_room(),
            )
    except (OSError, ValueError) as error:
        return NodeKernel(problem=f"its namespace can't be read: {_words(error)}")


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _pod_files(place: Place, pod: Object) -> Path:
    assert place.layout is not None
    node = str((pod.get("spec") or {}).get("nodeName") or "")
    return place.layout.runtime / "nodes" / node / "pods" / str(pod["metadata"]["uid"])


def _pod(
    place: Place, evidence: Evidence, pod: Object, by_namespace: dict[str, list[int]], question: Question
) -> PodKernel:
    """One pod's namespace; for a thread of its own."""
    folder = _pod_files(place, pod)
    conf: str | None = None
    with contextlib.suppress(OSError):
        conf = (folder / "etc" / "resolv.conf").read_text()
    try:
        pid = int((folder / "shim.pid").read_text())
        identity = sight.namespace_of(pid)
    except (OSError, ValueError):
        return PodKernel(present=False, resolv_conf=conf)
    own = by_namespace.get(identity, [])
    if on_node_network(pod):
        return PodKernel(resolv_conf=conf)
    client = _client_pod(evidence, question.origin)
    toward = {ip for known in _asked(evidence, question) for ip in known} | _addresses(evidence, [client or pod])
    try:
        with entered(f"/proc/{pid}/ns/net"):
            found = sight.links()
            answers = sight.routes(toward)
            rules = sight.ruleset()
        return PodKernel(
            links=found,
            routes=answers,
            listeners=sight.listeners(pid, own),
            udp_ports=sight.udp_ports(pid),
            ruleset=rules,
            resolv_conf=conf,
            environment=sight.environment(own),
        )
    except OSError as error:
        return PodKernel(resolv_conf=conf, problem=f"its namespace can't be read: {_words(error)}")


def _asked(evidence: Evidence, question: Question) -> list[tuple[str, ...]]:
    keys = (ServiceKey(question.namespace, question.name), ServiceKey("kube-system", _DNS_LABEL))
    known = [s.cluster_ips for key in keys if (s := evidence.snapshot.services.get(key)) is not None]
    return [
        *known,
        (evidence.facts.outside_ip,) if evidence.facts.outside_ip else (),
        (question.to,) * bool(question.to),
    ]


def _answers(
    place: Place, evidence: Evidence, question: Question, client: Object | None, seen: dict[str, PodKernel]
) -> tuple[DNSAnswer, ...]:
    """What the client's name servers say, asked from its namespace."""
    if client is None or question.via not in (None, "dns") or question.kind == "pod":
        return ()
    view = seen.get(client["metadata"]["uid"])
    if view is None or not view.present or view.resolv_conf is None:
        return ()
    conf = parse(view.resolv_conf)
    if question.kind == "dns":
        name = question.name
    else:
        key = ServiceKey(question.namespace, question.name)
        name = question.host or names.usual_name(key, client["metadata"].get("namespace", ""))
    family = question.family or _family(evidence, question)
    ask = partial(asking.look_up, names.candidates(name, conf), conf.nameservers or ("127.0.0.1",), family)
    return inside_pod(place, client, ask) or ()


def _family(evidence: Evidence, question: Question) -> str:
    known = evidence.snapshot.services.get(ServiceKey(question.namespace, question.name))
    return known.ip_families[0] if known is not None and known.ip_families and question.kind == "svc" else "IPv4"


def inside_pod(place: Place, pod: Object, work: Callable[[], Any]) -> Any:
    """Do short, synchronous work in a pod's network namespace (the node's if it has none); None if it is gone."""
    try:
        pid = int((_pod_files(place, pod) / "shim.pid").read_text())
        with entered(f"/proc/{pid}/ns/net"):
            return work()
    except (OSError, ValueError):
        return None
