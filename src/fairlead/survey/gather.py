"""Puts the evidence for one question together: the API's lists first, then every namespace concerned.

Stands on the client and a cluster's `Eyes`. Invariant: the same question and the same world give the same evidence;
what could not be seen is in `unseen`, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.events import WatchEvent
from fairlead.api.kinds import (
    ENDPOINTSLICES,
    EVENTS,
    INGRESSCLASSES,
    INGRESSES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)
from fairlead.client import Client
from fairlead.discovery import confirmed
from fairlead.discovery.fold import fold
from fairlead.discovery.model import Node, ServiceKey, ServiceSnapshot
from fairlead.discovery.reach import inner_address
from fairlead.explain import entrance, names, path
from fairlead.explain.evidence import DNSAnswer, Evidence, Facts, NodeKernel, Object, PodKernel
from fairlead.explain.question import Origin, Question
from fairlead.explain.scene import on_node_network, pod_ips
from fairlead.ingress.certificates import CertificateBook
from fairlead.kubelet.resolvconf import parse
from fairlead.survey.eyes import Eyes

_POLICIES = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True)
_DNS_LABEL = "kube-dns"
_API_DEADLINE = 5.0


async def gather(client: Client, eyes: Eyes, question: Question) -> Evidence:
    """Everything that bears on the question."""
    processes = eyes.processes()
    try:
        async with asyncio.timeout(_API_DEADLINE):
            evidence = await objects(client, eyes.facts, question)
    except (StatusError, TimeoutError) as error:
        what = str(error) or f"the API server at {client.server} does not answer within {_API_DEADLINE:.0f} s"
        return Evidence(facts=eyes.facts, processes=processes, api_problem=what)
    evidence = msgspec.structs.replace(evidence, processes=processes)
    return await _kernels(evidence, eyes, asked_service(evidence, question))


# -- objects ---------------------------------------------------------------------------------------------------------


async def objects(client: Client, facts: Facts, question: Question) -> Evidence:
    """What the API has. Raises StatusError if it refuses what every question needs."""
    spaces = {question.namespace, "kube-system"}
    if question.origin is not None and question.origin.kind == "pod":
        spaces.add(question.origin.namespace)
    spaces.discard("")

    async def listed(resource: Resource, namespace: str = "", labels: str = "") -> list[Object]:
        return list((await client.list(resource, namespace, label_selector=labels))["items"])

    async def optional(resource: Resource, namespace: str = "", labels: str = "") -> list[Object]:
        try:
            return await listed(resource, namespace, labels)
        except StatusError:
            return []

    refused: list[str] = []

    async def permitted(resource: Resource) -> list[Object]:
        """All of a kind; for who may not list it everywhere, those of the namespaces in question, or none."""
        try:
            return await listed(resource)
        except StatusError as error:
            if error.code != 403:
                raise
        refused.append(f"{resource.plural}: you may not list them" + " everywhere" * resource.namespaced)
        if not resource.namespaced:
            return []
        own, *others = sorted(spaces, key=lambda space: space == "kube-system")
        some = await asyncio.gather(listed(resource, own), *(optional(resource, space) for space in others))
        return [obj for part in some for obj in part]

    services, slices, nodes, namespaces, ingresses, classes = await asyncio.gather(
        permitted(SERVICES),
        permitted(ENDPOINTSLICES),
        permitted(NODES),
        permitted(NAMESPACES),
        optional(INGRESSES),
        optional(INGRESSCLASSES),
    )
    kinds = ((SERVICES, services), (ENDPOINTSLICES, slices), (NODES, nodes), (NAMESPACES, namespaces))
    told = [WatchEvent("ADDED", resource, obj) for resource, some in kinds for obj in some]
    snapshot, _ = fold(ServiceSnapshot(), told, True)
    evidence = Evidence(
        facts=_completed(facts, snapshot),
        snapshot=snapshot,
        services=tuple(services),
        slices=tuple(slices),
        nodes=tuple(nodes),
        namespaces=tuple(namespaces),
        ingresses=tuple(ingresses),
        ingress_classes=tuple(classes),
        unseen=tuple(sorted(refused)),
    )
    backend = asked_service(evidence, question)
    spaces.add(backend.namespace)
    ordered = sorted(spaces)
    events, leases, *more = await asyncio.gather(
        optional(EVENTS, backend.namespace),
        optional(LEASES, confirmed.LEASE_NAMESPACE, confirmed.LEASE_SELECTOR),
        *(listed(PODS, space) if space != "kube-system" else optional(PODS, space) for space in ordered),
        *(optional(_POLICIES, space) for space in ordered),
    )
    pods, policies = more[: len(ordered)], more[len(ordered) :]
    return msgspec.structs.replace(
        evidence,
        pods=tuple(pod for some in pods for pod in some),
        policies=tuple(policy for some in policies for policy in some),
        events=tuple(events),
        applied=_applied(leases),
        secrets=await _secrets(client, ingresses) if entrance.settled(evidence, question).via == "ingress" else {},
    )


def asked_service(evidence: Evidence, question: Question) -> Question:
    """The question about the Service that is meant in the end: by Ingress, that of the rule."""
    settled = entrance.settled(evidence, question)
    return entrance.resolved(evidence, settled) if settled.via == "ingress" else settled


def _applied(leases: list[Object]) -> dict[str, int]:
    """The newest EndpointSlice that each node's kernel has, as its agent confirms it."""
    found = {}
    for lease in leases:
        said = str((lease["metadata"].get("annotations") or {}).get(confirmed.APPLIED) or "")
        if said.isdecimal():
            found[lease["metadata"]["name"].removeprefix(confirmed.LEASE_PREFIX)] = int(said)
    return found


