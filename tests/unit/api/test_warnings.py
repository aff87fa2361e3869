"""Warnings: what is said of objects that are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.warnings import warnings_for

Object = dict[str, Any]
HIDES = 'hides previous definition of "a", which may be dropped when using apply'


def service(annotations: Object | None = None, **spec: Any) -> Object:
    """A Service as stored."""
    base = {"type": "ClusterIP", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "sessionAffinity": "None"}
    return {"metadata": {"name": "s", "annotations": annotations or {}}, "spec": base | spec}


HEADLESS = {"clusterIP": "None", "clusterIPs": ["None"]}
SERVICES = [
    (service(), []),
    (service(externalIPs=["1.2.3.4"]), ["spec.externalIPs is deprecated"]),
    (service(**HEADLESS, sessionAffinity="ClientIP"), ["spec.SessionAffinity is ignored for headless services"]),
    (
        service(**HEADLESS, externalIPs=["1.2.3.4"]),
        ["spec.externalIPs is ignored for headless services", "spec.externalIPs is deprecated"],
    ),
    (
        service(externalIPs=["010.0.0.1"]),
        [
            "spec.externalIPs is deprecated",
            'spec.externalIPs[0]: non-standard IP address "010.0.0.1" will be considered invalid in a future '
            'Kubernetes release: use "10.0.0.1"',
        ],
    ),
    (
        service(clusterIPs=["2001:db8:0:0::1"]),
        ['spec.clusterIPs[0]: IPv6 address "2001:db8:0:0::1" should be in RFC 5952 canonical format ("2001:db8::1")'],
    ),
    (
        service(type="LoadBalancer", loadBalancerSourceRanges=["10.1.2.3/16"]),
        [
            'spec.loadBalancerSourceRanges[0]: CIDR value "10.1.2.3/16" is ambiguous in this context (should be '
            '"10.1.0.0/16" or "10.1.2.3/32"?)'
        ],
    ),
    (
        service({"service.kubernetes.io/topology-aware-hints": "Auto"}),
        [
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use "
            "service.kubernetes.io/topology-mode instead"
        ],
    ),
    (service(externalName="x.y"), ['spec.externalName is ignored when spec.type is not "ExternalName"']),
    (
        service(trafficDistribution="PreferClose"),
        ['spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'],
    ),
    (service(trafficDistribution="PreferSameZone"), []),
]


@pytest.mark.parametrize(("obj", "expected"), SERVICES)
def test_services(obj: Object, expected: list[str]) -> None:
    """What is ignored, deprecated, or written oddly."""
    assert warnings_for(kinds.SERVICES, obj) == expected


ENVS = [
    ([{"name": "a", "value": "1"}, {"name": "b"}], []),
    ([{"name": "a", "value": "1"}, {"name": "a", "value": "1"}], [f"env[1]: {HIDES}"]),
    ([{"name": "a", "value": "1"}, {"name": "a", "value": "$(a)"}], [f"env[1]: {HIDES}"]),
    ([{"name": "a", "value": "1"}, {"name": "a", "value": "$(a)2"}], []),
    ([{"name": "a", "value": "1"}, {"name": "a", "valueFrom": {}}], [f"env[1]: {HIDES}"]),
]


@pytest.mark.parametrize(("env", "expected"), ENVS)
def test_environment_variables_given_twice(env: list[Object], expected: list[str]) -> None:
    """In pods and in templates; not when the second is built on the first."""
    spec = {"containers": [{"name": "c", "env": env}]}
    found = warnings_for(kinds.PODS, {"metadata": {}, "spec": spec})
    assert found == [f"spec.containers[0].{text}" for text in expected]
    found = warnings_for(kinds.DEPLOYMENTS, {"metadata": {}, "spec": {"template": {"spec": spec}}})
    assert found == [f"spec.template.spec.containers[0].{text}" for text in expected]


PORTS = [
    ({"containerPort": 80}, {"containerPort": 81}, ""),
    ({"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}, ""),
    ({"containerPort": 80}, {"containerPort": 80}, "duplicate"),
    ({"containerPort": 80}, {"containerPort": 80, "hostPort": 9}, "overlapping"),
    ({"containerPort": 80, "hostPort": 9, "hostIP": "1.1.1.1"}, {"containerPort": 80, "hostPort": 9}, "dangerously"),
    ({"containerPort": 80, "hostPort": 8}, {"containerPort": 80, "hostPort": 9}, ""),
]


@pytest.mark.parametrize(("one", "other", "word"), PORTS)
def test_ports_given_twice(one: Object, other: Object, word: str) -> None:
    """Across all containers of the pod."""
    spec = {"initContainers": [{"name": "i", "ports": [one]}], "containers": [{"name": "c", "ports": [other]}]}
    found = warnings_for(kinds.PODS, {"metadata": {}, "spec": spec})
    assert len(found) == bool(word)
    if word:
        assert found[0].startswith(f"spec.containers[0].ports[0]: {word}")
        assert found[0].endswith("port definition with spec.initContainers[0].ports[0]")


def test_old_names_in_pods() -> None:
    """Labels and annotations that have successors."""
    pod = {
        "metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "x"}},
        "spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1},
    }
    assert [text.partition(": ")[0] for text in warnings_for(kinds.PODS, pod)] == [
        "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]",
        "spec.nodeSelector[beta.kubernetes.io/os]",
        "spec.terminationGracePeriodSeconds",
    ]


def test_every_use_of_endpoints() -> None:
    """The kind itself is deprecated; its addresses are looked at too."""
    found = warnings_for(kinds.ENDPOINTS, {"metadata": {}, "subsets": [{"addresses": [{"ip": "10.0.0.01"}]}]})
    assert found[0] == "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
    assert found[1].startswith("subsets[0].addresses[0].ip: non-standard IP address")
