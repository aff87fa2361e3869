"""fairlead proxy"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fairlead.client import Client
    from fairlead.proxy.config import Settings


def _shared(function: Any) -> Any:
    """The flags that decide about the rules."""
    for option in reversed(
        [
            click.option("--proxy-mode", "--mode", "mode", metavar="MODE", help="Default: nftables."),
            click.option("--hostname-override", metavar="NODE", help="The Node's name; default: this machine's."),
            click.option("--cluster-cidr", metavar="CIDRS", help="Where pods are; who is elsewhere is masqueraded."),
            click.option(
                "--service-cluster-ip-range", metavar="CIDRS", help="Drop packets to what no Service has here."
            ),
            click.option(
                "--detect-local-mode", metavar="MODE", help="ClusterCIDR (default), NodeCIDR, BridgeInterface …"
            ),
            click.option("--pod-bridge-interface", metavar="LINK", help="For BridgeInterface."),
            click.option("--pod-interface-name-prefix", metavar="PREFIX", help="For InterfaceNamePrefix."),
            click.option("--nodeport-addresses", metavar="CIDRS", help="Where node ports are served, or: primary."),
            click.option("--masquerade-all", is_flag=True, default=None, help="Masquerade everybody at ClusterIPs."),
            click.option("--iptables-masquerade-bit", type=click.IntRange(0, 31), help="Of the mark; default: 14."),
            click.option("--iptables-localhost-nodeports/--no-iptables-localhost-nodeports", default=None),
            click.option("--ipvs-scheduler", metavar="NAME", help="rr (default), wrr, lc, wlc, sh, mh …"),
            click.option("--ipvs-strict-arp", is_flag=True, default=None),
            click.option("--config", type=click.Path(path_type=Path), help="A KubeProxyConfiguration; flags go first."),
        ]
    ):
        function = option(function)
    return function


def _tuning(function: Any) -> Any:
    """kube-proxy's flags that only tune what this proxy does otherwise: taken, so that its command line is."""
    from fairlead.proxy.config import TUNING_FLAGS

    for flag in TUNING_FLAGS:
        function = click.option(f"--{flag}", hidden=True)(function)
    return function


@click.group(name="proxy", invoke_without_command=True)
@_shared
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own service account.")
@click.option("--accelerate", metavar="KIND", help="socket: pods' sockets connect to endpoints by themselves (BPF).")
@click.option("--accelerate-cgroup", metavar="DIRECTORY", help="Of the pods (cgroup2); default: the kubelet's, or all.")
@click.option("--oneshot", is_flag=True, help="Make the rules as things are now, and end.")
@click.option("--cleanup", is_flag=True, help="Remove every rule of any mode, and end.")
@click.option("--healthz-bind-address", metavar="ADDRESS:PORT", help="Default: 0.0.0.0:10256; empty: none.")
@click.option("--metrics-bind-address", metavar="ADDRESS:PORT", help="Default: 127.0.0.1:10249; empty: none.")
@click.option("--bind-address-hard-fail", is_flag=True, default=None, help="End if one of these is taken.")
@click.option("--oom-score-adj", type=click.IntRange(-1000, 1000), help="Of this process; default: as it was started.")
@click.option("--conntrack-max-per-core", type=click.IntRange(0), help="0 leaves the kernel's.")
@click.option("--conntrack-min", type=click.IntRange(0))
@click.option("--conntrack-tcp-timeout-established", metavar="DURATION")
@click.option("--conntrack-tcp-timeout-close-wait", metavar="DURATION")
@click.option("--conntrack-tcp-be-liberal", is_flag=True, default=None)
@click.option("--conntrack-udp-timeout", metavar="DURATION")
@click.option("--conntrack-udp-timeout-stream", metavar="DURATION")
@_tuning
@click.option(
    "-v", "--v", "verbosity", type=int, default=2, show_default=True, help="Log level; from 4 on every change."
)
def command(kubeconfig: Path | None, oneshot: bool, cleanup: bool, verbosity: int, **flags: Any) -> None:
    """Keep this node's rules for Services, in kube-proxy's place. Ends on SIGTERM; the rules stay."""
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None:
        given = [
            name for name in ctx.params if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        ]
        if given:
            raise click.UsageError(f"write --{given[0].replace('_', '-')} after {ctx.invoked_subcommand}", ctx)
        return
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    import uvloop

    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if cleanup:
            from fairlead.proxy import backends

            backends.cleanup()
            return
        uvloop.run(_main(_settings(flags), kubeconfig, oneshot))
    except OSError as error:
        hint = "; it needs CAP_NET_ADMIN: run it as root" if isinstance(error, PermissionError) else ""
        raise click.ClickException(f"{error}{hint}") from error


