"""Services: what is refused, with upstream's paths and words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.api import defaults, kinds, validation

META = {"name": "web", "namespace": "shop"}
BASE = {"ports": [{"port": 80}]}
ADDRESSED = {**BASE, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"]}
DUAL = {
    **BASE,
    "clusterIP": "10.96.0.7",
    "clusterIPs": ["10.96.0.7", "fd00::7"],
    "ipFamilies": ["IPv4", "IPv6"],
    "ipFamilyPolicy": "PreferDualStack",
}
QUALIFIED = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
NOT_AN_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def service(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A defaulted service."""
    obj = copy.deepcopy({"metadata": META, "spec": spec, **more})
    defaults.apply(kinds.SERVICES, obj)
    return obj


def port(number: Any, name: str = "", **more: Any) -> dict[str, Any]:
    return {"port": number, **({"name": name} if name else {}), **more}


CREATE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": (BASE, []),
    "all that is allowed of ports": (
        {
            "ports": [
                port(53, "dns", protocol="UDP", targetPort="dns-udp"),
                port(53, "dns-tcp"),
                port(7, "s", protocol="SCTP", appProtocol="kubernetes.io/h2c", targetPort=65535),
            ]
        },
        [],
    ),
    "no ports": ({}, ["spec.ports: Required value"]),
    "headless needs no ports": ({"clusterIP": "None", "clusterIPs": ["None"]}, []),
    "port 0": (
        {"ports": [port(0)]},
        [
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    ),
    "port 70000": (
        {"ports": [port(70000, targetPort=80)]},
        ["spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    ),
    "target port by a bad name": (
        {"ports": [port(80, targetPort="sixteen-chars-xx")]},
        ['spec.ports[0].targetPort: Invalid value: "sixteen-chars-xx": must be no more than 15 characters'],
    ),
    "target port by a number in quotes": (
        {"ports": [port(80, targetPort="80")]},
        ['spec.ports[0].targetPort: Invalid value: "80": must contain at least one letter (a-z)'],
    ),
    "two ports, no names": (
        {"ports": [port(80), port(81)]},
        ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    ),
    "a name twice": (
        {"ports": [port(80, "http"), port(81, "http")]},
        ['spec.ports[1].name: Duplicate value: "http"'],
    ),
    "a name with dots": (
        {"ports": [port(80, "a.b")]},
        ['spec.ports[0].name: Invalid value: "a.b": must not contain dots'],
    ),
    "a port twice": (
        {"ports": [port(80, "a"), port(80, "b")]},
        [
            'spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,'
            '"NodePort":0}'
        ],
    ),
    "protocol": (
        {"ports": [port(80, protocol="HTTP")]},
        ['spec.ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"'],
    ),
    "application protocol": (
        {"ports": [port(80, appProtocol="a b")]},
        [f'spec.ports[0].appProtocol: Invalid value: "a b": {QUALIFIED}'],
    ),
    "type": (
        {**BASE, "type": "Ingress"},
        [
            'spec.type: Unsupported value: "Ingress": supported values: "ClusterIP", "ExternalName", "LoadBalancer", '
            '"NodePort"'
        ],
    ),
    "node port on a cluster IP": (
        {"ports": [port(80, nodePort=30080)]},
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    ),
    "a node port twice": (
        {"type": "NodePort", "ports": [port(80, "a", nodePort=30080), port(81, "b", nodePort=30080)]},
        ["spec.ports[1].nodePort: Duplicate value: 30080"],
    ),
    "a node port shared by two protocols": (
        {
            "type": "NodePort",
            "ports": [port(53, "a", nodePort=30053), port(53, "b", protocol="UDP", nodePort=30053)],
        },
        [],
    ),
    "headless node port": (
        {**BASE, "type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"]},
        ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    ),
    "headless load balancer": (
        {**BASE, "type": "LoadBalancer", "clusterIP": "None", "clusterIPs": ["None"]},
        ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services"],
    ),
    "external name": ({"type": "ExternalName", "externalName": "db.example.com."}, []),
    "external name missing": ({"type": "ExternalName"}, ["spec.externalName: Required value"]),
    "external name with an address": (
        {
            "type": "ExternalName",
            "externalName": "a.b",
            "clusterIP": "10.96.0.7",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
        },
        [
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        ],
    ),
    "cluster IP alone": ({**BASE, "clusterIP": "10.96.0.7"}, []),
    "cluster IP that is none": (
        {**BASE, "clusterIP": "web", "clusterIPs": ["web"]},
        [f'spec.clusterIPs[0]: Invalid value: "web": {NOT_AN_IP}'],
    ),
    "cluster IP with leading zeros": (
        {**BASE, "clusterIP": "10.096.0.7", "clusterIPs": ["10.096.0.7"]},
        ['spec.clusterIPs[0]: Invalid value: "10.096.0.7": must not have leading 0s'],
    ),
    "two first addresses": (
        {**BASE, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.8"]},
        ['spec.clusterIPs: Invalid value: ["10.96.0.8"]: first value must match `clusterIP`'],
    ),
    "addresses without the first": (
        {**BASE, "clusterIPs": ["10.96.0.8"]},
        ['spec.clusterIPs: Invalid value: ["10.96.0.8"]: must be empty when `clusterIP` is not specified'],
    ),
    "None and an address": (
        {**BASE, "clusterIP": "None", "clusterIPs": ["None", "10.96.0.8"]},
        ['spec.clusterIPs: Invalid value: ["None","10.96.0.8"]: \'None\' must be the first and only value'],
    ),
    "dual stack": (DUAL, []),
    "two of a family": (
        {**DUAL, "clusterIPs": ["10.96.0.7", "10.96.0.8"]},
        [
            'spec.clusterIPs: Invalid value: ["10.96.0.7","10.96.0.8"]: may specify no more than one IP for each IP '
            "family",
            'spec.clusterIPs[1]: Invalid value: "10.96.0.8": expected an IPv6 value as indicated by `ipFamilies[1]`',
        ],
    ),
    "family": (
        {**BASE, "ipFamilies": ["IPv5", "IPv4", "IPv4"]},
        [
            'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"',
            'spec.ipFamilies[2]: Duplicate value: "IPv4"',
        ],
    ),
    "family policy": (
        {**BASE, "ipFamilyPolicy": "Dual"},
        [
            'spec.ipFamilyPolicy: Unsupported value: "Dual": supported values: "PreferDualStack", "RequireDualStack", '
            '"SingleStack"'
        ],
    ),
    "external IP": (
        {**BASE, "externalIPs": ["192.0.2.1", "127.0.0.1", "x"]},
        [
            'spec.externalIPs[1]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
            f'spec.externalIPs[2]: Invalid value: "x": {NOT_AN_IP}',
        ],
    ),
    "affinity": (
        {**BASE, "sessionAffinity": "Cookie"},
        ['spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"'],
    ),
    "affinity for a day": (
        {**BASE, "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}}},
        [],
    ),
    "affinity for longer": (
        {**BASE, "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
        [
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and "
            "less than 86400"
        ],
    ),
    "external policy on an internal service": (
        {**BASE, "externalTrafficPolicy": "Local"},
        [
            'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
        ],
    ),
    "external policy": (
        {**BASE, "type": "NodePort", "externalTrafficPolicy": "Global"},
        ['spec.externalTrafficPolicy: Unsupported value: "Global": supported values: "Cluster", "Local"'],
    ),
    "internal policy": (
        {**BASE, "internalTrafficPolicy": "Node"},
        ['spec.internalTrafficPolicy: Unsupported value: "Node": supported values: "Cluster", "Local"'],
    ),
    "traffic distribution": ({**BASE, "trafficDistribution": "PreferSameNode"}, []),
    "traffic distribution, unknown": (
        {**BASE, "trafficDistribution": "PreferFar"},
        [
            'spec.trafficDistribution: Unsupported value: "PreferFar": supported values: "PreferClose", '
            '"PreferSameZone", "PreferSameNode"'
        ],
    ),
    "health check port": (
        {**BASE, "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999},
        [],
    ),
    "health check port without need": (
        {**BASE, "type": "LoadBalancer", "healthCheckNodePort": 30999},
        [
            "spec.healthCheckNodePort: Invalid value: 30999: may only be set when `type` is 'LoadBalancer' and "
            "`externalTrafficPolicy` is 'Local'"
        ],
    ),
    "load balancer fields elsewhere": (
        {
            **BASE,
            "allocateLoadBalancerNodePorts": False,
            "loadBalancerClass": "a/b",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
        [
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ],
    ),
    "load balancer": (
        {
            **BASE,
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": False,
            "loadBalancerClass": "example.com/lb",
            "loadBalancerSourceRanges": [" 10.0.0.0/8 "],
        },
        [],
    ),
    "source ranges": (
        {**BASE, "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8", "x"]},
        [
            'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix '
            "length",
            'spec.LoadBalancerSourceRanges[1]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or '
            "2001:db8::/64)",
        ],
    ),
    "selector": (
        {**BASE, "selector": {"-app": "web"}},
        [f'spec.selector: Invalid value: "-app": {QUALIFIED}'],
    ),
}


@pytest.mark.parametrize(("spec", "expected"), CREATE.values(), ids=CREATE)
def test_create(spec, expected) -> None:
    """A new Service is sound, or each fault is named."""
    assert [str(e) for e in validation.validate_create(kinds.SERVICES, service(spec))] == expected


@pytest.mark.parametrize(
    ("name", "sound"), [("web", True), ("1web", True), ("Web", False), ("a.b", False), ("a" * 64, False)]
)
def test_name(name, sound) -> None:
    """A Service's name is a DNS label; since 1.37 it may begin with a digit."""
    obj = service(BASE)
    obj["metadata"]["name"] = name
    assert (validation.validate_create(kinds.SERVICES, obj) == []) is sound


NODE_PORT = {**ADDRESSED, "type": "NodePort"}
HEADLESS = {**BASE, "clusterIP": "None", "clusterIPs": ["None"]}
BALANCED = {**ADDRESSED, "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999}
UPDATE: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": (ADDRESSED, ADDRESSED, []),
    "ports": (ADDRESSED, {**ADDRESSED, "ports": [port(81)]}, []),
    "to a node port": (ADDRESSED, NODE_PORT, []),
    "to an external name and back": (ADDRESSED, {"type": "ExternalName", "externalName": "a.b"}, []),
    "from an external name": ({"type": "ExternalName", "externalName": "a.b"}, ADDRESSED, []),
    "address": (
        ADDRESSED,
        {**ADDRESSED, "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]},
        ['spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set'],
    ),
    "address given up": (
        ADDRESSED,
        BASE,
        [
            "spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset",
            "spec.ipFamilies[0]: Invalid value: []: primary ipFamily can not be unset",
        ],
    ),
    "to headless": (
        ADDRESSED,
        HEADLESS,
        ['spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set'],
    ),
    "headless stays": (HEADLESS, HEADLESS, []),
    "second family gained": (ADDRESSED, DUAL, []),
    "second family lost by policy": (DUAL, {**ADDRESSED, "ipFamilyPolicy": "SingleStack"}, []),
    "second family lost without": (
        DUAL,
        ADDRESSED,
        [
            "spec.ipFamilyPolicy: Invalid value: null: must be set to 'SingleStack' when releasing the secondary "
            "clusterIP",
            "spec.ipFamilyPolicy: Invalid value: null: must be set to 'SingleStack' when releasing the secondary "
            "ipFamily",
        ],
    ),
    "first family": (
        {**BASE, "ipFamilies": ["IPv4"]},
        {**BASE, "ipFamilies": ["IPv6"]},
        ['spec.ipFamilies[0]: Invalid value: ["IPv6"]: may not change once set'],
    ),
    "load balancer's class": (
        {**BALANCED, "loadBalancerClass": "a/b"},
        {**BALANCED, "loadBalancerClass": "a/c"},
        ['spec.loadBalancerClass: Invalid value: "a/c": may not change once set'],
    ),
    "load balancer's class goes with the type": ({**BALANCED, "loadBalancerClass": "a/b"}, NODE_PORT, []),
    "health check port": (
        BALANCED,
        {**BALANCED, "healthCheckNodePort": 30998},
        ["spec.healthCheckNodePort: Forbidden: field is immutable"],
    ),
    "an address of looser times is kept": (
        {**BASE, "externalIPs": ["010.0.0.1"]},
        {**BASE, "externalIPs": ["010.0.0.1"]},
        [],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), UPDATE.values(), ids=UPDATE)
def test_update(old, new, expected) -> None:
    """What may change in a Service and what may not."""
    assert [str(e) for e in validation.validate_update(kinds.SERVICES, service(new), service(old))] == expected


STATUS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "address": ("LoadBalancer", {"ip": "192.0.2.1", "ipMode": "Proxy"}, []),
    "name": ("LoadBalancer", {"hostname": "lb.example.com"}, []),
    "no mode": (
        "LoadBalancer",
        {"ip": "192.0.2.1"},
        ["status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set"],
    ),
    "mode": (
        "LoadBalancer",
        {"ip": "192.0.2.1", "ipMode": "NAT"},
        ['status.loadBalancer.ingress[0].ipMode: Unsupported value: "NAT": supported values: "Proxy", "VIP"'],
    ),
    "mode of nothing": (
        "LoadBalancer",
        {"hostname": "a.b", "ipMode": "VIP"},
        ["status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set"],
    ),
    "address as a name": (
        "LoadBalancer",
        {"hostname": "192.0.2.1"},
        ['status.loadBalancer.ingress[0].hostname: Invalid value: "192.0.2.1": must be a DNS name, not an IP address'],
    ),
    "no load balancer": (
        "ClusterIP",
        {"hostname": "a.b"},
        ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"],
    ),
}


@pytest.mark.parametrize(("kind", "ingress", "expected"), STATUS.values(), ids=STATUS)
def test_status(kind, ingress, expected) -> None:
    """What a load balancer may report."""
    old = {"metadata": META, "spec": {**BASE, "type": kind}}
    new = {**old, "status": {"loadBalancer": {"ingress": [ingress]}}}
    assert [str(e) for e in validation.validate_status_update(kinds.SERVICES, new, old)] == expected
