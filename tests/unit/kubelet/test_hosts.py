"""Host names and /etc/hosts of pods."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.kubelet.hosts import (
    HostnameProblem,
    kernel_hostname,
    pod_hostname,
    render_host_network_hosts,
    render_hosts,
)


def pod(name: str = "web-0", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (pod(), ("web-0", "")),
        (pod(hostname="a"), ("a", "")),
        (pod(hostname="a", subdomain="b"), ("a", "b.shop.svc.cluster.local")),
        (pod(subdomain="b"), ("web-0", "b.shop.svc.cluster.local")),
        (pod(hostname="a", subdomain="b", hostnameOverride="mine"), ("mine", "")),
        (pod("x" * 62 + ".y-tail"), ("x" * 62, "")),
    ],
)
def test_names(subject: dict[str, Any], expected: tuple[str, str]) -> None:
    """The pod's name cut to 63 characters, unless spec says otherwise; a subdomain makes a full name."""
    assert pod_hostname(subject, "cluster.local") == expected


def test_fqdn_as_hostname() -> None:
    """setHostnameAsFQDN, which Linux limits to 64 characters."""
    subject = pod(setHostnameAsFQDN=True, subdomain="b")
    assert kernel_hostname(subject, "web-0", "b.shop.svc.cluster.local") == "web-0.b.shop.svc.cluster.local"
    assert kernel_hostname(pod(), "web-0", "b.shop.svc.cluster.local") == "web-0"
    with pytest.raises(HostnameProblem, match="is too long"):
        kernel_hostname(subject, "x" * 40, "b.shop.svc.cluster.local")


def test_the_managed_file() -> None:
    """The header, loopback, each address with the full name first, and aliases."""
    text = render_hosts(
        ("10.1.0.5", "fd00::5"), "web-0", "b.shop.svc.cluster.local", [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]
    )
    lines = text.splitlines()
    assert lines[0] == "# Kubernetes-managed hosts file."
    assert "127.0.0.1\tlocalhost" in lines
    assert "10.1.0.5\tweb-0.b.shop.svc.cluster.local\tweb-0" in lines
    assert "fd00::5\tweb-0.b.shop.svc.cluster.local\tweb-0" in lines
    assert lines[-2:] == ["# Entries added by HostAliases.", "1.2.3.4\tx\ty"]


def test_the_nodes_file_for_host_network() -> None:
    """Copied under its own header."""
    assert render_host_network_hosts("127.0.0.1 localhost\n") == (
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
    )
