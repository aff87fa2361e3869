"""Which node a pod may run on, and which it should. ◆ Pure; upstream: pkg/scheduler/framework/plugins.

Invariant: a node that `refusals` passes can hold the pod by everything it was told; refusals are in upstream's words,
because people and tests read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fairlead.api import quantity
from fairlead.controllers import owners, podaffinity, podpreferences, pods

Object = dict[str, Any]
Resources = Mapping[str, int]  # in billionths, as api.quantity counts

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_NANO = 10**9


class NodeState:
    """A node with what is on it. `add` and `remove` keep the sums; everything else only reads."""

    def __init__(self, node: Object) -> None:
        self.pods: dict[str, Object] = {}
        self.requested: dict[str, int] = {}
        self.ports: dict[tuple[str, str, int], int] = {}
        self.groups: dict[str, int] = {}  # pods by spread_group
        self.repelling: dict[str, Object] = {}  # those that keep others away
        self.inviting: dict[str, Object] = {}  # those that would like others near, or far
        self.set_node(node)

    def set_node(self, node: Object) -> None:
        """The node's object changed."""
        self.node = node
        self.name: str = node["metadata"]["name"]
        status = node.get("status") or {}
        allocatable = status.get("allocatable") or status.get("capacity") or {}
        self.allocatable = {k: quantity.parse(v).nano for k, v in allocatable.items()}
        self.labels: dict[str, str] = node["metadata"].get("labels") or {}
        self.taints = taints_of(node)

    def add(self, pod: Object) -> None:
        """The pod takes its place here (again, if it is known)."""
        uid = pod["metadata"]["uid"]
        self.remove(uid)
        self.pods[uid] = pod
        if podaffinity.terms(pod, "podAntiAffinity"):
            self.repelling[uid] = pod
        if podpreferences.has_wishes(pod):
            self.inviting[uid] = pod
        self._count(pod, 1)

    def remove(self, uid: str) -> None:
        """The pod leaves."""
        pod = self.pods.pop(uid, None)
        self.repelling.pop(uid, None)
        self.inviting.pop(uid, None)
        if pod is not None:
            self._count(pod, -1)

    def _count(self, pod: Object, sign: int) -> None:
        for name, amount in requests_of(pod).items():
            self.requested[name] = self.requested.get(name, 0) + sign * amount
        group = spread_group(pod)
        self.groups[group] = self.groups.get(group, 0) + sign
        if not self.groups[group]:
            del self.groups[group]
        for port in host_ports(pod):
            self.ports[port] = self.ports.get(port, 0) + sign
            if not self.ports[port]:
                del self.ports[port]


def taints_of(node: Object) -> list[Object]:
    """The node's taints, and those its state implies until the node lifecycle controller has written them."""
    taints = list(node["spec"].get("taints") or []) if node.get("spec") else []
    ready = pods.condition(node, "Ready")
    status = ready.get("status") if ready is not None else None
    implied = {"True": "", "Unknown": UNREACHABLE}.get(str(status), NOT_READY)
    if implied and not any(t["key"] == implied and t.get("effect") == "NoSchedule" for t in taints):
        taints.append({"key": implied, "effect": "NoSchedule"})
    return taints


def requests_of(pod: Object) -> dict[str, int]:
    """What the pod asks for: the sum of its containers and sidecars, or its largest init container, plus overhead."""
    spec = pod["spec"]
    total: dict[str, int] = {}
    for container in spec.get("containers") or []:
        _add(total, _requests(container))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or []:
        wanted = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, wanted)
            _add(total, wanted)
            _peak(peak, sidecars)
        else:
            together = dict(sidecars)
            _add(together, wanted)
            _peak(peak, together)
    _peak(total, peak)
    _add(total, {k: quantity.parse(v).nano for k, v in (spec.get("overhead") or {}).items()})
    return total


def _requests(container: Object) -> dict[str, int]:
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {k: quantity.parse(v).nano for k, v in merged.items()}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _peak(total: dict[str, int], other: Mapping[str, int]) -> None:
    for name, amount in other.items():
        total[name] = max(total.get(name, 0), amount)


def host_ports(pod: Object) -> set[tuple[str, str, int]]:
    """(host IP, protocol, port) the pod takes on its node."""
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    found: set[tuple[str, str, int]] = set()
    for container in [*(spec.get("containers") or []), *sidecars]:
        for port in container.get("ports") or []:
            number = port.get("hostPort") or (port.get("containerPort") if spec.get("hostNetwork") else 0)
            if number:
                found.add((port.get("hostIP") or "0.0.0.0", port.get("protocol", "TCP"), int(number)))
    return found


def _ports_clash(wanted: Iterable[tuple[str, str, int]], taken: Iterable[tuple[str, str, int]]) -> bool:
    every = {"0.0.0.0", "::", ""}
    taken = list(taken)
    return any(
        protocol == other_protocol and port == other_port and (ip == other_ip or ip in every or other_ip in every)
        for ip, protocol, port in wanted
        for other_ip, other_protocol, other_port in taken
    )


def tolerates(toleration: Object, taint: Object) -> bool:
    """Upstream: Toleration.ToleratesTaint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def untolerated(pod: Object, taints: Iterable[Object], effects: Sequence[str | None]) -> Object | None:
    """The first taint with one of the effects that the pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations") or []
    for taint in taints:
        if taint.get("effect") in effects and not any(tolerates(t, taint) for t in tolerations):
            return taint
    return None


