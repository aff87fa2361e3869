"""fairlead dns"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="dns")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own service account.")
@click.option("--config", type=click.Path(path_type=Path), help="A Corefile; it says all that the options below say.")
@click.option("--cluster-domain", default="cluster.local", show_default=True)
@click.option("--listen", help="Address for UDP and TCP. Default: 0.0.0.0; with --config both families.")
@click.option("--port", type=click.IntRange(0, 65535), default=53, show_default=True)
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    help="ADDRESS[:PORT] or tls://ADDRESS%NAME. Default: those of resolv.conf.",
)
@click.option("--pods", type=click.Choice(["disabled", "insecure", "verified"]), help="Pods' names. Default: insecure.")
@click.option("--autopath", is_flag=True, help="Answer a pod's whole search path at once; follows all pods.")
@click.option("--ttl", type=click.IntRange(0, 3600), default=5, show_default=True)
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=0, help="For Prometheus. Default: none.")
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes on the port.")
@click.option("--share-port", is_flag=True, help="Another server may have it too: to hand over at a restart.")
@click.option("--check", is_flag=True, help="Read the configuration, say what is wrong with it, and end.")
def command(
    *,
    kubeconfig: Path | None,
    config: Path | None,
    cluster_domain: str,
    listen: str | None,
    port: int,
    upstreams: tuple[str, ...],
    pods: str | None,
    autopath: bool,
    ttl: int,
    metrics_port: int,
    workers: int,
    share_port: bool,
    check: bool,
) -> None:
    """Serve the cluster's DNS: its own names from the API's watch, all others from the upstreams in resolv.conf."""
    from fairlead.dns import DNSOptions, serve

    if autopath and pods not in {None, "verified"}:
        raise click.UsageError("--autopath needs --pods verified")
    options = DNSOptions(
        kubeconfig=kubeconfig,
        config=config,
        domain=cluster_domain,
        listen=listen or ("0.0.0.0" if config is None else "::"),
        port=port,
        upstreams=upstreams or None,
        pods="verified" if autopath else pods or "insecure",  # type: ignore[arg-type]
        autopath=autopath,
        ttl=ttl,
        metrics_port=metrics_port,
        workers=workers,
        share_port=share_port,
    )
    if not check:
        serve(options)
        return
    from fairlead.dns.answering import configuration
    from fairlead.dns.serving import DNSError

    try:
        configuration(options)
    except DNSError as error:
        raise click.ClickException(str(error)) from None
