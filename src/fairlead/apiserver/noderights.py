"""What a node may do: its own Node and Leases, the pods bound to it, and what those pods refer to.

Before RBAC, as upstream's Node authorizer and NodeRestriction admission. A node is who has the name
`system:node:<name>` and is in the group `system:nodes`; what is not allowed here may still be by RBAC. Invariant: no
node reads a Secret, or gets a token of a service account, that no pod bound to it uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from fairlead.api import errors
from fairlead.api.kinds import LEASES, NODES, PERSISTENTVOLUMES, PODS, SERVICEACCOUNTS, Resource
from fairlead.api.storage import claims_of
from fairlead.apiserver.authorization import Attributes, Decision
from fairlead.apiserver.rbac.index import PolicyIndex
from fairlead.apiserver.request import RequestInfo
from fairlead.registry import ListOptions, Registry, User

Object = dict[str, Any]
Reference = tuple[str, str, str]  # plural, namespace, name

GROUP = "system:nodes"
_PREFIX = "system:node:"
_LEASES = "kube-node-lease"
_PROXY_LEASE = "fairlead-proxy-"
_RESTRICTED_LABEL = "node-restriction.kubernetes.io/"
_READ = ("get", "list", "watch")
_FREE: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "services"): _READ,
    ("", "events"): ("create", "patch", "update"),
    ("authentication.k8s.io", "tokenreviews"): ("create",),
    ("authorization.k8s.io", "subjectaccessreviews"): ("create",),
    ("authorization.k8s.io", "localsubjectaccessreviews"): ("create",),
    ("certificates.k8s.io", "certificatesigningrequests"): ("create", *_READ),
    ("node.k8s.io", "runtimeclasses"): _READ,
    ("storage.k8s.io", "csidrivers"): _READ,
}


def node_of(user: User) -> str:
    """The node a user is; empty for everyone else."""
    return user.name.removeprefix(_PREFIX) if user.name.startswith(_PREFIX) and GROUP in user.groups else ""


class PodGraph:
    """Which node uses what, through the pods bound to it. Feed it every pod."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], tuple[str, frozenset[Reference]]] = {}
        self._uses: Counter[tuple[str, Reference]] = Counter()

    def feed(self, pod: Object, *, gone: bool = False) -> None:
        """A pod as it is now, or that it is gone."""
        key = (pod["metadata"].get("namespace") or "", pod["metadata"]["name"])
        node = (pod.get("spec") or {}).get("nodeName") or ""
        known = self._pods.get(key)
        if known is not None and (gone or known[0] != node):
            for reference in known[1]:
                self._uses[known[0], reference] -= 1
                if not self._uses[known[0], reference]:
                    del self._uses[known[0], reference]
            del self._pods[key]
            known = None
        if gone or not node or known is not None:
            return
        references = frozenset(references_of(pod))
        self._pods[key] = (node, references)
        for reference in references:
            self._uses[node, reference] += 1

    def uses(self, node: str, reference: Reference) -> bool:
        """Whether a pod bound to the node refers to it."""
        return (node, reference) in self._uses


def references_of(pod: Object) -> Iterator[Reference]:
    """What a pod needs to run: its Secrets, ConfigMaps, claims and service account."""
    namespace, spec = pod["metadata"].get("namespace") or "", pod.get("spec") or {}

    def one(plural: str, name: str | None) -> Iterator[Reference]:
        if name:
            yield plural, namespace, name

    yield from one("serviceaccounts", spec.get("serviceAccountName"))
    for secret in spec.get("imagePullSecrets") or ():
        yield from one("secrets", secret.get("name"))
    for volume in spec.get("volumes") or ():
        yield from one("secrets", (volume.get("secret") or {}).get("secretName"))
        yield from one("configmaps", (volume.get("configMap") or {}).get("name"))
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield from one("secrets", (source.get("secret") or {}).get("name"))
            yield from one("configmaps", (source.get("configMap") or {}).get("name"))
    for claim, _ in claims_of(pod):
        yield from one("persistentvolumeclaims", claim)
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            for entry in container.get("env") or ():
                source = entry.get("valueFrom") or {}
                yield from one("secrets", (source.get("secretKeyRef") or {}).get("name"))
                yield from one("configmaps", (source.get("configMapKeyRef") or {}).get("name"))
            for entry in container.get("envFrom") or ():
                yield from one("secrets", (entry.get("secretRef") or {}).get("name"))
                yield from one("configmaps", (entry.get("configMapRef") or {}).get("name"))


