"""What every cluster has from the start: its DNS, a default StorageClass, and its ingress.

Applied through the API, like anything a user would apply. Invariant: an object that is there is only changed where it
differs from ours in what ours says, so a user's additions (more replicas, another label) survive a restart of the
control plane; a class is left as it is.
"""

from __future__ import annotations

import asyncio
import logging
import string
import sys
from importlib import resources
from typing import Any

import yaml

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.client import Client
from fairlead.cluster import provisioner
from fairlead.cluster.config import ClusterConfig
from fairlead.ingress.gateway.definitions import definitions
from fairlead.ingress.gateway.kinds import GATEWAYCLASSES

log = logging.getLogger("fairlead.cluster")

_RETRY = 0.1


def manifests(config: ClusterConfig) -> list[dict[str, Any]]:
    """The objects of the cluster's DNS, of the class of volumes that are directories here, and of its ingress with the
    kinds of Gateway API."""
    found = [*_of("kube-dns", config), *_of("storage", config)]
    return [*found, *definitions(), *_of("ingress", config)] if config.ingress else found


def _of(file: str, config: ClusterConfig) -> list[dict[str, Any]]:
    text = (resources.files("fairlead.cluster") / "manifests" / f"{file}.yaml").read_text()
    filled = string.Template(text).substitute(
        PROVISIONER=provisioner.NAME,
        DNS_IP=config.dns_ip,
        DNS_REPLICAS=min(2, config.nodes),
        CLUSTER_DOMAIN=config.cluster_domain,
        PYTHON=sys.executable,
    )
    return [document for document in yaml.safe_load_all(filled) if document]


async def keep(client: Client, config: ClusterConfig) -> None:
    """Create what is missing and bring our fields up to date, once; retried until the API takes it."""
    for manifest in manifests(config):
        while True:
            try:
                await _ensure(client, manifest)
                break
            except StatusError as error:
                if error.code != 404 and error.code < 500:  # 404: its namespace is about to be made
                    log.error("add-on %s: %s", manifest["metadata"]["name"], error)
                    break
                await asyncio.sleep(_RETRY)


async def _ensure(client: Client, manifest: dict[str, Any]) -> None:
    resource = kinds.of_object(manifest) or GATEWAYCLASSES
    name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace", "")
    try:
        await client.get(resource, name, namespace)
    except StatusError as error:
        if error.code != 404:
            raise
        await client.create(resource, manifest, namespace)
        return
    if resource in (kinds.STORAGECLASSES, kinds.CUSTOMRESOURCEDEFINITIONS):  # the user's own once they exist: which
        # class is the default, and a newer version of a kind
        return
    ours = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    if resource is kinds.DEPLOYMENTS:  # how many there are is the user's once they exist
        ours["spec"] = {key: value for key, value in ours["spec"].items() if key != "replicas"}
    # A merge patch takes lists whole: a strategic one would mix up the ports 53/UDP and 53/TCP, whose merge key is 53.
    await client.patch(resource, name, ours, namespace, kind="merge")
