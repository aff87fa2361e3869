"""fairlead apiserver"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from fairlead.cli import flags as flagged

if TYPE_CHECKING:
    from fairlead.cluster.standalone import Files, Serving
    from fairlead.registry import RegistryOptions

_PATH = click.Path(path_type=Path, dir_okay=False)
_TLS = ("client_ca_file", "tls_cert_file", "tls_private_key_file", "service_account_signing_key_file")
_KUBELET = ("kubelet_client_certificate", "kubelet_client_key", "kubelet_certificate_authority")


@click.command(name="apiserver")
@click.option("--store", metavar="WHERE", help="sqlite:FILE (default: in --cert-dir), memory, or etcd://HOST:PORT[,…].")
@click.option("--etcd-servers", metavar="URLS", help="Upstream's way to name etcd: http://HOST:PORT[,…].")
@click.option("--etcd-prefix", metavar="KEY", help="Below which keys; default: /fairlead.")
@click.option("--etcd-cafile", type=_PATH, help="TLS to etcd: the authority of its certificate.")
@click.option("--etcd-certfile", type=_PATH, help="TLS to etcd: the certificate to show it.")
@click.option("--etcd-keyfile", type=_PATH, help="TLS to etcd: that certificate's key.")
@click.option("--listen", metavar="HOST:PORT", help="Short for --bind-address and --secure-port.")
@click.option("--bind-address", metavar="IP", help="Default: 127.0.0.1.")
@click.option("--secure-port", type=click.IntRange(1, 65535), help="Default: 6443.")
@click.option("--advertise-address", metavar="IP", default="", help="Where clients reach it, if not where it listens.")
@click.option(
    "--cert-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("fairlead-apiserver"),
    show_default=True,
    help="Authority, certificates and kubeconfigs, made if missing; API servers of one cluster share it.",
)
@click.option("--client-ca-file", type=_PATH, help="Who may sign client certificates. With this and the next three")
@click.option("--tls-cert-file", type=_PATH, help="nothing is made in --cert-dir.")
@click.option("--tls-private-key-file", type=_PATH)
@click.option("--service-account-signing-key-file", type=_PATH, help="Signs and checks service-account tokens.")
@click.option("--service-account-issuer", metavar="URL", help="Default: https://kubernetes.default.svc.cluster.local.")
@click.option("--token-auth-file", type=_PATH, help='Lines of token,user,uid,"group,group".')
@click.option("--kubelet-client-certificate", type=_PATH, help="For logs, exec and port-forward.")
@click.option("--kubelet-client-key", type=_PATH)
@click.option("--kubelet-certificate-authority", type=_PATH)
@click.option("--service-cluster-ip-range", metavar="CIDR[,CIDR]", default="10.96.0.0/16", show_default=True)
@click.option("--service-node-port-range", metavar="LOW-HIGH", default="30000-32767", show_default=True)
@click.option("-v", "--v", "verbosity", type=int, default=2, show_default=True, help="Log level.")
def command(verbosity: int, **flags: Any) -> None:
    """Serve the Kubernetes API by itself; `fairlead controllers` does the rest. Ends on SIGTERM."""
    import uvloop

    from fairlead.api.errors import StatusError
    from fairlead.cluster import standalone
    from fairlead.cluster.controlplane import start_logging
    from fairlead.cluster.errors import ClusterError
    from fairlead.store.interface import StoreCorrupt, StoreFailed

    start_logging(debug=verbosity >= 4)
    try:
        serving = _serving(flags)
        files = standalone.files_of(serving)
        uvloop.run(_serve(serving, files))
    except (ClusterError, StatusError, StoreCorrupt, StoreFailed) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from error


async def _serve(serving: Serving, files: Files) -> None:
    from fairlead.cluster import standalone
    from fairlead.cluster.controlplane import stop_event

    def started() -> None:
        if serving.files is None:
            print(f"kubectl --kubeconfig {serving.kubeconfig('admin')} get all -A", file=sys.stderr)

    await standalone.serve(serving, files, stop_event(), started)


def _serving(flags: dict[str, Any]) -> Serving:
    """The flags as values. Raises UsageError."""
    from fairlead.apiserver.config import DEFAULT_ISSUER
    from fairlead.cluster.standalone import Serving, read_tokens
    from fairlead.store.etcd_client import Trust

    host, port = _listen(flags)
    folder: Path = flags["cert_dir"]
    advertise: str = flags["advertise_address"]
    store = _store(flags, folder)
    given = [flags[name] for name in ("etcd_cafile", "etcd_certfile", "etcd_keyfile")]
    if any(given) and not store.startswith("etcd:"):
        raise click.UsageError(f"--etcd-… files are for etcd, and the store is {store}")
    if any(given[1:]) and not all(given):
        raise click.UsageError("--etcd-certfile and --etcd-keyfile go together, and with --etcd-cafile")
    return Serving(
        store=store,
        host=host,
        port=port,
        folder=folder,
        trust=Trust(*(str(file or "") for file in given)) if given[0] else None,
        files=_files(flags, folder),
        advertise=advertise and flagged.address("--advertise-address", advertise),
        registry=_registry(flags),
        issuer=flags["service_account_issuer"] or DEFAULT_ISSUER,
        tokens=read_tokens(flags["token_auth_file"]) if flags["token_auth_file"] else {},
    )


def _listen(flags: dict[str, Any]) -> tuple[str, int]:
    if not flags["listen"]:
        host = flags["bind_address"] or "127.0.0.1"
        return flagged.address("--bind-address", host), flags["secure_port"] or 6443
    if flags["bind_address"] or flags["secure_port"]:
        raise click.UsageError("--listen says what --bind-address and --secure-port say: give one or the others")
    return flagged.address_and_port("--listen", flags["listen"])


def _store(flags: dict[str, Any], folder: Path) -> str:
    from fairlead.store.etcd_client import Address

    store, servers, prefix = flags["store"], flags["etcd_servers"], flags["etcd_prefix"] or ""
    if servers:
        if store:
            raise click.UsageError("--etcd-servers says what --store says: give one")
        hosts = []
        for url in servers.split(","):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
                raise click.UsageError(f"--etcd-servers {url!r}: write http://HOST:PORT or https://HOST:PORT")
            if parts.scheme == "https" and not flags["etcd_cafile"]:
                raise click.UsageError(f"--etcd-servers {url!r} needs --etcd-cafile")
            hosts.append(parts.netloc)
        store = "etcd://" + ",".join(hosts)
    store = store or f"sqlite:{folder / 'state.db'}"
    if prefix:
        if not store.startswith("etcd:"):
            raise click.UsageError(f"--etcd-prefix is for etcd, and the store is {store}")
        store = f"{store}/{prefix.strip('/')}"
    if store.startswith("etcd:"):
        try:
            Address.parse(store)
        except ValueError as error:
            raise click.UsageError(f"--store: {error}") from None
        if find_spec("grpc") is None:
            raise click.UsageError("--store etcd://… needs the package grpcio: pip install 'fairlead[etcd]'")
    elif store != "memory" and not (store.startswith("sqlite:") and store != "sqlite:"):
        raise click.UsageError(f"--store {store!r}: use sqlite:FILE, memory or etcd://HOST:PORT")
    return str(store)


def _files(flags: dict[str, Any], folder: Path) -> Files | None:
    from fairlead.cluster.standalone import Files

    kubelet = [flags[name] for name in _KUBELET]
    if any(kubelet) and not all(kubelet):
        raise click.UsageError(f"{', '.join(map(_flag, _KUBELET))} go together")
    tls = [flags[name] for name in _TLS]
    if not any(tls):
        if any(kubelet):
            raise click.UsageError(f"{_flag(_KUBELET[0])} needs {', '.join(map(_flag, _TLS))} too")
        return None
    if not all(tls):
        missing = [_flag(name) for name in _TLS if not flags[name]]
        raise click.UsageError(f"{', '.join(map(_flag, _TLS))} go together: add {', '.join(missing)}")
    return Files(*tls, *kubelet)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _registry(flags: dict[str, Any]) -> RegistryOptions:
    from fairlead.registry import RegistryOptions

    networks = flagged.networks("--service-cluster-ip-range", flags["service_cluster_ip_range"])
    low, dash, high = flags["service_node_port_range"].partition("-")
    if not (dash and low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high) <= 65535):
        raise click.UsageError(f"--service-node-port-range {flags['service_node_port_range']!r}: write 30000-32767")
    return RegistryOptions(
        service_cidrs=networks,
        ip_families=tuple("IPv6" if ":" in network else "IPv4" for network in networks),
        node_port_range=(int(low), int(high)),
    )