async def _secrets(client: Client, ingresses: list[Object]) -> dict[str, str]:
    """Of every Secret that an Ingress names, why it is no certificate; empty if it is one."""
    named = {
        (i["metadata"].get("namespace", ""), str(entry["secretName"]))
        for i in ingresses
        for entry in (i.get("spec") or {}).get("tls") or ()
        if entry.get("secretName")
    }
    book = CertificateBook()
    found = {}
    for namespace, name in sorted(named):
        try:
            book.take(await client.get(SECRETS, name, namespace), gone=False)
        except StatusError as error:
            if error.code != 404:
                found[f"{namespace}/{name}"] = f"can't be read: {error}"
                continue
        found[f"{namespace}/{name}"] = book.pem_of(namespace, name)[1]
    return found


def _completed(facts: Facts, snapshot: ServiceSnapshot) -> Facts:
    """What the objects say of the cluster, where nothing better is known."""
    if facts.dns_ip:
        return facts
    dns = snapshot.services.get(ServiceKey("kube-system", _DNS_LABEL))
    cidrs = tuple(cidr for node in snapshot.nodes.values() for cidr in node.pod_cidrs)
    found = dns.cluster_ips[0] if dns and dns.cluster_ips else ""
    return msgspec.structs.replace(facts, dns_ip=found, pod_cidrs=facts.pod_cidrs or cidrs)


# -- namespaces ------------------------------------------------------------------------------------------------------


async def _kernels(evidence: Evidence, eyes: Eyes, question: Question) -> Evidence:
    """The nodes and pods on the way."""
    client = _client_pod(evidence, question.origin)
    pods = _unique([*([client] if client else []), *path.pods_of_interest(evidence, question)])
    if question.via == "ingress" and (door := entrance.door(evidence)):
        pods = _unique([door, *pods])
    if question.kind == "pod" and (asked := evidence.pod(question.namespace, question.name)):
        pods = _unique([asked, *pods])
    dns = _dns_pods(evidence) if client is not None else []
    every = _unique([*pods, *dns])
    nodes = _nodes(evidence, question, every)
    targets, destinations = _addresses(evidence, every), _destinations(evidence, question)
    kernels = await asyncio.gather(*(eyes.node(name, targets, destinations) for name in nodes))
    if eyes.facts.name:  # by now an agent may have told
        evidence = msgspec.structs.replace(evidence, facts=_completed(eyes.facts, evidence.snapshot))
    toward = _asked(evidence, question) | _addresses(evidence, [client] if client else [])
    by_node: dict[str, dict[str, bool]] = {}
    for pod in every:
        if node := _node_of(pod):
            by_node.setdefault(node, {})[pod["metadata"]["uid"]] = on_node_network(pod)
    views = await asyncio.gather(*(eyes.pods(node, wanted, toward) for node, wanted in by_node.items()))
    seen = {uid: view for some in views for uid, view in some.items()}
    answers = await _answers(eyes, evidence, question, client, seen)
    return msgspec.structs.replace(
        evidence,
        kernels=dict(zip(nodes, kernels, strict=True)),
        pod_kernels=seen,
        answers=answers,
        unseen=evidence.unseen + _unseen(nodes, kernels, pods, seen),
    )


