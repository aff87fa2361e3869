"""Corner cases of what a Service gives up, gets and keeps when it changes."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import DeleteOptions
from fairlead.registry.allocation import AddressPool, PortPool
from fairlead.registry.repair import Repair

SVC = kinds.SERVICES
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
DUAL = {"service_cidrs": ("10.96.0.0/16", "fd00:96::/108"), "ip_families": ("IPv4", "IPv6")}


def service(name: str = "s", node_port: int = 0, **spec: Any) -> dict[str, Any]:
    """A Service of one port."""
    port = {"port": 80} | ({"nodePort": node_port} if node_port else {})
    return {"metadata": {"name": name}, "spec": {"ports": [port], "selector": {"a": "b"}, **spec}}


async def change(cluster: Any, **spec: Any) -> dict[str, Any]:
    """Set fields of the spec of `s`; None removes them."""
    changed = await cluster.patch(SVC, "s", lambda o: o["spec"].update(spec))
    assert await Repair(cluster.store, cluster.registry.options).repair() == 0
    found: dict[str, Any] = changed["spec"]
    return found


async def refusal(what: Any) -> str:
    """The text of a 422."""
    with pytest.raises(StatusError) as caught:
        await what
    assert caught.value.code == 422, caught.value
    return caught.value.message


async def ports(cluster: Any) -> list[int]:
    """The node ports that are claimed."""
    return [int(key) for key in await cluster.keys(PortPool.prefix)]


async def test_a_health_port_may_be_asked_for(cluster: Any) -> None:
    """It is claimed as any node port, goes when it is not needed, and can't be another one while it is."""
    made = await cluster.create(SVC, service(node_port=30001, healthCheckNodePort=30002, **LOCAL))
    assert made["spec"]["healthCheckNodePort"] == 30002
    assert await ports(cluster) == [30001, 30002]
    taken = await refusal(cluster.create(SVC, service("t", 30002, type="NodePort")))
    assert "provided port is already allocated" in taken
    assert "field is immutable" in await refusal(change(cluster, healthCheckNodePort=30003))
    after = await change(cluster, externalTrafficPolicy="Cluster")
    assert "healthCheckNodePort" not in after
    assert await ports(cluster) == [30001]
    after = await change(cluster, externalTrafficPolicy="Local")
    assert after["healthCheckNodePort"] and len(await ports(cluster)) == 2


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "NodePort", "externalTrafficPolicy": "Local"},
        {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"},
        {"type": "ClusterIP"},
    ],
)
async def test_a_health_port_where_none_is_needed(cluster: Any, spec: dict[str, Any]) -> None:
    """Refused, and nothing is claimed."""
    text = await refusal(cluster.create(SVC, service(healthCheckNodePort=30002, **spec)))
    assert "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'" in text
    assert await ports(cluster) == []


async def test_health_and_node_port_of_one_service_differ(cluster: Any) -> None:
    """One number can't be both."""
    with pytest.raises(StatusError, match="already allocated"):
        await cluster.create(SVC, service(node_port=30002, healthCheckNodePort=30002, **LOCAL))
    assert await ports(cluster) == []


async def test_a_client_that_sends_back_what_it_got_may_change_the_type(cluster: Any) -> None:
    """What the new type has no use for and the client did not touch is dropped; what it touched is refused."""
    await cluster.create(SVC, service(loadBalancerClass="x.y/z", **LOCAL))
    after = await change(cluster, type="NodePort")
    assert not {"healthCheckNodePort", "loadBalancerClass", "allocateLoadBalancerNodePorts"} & after.keys()
    assert after["externalTrafficPolicy"] == "Local"
    moved = [after["ports"][0] | {"nodePort": 30009}]
    assert "may not be used when `type` is 'ClusterIP'" in await refusal(change(cluster, type="ClusterIP", ports=moved))
    after = await change(cluster, type="ClusterIP")
    assert "nodePort" not in after["ports"][0] and "externalTrafficPolicy" not in after
    assert await ports(cluster) == []


