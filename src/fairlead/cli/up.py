"""fairlead up"""

from __future__ import annotations

import sys
import time
from typing import Any, Literal

import click

from fairlead.cli import flags as flagged
from fairlead.cli.progress import Progress
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.errors import ClusterError

_DEFAULT = ClusterConfig()


@click.command(name="up")
@click.option("--name", default=_DEFAULT.name, show_default=True, help="The cluster's name; several can run at once.")
@click.option("--nodes", type=int, default=_DEFAULT.nodes, show_default=True, help="How many nodes.")
@click.option(
    "--proxy-mode", type=click.Choice(["nftables", "iptables", "ipvs"]), default="nftables", show_default=True
)
@click.option(
    "--accelerate",
    type=click.Choice(["socket"]),
    help="socket: pods' sockets connect to endpoints by themselves (BPF); the rules stay.",
)
@click.option(
    "--store",
    default=_DEFAULT.store,
    show_default=True,
    help="Where objects are kept: sqlite, memory or etcd://HOST:PORT[,HOST:PORT…][/PREFIX].",
)
@click.option("--etcd-cafile", default="", help="TLS to etcd: the authority of its certificate.")
@click.option("--etcd-certfile", default="", help="TLS to etcd: the certificate to show it.")
@click.option("--etcd-keyfile", default="", help="TLS to etcd: that certificate's key.")
@click.option(
    "--ip-family",
    type=click.Choice(["ipv4", "dual"]),
    default="ipv4",
    show_default=True,
    help="Addresses of pods and Services: IPv4 only, or both (IPv4 first).",
)
@click.option(
    "--cluster-cidr",
    "pod_cidr",
    default=_DEFAULT.pod_cidr,
    show_default=True,
    help=f"The pods' network; with dual a pair, IPv4 first ({_DEFAULT.pod_cidr},{_DEFAULT.pod_cidr6}).",
)
@click.option(
    "--service-cluster-ip-range",
    "service_cidr",
    default=_DEFAULT.service_cidr,
    show_default=True,
    help=f"The Services' network; with dual a pair ({_DEFAULT.service_cidr},{_DEFAULT.service_cidr6}).",
)
@click.option("--service-node-port-range", "node_port_range", default="30000-32767", show_default=True)
@click.option("--cluster-domain", default=_DEFAULT.cluster_domain, show_default=True)
@click.option(
    "--api-server-address",
    "api_address",
    default=_DEFAULT.api_address,
    show_default=True,
    help="Where this machine listens for the API; 0.0.0.0 lets machines elsewhere join.",
)
@click.option("--api-server-port", "api_port", type=click.IntRange(1, 65535), help="Its port; default: any.")
@click.option(
    "--apiserver-cert-extra-sans", "api_sans", default="", help="More names and addresses the API is reached by: A,B."
)
@click.option(
    "--cluster-signing-duration",
    "signing_duration",
    metavar="DURATION",
    default="8760h",
    show_default=True,
    help="How long certificates of nodes last; nodes renew them.",
)
@click.option("--egress/--no-egress", default=True, show_default=True, help="Pods reach what this machine reaches.")
@click.option(
    "--load-balancer-pool",
    metavar="RANGES",
    default=_DEFAULT.load_balancer_pool,
    show_default=True,
    help="Addresses of Services of type LoadBalancer: CIDRs and ranges A-B; auto: a part of the cluster's LAN; none.",
)
@click.option("--ingress/--no-ingress", default=True, show_default=True, help="Serve Ingresses and Gateways.")
@click.option(
    "--publish",
    "-p",
    multiple=True,
    metavar="[IP:]PORT:[SVC[.NS]:]PORT",
    help="This machine's port for a Service (default: the cluster's ingress), e.g. 8080:80, 5432:db.shop:5432; /udp.",
)
@click.option(
    "--localhost-node-ports/--no-localhost-node-ports",
    default=True,
    show_default=True,
    help="Node ports on 127.0.0.1, too.",
)
@click.option("--host-routes", is_flag=True, help="This machine reaches ClusterIPs and pods by their addresses.")
@click.option("--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds until ready.")
@click.option("--dashboard", is_flag=True, help="Then serve the live page until Ctrl-C; the cluster stays.")
def command(
    *,
    wait: float,
    dashboard: bool,
    node_port_range: str,
    api_port: int | None,
    accelerate: Literal["socket"] | None,
    signing_duration: str,
    **flags: Any,
) -> None:
    """Start a cluster on this machine, or one that was stopped, with the state it had."""
    import fairlead.cli.dns
    import fairlead.cli.ingress  # noqa: F401  (the pods of both are forked with it in memory)
    from fairlead.cluster import lifecycle

    ctx = click.get_current_context()
    began = time.monotonic()
    try:
        pairs = _split_pairs(flags)
        flags["api_sans"] = tuple(name for name in flags["api_sans"].split(",") if name)
        config = ClusterConfig(
            node_port_range=_range(node_port_range),
            api_port=api_port or 0,
            accelerate=accelerate or "",
            signing_duration=int(flagged.seconds("--cluster-signing-duration", signing_duration)),
            **flags,
        )
        given = pairs | {
            name
            for name in ctx.params
            if name not in ("wait", "dashboard")
            and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        }
        with Progress(sys.stderr) as progress:
            made = lifecycle.up(config, given, wait, progress.step)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    config = made.config
    verb = "is back" if made.resumed else "is up"
    print(f"Cluster {config.name!r} {verb}: {config.nodes} nodes, ready in {time.monotonic() - began:.1f} s.")
    print(f"kubectl uses it now (context {config.context} in {made.kubeconfig}).")
    if config.ingress:
        _say_without_haproxy()
    name = "" if config.name == _DEFAULT.name else f" --name {config.name}"
    print(f"Look around: kubectl get pods -A -o wide, or fairlead dashboard.  Remove it: fairlead down{name}")
    if dashboard:
        from fairlead.cli.dashboard import command as serve

        sys.stdout.flush()
        ctx.invoke(serve, port=0, browser=False, name=config.name, kubeconfig=None)


def _say_without_haproxy() -> None:
    from fairlead.ingress.haproxy.process import DataPlaneError, find_program

    try:
        find_program()
    except DataPlaneError as error:
        print(f"Ingresses and Gateways are not served yet: {error}; the pod fairlead-ingress then starts by itself.")


def _split_pairs(flags: dict[str, Any]) -> frozenset[str]:
    """`A,B` of the ranges' flags are the ranges of two families. Gives the fields that were set so."""
    found = set()
    for field, flag in (("pod_cidr", "--cluster-cidr"), ("service_cidr", "--service-cluster-ip-range")):
        first, comma, second = str(flags[field]).partition(",")
        if comma:
            if flags["ip_family"] != "dual":
                raise ClusterError(f"{flag} {flags[field]} has two networks", "add --ip-family dual, or give one")
            flags[field], flags[f"{field}6"] = first.strip(), second.strip()
            found.add(f"{field}6")
    return frozenset(found)


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not (dash and low.isdigit() and high.isdigit()):
        raise ClusterError(f"--service-node-port-range {text!r} is no range of ports", "use e.g. 30000-32767")
    return int(low), int(high)
