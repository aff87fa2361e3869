"""What can be set about the proxy. Names are kube-proxy's where kube-proxy has the setting."""

from __future__ import annotations

from typing import Literal

import msgspec

DetectLocal = Literal["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]
Place = tuple[str, int]
Mode = Literal["nftables", "iptables", "ipvs"]
Accelerate = Literal["", "socket"]

PRIMARY = "primary"


class ProxyOptions(msgspec.Struct, frozen=True):
    """Settings of the proxy on one node.

    `detect_local` (--detect-local-mode): how traffic of this node's pods is told from other; a client that is no pod is
    masqueraded when it uses a ClusterIP. ClusterCIDR: its address is in `cluster_cidrs` (--cluster-cidr). NodeCIDR: in
    the Node's podCIDRs. BridgeInterface, InterfaceNamePrefix: it comes by the link `local_interface`, or by one whose
    name begins so. With nothing to go by (no CIDRs), no client is masqueraded and no client is a pod.
    `service_cidrs`: where ClusterIPs are, beside the ranges of the API's ServiceCIDRs; packets to those of no Service
    are dropped. None at all: they go where the routes say. `masquerade_all`, `masquerade_bit`: as in kube-proxy.
    `node_port_addresses` (--nodeport-addresses): where node ports are served: `primary` (the Node's own internal
    addresses, the first of each family), addresses, or CIDRs (every address of the node in them). With
    `localhost_node_ports` CIDRs that hold 127.0.0.0/8 mean that, too; it needs the sysctl route_localnet.
    `health_check_node_ports`: answer the health checks of load balancers. `ipvs_scheduler`, `ipvs_strict_arp`: for the
    mode ipvs. `accelerate`: `socket` lets sockets of pods connect to endpoints by themselves where that is just what
    the rules would do; `accelerate_group`: the control group (version 2) of the pods; empty: the kubelet's, or all.
    `endpoints_elsewhere`: (address, port) of endpoints that belong to no node → where they are from here: the API
    server's, for a node in another network.
    """

    node_name: str
    cluster_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    masquerade_all: bool = False
    masquerade_bit: int = 14
    node_port_addresses: tuple[str, ...] = (PRIMARY,)
    localhost_node_ports: bool = False
    detect_local: DetectLocal = "ClusterCIDR"
    local_interface: str = ""
    manage_sysctls: bool = True
    health_check_node_ports: bool = True
    ipvs_scheduler: str = "rr"
    ipvs_strict_arp: bool = False
    accelerate: Accelerate = ""
    accelerate_group: str = ""
    endpoints_elsewhere: tuple[tuple[Place, Place], ...] = ()