@command.command("render")
@_shared
@click.option(
    "-f", "--filename", "file", type=click.File(), required=True, help="Services, EndpointSlices, Nodes as YAML."
)
def render(file: Any, **flags: Any) -> None:
    """Print the rules for the objects in a file (- for stdin); touch no kernel."""
    import yaml

    from fairlead.proxy.standalone import render_state

    settings = _settings(flags)
    try:
        text = render_state(settings, list(yaml.safe_load_all(file)))
    except (ValueError, yaml.YAMLError) as error:
        raise click.ClickException(f"{file.name}: {error}") from error
    click.echo(text, nl=False)


async def _main(settings: Settings, kubeconfig: Path | None, oneshot: bool) -> None:
    from fairlead.proxy import standalone

    async with _client(kubeconfig or settings.kubeconfig) as client:
        if oneshot and settings.options.accelerate:
            raise click.ClickException("--accelerate lasts as long as the proxy runs: leave it or --oneshot out")
        if oneshot:
            count = await standalone.once(settings, client)
            click.echo(f"{count} Services, mode {settings.mode}")
            return
        task = asyncio.create_task(standalone.serve(settings, client))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _client(kubeconfig: Path | str) -> Client:
    from fairlead.client import Client, ConfigError

    try:
        if kubeconfig:
            return Client.from_kubeconfig(kubeconfig, user_agent="fairlead-proxy")
        return Client.in_cluster(user_agent="fairlead-proxy")
    except ConfigError as error:
        raise click.ClickException(f"{error} (flag --kubeconfig)") from error


def _settings(flags: dict[str, Any]) -> Settings:
    """What the file says, changed by the flags that were given."""
    from msgspec.structs import replace

    from fairlead.proxy import config

    try:
        file: Path | None = flags["config"]
        settings = config.Settings()
        if file is not None:
            try:
                settings = config.parse_configuration(file.read_text())
            except OSError as error:
                raise config.ConfigurationError(error.strerror or "cannot be read") from None
            except config.ConfigurationError as error:
                raise config.ConfigurationError(f"{file}: {error}") from None
        changes: dict[str, Any] = {}

        def change(flag: str, field: str, read: Any = lambda value: value) -> None:
            if flags.get(flag) is not None:
                changes[field] = read(flags[flag])

        change("mode", "mode")
        change("healthz_bind_address", "health", lambda v: config.parse_bind("--healthz-bind-address", v, 10256))
        change("metrics_bind_address", "metrics", lambda v: config.parse_bind("--metrics-bind-address", v, 10249))
        change("bind_address_hard_fail", "must_bind")
        change("oom_score_adj", "oom_score_adj")
        given = [flag for flag in config.TUNING_FLAGS if flags.get(flag.replace("-", "_")) is not None]
        changes["notes"] = (*settings.notes, *config.tuning_notes(given))
        settings = replace(settings, **changes)
        changes = {}
        change("conntrack_max_per_core", "per_core")
        change("conntrack_min", "least")
        for flag, field in (
            ("conntrack_tcp_timeout_established", "tcp_established"),
            ("conntrack_tcp_timeout_close_wait", "tcp_close_wait"),
            ("conntrack_udp_timeout", "udp"),
            ("conntrack_udp_timeout_stream", "udp_stream"),
        ):
            change(flag, field, lambda v, flag=flag: config.parse_duration(f"--{flag.replace('_', '-')}", v))
        change("conntrack_tcp_be_liberal", "tcp_be_liberal")
        settings = replace(settings, tracking=settings.tracking._replace(**changes))
        changes = {}
        change("hostname_override", "node_name", str.lower)
        change("cluster_cidr", "cluster_cidrs", lambda v: config.parse_cidrs("--cluster-cidr", v))
        change(
            "service_cluster_ip_range", "service_cidrs", lambda v: config.parse_cidrs("--service-cluster-ip-range", v)
        )
        change("detect_local_mode", "detect_local", config.check_detect_local)
        change("pod_bridge_interface", "local_interface")
        change("pod_interface_name_prefix", "local_interface")
        change("nodeport_addresses", "node_port_addresses", lambda v: config.check_addresses(v.split(",")))
        change("masquerade_all", "masquerade_all")
        change("iptables_masquerade_bit", "masquerade_bit")
        change("ipvs_scheduler", "ipvs_scheduler")
        change("ipvs_strict_arp", "ipvs_strict_arp")
        change("accelerate", "accelerate", config.check_accelerate)
        change("accelerate_cgroup", "accelerate_group")
        if file is None and settings.mode == "iptables":
            changes["localhost_node_ports"] = True  # as kube-proxy's iptables mode, unless told otherwise
        change("iptables_localhost_nodeports", "localhost_node_ports")
        settings = replace(settings, options=replace(settings.options, **changes))
        return config.complete(settings, lambda: os.environ.get("NODE_NAME", "") or socket.gethostname())
    except config.ConfigurationError as error:
        raise click.ClickException(str(error)) from error
