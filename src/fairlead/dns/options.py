"""What the DNS can be told. Stands before everything that acts; values only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the follower follows, and of whom. `kubeconfig` None: the pod's own service account. `endpoint`: the API
    server's URL, with `tls` (certificate, key, authority) if it is https. The selectors are Kubernetes' own syntax;
    empty: everything."""

    kubeconfig: str | Path | None = None
    context: str = ""
    endpoint: str = ""
    tls: tuple[str, str, str] | None = None
    labels: str = ""
    namespace_labels: str = ""
    endpoints: bool = True
    pods: bool = False
    pod_names: bool = False


class DNSOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`config` is a Corefile; without one the server is what `default_corefile` makes of the other options.
    `kubeconfig` None: the pod's own service account. `upstreams` None: the name servers in `resolv_conf`; none at all:
    names outside of the cluster are REFUSED. An upstream is `address`, `address:port` or `tls://address%name`. Port 0
    of health, ready and metrics: none. Times in seconds."""

    config: str | Path | None = None
    listen: str = "0.0.0.0"
    port: int = 53
    domain: str = "cluster.local"
    kubeconfig: str | Path | None = None
    upstreams: tuple[str, ...] | None = None
    resolv_conf: str = "/etc/resolv.conf"
    ttl: int = 5
    pods: Literal["disabled", "insecure", "verified"] = "insecure"
    autopath: bool = False  # needs pods verified
    udp_size: int = 1232  # the most that is sent over UDP; more goes over TCP
    health_port: int = 8080
    ready_port: int = 8181
    metrics_port: int = 0
    own_addresses: tuple[str, ...] | None = None  # None: found out
    table_size: int = 20_000  # answers remembered in each of two generations
    max_concurrent: int = 1000  # forwarded queries under way; one more is REFUSED
    max_connections: int = 1000  # TCP clients at once; one more is closed
    lame_duck: float = 0.5  # how long to go on answering after SIGTERM
    share_port: bool = False  # another server of the same user may have it too: to hand over at a restart
    workers: int = 1  # answering processes that share the port