def _unseen(
    nodes: list[str], kernels: list[NodeKernel], pods: list[Object], seen: dict[str, PodKernel]
) -> tuple[str, ...]:
    """What could not be looked at; a node's problem is not said again for its pods."""
    told = [f"node {name}: {kernel.problem}" for name, kernel in zip(nodes, kernels, strict=True) if kernel.problem]
    blind = {kernel.problem for kernel in kernels}
    for pod in pods:
        view = seen.get(pod["metadata"]["uid"])
        if view is not None and view.problem and view.problem not in blind:
            of_agent = "the agent of " in view.problem
            told.append(view.problem if of_agent else f"{pod['metadata']['name']}: {view.problem}")
    return tuple(dict.fromkeys(told))


def _client_pod(evidence: Evidence, origin: Origin | None) -> Object | None:
    if origin is None or origin.kind != "pod":
        return None
    return evidence.pod(origin.namespace, origin.name)


def _unique(pods: Iterable[Object]) -> list[Object]:
    return list({pod["metadata"]["uid"]: pod for pod in pods}.values())


def _node_of(pod: Object) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def _dns_pods(evidence: Evidence) -> list[Object]:
    return [p for p in evidence.pods if (p["metadata"].get("labels") or {}).get("k8s-app") == _DNS_LABEL]


def _nodes(evidence: Evidence, question: Question, pods: list[Object]) -> list[str]:
    names_ = {_node_of(pod) for pod in pods}
    origin = question.origin
    if origin is not None and origin.kind == "node":
        names_.add(origin.name)
    if question.via in ("nodeport", "lb") or (origin is not None and origin.kind == "outside"):
        names_ |= set(evidence.snapshot.nodes)
    return sorted(names_ & set(evidence.snapshot.nodes))


def _addresses(evidence: Evidence, pods: list[Object]) -> set[str]:
    """The addresses whose routes matter."""
    return {ip for pod in pods for ip in pod_ips(pod)} | {
        ip for node in evidence.snapshot.nodes.values() for ip in (*node.internal_ips, *_tunnelled(node))
    }


def _tunnelled(node: Node) -> tuple[str, ...]:
    """The node's address in tunnels, if there are some."""
    inner = inner_address(node) if node.tunnel_key else ""
    return (inner,) if inner else ()


def _destinations(evidence: Evidence, question: Question) -> tuple[str, ...]:
    service = evidence.snapshot.services.get(ServiceKey(question.namespace, question.name))
    found = list(service.cluster_ips) if service is not None else []
    return tuple(found + ([question.to] if question.to else []))


def _asked(evidence: Evidence, question: Question) -> set[str]:
    keys = (ServiceKey(question.namespace, question.name), ServiceKey("kube-system", _DNS_LABEL))
    known = {ip for key in keys if (s := evidence.snapshot.services.get(key)) is not None for ip in s.cluster_ips}
    return {ip for ip in (*known, evidence.facts.outside_ip, question.to) if ip}


async def _answers(
    eyes: Eyes, evidence: Evidence, question: Question, client: Object | None, seen: dict[str, PodKernel]
) -> tuple[DNSAnswer, ...]:
    """What the client's name servers say, asked from its namespace."""
    if client is None or question.via not in (None, "dns") or question.kind == "pod":
        return ()
    uid = client["metadata"]["uid"]
    view = seen.get(uid)
    if view is None or not view.present or view.resolv_conf is None:
        return ()
    if question.kind == "dns":
        name = question.name
    else:
        key = ServiceKey(question.namespace, question.name)
        name = question.host or names.usual_name(key, client["metadata"].get("namespace", ""))
    family = question.family or _family(evidence, question)
    said = await eyes.names(_node_of(client), uid, names.candidates(name, parse(view.resolv_conf)), family)
    if said and all(answer.rcode == "no answer" for answer in said):
        # Is it the name server that is dead, or whom it asks? It knows this one by itself.
        said += await eyes.names(_node_of(client), uid, [f"kubernetes.default.svc.{evidence.facts.domain}."], family)
    return said


def _family(evidence: Evidence, question: Question) -> str:
    known = evidence.snapshot.services.get(ServiceKey(question.namespace, question.name))
    return known.ip_families[0] if known is not None and known.ip_families and question.kind == "svc" else "IPv4"
