"""A pod's resolv.conf for every dnsPolicy, dnsConfig, and the limits."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.kubelet.resolvconf import ResolvConf, parse, pod_resolv_conf, render

HOST = parse("# a comment\nnameserver 8.8.8.8\nnameserver 9.9.9.9\nsearch old\nsearch corp.example. .\noptions edns0\n")
CLUSTER = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")


def conf_of(spec: dict[str, Any], host: ResolvConf = HOST, dns: tuple[str, ...] = ("10.96.0.10",)) -> ResolvConf:
    pod = {"metadata": {"name": "p", "namespace": "shop", "uid": "u"}, "spec": spec}
    return pod_resolv_conf(pod, host, dns, "cluster.local")[0]


def test_parse_takes_the_last_search_and_options_line() -> None:
    """Servers accumulate; a trailing dot of a search domain is dropped, a lone dot stays."""
    assert ResolvConf(("8.8.8.8", "9.9.9.9"), ("corp.example", "."), ("edns0",)) == HOST


@pytest.mark.parametrize(
    ("spec", "servers", "searches", "options"),
    [
        ({}, ("10.96.0.10",), (*CLUSTER, "corp.example", "."), ("ndots:5",)),
        ({"dnsPolicy": "ClusterFirst"}, ("10.96.0.10",), (*CLUSTER, "corp.example", "."), ("ndots:5",)),
        (
            {"dnsPolicy": "ClusterFirst", "hostNetwork": True},
            ("8.8.8.8", "9.9.9.9"),
            ("corp.example", "."),
            ("edns0",),
        ),
        (
            {"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True},
            ("10.96.0.10",),
            (*CLUSTER, "corp.example", "."),
            ("ndots:5",),
        ),
        ({"dnsPolicy": "Default"}, ("8.8.8.8", "9.9.9.9"), ("corp.example", "."), ("edns0",)),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}, ("1.1.1.1",), (), ()),
    ],
)
def test_policies(spec: dict[str, Any], servers: tuple[str, ...], searches: tuple[str, ...], options: Any) -> None:
    """The cluster's servers and search path, the node's, or none."""
    assert conf_of(spec) == ResolvConf(servers, searches, options)


def test_dns_config_is_appended_deduplicated_and_overrides_options_by_name() -> None:
    """Order is kept; an option without a value has no colon."""
    extra = {
        "nameservers": ["10.96.0.10", "1.1.1.1"],
        "searches": ["svc.cluster.local", "my.dns"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    found = conf_of({"dnsConfig": extra}, ResolvConf())
    assert found == ResolvConf(("10.96.0.10", "1.1.1.1"), (*CLUSTER, "my.dns"), ("ndots:2", "edns0"))


def test_limits_cut_and_say_so() -> None:
    """3 servers, 32 searches, 2048 characters, 253 per domain; each cut is a DNSConfigForming warning."""
    pod: dict[str, Any] = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"dnsPolicy": "None"}}
    pod["spec"]["dnsConfig"] = {
        "nameservers": [f"1.1.1.{n}" for n in range(5)],
        "searches": [f"d{n}" for n in range(40)],
    }
    conf, warnings = pod_resolv_conf(pod, HOST, (), "cluster.local")
    assert len(conf.nameservers) == 3
    assert len(conf.searches) == 32
    assert [reason for reason, _ in warnings] == ["DNSConfigForming"] * 2
    assert warnings[0][1].endswith("the applied nameserver line is: 1.1.1.0 1.1.1.1 1.1.1.2")
    pod["spec"]["dnsConfig"] = {
        "searches": ["a" * 250 for _ in range(1)] + [f"{n:0240d}" for n in range(20)] + ["b" * 254]
    }
    conf, _ = pod_resolv_conf(pod, HOST, (), "cluster.local")
    assert len(" ".join(conf.searches)) <= 2048
    assert all(len(s) <= 253 for s in conf.searches)


def test_without_cluster_dns_the_nodes_is_used_with_a_warning() -> None:
    """MissingClusterDNS."""
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {}}
    conf, warnings = pod_resolv_conf(pod, HOST, (), "cluster.local")
    assert conf == HOST
    assert warnings[0][0] == "MissingClusterDNS"


def test_render() -> None:
    """search, nameservers, options, as upstream's runtime writes them."""
    assert render(conf_of({}, ResolvConf())) == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
