"""What the DNS can be told. Stands before everything that acts; values only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec


class DNSOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`kubeconfig` None: the pod's own service account. `upstreams` None: the name servers in `resolv_conf`; none at
    all: names outside of the cluster are REFUSED. An upstream is `address` or `address:port`. Port 0 of health and
    ready: none. Times in seconds."""

    listen: str = "0.0.0.0"
    port: int = 53
    domain: str = "cluster.local"
    kubeconfig: str | Path | None = None
    upstreams: tuple[str, ...] | None = None
    resolv_conf: str = "/etc/resolv.conf"
    ttl: int = 5
    pods: Literal["disabled", "insecure"] = "insecure"
    udp_size: int = 1232  # the most that is sent over UDP; more goes over TCP
    health_port: int = 8080
    ready_port: int = 8181
    own_addresses: tuple[str, ...] | None = None  # None: found out
    table_size: int = 20_000  # answers remembered in each of two generations
    max_concurrent: int = 1000  # forwarded queries under way; one more is REFUSED
    max_connections: int = 1000  # TCP clients at once; one more is closed
    lame_duck: float = 0.5  # how long to go on answering after SIGTERM
