"""fairlead ingress"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click


@click.command(name="ingress")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own service account.")
@click.option("--context", default="", help="Of the kubeconfig. Default: its current one.")
@click.option(
    "--controller-class", default="fairlead.dev/ingress", show_default=True, help="Controller of the classes."
)
@click.option("--ingress-class", default="fairlead", show_default=True, help="What kubernetes.io/ingress.class says.")
@click.option("--watch-ingress-without-class", is_flag=True, help="Also serve Ingresses that name no class.")
@click.option("--http-port", type=click.IntRange(1, 65535), default=80, show_default=True)
@click.option("--https-port", type=click.IntRange(1, 65535), default=443, show_default=True)
@click.option("--public-http-port", type=click.IntRange(1, 65535), default=80, show_default=True, help="Clients' view.")
@click.option("--public-https-port", type=click.IntRange(1, 65535), default=443, show_default=True)
@click.option("--listen", default="", help="Address. Default: all, of both families.")
@click.option(
    "--publish-service", default="", help="NAMESPACE/NAME of the Service whose addresses are shown in status."
)
@click.option("--publish-status-address", "addresses", multiple=True, help="Or this address, or name.")
@click.option("--default-ssl-certificate", default="", help="NAMESPACE/NAME of the Secret shown when no other fits.")
@click.option("--hostname-override", "node", default="", help="The node this runs on, for traffic distribution.")
@click.option(
    "--health-port", type=click.IntRange(0, 65535), default=10254, show_default=True, help="/healthz; 0: none"
)
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), default=0, help="HAProxy's, for Prometheus. Default: none."
)
@click.option("--threads", type=click.IntRange(1, 64), default=2, show_default=True, help="HAProxy's.")
@click.option("--max-connections", type=click.IntRange(100, 1_000_000), default=20_000, show_default=True)
@click.option("--access-log", is_flag=True, help="A line for each request, on standard output.")
@click.option("--leader-elect", is_flag=True, help="Of several replicas let one write statuses and Events.")
@click.option("--gateways/--no-gateways", default=True, show_default=True, help="Serve Gateway API where it is.")
@click.option(
    "--print-gateway-definitions", "definitions", is_flag=True, help="Print the kinds of Gateway API, and end."
)
@click.option("--directory", type=click.Path(path_type=Path), default="/run/fairlead-ingress", show_default=True)
def command(
    *,
    kubeconfig: Path | None,
    context: str,
    controller_class: str,
    ingress_class: str,
    watch_ingress_without_class: bool,
    http_port: int,
    https_port: int,
    public_http_port: int,
    public_https_port: int,
    listen: str,
    publish_service: str,
    addresses: tuple[str, ...],
    default_ssl_certificate: str,
    node: str,
    health_port: int,
    metrics_port: int,
    threads: int,
    max_connections: int,
    access_log: bool,
    leader_elect: bool,
    gateways: bool,
    definitions: bool,
    directory: Path,
) -> None:
    """Serve Ingresses and Gateways by an HAProxy, in any cluster."""
    from fairlead.ingress.haproxy.config import Settings
    from fairlead.ingress.ingresses import Classes
    from fairlead.ingress.options import IngressOptions
    from fairlead.ingress.serve import IngressError, serve

    if definitions:
        _print_definitions()
        return
    if publish_service and addresses:
        raise click.UsageError("--publish-service and --publish-status-address exclude each other")
    ports = [port for port in (http_port, https_port, health_port, metrics_port) if port]
    if len(set(ports)) < len(ports):
        raise click.UsageError("two of the ports are the same")
    if gateways and not publish_service:
        click.echo("Gateways are not served: they need --publish-service", err=True)
    options = IngressOptions(
        classes=Classes(controller_class, ingress_class, watch_ingress_without_class),
        http_port=http_port,
        https_port=https_port,
        public_http=public_http_port,
        public_https=public_https_port,
        publish=_pair("--publish-service", publish_service),
        addresses=addresses,
        default_certificate=_pair("--default-ssl-certificate", default_ssl_certificate),
        node=node,
        settings=Settings(
            directory=str(directory.absolute()),
            threads=threads,
            connections=max_connections,
            address=f"[{listen}]" if ":" in listen else listen,
            ipv6=_has_ipv6(),
            resolvers=Path("/etc/resolv.conf").exists(),
            health_port=health_port,
            metrics_port=metrics_port,
            access_log=access_log,
        ),
        kubeconfig=kubeconfig,
        context=context,
        gateways=gateways,
        leader_elect=leader_elect,
        identity=f"{socket.gethostname()}_{os.getpid()}",
    )
    try:
        serve(options)
    except IngressError as error:
        raise click.ClickException(str(error)) from error


def _print_definitions() -> None:
    import yaml

    from fairlead.ingress.gateway.definitions import definitions

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    print(yaml.dump_all(definitions(), Dumper=Plain, sort_keys=False), end="")


def _has_ipv6() -> bool:
    """Whether an IPv6 address can be bound here: the kernel may have the family, and this namespace not."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _pair(flag: str, text: str) -> tuple[str, str] | None:
    if not text:
        return None
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name):
        raise click.UsageError(f"{flag} {text!r} is not NAMESPACE/NAME")
    return namespace, name
