"""Environment variables: upstream's table for Services, and the rules of env and envFrom."""

from __future__ import annotations

from typing import Any

import pytest
from immutables import Map

from fairlead.discovery.model import Service, ServiceKey, ServicePort, ServiceSnapshot
from fairlead.kubelet.environment import (
    EnvironmentProblem,
    Sources,
    container_environment,
    references,
    service_environment,
)


def service(name: str, ip: str, *ports: tuple[str, int, str], namespace: str = "ns", headless: bool = False) -> Service:
    return Service(
        ServiceKey(namespace, name),
        cluster_ips=(ip,) if ip else (),
        headless=headless,
        ports=tuple(ServicePort(port_name, protocol, number, number) for port_name, number, protocol in ports),
    )


def snapshot(*services: Service, synced: bool = True) -> ServiceSnapshot:
    return ServiceSnapshot(services=Map({s.key: s for s in services}), synced=synced)


def test_upstreams_table() -> None:
    """pkg/kubelet/envvars: named and unnamed ports, several protocols, headless and address-less left out."""
    found = service_environment(
        snapshot(
            service("foo-bar", "1.2.3.4", ("", 8080, "TCP")),
            service("abc-123", "5.6.7.8", ("u-d-p", 8081, "UDP"), ("t-c-p", 8081, "TCP")),
            service("q-u-u-x", "9.8.7.6", ("", 8082, "TCP"), ("8083", 8083, "TCP")),
            service("svrc-clusterip-none", "", ("", 8082, "TCP"), headless=True),
            service("svrc-clusterip-empty", "", ("", 8082, "TCP")),
        ),
        "ns",
    )
    assert sorted(found) == sorted(
        {
            "FOO_BAR_SERVICE_HOST": "1.2.3.4",
            "FOO_BAR_SERVICE_PORT": "8080",
            "FOO_BAR_PORT": "tcp://1.2.3.4:8080",
            "FOO_BAR_PORT_8080_TCP": "tcp://1.2.3.4:8080",
            "FOO_BAR_PORT_8080_TCP_PROTO": "tcp",
            "FOO_BAR_PORT_8080_TCP_PORT": "8080",
            "FOO_BAR_PORT_8080_TCP_ADDR": "1.2.3.4",
            "ABC_123_SERVICE_HOST": "5.6.7.8",
            "ABC_123_SERVICE_PORT": "8081",
            "ABC_123_SERVICE_PORT_U_D_P": "8081",
            "ABC_123_SERVICE_PORT_T_C_P": "8081",
            "ABC_123_PORT": "udp://5.6.7.8:8081",
            "ABC_123_PORT_8081_UDP": "udp://5.6.7.8:8081",
            "ABC_123_PORT_8081_UDP_PROTO": "udp",
            "ABC_123_PORT_8081_UDP_PORT": "8081",
            "ABC_123_PORT_8081_UDP_ADDR": "5.6.7.8",
            "ABC_123_PORT_8081_TCP": "tcp://5.6.7.8:8081",
            "ABC_123_PORT_8081_TCP_PROTO": "tcp",
            "ABC_123_PORT_8081_TCP_PORT": "8081",
            "ABC_123_PORT_8081_TCP_ADDR": "5.6.7.8",
            "Q_U_U_X_SERVICE_HOST": "9.8.7.6",
            "Q_U_U_X_SERVICE_PORT": "8082",
            "Q_U_U_X_SERVICE_PORT_8083": "8083",
            "Q_U_U_X_PORT": "tcp://9.8.7.6:8082",
            "Q_U_U_X_PORT_8082_TCP": "tcp://9.8.7.6:8082",
            "Q_U_U_X_PORT_8082_TCP_PROTO": "tcp",
            "Q_U_U_X_PORT_8082_TCP_PORT": "8082",
            "Q_U_U_X_PORT_8082_TCP_ADDR": "9.8.7.6",
            "Q_U_U_X_PORT_8083_TCP": "tcp://9.8.7.6:8083",
            "Q_U_U_X_PORT_8083_TCP_PROTO": "tcp",
            "Q_U_U_X_PORT_8083_TCP_PORT": "8083",
            "Q_U_U_X_PORT_8083_TCP_ADDR": "9.8.7.6",
        }.items()
    )


def test_the_seven_variables_of_redis_master() -> None:
    """The documentation's example, in upstream's order."""
    found = service_environment(snapshot(service("redis-master", "10.0.0.11", ("", 6379, "TCP"))), "ns")
    assert found == [
        ("REDIS_MASTER_SERVICE_HOST", "10.0.0.11"),
        ("REDIS_MASTER_SERVICE_PORT", "6379"),
        ("REDIS_MASTER_PORT", "tcp://10.0.0.11:6379"),
        ("REDIS_MASTER_PORT_6379_TCP", "tcp://10.0.0.11:6379"),
        ("REDIS_MASTER_PORT_6379_TCP_PROTO", "tcp"),
        ("REDIS_MASTER_PORT_6379_TCP_PORT", "6379"),
        ("REDIS_MASTER_PORT_6379_TCP_ADDR", "10.0.0.11"),
    ]


