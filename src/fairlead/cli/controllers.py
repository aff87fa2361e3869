"""fairlead controllers"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairlead.cli import flags as flagged

if TYPE_CHECKING:
    from fairlead.client.config import Connection
    from fairlead.cluster.standalone import Controlling

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="controllers")
@click.option("--kubeconfig", type=_FILE, help="Default: the pod's own service account.")
@click.option(
    "--leader-elect/--no-leader-elect", default=True, show_default=True, help="One of several works at a time."
)
@click.option("--leader-elect-lease-duration", metavar="DURATION", default="15s", show_default=True)
@click.option("--leader-elect-renew-deadline", metavar="DURATION", default="10s", show_default=True)
@click.option("--leader-elect-retry-period", metavar="DURATION", default="2s", show_default=True)
@click.option("--leader-elect-resource-name", metavar="NAME", default="fairlead-controllers", show_default=True)
@click.option("--leader-elect-resource-namespace", metavar="NAME", default="kube-system", show_default=True)
@click.option("--cluster-cidr", metavar="CIDR[,CIDR]", default="10.244.0.0/16", show_default=True)
@click.option("--node-cidr-mask-size", type=click.IntRange(8, 30), default=24, show_default=True)
@click.option("--service-cluster-ip-range", metavar="CIDR[,CIDR]", default="10.96.0.0/16", show_default=True)
@click.option("--root-ca-file", type=_FILE, help="Goes into kube-root-ca.crt; default: the kubeconfig's authority.")
@click.option("--cluster-signing-cert-file", type=_FILE, help="Signs approved CertificateSigningRequests.")
@click.option("--cluster-signing-key-file", type=_FILE)
@click.option("--cluster-signing-duration", metavar="DURATION", default="8760h", show_default=True)
@click.option("--apiserver-address", metavar="IP:PORT", help="Of the API server; default: as its Lease says.")
@click.option("-v", "--v", "verbosity", type=int, default=2, show_default=True, help="Log level.")
def command(kubeconfig: Path | None, verbosity: int, **flags: Any) -> None:
    """Run the controllers and the scheduler, in any cluster of `fairlead apiserver`s. Ends on SIGTERM."""
    import uvloop

    from fairlead.cluster.controlplane import start_logging

    start_logging(debug=verbosity >= 4)
    try:
        connection = _connection(kubeconfig)
        uvloop.run(_control(connection, _controlling(flags, connection)))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from error


async def _control(connection: Connection, controlling: Controlling) -> None:
    from fairlead.client import Client
    from fairlead.cluster import standalone
    from fairlead.cluster.controlplane import stop_event

    async with Client.from_connection(connection, "fairlead-controllers") as client:
        await standalone.control(client, controlling, stop_event())


def _connection(kubeconfig: Path | None) -> Connection:
    from fairlead.client import config

    try:
        return config.from_kubeconfig(kubeconfig) if kubeconfig else config.in_cluster()
    except config.ConfigError as error:
        raise click.ClickException(f"{error} (flag --kubeconfig)") from error


def _controlling(flags: dict[str, Any], connection: Connection) -> Controlling:
    from fairlead.apiserver.pki import BadCredentials, KeyPair, verify_pair
    from fairlead.client.lease import Timing
    from fairlead.cluster.signing import Signer
    from fairlead.cluster.standalone import Controlling
    from fairlead.controllers import ControllerOptions

    names = ("lease_duration", "renew_deadline", "retry_period")
    timing = Timing(
        *(flagged.seconds(f"--leader-elect-{n.replace('_', '-')}", flags[f"leader_elect_{n}"]) for n in names)
    )
    if flags["leader_elect"] and (problem := timing.problem()):
        raise click.UsageError(f"--leader-elect-…: {problem}")
    certificate, key = flags["cluster_signing_cert_file"], flags["cluster_signing_key_file"]
    if bool(certificate) != bool(key):
        raise click.UsageError("--cluster-signing-cert-file and --cluster-signing-key-file go together")
    lasts = flagged.seconds("--cluster-signing-duration", flags["cluster_signing_duration"])
    if not lasts:
        raise click.UsageError("--cluster-signing-duration must be more than 0s")
    signer = None
    if certificate:
        pair = KeyPair(certificate.read_bytes(), key.read_bytes())
        signer = Signer(pair, timedelta(seconds=lasts))
        try:
            verify_pair(pair)
        except BadCredentials as error:
            raise click.ClickException(f"{certificate} and {key}: {error}") from error
    services = flagged.networks("--service-cluster-ip-range", flags["service_cluster_ip_range"])
    pods = flagged.networks("--cluster-cidr", flags["cluster_cidr"])
    host, port = "", 6443
    if flags["apiserver_address"]:
        host, port = flagged.address_and_port("--apiserver-address", flags["apiserver_address"])
    options = ControllerOptions(
        advertise_address=host,
        advertise_port=port,
        service_cidr=services[0],
        cluster_cidr=pods[0],
        secondary_service_cidr=services[1] if len(services) > 1 else "",
        secondary_cluster_cidr=pods[1] if len(pods) > 1 else "",
        node_mask=flags["node_cidr_mask_size"],
        ca_pem=flags["root_ca_file"].read_text() if flags["root_ca_file"] else connection.authority,
    )
    return Controlling(
        options=options,
        timing=timing if flags["leader_elect"] else None,
        lease=flags["leader_elect_resource_name"],
        namespace=flags["leader_elect_resource_namespace"],
        signer=signer,
    )
