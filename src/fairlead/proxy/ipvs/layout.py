"""What no Service changes in ipvs mode: the names and types of the IP sets, and the iptables rules that ask them. Pure.

In kube-proxy's manner (pkg/proxy/ipvs): all that depends on a Service is an element of a set, so that the rules are few
and stand still. Sets and not rules of nftables, since kernels for ipvs are often older than nftables' sets. Drops stand
in the table mangle, before ipvs translates; refusals are ipvs' own: a virtual server without destinations refuses.
Invariant: a function of the family, the options and this node's place in the cluster only.
"""

from __future__ import annotations

import socket

from fairlead.linux.ipset import LONGEST_NAME
from fairlead.linux.iptables import Words
from fairlead.proxy.iptables.layout import (
    FIREWALL,
    FORWARD,
    MARK_MASQ,
    NAT,
    POSTROUTING,
    SERVICES,
    Bag,
    comment,
    fixed,
    from_pods,
    jump,
)
from fairlead.proxy.iptables.layout import is_ours as is_of_iptables
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, NodePlace

LINK = "kube-ipvs0"
MANGLE, FILTER = "mangle", "filter"
TABLES = (MANGLE, NAT, FILTER)

CLUSTER_IP, EXTERNAL_IP, EXTERNAL_LOCAL = "CLUSTER-IP", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL"
NO_LOCAL, NO_LOCAL_INTERNAL = "NO-LOCAL", "NO-LOCAL-INTERNAL"
BALANCER_FIREWALL, BALANCER_SOURCES = "LOAD-BALANCER-FW", "LOAD-BALANCER-SOURCE-CIDR"
LOOP_BACK, IPS = "LOOP-BACK", "IPVS-IPS"

TYPES = {
    CLUSTER_IP: "hash:ip,port",  # cluster IPs
    EXTERNAL_IP: "hash:ip,port",  # external IPs, load balancers' IPs, node ports: everybody is masqueraded
    EXTERNAL_LOCAL: "hash:ip,port",  # the same under the policy Local: the node itself is masqueraded
    NO_LOCAL: "hash:ip,port",  # … without local endpoints: only pods and the node itself get through
    NO_LOCAL_INTERNAL: "hash:ip,port",  # cluster IPs under internalTrafficPolicy Local without local endpoints
    BALANCER_FIREWALL: "hash:ip,port",  # load balancers' IPs that are not for everybody
    BALANCER_SOURCES: "hash:ip,port,net",  # whom they are for
    LOOP_BACK: "hash:ip,port,ip",  # endpoints: one that reaches itself is masqueraded
    IPS: "hash:ip",  # all virtual IPs: what is no Service there is refused, not served by the node
}

_NO_LOCAL_CHAIN, _GUARD = "KUBE-NO-LOCAL", "KUBE-IPVS-FILTER"


def is_ours(table: str, chain: str) -> bool:
    """Whether a chain is of this mode, or one that a proxy in iptables mode left."""
    return chain in (_NO_LOCAL_CHAIN, _GUARD) or is_of_iptables(chain)


def is_ours_alone(table: str, chain: str) -> bool:
    """Whether a chain is of this mode and of no other."""
    return is_ours(table, chain) and (table == MANGLE or chain == _GUARD)


def set_name(family: Family, name: str) -> str:
    """KUBE-CLUSTER-IP, for IPv6 KUBE-6-CLUSTER-IP; cut, as kube-proxy does, to what the kernel allows."""
    return (f"KUBE-{name}" if family == "IPv4" else f"KUBE-6-{name}")[:LONGEST_NAME]


def number_of(family: Family) -> int:
    """The family as netfilter has it."""
    return socket.AF_INET if family == "IPv4" else socket.AF_INET6


def _in(family: Family, name: str, fields: str = "dst,dst") -> Words:
    return ("-m", "set", "--match-set", set_name(family, name), fields)