class NodeAuthorizer:
    """Nodes by their pods, then everyone by RBAC."""

    def __init__(self, registry: Registry, graph: PodGraph, policy: PolicyIndex) -> None:
        self._registry, self._graph, self._policy = registry, graph, policy

    async def authorize(self, attributes: Attributes) -> Decision:
        """See Authorizer."""
        node = node_of(attributes.user)
        reason = ""
        if node and not attributes.path:
            reason = await self._refusal(node, attributes)
            if not reason:
                return Decision(True)
        decision = self._policy.decide(attributes)
        if reason and not decision.allowed:
            return msgspec.structs.replace(decision, reason=reason)
        return decision

    async def rules_for(self, user: User, namespace: str) -> tuple[list[Object], list[Object]]:
        """See Authorizer. What a node may do by its pods is not listed (as upstream)."""
        return await self._policy.rules_for(user, namespace)

    async def _refusal(self, node: str, asked: Attributes) -> str:
        """Why the node may not; empty if it may."""
        verb, name = asked.verb, asked.name
        if asked.group == "" and asked.plural in ("secrets", "configmaps", "persistentvolumeclaims"):
            wanted = name or _selected(asked.field_selector, "metadata.name")
            if asked.subresource or verb not in _READ or (verb != "get" and not wanted):
                return f"can only read resources of this type by name: node '{node}'"
            return await self._related(node, (asked.plural, asked.namespace, wanted))
        if (asked.group, asked.plural) == ("", "persistentvolumes"):
            return await self._volume(node, asked)
        if (asked.group, asked.plural) == ("", "pods"):
            return await self._pods(node, asked)
        if (asked.group, asked.plural) == ("", "nodes"):
            if verb in _READ and not asked.subresource:
                return ""  # pods reach other nodes' pods by those nodes' addresses
            if asked.subresource not in ("", "status"):
                return f"node '{node}' cannot use this subresource of nodes"
            if verb == "create" and not asked.subresource:
                return ""  # of which name, `check_body` says
            # Also to delete it: who leaves the cluster signs itself off.
            mine = name == node and verb in (
                ("patch", "update") if asked.subresource else ("patch", "update", "delete")
            )
            return "" if mine else f"node '{node}' cannot {verb} node '{name}'"
        if (asked.group, asked.plural, asked.subresource) == ("", "serviceaccounts", "token"):
            if verb != "create":
                return "can only create tokens for individual service accounts"
            return await self._related(node, ("serviceaccounts", asked.namespace, name))
        if (asked.group, asked.plural) == (LEASES.group, LEASES.plural):
            if asked.namespace != _LEASES:
                return f'can only access leases in the "{_LEASES}" system namespace'
            if verb in ("create", "list", "watch") or name in (node, _PROXY_LEASE + node):
                return ""
            return "can only access node lease with the same name as the requesting node"
        if verb in _FREE.get((asked.group, asked.plural), ()) and not asked.subresource:
            return ""
        return f"node '{node}' has no rule for this"

    async def _pods(self, node: str, asked: Attributes) -> str:
        verb, sub = asked.verb, asked.subresource
        if verb in ("list", "watch") and not sub:
            if _selected(asked.field_selector, "spec.nodeName") == node:
                return ""
            return "can only list/watch pods with spec.nodeName field selector"
        may = {"": ("get", "delete"), "status": ("patch", "update"), "eviction": ("create",)}
        if verb not in may.get(sub, ()):
            return f"node '{node}' cannot {verb} pods{'/' + sub if sub else ''}"
        try:
            pod = await self._registry.get(PODS, asked.namespace, asked.name)
        except errors.StatusError:
            return ""  # it will be told that there is none
        if (pod.get("spec") or {}).get("nodeName") == node:
            return ""
        return f"no relationship found between node '{node}' and this object"

    async def _volume(self, node: str, asked: Attributes) -> str:
        """A volume is a node's to read if a pod there uses the claim that has it."""
        if asked.verb != "get" or asked.subresource:
            return f"can only get individual resources of this type: node '{node}'"
        try:
            volume = await self._registry.get(PERSISTENTVOLUMES, "", asked.name)
        except errors.StatusError:
            return ""  # it will be told that there is none
        claim = (volume.get("spec") or {}).get("claimRef") or {}
        reference = ("persistentvolumeclaims", claim.get("namespace") or "", claim.get("name") or "")
        return await self._related(node, reference)

    async def _related(self, node: str, reference: Reference) -> str:
        if self._graph.uses(node, reference):
            return ""
        # The graph may be an event behind: ask the registry before saying no.
        pods = await self._registry.list(PODS, reference[1], ListOptions(field_selector=f"spec.nodeName={node}"))
        if any(reference in references_of(pod) for pod in pods.items):
            return ""
        return f"no relationship found between node '{node}' and this object"


async def check_body(registry: Registry, user: User, info: RequestInfo, obj: Object) -> None:
    """What the path of a node's request does not show: raises 403 for objects that are not the node's own."""
    node = node_of(user)
    if not node:
        return
    metadata, name, resource = obj.get("metadata") or {}, info.name, info.resource
    given = metadata.get("name") or name
    if resource == NODES:
        if given and given != node:
            raise _refused(NODES, given, f'node "{node}" is not allowed to modify node "{given}"')
        for label in metadata.get("labels") or ():
            if label.partition("/")[0].endswith(_RESTRICTED_LABEL.rstrip("/")):
                raise _refused(NODES, node, f"is not allowed to modify labels: {label}")
    elif resource == LEASES and given not in (node, _PROXY_LEASE + node):
        what = "can only access node lease with the same name as the requesting node"
        raise _refused(LEASES, given, what)
    elif resource == SERVICEACCOUNTS and info.subresource == "token":
        bound = (obj.get("spec") or {}).get("boundObjectRef") or {}
        if bound.get("kind") != "Pod" or bound.get("apiVersion") != "v1":
            raise _refused(SERVICEACCOUNTS, name, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise _refused(SERVICEACCOUNTS, name, "node requested token with a pod binding without a uid")
        pod = await registry.get(PODS, info.namespace, bound.get("name") or "")
        if pod["metadata"]["uid"] != bound["uid"]:
            what = "the UID in the bound object reference does not match the UID in record"
            raise _refused(SERVICEACCOUNTS, name, what)
        if (pod.get("spec") or {}).get("nodeName") != node:
            raise _refused(SERVICEACCOUNTS, name, "node requested token bound to a pod scheduled on a different node")


def _refused(resource: Resource, name: str, why: str) -> errors.StatusError:
    text = f'{resource.group_plural} "{name}" is forbidden: {why}'
    return errors.access_forbidden(text, resource.plural, resource.group, name)


def _selected(field_selector: str, field: str) -> str:
    """The value a field selector demands of a field; empty if it demands none."""
    for term in field_selector.split(","):
        key, sign, value = term.partition("=")
        if sign and key.strip() == field:
            return value.removeprefix("=").strip()
    return ""