def matches_node(pod: Object, state: NodeState) -> bool:
    """nodeSelector and the required node affinity."""
    spec = pod["spec"]
    selector: Mapping[str, str] = spec.get("nodeSelector") or {}
    if any(state.labels.get(k) != v for k, v in selector.items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(matches_term(term, state) for term in required.get("nodeSelectorTerms") or [])


def counts_for(pod: Object) -> podaffinity.Eligible:
    """Which nodes count for a spread constraint of the pod's: by default those that its node affinity takes, tainted or
    not (KEP-3094)."""

    def counts(constraint: Object, state: NodeState) -> bool:
        if constraint.get("nodeAffinityPolicy") != "Ignore" and not matches_node(pod, state):
            return False
        if constraint.get("nodeTaintsPolicy") != "Honor":
            return True
        return untolerated(pod, state.taints, ("NoSchedule", "NoExecute")) is None

    return counts


def matches_term(term: Object, state: NodeState) -> bool:
    """One node selector term; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return all(_matches(e, state.labels) for e in expressions) and all(
        _matches(f, {"metadata.name": state.name}) for f in fields
    )


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    values: list[str] = expression.get("values") or []
    value = labels.get(key)
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if value is None or not _is_integer(value) or len(values) != 1 or not _is_integer(values[0]):
        return False
    return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])


def _is_integer(text: str) -> bool:
    return text.lstrip("+-").isdigit()


def refusals(pod: Object, state: NodeState, requests: Resources, ports: set[tuple[str, str, int]]) -> list[str]:
    """Why the pod can't run there; empty if it can. All resources that lack are named, else the first reason."""
    if state.node["spec"].get("unschedulable") if state.node.get("spec") else False:
        implied = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}
        if untolerated(pod, [implied], ("NoSchedule",)) is not None:
            return ["node(s) were unschedulable"]
    taint = untolerated(pod, state.taints, ("NoSchedule", "NoExecute"))
    if taint is not None:
        return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not matches_node(pod, state):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if ports and _ports_clash(ports, state.ports):
        return ["node(s) didn't have free ports for the requested pod ports"]
    lacking: list[str] = []
    if "pods" in state.allocatable and (len(state.pods) + 1) * _NANO > state.allocatable["pods"]:
        lacking.append("Too many pods")
    for name, amount in requests.items():
        if amount and state.requested.get(name, 0) + amount > state.allocatable.get(name, 0):
            lacking.append(f"Insufficient {name}")
    return lacking


def explain(total: int, reasons: Mapping[str, int]) -> str:
    """Upstream's FitError."""
    if not total:
        return "no nodes available to schedule pods"
    parts = ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
    return f"0/{total} nodes are available: {parts}." if parts else f"0/{total} nodes are available."


def place(
    pod: Object,
    nodes: Iterable[NodeState],
    group: str,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    bar: Callable[[NodeState], str] = lambda _: "",
) -> tuple[str, str]:
    """The node for the pod and an empty text, or an empty name and the reason.

    `group`: the pods it is spread from. `namespaces`: their labels, for affinity terms that select by them. `bar`: why
    a node is out of the question for a reason of its own; empty if it is not.
    """
    states = list(nodes)
    requests, ports = requests_of(pod), host_ports(pod)
    fitting: list[NodeState] = []
    reasons: dict[str, int] = {}
    wishes: podaffinity.Wishes | None = None
    for state in states:
        refused = refusals(pod, state, requests, ports)
        if not refused:
            if wishes is None:
                wishes = podaffinity.Wishes(pod, states, counts_for(pod), namespaces or {})
            reason = bar(state) or wishes.refusal(state)
            if not reason:
                fitting.append(state)
            refused = [reason] if reason else []
        for reason in refused:
            reasons[reason] = reasons.get(reason, 0) + 1
    if not fitting:
        return "", explain(len(states), reasons)
    others = podpreferences.Preferences(pod, states, namespaces or {}, counts_for(pod))
    return _best(pod, fitting, group, others).name, ""


def spread_group(pod: Object) -> str:
    """What the pod is one of: its controller, else its labels."""
    uid = owners.controller_uid(pod)
    if uid:
        return uid
    labels = pod["metadata"].get("labels") or {}
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()))


def _best(pod: Object, fitting: Sequence[NodeState], group: str, others: podpreferences.Preferences) -> NodeState:
    """What the pod prefers; then fewest like it, on the node and then in its zone; then the least load."""
    alike = {s.name: s.groups.get(group, 0) if group else 0 for s in fitting}
    zones: dict[str, int] = {}
    for state in fitting:
        zone = state.labels.get("topology.kubernetes.io/zone", "")
        zones[zone] = zones.get(zone, 0) + alike[state.name]

    def rank(state: NodeState) -> tuple[float, ...]:
        zone = state.labels.get("topology.kubernetes.io/zone", "")
        bad = untolerated(pod, state.taints, ("PreferNoSchedule",)) is not None
        wishes = -_preference(pod, state) - others.weight(state)
        return (bad, wishes, others.crowd(state), alike[state.name], zones[zone], _load(state), len(state.pods))

    return min(fitting, key=lambda s: (*rank(s), s.name))


def _preference(pod: Object, state: NodeState) -> int:
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "preferredDuringSchedulingIgnoredDuringExecution"
    )
    return sum(int(p.get("weight", 1)) for p in affinity or [] if matches_term(p.get("preference") or {}, state))


def _load(state: NodeState) -> float:
    shares = [
        state.requested.get(name, 0) / state.allocatable[name]
        for name in ("cpu", "memory")
        if state.allocatable.get(name)
    ]
    return sum(shares) / len(shares) if shares else 0.0
