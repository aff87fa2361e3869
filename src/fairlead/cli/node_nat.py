"""fairlead node-nat"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fairlead.podnetwork.translationkeeper import Form


@click.group(name="node-nat", invoke_without_command=True)
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own service account.")
@click.option("--hostname-override", metavar="NODE", help="The Node's name; default: this machine's.")
@click.option("--form", type=click.Choice(["nftables", "iptables"]), default="nftables", show_default=True)
@click.option("--cleanup", is_flag=True, help="Remove the rules of either form, and end.")
def command(kubeconfig: Path | None, hostname_override: str | None, form: Form, cleanup: bool) -> None:
    """Lead the InternalIPs of nodes in other networks to their ExternalIPs, in any cluster.

    Which nodes share a network is said by their label fairlead.dev/network. Ends on SIGTERM; the rules stay.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    import uvloop

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if cleanup:
            from fairlead.podnetwork import translationkeeper

            translationkeeper.clean()
            return
        uvloop.run(_main(kubeconfig, hostname_override or socket.gethostname().lower(), form))
    except OSError as error:
        hint = "; it needs CAP_NET_ADMIN: run it as root" if isinstance(error, PermissionError) else ""
        raise click.ClickException(f"{error}{hint}") from error


@command.command("render")
@click.option("-f", "--filename", "file", type=click.File(), required=True, help="Nodes as YAML; - for stdin.")
@click.option("--hostname-override", "node", metavar="NODE", required=True, help="The Node whose rules are wanted.")
@click.option("--form", type=click.Choice(["nftables", "iptables"]), default="nftables", show_default=True)
def render(file: Any, node: str, form: Form) -> None:
    """Print the rules for the Nodes in a file; touch no kernel."""
    import yaml

    from fairlead.discovery.parse import parse_node
    from fairlead.podnetwork.translations import TABLES, plan_translations, render_text

    try:
        documents = [document for document in yaml.safe_load_all(file) if isinstance(document, dict)]
    except yaml.YAMLError as error:
        raise click.ClickException(f"{file.name}: {error}") from error
    objects = [item for document in documents for item in document.get("items") or [document]]
    nodes = {parsed.name: parsed for obj in objects if obj.get("kind") == "Node" for parsed in [parse_node(obj)]}
    if node not in nodes:
        raise click.ClickException(f"{file.name} has no Node named {node} (there is: {', '.join(nodes) or 'none'})")
    planned = [plan_translations(node, nodes, version=version) for version in TABLES]
    for wanted in filter(None, planned) if any(planned) else planned[:1]:
        if form == "iptables":
            click.echo("# iptables-restore --noflush" if wanted.version == 4 else "# ip6tables-restore --noflush")
        click.echo(render_text(wanted, form), nl=False)


async def _main(kubeconfig: Path | None, node: str, form: Form) -> None:
    from fairlead.client import Client
    from fairlead.client.config import ConfigError
    from fairlead.podnetwork import nodenat

    try:
        client = Client.from_kubeconfig(kubeconfig) if kubeconfig is not None else Client.in_cluster()
    except ConfigError as error:
        raise click.ClickException(f"{error}; use --kubeconfig") from error
    async with client:
        task = asyncio.create_task(nodenat.run(client, node, form))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
