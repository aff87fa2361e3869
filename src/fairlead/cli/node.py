"""fairlead node"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from fairlead.cli.progress import Progress
from fairlead.cluster.errors import ClusterError

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@click.group(name="node")
def command() -> None:
    """Let machines elsewhere join a cluster, or leave it."""


@command.group("token")
def token() -> None:
    """The tokens that let a machine in."""


@token.command("create")
@click.option("--ttl", default="24h", show_default=True, help="How long it is good: 1h30m, 90s; 0 for ever.")
@click.option("--description", default="", help="What it is for.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: $KUBECONFIG, or ~/.kube/config.")
def create(ttl: str, description: str, kubeconfig: Path | None) -> None:
    """Make a token, and print the command that joins with it."""
    from fairlead.api.errors import StatusError
    from fairlead.client.config import ConfigError

    try:
        print(asyncio.run(_create(_duration(ttl), description, kubeconfig)))
    except (StatusError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


@command.command("join")
@click.argument("server", metavar="https://API:PORT")
@click.option("--token", required=True, help="From fairlead node token create.")
@click.option("--ca-hash", required=True, help="sha256:… of the cluster's authority, printed with the token.")
@click.option(
    "--external-ip",
    default="auto",
    show_default=True,
    help="The address others reach this machine at; auto: the one the cluster sees.",
)
@click.option(
    "--network", default="", help="Its network's name, the same for all who share its LAN; default: found out."
)
@click.option("--node-name", help="Default: this machine's name.")
@click.option(
    "--no-encryption", is_flag=True, help="Pods' traffic may leave the LAN as it is, to nodes that say so too."
)
@click.option(
    "--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds until Ready; 0: at once."
)
def join(server: str, node_name: str | None, no_encryption: bool, wait: float, **flags: Any) -> None:
    """Make this machine a node of a cluster that is elsewhere."""
    import fairlead.cli.dns  # noqa: F401  (DNS pods may come here: they are forked with it in memory)
    from fairlead.cluster import member

    began = time.monotonic()
    name = node_name or socket.gethostname().lower()
    wish = member.Wish(server=server, node=name, encrypt=not no_encryption, **flags)
    try:
        with Progress(sys.stderr) as progress:
            made = member.join(wish, wait, progress.step)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    place = f"in network {made.network}" if made.network else "on the cluster's LAN"
    state = "Ready in" if wait else "started in"
    print(f"This machine is node {name} of {made.server}, {place}, {state} {time.monotonic() - began:.1f} s.")
    print(f"Leave again: fairlead node leave --node-name {name}")


@command.command("start")
@click.option("--node-name", default="", help="Which, if this machine is several.")
@click.option(
    "--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds until Ready; 0: at once."
)
def start(node_name: str, wait: float) -> None:
    """Start the node again, after a reboot: with the identity and the pods it had."""
    import fairlead.cli.dns  # noqa: F401
    from fairlead.cluster import member

    try:
        layout, which = member.the_one(node_name)
        with Progress(sys.stderr) as progress:
            member.start(layout, which, wait, progress.step)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    print(f"Node {which.node} of {which.server} is {'Ready' if wait else 'started'}.")


@command.command("leave")
@click.option("--node-name", default="", help="Which, if this machine is several.")
@click.option("--force", is_flag=True, help="Also if the cluster can't be told.")
def leave(node_name: str, force: bool) -> None:
    """End the node and its pods, delete its Node, and remove everything of it from this machine."""
    from fairlead.cluster import member

    try:
        layout, which = member.the_one(node_name)
        unsaid = member.leave(layout, which, force=force)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    if unsaid:
        print(f"fairlead: the cluster was not told ({unsaid})", file=sys.stderr)
    print(f"Node {which.node} has left {which.server}.")


async def _create(lifetime: timedelta, description: str, kubeconfig: Path | None) -> str:
    import base64

    import yaml

    from fairlead.api.errors import StatusError
    from fairlead.api.kinds import CONFIGMAPS, SECRETS
    from fairlead.apiserver import pki
    from fairlead.client import Client
    from fairlead.cluster import invitation
    from fairlead.registry.requests import utc_now

    made = invitation.new_token()
    async with Client.from_kubeconfig(kubeconfig) as client:
        try:
            info = await client.get(CONFIGMAPS, invitation.INFO, "kube-public")
        except StatusError as error:
            if error.code != 404:
                raise
            raise click.ClickException(
                f"{client.server} has no ConfigMap kube-public/{invitation.INFO}: it is no cluster of fairlead up"
            ) from error
        cluster = yaml.safe_load(info["data"]["kubeconfig"])["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"])
        await client.create(SECRETS, invitation.token_secret(made, lifetime, description, utc_now()))
        return f"fairlead node join {cluster['server']} --token {made} --ca-hash {pki.ca_hash(authority)}"


def _duration(text: str) -> timedelta:
    if text == "0":
        return timedelta(0)
    match = _DURATION.fullmatch(text)
    parts = [int(part or 0) for part in match.groups()] if match else []
    if not any(parts):
        raise click.BadParameter(f"{text!r} is no duration: write it like 24h, 1h30m, 90s, or 0", param_hint="--ttl")
    return timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2])
