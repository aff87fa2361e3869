"""The cluster's certificates, keys and component kubeconfigs, made once and kept: what is issued to whom.

Invariant: see `issuing`; the authority is the cluster's own.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import yaml

from fairlead.apiserver import pki
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.issuing import Issued, write_private
from fairlead.cluster.layout import Layout

KUBELET_CLIENTS = "fairlead:kubelet-clients"
"""Who may ask a kubelet for logs, and to run commands: the API server's own certificate carries this organization."""


class Credentials(Issued):
    """Makes and reads what a cluster's processes identify themselves with."""

    def __init__(self, layout: Layout, config: ClusterConfig) -> None:
        self._layout, self._config = layout, config
        way_out = f"restore it, or remove the cluster with: fairlead down --name {layout.name}"
        super().__init__(layout.pki, f"fairlead-{config.name}", config.context, way_out)
        layout.kubeconfig("admin").parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def api_names(self) -> tuple[str, ...]:
        """The API server's names; its certificate bears them, and no node may."""
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        names.append(f"kubernetes.default.svc.{self._config.cluster_domain}")
        return (*names, *(name for name in self._config.api_sans if not _is_address(name)))

    def ensure(self) -> None:
        """Everything the cluster's processes need is there."""
        config = self._config
        ips = [config.api_ip, config.kubernetes_ip, "127.0.0.1", *filter(_is_address, config.api_sans)]
        if _is_address(config.api_address) and config.api_address not in ("0.0.0.0", *ips):
            ips.append(config.api_address)
        self._leaf("apiserver", "kube-apiserver", dns_names=self.api_names, ips=ips, server=True)
        self._leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [KUBELET_CLIENTS], client=True)
        self._signing_key()
        if not self._layout.announce_key.exists():
            write_private(self._layout.announce_key, secrets.token_bytes(32))
        inside = f"https://{config.api_ip}:6443"
        self._user("admin", "kubernetes-admin", ["system:masters"], config.api_url)
        self._user("controllers", "system:kube-controller-manager", [], inside)
        lasts = timedelta(seconds=config.signing_duration)  # of what the nodes renew by themselves
        for node in config.node_names:
            self._leaf(
                f"kubelet-{node}",
                f"system:node:{node}",
                ["system:nodes"],
                [node],
                list(config.addresses_of(config.node_ip(node))),
                server=True,
                lasts=lasts,
            )
            self._user(node, f"system:node:{node}", ["system:nodes"], inside, lasts)

    def user_document(self, name: str) -> dict[str, Any]:
        """The kubeconfig of a user, parsed."""
        document: dict[str, Any] = yaml.safe_load(self._layout.kubeconfig(name).read_bytes())
        return document

    def _user(self, name: str, cn: str, organizations: Sequence[str], server: str, lasts: timedelta = pki.LEAF) -> None:
        self._user_file(self._layout.kubeconfig(name), cn, organizations, server, lasts)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
