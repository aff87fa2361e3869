"""A pod's host name and /etc/hosts. Pure.

Source: upstream's kubelet_pods.go (GeneratePodHostNameAndDomain, managedHostsFileContent).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAX_HOSTNAME = 63
TAB = "\t"
_HEADER = "# Kubernetes-managed hosts file.\n"
_HOST_NETWORK_HEADER = "# Kubernetes-managed hosts file (host network).\n"


class HostnameProblem(Exception):
    """The pod asks for a name that Linux can't hold."""


def pod_hostname(pod: dict[str, Any], cluster_domain: str) -> tuple[str, str]:
    """The pod's host name, and the domain of its full name ("" if it has none).

    Raises HostnameProblem if setHostnameAsFQDN asks for more than 64 characters.
    """
    spec, metadata = pod["spec"], pod["metadata"]
    if override := spec.get("hostnameOverride"):
        return str(override), ""
    hostname = str(spec.get("hostname") or metadata["name"][:MAX_HOSTNAME].rstrip("-."))
    domain = ""
    if subdomain := spec.get("subdomain"):
        domain = f"{subdomain}.{metadata.get('namespace', '')}.svc.{cluster_domain}"
    return hostname, domain


def kernel_hostname(pod: dict[str, Any], hostname: str, domain: str) -> str:
    """What `hostname` prints in the pod."""
    if not (pod["spec"].get("setHostnameAsFQDN") and domain):
        return hostname
    full = f"{hostname}.{domain}"
    if len(full) > 64:
        raise HostnameProblem(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"(64 characters is the max, {len(full)} characters requested)"
        )
    return full


def render_hosts(pod_ips: Iterable[str], hostname: str, domain: str, aliases: Iterable[dict[str, Any]] = ()) -> str:
    """The managed /etc/hosts of a pod with a network of its own."""
    lines = [
        _HEADER,
        "127.0.0.1\tlocalhost\n",
        "::1\tlocalhost ip6-localhost ip6-loopback\n",
        "fe00::\tip6-localnet\n",
        "fe00::\tip6-mcastprefix\n",
        "fe00::1\tip6-allnodes\n",
        "fe00::2\tip6-allrouters\n",
    ]
    for ip in pod_ips:
        lines.append(f"{ip}\t{hostname}.{domain}\t{hostname}\n" if domain else f"{ip}\t{hostname}\n")
    return "".join(lines) + _render_aliases(aliases)


def render_host_network_hosts(machine: str, aliases: Iterable[dict[str, Any]] = ()) -> str:
    """The node's own file, for a pod in the node's network, with the pod's aliases."""
    return _HOST_NETWORK_HEADER + machine + _render_aliases(aliases)


def _render_aliases(aliases: Iterable[dict[str, Any]]) -> str:
    lines = [f"{alias['ip']}\t{TAB.join(alias.get('hostnames') or ())}\n" for alias in aliases]
    return "\n# Entries added by HostAliases.\n" + "".join(lines) if lines else ""