def test_ipv6_is_bracketed_in_urls_only() -> None:
    """SERVICE_HOST and _ADDR are bare."""
    found = dict(service_environment(snapshot(service("six", "fd00::1", ("", 80, "TCP"))), "ns"))
    assert found["SIX_SERVICE_HOST"] == found["SIX_PORT_80_TCP_ADDR"] == "fd00::1"
    assert found["SIX_PORT"] == found["SIX_PORT_80_TCP"] == "tcp://[fd00::1]:80"


MASTER = service("kubernetes", "10.96.0.1", ("https", 443, "TCP"), namespace="default")
OWN_MASTER = service("kubernetes", "10.9.9.9", ("https", 443, "TCP"))
WEB, ELSEWHERE = service("web", "10.0.0.2", ("", 80, "TCP")), service("far", "10.0.0.3", ("", 80, "TCP"), namespace="x")


@pytest.mark.parametrize(
    ("links", "services", "hosts"),
    [
        (True, (MASTER, WEB, ELSEWHERE), {"KUBERNETES": "10.96.0.1", "WEB": "10.0.0.2"}),
        (False, (MASTER, WEB, ELSEWHERE), {"KUBERNETES": "10.96.0.1"}),
        (True, (MASTER, OWN_MASTER), {"KUBERNETES": "10.9.9.9"}),
        (False, (MASTER, OWN_MASTER), {"KUBERNETES": "10.96.0.1"}),
        (True, (), {}),
    ],
)
def test_which_services_a_pod_is_told_of(links: bool, services: tuple[Service, ...], hosts: dict[str, str]) -> None:
    """Its namespace's if links are on; the API server's always; a Service `kubernetes` of its own wins with links."""
    found = dict(service_environment(snapshot(*services), "ns", links))
    suffix = "_SERVICE_HOST"
    assert {k.removesuffix(suffix): v for k, v in found.items() if k.endswith(suffix)} == hosts


def test_an_unsynced_snapshot_is_refused() -> None:
    """Absence would say nothing."""
    with pytest.raises(ValueError, match="not been listed"):
        service_environment(snapshot(synced=False), "ns")


POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"app": "web"}, "annotations": {"a/b": "c"}},
    "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": []},
    "status": {"podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}, {"ip": "fd00::1"}], "hostIP": "172.16.0.1"},
}


def environment(container: dict[str, Any], sources: Sources | None = None, **services: str) -> dict[str, str]:
    found = container_environment(
        POD, {"name": "c", **container}, list(services.items()), sources or Sources(), {"cpu": "4", "memory": "8Gi"}
    )
    return dict(found.variables)


def test_explicit_entries_win_and_are_expanded_in_order() -> None:
    """A later entry sees the earlier; service variables are seen; `$$` escapes; the unknown stays."""
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(WEB_SERVICE_HOST)-$(C)-$$(A)"},
        {"name": "C", "value": "late"},
        {"name": "WEB_SERVICE_PORT", "value": "mine"},
    ]
    found = environment({"env": env}, WEB_SERVICE_HOST="10.0.0.2", WEB_SERVICE_PORT="80")
    assert found["B"] == "1-10.0.0.2-$(C)-$(A)"
    assert found["WEB_SERVICE_PORT"] == "mine"
    assert found["WEB_SERVICE_HOST"] == "10.0.0.2"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u1"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['a/b']", "c"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "10.1.1.1"),
        ("status.podIPs", "10.1.1.1,fd00::1"),
        ("status.hostIP", "172.16.0.1"),
    ],
)
def test_field_refs(path: str, value: str) -> None:
    """Every field that the downward API offers to variables."""
    assert environment({"env": [{"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}) == {"F": value}


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ({"resource": "requests.cpu"}, "1"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "limits.cpu"}, "4"),
    ],
)
def test_resource_field_refs(ref: dict[str, str], value: str) -> None:
    """Rounded up to the divisor; a limit that is not set is the node's."""
    resources = {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}
    env = [{"name": "R", "valueFrom": {"resourceFieldRef": ref}}]
    assert environment({"env": env, "resources": resources}) == {"R": value}


SOURCES = Sources(
    {"cm": {"data": {"color": "blue", "not a name": "x"}}, "gone": None}, {"sec": {"k": b"s3cret"}, "gone": None}
)


def test_config_maps_and_secrets() -> None:
    """By key and whole, with a prefix; an explicit entry wins over envFrom; names that are none are left out."""
    container = {
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "sec"}}],
        "env": [
            {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "color"}}},
            {"name": "TWO", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
            {"name": "k", "value": "mine"},
            {"name": "NOPE", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k", "optional": True}}},
        ],
    }
    found = environment(container, SOURCES)
    assert found["ONE"] == found["P_color"] == "blue"
    assert found["TWO"] == "s3cret"
    assert found["k"] == "mine"
    assert "NOPE" not in found
    assert references(container) == ({"cm"}, {"sec", "gone"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "gone", "key": "k"}}, 'configmap "gone" not found'),
        ({"secretKeyRef": {"name": "gone", "key": "k"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "no"}}, "couldn't find key no in ConfigMap ns/cm"),
        ({"secretKeyRef": {"name": "sec", "key": "no"}}, "couldn't find key no in Secret ns/sec"),
        ({"fieldRef": {"fieldPath": "spec.hostname"}}, "unsupported fieldPath: spec.hostname"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    """In upstream's words."""
    with pytest.raises(EnvironmentProblem) as caught:
        environment({"env": [{"name": "X", "valueFrom": source}]}, SOURCES)
    assert str(caught.value) == message
