"""A cluster's description: what is accepted, and how what is not is said."""

from pathlib import Path

import pytest

from fairlead.cluster import config as configuration
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.errors import ClusterError


def test_addresses_follow_from_the_networks() -> None:
    """The API server, the nodes and the well-known Services have fixed places."""
    config = ClusterConfig(lan="172.29.7.0/24", nodes=3)
    assert (config.host_ip, config.api_ip) == ("172.29.7.1", "172.29.7.2")
    assert [config.node_ip(n) for n in config.node_names] == ["172.29.7.11", "172.29.7.12", "172.29.7.13"]
    assert (config.kubernetes_ip, config.dns_ip) == ("10.96.0.1", "10.96.0.10")


def test_a_dual_cluster_has_two_of_each() -> None:
    """The second family's addresses have the place of the first's."""
    config = ClusterConfig(lan="172.29.7.0/24", ip_family="dual")
    assert config.lan6 == "fd00:ac1d:7::/64"
    assert config.addresses_of(config.node_ip("n2")) == ("172.29.7.12", "fd00:ac1d:7::c")
    assert config.service_cidrs == ("10.96.0.0/16", "fd00:10:96::/112")
    assert config.ip_families == ("IPv4", "IPv6")
    assert ClusterConfig(lan="172.29.7.0/24").addresses_of("172.29.7.12") == ("172.29.7.12",)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ClusterConfig(name="Bad_Name"), "'Bad_Name' is not a cluster name"),
        (ClusterConfig(name="x" * 31), "is not a cluster name"),
        (ClusterConfig(nodes=0), "--nodes 0 is not possible"),
        (
            ClusterConfig(signing_duration=10),
            "--cluster-signing-duration 10s is too short to renew certificates in time",
        ),
        (ClusterConfig(nodes=2, pod_cidr="10.244.0.0/24"), "no /24 for each of 2 nodes"),
        (ClusterConfig(pod_cidr="10.96.0.0/12"), "overlap"),
        (ClusterConfig(service_cidr="10.96.0.1/16"), "is not an IPv4 network"),
        (ClusterConfig(service_cidr="10.96.0.0/30"), "too small"),
        (ClusterConfig(node_port_range=(100, 50)), "--service-node-port-range 100-50"),
        (ClusterConfig(ip_family="dual", pod_cidr6="fd00::/64"), "no /64 for each of 2 nodes"),
        (ClusterConfig(ip_family="dual", pod_cidr6="10.0.0.0/8"), "--cluster-cidr '10.0.0.0/8' is not an IPv6 network"),
        (ClusterConfig(ip_family="dual", service_cidr6="fd00:10:244::/112"), "overlap"),
        (ClusterConfig(ip_family="dual", service_cidr6="fd00:1::/126"), "not of a usable size"),
        (ClusterConfig(store="mysql"), "--store mysql is not supported"),
        (ClusterConfig(store="etcd://"), "is no etcd address"),
        (ClusterConfig(store="etcd:localhost"), "is no etcd address"),
        (ClusterConfig(etcd_cafile="/x"), "--etcd-cafile is for etcd, and --store is sqlite"),
        (ClusterConfig(store="etcd://a", etcd_certfile="/x"), "--etcd-certfile without --etcd-cafile"),
        (ClusterConfig(store="etcd://a", etcd_cafile="/x", etcd_keyfile="/y"), "go together"),
        (ClusterConfig(store="etcd://a", etcd_cafile="ca.pem"), "is not an absolute path"),
        (ClusterConfig(lan="10.244.3.0/24"), "overlaps 10.244.0.0/16"),
    ],
)
def test_what_is_wrong_is_named_by_its_flag(config: ClusterConfig, words: str) -> None:
    """Each inconsistent description is refused with the flag and the value."""
    with pytest.raises(ClusterError, match=words):
        configuration.check(config)


def test_a_description_survives_its_file(tmp_path: Path) -> None:
    """save and load are inverse, and the file is its owner's."""
    config = ClusterConfig(name=tmp_path.name.replace("_", "-")[:30].strip("-"), lan="172.29.1.0/24")
    directory = tmp_path / config.name
    directory.mkdir()
    configuration.save(config, directory / "cluster.json")
    assert configuration.load(directory / "cluster.json") == config
    assert (directory / "cluster.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        '{"name": 5}',
        '{"name": "lab"}',
        '{"name": "lab", "lan": "x"}',
        '{"name": "lab", "colour": "red"}',
        '{"version": 9, "name": "lab"}',
    ],
)
def test_a_corrupt_file_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    """Whatever is in the file: an error in one line that names it and says how to go on."""
    (tmp_path / "lab").mkdir()
    file = tmp_path / "lab" / "cluster.json"
    file.write_text(text)
    with pytest.raises(ClusterError) as raised:
        configuration.load(file)
    assert str(file) in str(raised.value)
    assert "fairlead down --name lab" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_load_balancers_pool() -> None:
    """By default the end of the LAN, after the last node there can be; `none` is empty; with two families, both."""
    config = ClusterConfig(lan="172.29.7.0/24", nodes=200)
    assert str(config.balancer_pool) == "172.29.7.211-172.29.7.254"
    assert config.node_ip("n200") == "172.29.7.210"
    assert not ClusterConfig(load_balancer_pool="none").balancer_pool
    dual = ClusterConfig(lan="172.29.7.0/24", ip_family="dual")
    assert str(dual.balancer_pool) == "172.29.7.211-172.29.7.254, fd00:ac1d:7::1:0/112"
    assert str(ClusterConfig(load_balancer_pool="192.0.2.0/28").balancer_pool) == "192.0.2.0/28"


@pytest.mark.parametrize(
    ("pool", "more", "words"),
    [
        ("x", {}, "--load-balancer-pool: 'x' is no range of addresses"),
        ("10.96.3.0/24", {}, "overlaps 10.96.0.0/16, where pods or Services are"),
        ("fd00:1::/120", {}, "has IPv6 addresses; add --ip-family dual"),
        ("172.29.7.1-172.29.7.9", {"lan": "172.29.7.0/24"}, "contains 172.29.7.1, which is the cluster's own"),
    ],
)
def test_a_pool_that_is_not_possible(pool: str, more: dict[str, str], words: str) -> None:
    """Refused with the flag and the way out."""
    with pytest.raises(ClusterError, match=words):
        configuration.check(ClusterConfig(load_balancer_pool=pool, **more))
