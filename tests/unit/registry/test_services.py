"""Services: what is allocated, kept, released and refused."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.registry import DeleteOptions
from fairlead.registry.allocation import AddressPool, PortPool, Refused

SVC = kinds.SERVICES
DUAL = {"service_cidrs": ("10.96.0.0/16", "fd00:96::/108"), "ip_families": ("IPv4", "IPv6")}


def service(name: str = "s", ports: Any = ((80, "TCP"),), **spec: Any) -> dict[str, Any]:
    """A Service; ports are (number, protocol[, nodePort])."""
    made = []
    for number, protocol, *node_port in ports:
        port = {"name": f"p{number}-{protocol.lower()}", "port": number, "protocol": protocol}
        made.append(port | ({"nodePort": node_port[0]} if node_port else {}))
    return {"metadata": {"name": name}, "spec": {"ports": made, "selector": {"a": "b"}, **spec}}


def node_ports(obj: dict[str, Any]) -> list[int]:
    """Of its ports, in order; 0 for none."""
    return [port.get("nodePort", 0) for port in obj["spec"]["ports"]]


async def allocated(cluster: Any) -> tuple[list[str], list[int]]:
    """What the store says is taken."""
    ips = await cluster.keys(AddressPool.prefix)
    return ips, [int(p) for p in await cluster.keys("allocations/nodeports/")]


async def change(cluster: Any, **spec: Any) -> dict[str, Any]:
    """Set fields of the spec of `s`; None removes them."""
    return await cluster.patch(SVC, "s", lambda o: o["spec"].update(spec))


@pytest.mark.parametrize(
    ("cidr", "size", "offset", "first", "last"),
    [
        ("10.96.0.0/16", 65534, 256, "10.96.0.1", "10.96.255.254"),
        ("10.96.0.0/24", 254, 16, "10.96.0.1", "10.96.0.254"),
        ("10.96.0.0/20", 4094, 256, "10.96.0.1", "10.96.15.254"),
        ("10.96.0.0/28", 14, 0, "10.96.0.1", "10.96.0.14"),
        ("fd00::/112", 65535, 256, "fd00::1", "fd00::ffff"),
        ("fd00::/64", 65535, 256, "fd00::1", "fd00::ffff"),
    ],
)
def test_address_bands(cidr: str, size: int, offset: int, first: str, last: str) -> None:
    """The first min(max(16, size/16), 256) are for those who ask by name."""
    pool = AddressPool(cidr)
    assert (pool.size, pool.offset, pool.name(0), pool.name(pool.size - 1)) == (size, offset, first, last)
    assert (pool.index(first), pool.index(last)) == (0, size - 1)


def test_node_port_bands() -> None:
    """The first min(max(16, size/32), 128): 30000-30085 of the default range."""
    assert PortPool(30000, 32767).offset == 86
    assert PortPool(30000, 30015).offset == 0
    with pytest.raises(Refused, match="The range of valid ports is 30000-32767"):
        PortPool(30000, 32767).index(29999)


async def test_a_cluster_ip_is_allocated(cluster: Any) -> None:
    """Above the static band, with the fields that go with it."""
    made = await cluster.create(SVC, service())
    spec = made["spec"]
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert AddressPool("10.96.0.0/16").index(spec["clusterIP"]) >= 256
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert await allocated(cluster) == ([spec["clusterIP"]], [])
    assert node_ports(made) == [0]
    await cluster.registry.delete(SVC, "default", "s", DeleteOptions(), cluster.ctx())
    assert await allocated(cluster) == ([], [])


async def test_static_requests(cluster: Any, refused: Any) -> None:
    """Any free address or port of the range may be asked for; each only once."""
    made = await cluster.create(SVC, service(clusterIP="10.96.0.10", type="NodePort", ports=[(53, "UDP", 30053)]))
    assert (made["spec"]["clusterIPs"], node_ports(made)) == (["10.96.0.10"], [30053])
    before = await allocated(cluster)
    text = 'Service "t" is invalid: spec.clusterIPs: Invalid value: ["{0}"]: failed to allocate IP {0}: {1}'
    for ip, why in (
        ("10.96.0.10", "provided IP is already allocated"),
        ("10.97.0.1", "the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"),
        ("10.96.0.0", "the provided IP (10.96.0.0) is not in the valid range. The range of valid IPs is 10.96.0.0/16"),
        ("10.96.255.255", "the provided IP (10.96.255.255) is not in the valid range. "
                          "The range of valid IPs is 10.96.0.0/16"),
    ):  # fmt: skip
        answer = await refused(cluster.create(SVC, service("t", clusterIP=ip)))
        assert answer == (422, "Invalid", text.format(ip, why))
    for port, why in (
        (30053, "provided port is already allocated"),
        (80, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
    ):
        answer = await refused(cluster.create(SVC, service("t", type="NodePort", ports=[(1, "TCP", port)])))
        assert answer == (
            422,
            "Invalid",
            f'Service "t" is invalid: spec.ports[0].nodePort: Invalid value: {port}: {why}',
        )
    assert (await refused(cluster.create(SVC, service("t", clusterIP="10.96.0"))))[0] == 422
    assert await allocated(cluster) == before


async def test_an_exhausted_range(new_cluster: Any, refused: Any) -> None:
    """Every address is given once, the static band last; then it is said that the range is full."""
    cluster = await new_cluster(service_cidrs=("10.96.0.0/27",), node_port_range=(30000, 30002))
    ips = [(await cluster.create(SVC, service(f"s{i}")))["spec"]["clusterIP"] for i in range(30)]
    assert len(set(ips)) == 30
    pool = AddressPool("10.96.0.0/27")
    assert {pool.index(ip) for ip in ips[:14]} == set(range(16, 30))
    assert await refused(cluster.create(SVC, service("more"))) == (
        500, "InternalError", "Internal error occurred: failed to allocate a serviceIP: range is full",
    )  # fmt: skip
    assert (await cluster.create(SVC, service("none", clusterIP="None")))["spec"]["clusterIPs"] == ["None"]
    await cluster.registry.delete(SVC, "default", "s7", DeleteOptions(), cluster.ctx())
    assert (await cluster.create(SVC, service("again")))["spec"]["clusterIP"] == ips[7]


async def test_node_ports_are_shared_across_protocols(cluster: Any) -> None:
    """53/TCP and 53/UDP of one Service get one number, whichever of them names it."""
    made = await cluster.create(SVC, service(type="NodePort", ports=[(53, "TCP"), (53, "UDP"), (80, "TCP")]))
    tcp, udp, other = node_ports(made)
    assert tcp == udp != other
    assert min(tcp, other) >= 30086
    made = await cluster.create(SVC, service("t", type="NodePort", ports=[(53, "TCP"), (53, "UDP", 30010)]))
    assert node_ports(made) == [30010, 30010]
    assert (await allocated(cluster))[1] == sorted({tcp, other, 30010})


async def test_headless_services_get_no_address(cluster: Any) -> None:
    """With a selector they are single-stack; without one they may have endpoints of both families."""
    made = await cluster.create(SVC, service(clusterIP="None"))
    assert (made["spec"]["clusterIPs"], made["spec"]["ipFamilies"]) == (["None"], ["IPv4"])
    made = await cluster.create(SVC, service("t", clusterIP="None", selector=None))
    assert (made["spec"]["ipFamilyPolicy"], made["spec"]["ipFamilies"]) == ("RequireDualStack", ["IPv4", "IPv6"])
    assert await allocated(cluster) == ([], [])


async def test_an_update_keeps_what_was_allocated(cluster: Any) -> None:
    """A manifest applied again with PUT, without address and ports, changes nothing."""
    manifest = service(type="NodePort", ports=[(80, "TCP"), (81, "TCP")])
    made = await cluster.create(SVC, manifest)
    again = await cluster.registry.update(SVC, "default", "s", manifest, cluster.ctx())
    assert again == made
    manifest["spec"]["ports"][1]["port"] = 82
    manifest["spec"]["ports"].append({"name": "new", "port": 90})
    after = await cluster.registry.update(SVC, "default", "s", manifest, cluster.ctx())
    assert node_ports(after)[:2] == node_ports(made)
    assert (await allocated(cluster))[1] == sorted(node_ports(after))
    del manifest["spec"]["ports"][0]
    after = await cluster.registry.update(SVC, "default", "s", manifest, cluster.ctx())
    assert (await allocated(cluster))[1] == sorted(node_ports(after))


async def test_type_changes_allocate_and_release(cluster: Any) -> None:
    """Each type has what it needs and no more."""
    made = await cluster.create(SVC, service())
    ip = made["spec"]["clusterIP"]
    after = await change(cluster, type="NodePort")
    (port,) = node_ports(after)
    assert (after["spec"]["clusterIP"], after["spec"]["externalTrafficPolicy"]) == (ip, "Cluster")
    assert await allocated(cluster) == ([ip], [port])
    after = await change(cluster, type="LoadBalancer", externalTrafficPolicy="Local")
    health = after["spec"]["healthCheckNodePort"]
    assert node_ports(after) == [port]
    assert await allocated(cluster) == ([ip], sorted([port, health]))
    after = await change(cluster, type="ClusterIP")
    assert not {"healthCheckNodePort", "externalTrafficPolicy", "allocateLoadBalancerNodePorts"} & after["spec"].keys()
    assert node_ports(after) == [0]
    assert await allocated(cluster) == ([ip], [])
    after = await change(cluster, type="ExternalName", externalName="example.com")
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & after["spec"].keys()
    assert await allocated(cluster) == ([], [])
    after = await change(cluster, type="ClusterIP", externalName=None)
    assert await allocated(cluster) == ([after["spec"]["clusterIP"]], [])


async def test_what_can_not_be_changed(cluster: Any, refused: Any) -> None:
    """The address of a Service stays; a taken node port is refused; nothing is lost by trying."""
    await cluster.create(SVC, service("t", type="NodePort", ports=[(1, "TCP", 30001)]))
    made = await cluster.create(SVC, service(type="NodePort"))
    before = await allocated(cluster)
    code, _, text = await refused(change(cluster, clusterIP="10.96.9.9", clusterIPs=["10.96.9.9"]))
    assert (code, "field is immutable" in text or "may not change once set" in text) == (422, True)
    taken = [made["spec"]["ports"][0] | {"nodePort": 30001}]
    code, _, text = await refused(change(cluster, ports=taken))
    assert (code, "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated" in text) == (
        422, True,
    )  # fmt: skip
    assert await allocated(cluster) == before
    moved = await change(cluster, ports=[made["spec"]["ports"][0] | {"nodePort": 30002}])
    assert node_ports(moved) == [30002]
    assert (await allocated(cluster))[1] == [30001, 30002]


async def test_load_balancers_may_do_without_node_ports(cluster: Any) -> None:
    """allocateLoadBalancerNodePorts false keeps only those that are named."""
    made = await cluster.create(
        SVC, service(type="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=[(80, "TCP"), (81, "TCP", 30081)])
    )
    assert node_ports(made) == [0, 30081]


async def test_dual_stack(new_cluster: Any, refused: Any) -> None:
    """Two families on request, given up by asking for one; refused where the cluster has one."""
    cluster = await new_cluster(**DUAL)
    made = await cluster.create(SVC, service(ipFamilyPolicy="PreferDualStack"))
    v4, v6 = made["spec"]["clusterIPs"]
    assert made["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert (v4.startswith("10.96."), v6.startswith("fd00:96::")) == (True, True)
    assert (await allocated(cluster))[0] == sorted([v4, v6])
    after = await change(cluster, ipFamilyPolicy="SingleStack")
    assert (after["spec"]["clusterIPs"], after["spec"]["ipFamilies"]) == ([v4], ["IPv4"])
    assert (await allocated(cluster))[0] == [v4]
    after = await change(cluster, ipFamilyPolicy="RequireDualStack")
    assert (len(after["spec"]["clusterIPs"]), after["spec"]["ipFamilies"]) == (2, ["IPv4", "IPv6"])
    only6 = await cluster.create(SVC, service("six", ipFamilies=["IPv6"]))
    assert (only6["spec"]["ipFamilyPolicy"], only6["spec"]["clusterIP"][:4]) == ("SingleStack", "fd00")
    single = await new_cluster()
    for spec, field in (
        ({"ipFamilyPolicy": "RequireDualStack"}, "spec.ipFamilyPolicy"),
        ({"ipFamilies": ["IPv6"]}, "spec.ipFamilies[0]"),
        ({"clusterIP": "fd00::1"}, "spec.clusterIPs[0]"),
    ):
        code, _, text = await refused(single.create(SVC, service(**spec)))
        assert (code, field in text) == (422, True), text
    prefer = await single.create(SVC, service("p", ipFamilyPolicy="PreferDualStack"))
    assert prefer["spec"]["ipFamilies"] == ["IPv4"]


async def test_endpoints_go_with_their_service(cluster: Any) -> None:
    """A later Service of the name must not find old addresses."""
    await cluster.create(SVC, service())
    await cluster.create(kinds.ENDPOINTS, {"metadata": {"name": "s"}})
    await cluster.registry.delete(SVC, "default", "s", DeleteOptions(), cluster.ctx())
    assert await cluster.keys("core/endpoints/") == []


async def test_the_status_is_the_load_balancers(cluster: Any) -> None:
    """A status update touches neither spec nor allocations."""
    made = await cluster.create(SVC, service(type="LoadBalancer"))

    def report(obj: dict[str, Any]) -> None:
        obj["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
        obj["spec"]["clusterIP"] = "10.96.1.1"

    after = await cluster.patch(SVC, "s", report, "status")
    assert after["spec"] == made["spec"]
    assert after["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1"
