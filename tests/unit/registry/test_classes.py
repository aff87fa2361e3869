"""What classes give the objects that name them, or that name none."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import Registry
from fairlead.registry.classes import DEFAULT_CLASS, NOT_ENFORCED
from fairlead.registry.requests import RequestContext

Object = dict[str, Any]

BACKEND = {"service": {"name": "web", "port": {"number": 80}}}


async def ingress_class(cluster: Any, name: str, *, default: bool = True) -> None:
    annotations = {DEFAULT_CLASS: "true"} if default else {}
    obj = {"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": "example.com/x"}}
    await cluster.create(kinds.INGRESSCLASSES, obj)


async def ingress(cluster: Any, name: str, **spec: Any) -> Object:
    obj = {"metadata": {"name": name}, "spec": {"defaultBackend": BACKEND, **spec}}
    made: Object = await cluster.create(kinds.INGRESSES, obj)
    return made


async def test_the_default_ingress_class(cluster: Any) -> None:
    """The newest of those that are marked; of the same age the first by name; what is said stays."""
    assert "ingressClassName" not in (await ingress(cluster, "none"))["spec"]
    await ingress_class(cluster, "b")
    await ingress_class(cluster, "a")
    await ingress_class(cluster, "plain", default=False)
    assert (await ingress(cluster, "first"))["spec"]["ingressClassName"] == "a"
    cluster.sleep(10)
    await ingress_class(cluster, "z")
    assert (await ingress(cluster, "second"))["spec"]["ingressClassName"] == "z"
    assert (await ingress(cluster, "said", ingressClassName="b"))["spec"]["ingressClassName"] == "b"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"defaultBackend": None}, "either `defaultBackend` or `rules` must be specified"),
        ({"rules": [{"host": "10.0.0.1"}]}, "must be a DNS name, not an IP address"),
        ({"rules": [{"host": "*.*.com"}]}, "a wildcard DNS-1123 subdomain must start with"),
        ({"rules": [{"http": {"paths": [{"path": "/", "backend": BACKEND}]}}]}, "pathType must be specified"),
        (
            {"rules": [{"http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": BACKEND}]}}]},
            "must be an absolute path",
        ),
        ({"defaultBackend": {"service": {"name": "web"}}}, "port name or number is required"),
        ({"defaultBackend": {}}, "resource or service backend is required"),
    ],
)
async def test_ingresses_that_are_refused(cluster: Any, spec: Object, message: str) -> None:
    """In upstream's words."""
    with pytest.raises(StatusError) as caught:
        await ingress(cluster, "web", **spec)
    assert caught.value.code == 422
    assert message in str(caught.value)


async def test_a_network_policy_is_kept_with_a_warning(cluster: Any) -> None:
    """Nobody is to think that it works."""
    ctx: RequestContext = cluster.ctx()
    obj = {"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}}
    registry: Registry = cluster.registry
    made = await registry.create(kinds.NETWORKPOLICIES, "default", obj, ctx)
    assert ctx.warnings == [NOT_ENFORCED]
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert made["spec"]["egress"][0]["ports"][0]["protocol"] == "TCP"


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ({}, "must specify a peer"),
        ({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}, "may not specify both ipBlock and another peer"),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}, "must be a strict subset of `cidr`"),
    ],
)
async def test_network_policies_that_are_refused(cluster: Any, peer: Object, message: str) -> None:
    """In upstream's words."""
    obj = {"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "ingress": [{"from": [peer]}]}}
    with pytest.raises(StatusError) as caught:
        await cluster.create(kinds.NETWORKPOLICIES, obj)
    assert message in str(caught.value)


async def priority(cluster: Any, name: str, value: int, **more: Any) -> None:
    await cluster.create(kinds.PRIORITYCLASSES, {"metadata": {"name": name}, "value": value, **more})


async def test_a_pod_gets_its_class_priority(cluster: Any, pod_of: Any) -> None:
    """By name, by default, or as the system's own; its preemption policy comes along."""
    await priority(cluster, "high", 1000, preemptionPolicy="Never")
    named = pod_of("named")
    named["spec"]["priorityClassName"] = "high"
    made = await cluster.create(kinds.PODS, named)
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (1000, "Never")
    assert (await cluster.create(kinds.PODS, pod_of("plain")))["spec"]["priority"] == 0
    await priority(cluster, "usual", 7, globalDefault=True)
    made = await cluster.create(kinds.PODS, pod_of("later"))
    assert (made["spec"]["priority"], made["spec"]["priorityClassName"]) == (7, "usual")
    system = pod_of("system")
    system["spec"]["priorityClassName"] = "system-node-critical"
    assert (await cluster.create(kinds.PODS, system))["spec"]["priority"] == 2000001000


async def test_priorities_that_are_refused(cluster: Any, pod_of: Any) -> None:
    """A class that is not there, a second default, a value of the system's, a changed value."""
    pod = pod_of()
    pod["spec"]["priorityClassName"] = "nope"
    with pytest.raises(StatusError, match="no PriorityClass with name nope was found"):
        await cluster.create(kinds.PODS, pod)
    await priority(cluster, "usual", 7, globalDefault=True)
    with pytest.raises(StatusError, match="Only one default can exist"):
        await priority(cluster, "other", 8, globalDefault=True)
    with pytest.raises(StatusError, match="maximum allowed value of a user defined priority is 1000000000"):
        await priority(cluster, "top", 2_000_000_000)
    with pytest.raises(StatusError, match="reserved for system use only"):
        await priority(cluster, "system-mine", 1)
    with pytest.raises(StatusError, match="may not be changed in an update"):
        await cluster.patch(kinds.PRIORITYCLASSES, "usual", lambda c: c.update(value=9))


async def test_a_runtime_class_says_where(cluster: Any, pod_of: Any) -> None:
    """Its nodes are the pod's; a handler that no node has is refused by name."""
    scheduling = {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "x", "operator": "Exists"}]}
    await cluster.create(
        kinds.RUNTIMECLASSES, {"metadata": {"name": "own"}, "handler": "fairlead", "scheduling": scheduling}
    )
    await cluster.create(kinds.RUNTIMECLASSES, {"metadata": {"name": "gvisor"}, "handler": "runsc"})
    pod = pod_of("own")
    pod["spec"]["runtimeClassName"] = "own"
    made = await cluster.create(kinds.PODS, pod)
    assert made["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert {"key": "x", "operator": "Exists"} in made["spec"]["tolerations"]
    for name, message in (("gvisor", 'no node has the handler "runsc"'), ("no", 'RuntimeClass "no" not found')):
        pod = pod_of("other")
        pod["spec"]["runtimeClassName"] = name
        with pytest.raises(StatusError, match=message):
            await cluster.create(kinds.PODS, pod)
