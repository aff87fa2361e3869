"""fairlead loadbalancer"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fairlead.announce.standalone import Role, Settings
    from fairlead.client import Client

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@click.command(name="loadbalancer")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own service account.")
@click.option(
    "--pool",
    required=True,
    metavar="RANGES",
    help="The addresses to give: CIDRs and ranges A-B, separated by commas, of networks that the nodes are on.",
)
@click.option(
    "--role",
    type=click.Choice(["controller", "speaker", "both"]),
    default="both",
    show_default=True,
    help="The controller gives addresses (one of several copies at a time); a speaker on each node answers for them.",
)
@click.option("--hostname-override", "node", metavar="NODE", help="The Node's name; default: this machine's.")
@click.option("--interface", "interfaces", multiple=True, metavar="LINK", help="Answer at these links only.")
@click.option("--namespace", help="Of the Lease and the Secret; default: the pod's own, else kube-system.")
@click.option(
    "--announce-key-file",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The key that the nodes sign with, instead of the Secret's; the same on every node.",
)
@click.option("--only-class", is_flag=True, help="Leave Services alone that name no loadBalancerClass.")
@click.option("-v", "--v", "verbosity", type=int, default=2, show_default=True, help="Log level; from 4 on more.")
def command(
    *,
    kubeconfig: Path | None,
    pool: str,
    role: Role,
    node: str | None,
    interfaces: tuple[str, ...],
    namespace: str | None,
    key_file: Path | None,
    only_class: bool,
    verbosity: int,
) -> None:
    """Give Services of type LoadBalancer an address of the LAN, and answer for it, where MetalLB would."""
    import uvloop

    from fairlead.announce.standalone import Settings
    from fairlead.api.addresspool import parse_pool
    from fairlead.api.errors import StatusError

    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        addresses = parse_pool(pool)
    except ValueError as error:
        raise click.ClickException(f"--pool: {error}") from error
    try:
        key = key_file.read_bytes().strip() if key_file else b""
    except OSError as error:
        raise click.ClickException(f"--announce-key-file {key_file}: {error.strerror}") from error
    if key_file and len(key) < 16:
        raise click.ClickException(f"--announce-key-file {key_file} holds no key: at least 16 bytes are needed")
    settings = Settings(
        pool=addresses,
        role=role,
        node=(node or os.environ.get("NODE_NAME") or socket.gethostname()).lower(),
        interfaces=interfaces,
        namespace=namespace or _own_namespace(),
        key=key,
        only_class=only_class,
    )
    try:
        uvloop.run(_main(settings, kubeconfig))
    except PermissionError as error:
        raise click.ClickException(f"{error.strerror}: run it as root, or with that capability") from None
    except BaseExceptionGroup as errors:
        refused = errors.subgroup(StatusError)
        if refused is None:
            raise
        raise click.ClickException(str(_first(refused))) from errors


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors within errors, the first."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _main(settings: Settings, kubeconfig: Path | None) -> None:
    from fairlead.announce import standalone

    async with _client(kubeconfig) as client:
        task = asyncio.create_task(standalone.serve(client, settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _client(kubeconfig: Path | None) -> Client:
    from fairlead.client import Client, ConfigError

    try:
        if kubeconfig:
            return Client.from_kubeconfig(kubeconfig, user_agent="fairlead-loadbalancer")
        return Client.in_cluster(user_agent="fairlead-loadbalancer")
    except ConfigError as error:
        raise click.ClickException(f"{error} (flag --kubeconfig)") from error


def _own_namespace() -> str:
    try:
        return _NAMESPACE.read_text().strip()
    except OSError:
        return "kube-system"