def chains(family: Family, options: ProxyOptions, place: NodePlace) -> dict[Bag, tuple[Words, ...]]:
    """Our chains with their rules."""
    shared = fixed(family, options, place)
    masquerade: list[Words] = []
    note = comment("Kubernetes service cluster ip + port for masquerade purpose")
    local = ("-m", "addrtype", "--src-type", "LOCAL")
    pods = from_pods(family, place)
    cluster_ip = (*_in(family, CLUSTER_IP), *jump(MARK_MASQ))
    if options.masquerade_all:
        masquerade.append((*note, *cluster_ip))
    else:
        if len(pods) == 1:
            masquerade.append(("!", *pods[0], *note, *cluster_ip))
        elif pods:
            masquerade += [(*way, *note, *_in(family, CLUSTER_IP), "-j", "RETURN") for way in pods]
            masquerade.append((*note, *cluster_ip))
        # The node's own packets to a virtual IP may carry that IP as their source.
        masquerade.append((*note, *local, *cluster_ip))
    external = (
        (*comment("Kubernetes external destinations"), *_in(family, EXTERNAL_IP), *jump(MARK_MASQ)),
        (*comment("Kubernetes external destinations"), *local, *_in(family, EXTERNAL_LOCAL), *jump(MARK_MASQ)),
    )
    refuse = "icmp-port-unreachable" if family == "IPv4" else "icmp6-port-unreachable"
    loop = (*comment("Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose"),)
    return {
        Bag(NAT, MARK_MASQ): shared[Bag(NAT, MARK_MASQ)],
        Bag(NAT, SERVICES): (*external, *masquerade),
        Bag(NAT, POSTROUTING): (
            (*loop, *_in(family, LOOP_BACK, "dst,dst,src"), "-j", "MASQUERADE"),
            *shared[Bag(NAT, POSTROUTING)],
        ),
        Bag(FILTER, FORWARD): shared[Bag(FILTER, FORWARD)][1:],
        Bag(FILTER, _GUARD): (
            *((*_in(family, name), "-j", "RETURN") for name in (CLUSTER_IP, EXTERNAL_IP, EXTERNAL_LOCAL)),
            (*_in(family, IPS, "dst"), "-j", "REJECT", "--reject-with", refuse),
        ),
        Bag(MANGLE, FIREWALL): (
            (*_in(family, NO_LOCAL_INTERNAL), "-j", "DROP"),
            (*_in(family, NO_LOCAL), *jump(_NO_LOCAL_CHAIN)),
            (*_in(family, BALANCER_SOURCES, "dst,dst,src"), "-j", "RETURN"),
            (*_in(family, BALANCER_FIREWALL), "-j", "DROP"),
        ),
        Bag(MANGLE, _NO_LOCAL_CHAIN): (
            *((*way, "-j", "RETURN") for way in pods),
            (*local, "-j", "RETURN"),
            ("-j", "DROP"),
        ),
    }


def jumps() -> dict[Bag, tuple[Words, ...]]:
    """The rules in built-in chains that lead to ours."""
    new = ("-m", "conntrack", "--ctstate", "NEW")
    firewall = (*new, *comment("kubernetes load balancer firewall"), *jump(FIREWALL))
    portals = (*comment("kubernetes service portals"), *jump(SERVICES))
    return {
        Bag(MANGLE, "PREROUTING"): (firewall,),
        Bag(MANGLE, "OUTPUT"): (firewall,),
        Bag(NAT, "PREROUTING"): (portals,),
        Bag(NAT, "OUTPUT"): (portals,),
        Bag(NAT, "POSTROUTING"): ((*comment("kubernetes postrouting rules"), *jump(POSTROUTING)),),
        Bag(FILTER, "INPUT"): ((*new, *comment("kubernetes ipvs access filter"), *jump(_GUARD)),),
        Bag(FILTER, "FORWARD"): ((*comment("kubernetes forwarding rules"), *jump(FORWARD)),),
    }
