"""fairlead dns"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="dns")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own service account.")
@click.option("--cluster-domain", default="cluster.local", show_default=True)
@click.option("--listen", default="0.0.0.0", show_default=True, help="Address for UDP and TCP.")
@click.option("--port", type=click.IntRange(0, 65535), default=53, show_default=True)
def command(kubeconfig: Path | None, cluster_domain: str, listen: str, port: int) -> None:
    """Serve the cluster's DNS: its own names from the API's watch, all others from the upstreams in resolv.conf."""
    from fairlead.dns import DNSOptions, serve

    serve(DNSOptions(kubeconfig=kubeconfig, domain=cluster_domain, listen=listen, port=port))