async def test_external_names_have_nothing(cluster: Any) -> None:
    """To and from ExternalName, the address may become another one; ports are claimed anew."""
    made = await cluster.create(SVC, service(type="ExternalName", externalName="a.b"))
    assert not {"clusterIP", "clusterIPs", "ipFamilies"} & made["spec"].keys()
    after = await change(cluster, type="NodePort", externalName=None, clusterIP="10.96.0.77")
    assert after["clusterIPs"] == ["10.96.0.77"] and after["ports"][0]["nodePort"]
    after = await change(cluster, type="ExternalName", externalName="a.b")
    assert "clusterIP" not in after
    assert (await cluster.keys(AddressPool.prefix), await ports(cluster)) == ([], [])
    after = await change(cluster, type="ClusterIP", externalName=None, clusterIP="None", clusterIPs=["None"])
    assert after["clusterIPs"] == ["None"]


async def test_headless_stays_headless(cluster: Any) -> None:
    """None is an address that does not change either."""
    await cluster.create(SVC, service(clusterIP="None"))
    text = await refusal(change(cluster, clusterIP="10.96.0.9", clusterIPs=["10.96.0.9"]))
    assert "may not change once set" in text or "field is immutable" in text
    text = await refusal(change(cluster, type="NodePort"))
    assert "may not be set to 'None' for NodePort services" in text


async def test_external_ips_keep_the_policy(cluster: Any) -> None:
    """A ClusterIP Service that is reached from outside has an external policy; without them it has none."""
    await cluster.create(SVC, service(type="NodePort", externalIPs=["192.0.2.1"], externalTrafficPolicy="Local"))
    after = await change(cluster, type="ClusterIP")
    assert after["externalTrafficPolicy"] == "Local"
    after = await change(cluster, externalIPs=None)
    assert "externalTrafficPolicy" not in after


async def test_node_ports_of_load_balancers_are_kept(cluster: Any) -> None:
    """Turning their allocation off takes none away; leaving them out of a PUT keeps them too."""
    made = await cluster.create(SVC, service(type="LoadBalancer"))
    port = made["spec"]["ports"][0]["nodePort"]
    after = await change(cluster, allocateLoadBalancerNodePorts=False)
    assert after["ports"][0]["nodePort"] == port
    after = await change(cluster, ports=[{"port": 80, "protocol": "TCP"}])
    assert after["ports"][0]["nodePort"] == port


async def test_a_dry_run_claims_nothing(cluster: Any) -> None:
    """Neither creating, nor changing, nor deleting."""
    made = await cluster.create(SVC, service(**LOCAL), dry_run=True)
    assert made["spec"]["clusterIP"]
    assert (await cluster.keys(AddressPool.prefix), await ports(cluster)) == ([], [])
    made = await cluster.create(SVC, service())
    await cluster.patch(SVC, "s", lambda o: o["spec"].update(type="NodePort"), dry_run=True)
    assert await ports(cluster) == []
    await cluster.registry.delete(SVC, "default", "s", DeleteOptions(), cluster.ctx(dry_run=True))
    assert await cluster.keys(AddressPool.prefix) == [made["spec"]["clusterIP"]]


async def test_families_come_and_go(new_cluster: Any) -> None:
    """The primary stays; the secondary is asked for by name, by family or by policy, and freed with the policy."""
    cluster = await new_cluster(**DUAL)
    made = await cluster.create(SVC, service(ipFamilies=["IPv6"]))
    primary = made["spec"]["clusterIP"]
    after = await change(cluster, ipFamilyPolicy="PreferDualStack")
    assert (after["ipFamilies"], after["clusterIPs"][0]) == (["IPv6", "IPv4"], primary)
    text = await refusal(change(cluster, ipFamilies=["IPv4", "IPv6"], clusterIPs=after["clusterIPs"][::-1]))
    assert "may not change once set" in text or "must match the first value" in text or "primary" in text
    after = await change(cluster, ipFamilyPolicy="SingleStack")
    assert (after["ipFamilies"], after["clusterIPs"]) == (["IPv6"], [primary])
    after = await change(
        cluster, ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv6", "IPv4"], clusterIPs=[primary, "10.96.0.99"]
    )
    assert after["clusterIPs"] == [primary, "10.96.0.99"]
    text = await refusal(change(cluster, clusterIPs=[primary], ipFamilies=["IPv6"]))
    assert "releasing the secondary" in text
    headless = await cluster.create(SVC, service("h", clusterIP="None", ipFamilyPolicy="RequireDualStack"))
    assert headless["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert await cluster.keys(AddressPool.prefix) == ["10.96.0.99", primary]
