"""Which address a Service of type LoadBalancer gets, as tables."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from fairlead.api.addresspool import parse_pool
from fairlead.controllers.loadbalancer_plan import (
    FINALIZER,
    Ledger,
    Refusal,
    Supply,
    assign,
    is_ours,
    refusal_of,
    reported,
    status_with,
    wish_of,
)

Object = dict[str, Any]
A, B, C = (ipaddress.ip_address(f"192.0.2.{n}") for n in (1, 2, 3))
SIX = ipaddress.ip_address("2001:db8::1")
POOL = "192.0.2.1-192.0.2.2"
SHARE = {"fairlead.dev/allow-shared-ip": "k"}


def service(name: str = "web", annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}], "ipFamilies": ["IPv4"], **spec}
    metadata = {"namespace": "shop", "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": {**metadata, "annotations": annotations or {}}, "spec": spec}


def decide(wanted: Object, held: list[tuple[Object, list[Any]]], pool: str = POOL, reserved: Any = None) -> Any:
    """The addresses as text, or the refusal's message. `held`: others, made earlier, or the Service itself."""
    ledger = Ledger()
    for other, addresses in held:
        if other["metadata"]["name"] != wanted["metadata"]["name"]:
            other["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
        ledger.put(other["metadata"]["uid"], wish_of(other), addresses)
    refused = refusal_of(wanted)
    if refused is not None:
        return refused.message
    decision = assign(wanted["metadata"]["uid"], wish_of(wanted), Supply(parse_pool(pool), ledger, reserved or {}))
    return decision.message if isinstance(decision, Refusal) else [str(address) for address in decision]


SHARED = [(service("a", SHARE), [A])]
TWO = "192.0.2.0/30,2001:db8::/126"
DUAL = {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}
PREFER = {**DUAL, "ipFamilyPolicy": "PreferDualStack"}
ASSIGNED = {
    "the first free one": (service(), [(service("a"), [A])], {}, ["192.0.2.2"]),
    "the one it has": (service(), [(service("web"), [B])], {}, ["192.0.2.2"]),
    "the one it asks for": (service(loadBalancerIP="192.0.2.2"), [], {}, ["192.0.2.2"]),
    "… by our annotation": (
        service(annotations={"fairlead.dev/load-balancer-ips": "192.0.2.2"}),
        [],
        {},
        ["192.0.2.2"],
    ),
    "… by MetalLB's": (service(annotations={"metallb.io/loadBalancerIPs": "192.0.2.2"}), [], {}, ["192.0.2.2"]),
    "… by MetalLB's old one": (
        service(annotations={"metallb.universe.tf/loadBalancerIPs": "192.0.2.2"}),
        [],
        {},
        ["192.0.2.2"],
    ),
    "… although it has another": (service(loadBalancerIP="192.0.2.2"), [(service("web"), [A])], {}, ["192.0.2.2"]),
    "not a node's": (service(), [], {"reserved": {A: "node n1"}}, ["192.0.2.2"]),
    "another, when its own left the pool": (service(), [(service("web"), [C])], {}, ["192.0.2.1"]),
    "one of each family": (service(**DUAL), [], {"pool": TWO}, ["192.0.2.0", "2001:db8::"]),
    "the families' order": (
        service(**{**DUAL, "ipFamilies": ["IPv6", "IPv4"]}),
        [],
        {"pool": TWO},
        ["2001:db8::", "192.0.2.0"],
    ),
    "what there is, if that is enough": (service(**PREFER), [], {}, ["192.0.2.1"]),
    "one asked for, the other chosen": (
        service(annotations={"fairlead.dev/load-balancer-ips": "2001:db8::2"}, **DUAL),
        [],
        {"pool": TWO},
        ["192.0.2.0", "2001:db8::2"],
    ),
    "both asked for": (
        service(annotations={"fairlead.dev/load-balancer-ips": "2001:db8::2, 192.0.2.3"}, **DUAL),
        [],
        {"pool": TWO},
        ["192.0.2.3", "2001:db8::2"],
    ),
    "IPv6 only": (service(ipFamilies=["IPv6"]), [], {"pool": TWO}, ["2001:db8::"]),
    "shared, with another port": (
        service(annotations=SHARE, ports=[{"port": 443}]),
        SHARED,
        {},
        ["192.0.2.1"],
    ),
    "shared, with another protocol": (
        service(annotations=SHARE, ports=[{"port": 80, "protocol": "UDP"}]),
        SHARED,
        {},
        ["192.0.2.1"],
    ),
    "its own, where the port is taken": (service(annotations=SHARE), SHARED, {}, ["192.0.2.2"]),
    "its own, with another key": (
        service(annotations=SHARE, ports=[{"port": 443}]),
        [(service("a", {"metallb.io/allow-shared-ip": "other"}), [A])],
        {},
        ["192.0.2.2"],
    ),
    "shared by MetalLB's annotation": (
        service(annotations={"metallb.universe.tf/allow-shared-ip": "k"}, ports=[{"port": 443}]),
        SHARED,
        {},
        ["192.0.2.1"],
    ),
    "Local shares with the same pods": (
        service(annotations=SHARE, ports=[{"port": 443}], externalTrafficPolicy="Local", selector={"app": "x"}),
        [(service("a", SHARE, externalTrafficPolicy="Local", selector={"app": "x"}), [A])],
        {},
        ["192.0.2.1"],
    ),
    "Local does not share with other pods": (
        service(annotations=SHARE, ports=[{"port": 443}], externalTrafficPolicy="Local", selector={"app": "y"}),
        [(service("a", SHARE, externalTrafficPolicy="Local", selector={"app": "x"}), [A])],
        {},
        ["192.0.2.2"],
    ),
    "Local does not share with Cluster": (
        service(annotations=SHARE, ports=[{"port": 443}], externalTrafficPolicy="Local"),
        SHARED,
        {},
        ["192.0.2.2"],
    ),
    "the younger of two at one address goes": (
        service(),
        [(service("a"), [A]), (service("web"), [A])],
        {},
        ["192.0.2.2"],
    ),
}


@pytest.mark.parametrize(("wanted", "held", "more", "addresses"), ASSIGNED.values(), ids=ASSIGNED)
def test_what_a_service_gets(wanted: Object, held: Any, more: Any, addresses: list[str]) -> None:
    """Asked for, else held, else shared, else the first free one."""
    assert decide(wanted, held, **more) == addresses


def test_the_elder_of_two_at_one_address_stays() -> None:
    """Whoever was made first keeps what both have."""
    elder = service()
    elder["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    assert decide(elder, [(service("a"), [A]), (service("web"), [A])]) == ["192.0.2.1"]


ASK = service(loadBalancerIP="192.0.2.1")
REFUSED = {
    "an exhausted pool": (
        service(),
        [(service("a"), [A]), (service("b"), [B])],
        {},
        "no available IPs: the pool (192.0.2.1-192.0.2.2) is exhausted, its 2 IPv4 addresses are held by shop/a, "
        "shop/b; delete one of these Services, share an address (annotation fairlead.dev/allow-shared-ip), or give a "
        "larger pool",
    ),
    "a pool without the family": (
        service(ipFamilies=["IPv6"]),
        [],
        {},
        "the pool (192.0.2.1-192.0.2.2) has no IPv6 addresses; give it some",
    ),
    "both families needed": (
        service(**DUAL),
        [],
        {},
        "the pool (192.0.2.1-192.0.2.2) has no IPv6 addresses; give it some",
    ),
    "an address outside of the pool": (
        service(loadBalancerIP="192.0.2.3"),
        [],
        {},
        "192.0.2.3 is asked for, and it is not in the pool (192.0.2.1-192.0.2.2); ask for one that is, or give a "
        "larger pool",
    ),
    "an address that is held": (
        ASK,
        [(service("a"), [A])],
        {},
        "192.0.2.1 is asked for, and it is held by shop/a: ask for another, or give both Services the annotation "
        "fairlead.dev/allow-shared-ip with the same value and ports that differ",
    ),
    "a node's address": (
        ASK,
        [],
        {"reserved": {A: "node n1"}},
        "192.0.2.1 is asked for, and it is the address of node n1; ask for another",
    ),
    "a shared one, and the port is taken": (
        service(annotations=SHARE, loadBalancerIP="192.0.2.1"),
        SHARED,
        {},
        "192.0.2.1 is asked for, and it is held by shop/a: both have port 80/TCP",
    ),
    "a shared one of another policy": (
        service(annotations=SHARE, loadBalancerIP="192.0.2.1", ports=[{"port": 1}], externalTrafficPolicy="Local"),
        SHARED,
        {},
        "192.0.2.1 is asked for, and it is held by shop/a: their externalTrafficPolicy differs",
    ),
    "no address": (
        service(annotations={"fairlead.dev/load-balancer-ips": "me"}),
        [],
        {},
        "the annotation fairlead.dev/load-balancer-ips has 'me', which is no IP address",
    ),
    "another family": (
        service(loadBalancerIP="2001:db8::1"),
        [],
        {"pool": TWO},
        "spec.loadBalancerIP asks for 2001:db8::1, and spec.ipFamilies have no IPv6",
    ),
    "two that differ": (
        service(annotations={"metallb.io/loadBalancerIPs": "192.0.2.2"}, loadBalancerIP="192.0.2.1"),
        [],
        {},
        "the annotation metallb.io/loadBalancerIPs asks for 192.0.2.2, and 192.0.2.1 is asked for, too; ask for one",
    ),
    "a pool by name": (
        service(annotations={"metallb.io/address-pool": "gold"}),
        [],
        {},
        "the annotation metallb.io/address-pool names the pool 'gold', and there is one pool only, without a name; "
        "take it away, or ask for an address by fairlead.dev/load-balancer-ips",
    ),
}


@pytest.mark.parametrize(("wanted", "held", "more", "message"), REFUSED.values(), ids=REFUSED)
def test_why_a_service_gets_none(wanted: Object, held: Any, more: Any, message: str) -> None:
    """The message names who has the address, and what to do."""
    assert decide(wanted, held, **more) == message


def test_a_long_list_of_holders_is_cut() -> None:
    """Five are named, the rest is counted."""
    held = [(service(f"s{n}"), [ipaddress.ip_address(f"192.0.2.{n}")]) for n in range(8)]
    assert "held by shop/s0, shop/s1, shop/s2, shop/s3, shop/s4 and 3 more;" in decide(service(), held, "192.0.2.0/29")


OURS = {
    "no class": (service(), True),
    "our class": (service(loadBalancerClass="fairlead.dev/lan"), True),
    "another class": (service(loadBalancerClass="example.com/lb"), False),
    "another type": (service(type="NodePort"), False),
}


@pytest.mark.parametrize(("wanted", "ours"), OURS.values(), ids=OURS)
def test_which_services_are_ours(wanted: Object, ours: bool) -> None:
    """By type and class; none that is being deleted."""
    assert is_ours(wanted) is ours
    wanted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not is_ours(wanted)


def test_the_status() -> None:
    """Addresses are served by the nodes (VIP); conditions are others' and stay; no addresses, no ingress."""
    wanted = {**service(), "status": {"conditions": [1], "loadBalancer": {"ingress": [{"hostname": "x"}]}}}
    status = status_with(wanted, [A, SIX])
    assert status == {
        "conditions": [1],
        "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "2001:db8::1", "ipMode": "VIP"}]},
    }
    assert reported({**wanted, "status": status}) == (A, SIX)
    assert status_with(wanted, []) == {"conditions": [1], "loadBalancer": {}}
    assert FINALIZER == "service.kubernetes.io/load-balancer-cleanup"


BAD_POOLS = {
    "": "no range of addresses is named; write e.g. 192.0.2.200-192.0.2.250 or 192.0.2.192/26",
    "192.0.2.1-192.0.2.0": "'192.0.2.1-192.0.2.0' is no range of addresses: 192.0.2.1 comes after 192.0.2.0",
    "192.0.2.1-::1": "'192.0.2.1-::1' is no range of addresses: 192.0.2.1 and ::1 are of different families",
    "192.0.2.1/24": "'192.0.2.1/24' is no range of addresses: 192.0.2.1/24 has host bits set",
    "192.0.2.0/24,192.0.2.9-192.0.2.10": "192.0.2.9-192.0.2.10 overlaps 192.0.2.0/24",
    "224.0.0.0/24": "'224.0.0.0/24' is no range of addresses: 224.0.0.0 can be no load balancer's",
    "x": "'x' is no range of addresses: 'x' does not appear to be an IPv4 or IPv6 network",
}


@pytest.mark.parametrize(("text", "message"), BAD_POOLS.items())
def test_a_pool_that_is_none(text: str, message: str) -> None:
    """The error names the range."""
    with pytest.raises(ValueError, match=r".*") as error:
        parse_pool(text)
    assert str(error.value) == message


def test_a_pool() -> None:
    """Ranges are used up in their order; one address is a range, too; IPv6 is counted, not walked."""
    pool = parse_pool("192.0.2.7, 192.0.2.0/31 , 2001:db8::/64")
    taken: list[Any] = []
    while (free := pool.first_free(4, taken)) is not None:
        taken.append(free)
    assert [str(address) for address in taken] == ["192.0.2.7", "192.0.2.0", "192.0.2.1"]
    assert (pool.size(4), pool.size(6)) == (3, 1 << 64)
    assert SIX in pool
    assert C not in pool
    assert str(pool) == "192.0.2.7, 192.0.2.0/31, 2001:db8::/64"
