"""What can be set about the proxy. Names are kube-proxy's where kube-proxy has the setting."""

from __future__ import annotations

import msgspec


class ProxyOptions(msgspec.Struct, frozen=True):
    """Settings of the proxy on one node.

    `cluster_cidrs` (--cluster-cidr): where pods are; a client from elsewhere is masqueraded when it uses a ClusterIP.
    Empty: no client is. `service_cidrs`: where ClusterIPs are; packets to those of no Service are dropped. Empty: they
    go where the routes say. `masquerade_all`, `masquerade_bit`: as in kube-proxy. `node_addresses`: where node ports
    are served; empty: the Node's own internal addresses, the first of each family.
    """

    node_name: str
    cluster_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    masquerade_all: bool = False
    masquerade_bit: int = 14
    node_addresses: tuple[str, ...] = ()
    manage_sysctls: bool = True
