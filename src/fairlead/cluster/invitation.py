"""What lets a machine that is not part of the cluster become a node of it: a token, and what it must know to begin.

The control plane publishes two ConfigMaps: `kube-public/cluster-info`, which anybody may read (where the cluster is and
its authority, as kubeadm writes it), and `kube-system/fairlead-config`, for whoever has a bootstrap token (the
cluster's ranges). Invariant: neither holds a secret; a token that expired is deleted.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import string
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import yaml

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import CONFIGMAPS, SECRETS
from fairlead.apiserver.bootstraptokens import GROUP, NAMESPACE, SECRET_PREFIX, SECRET_TYPE
from fairlead.client import Client
from fairlead.cluster.config import ClusterConfig, ProxyMode
from fairlead.registry.requests import utc_now

log = logging.getLogger("fairlead.cluster")

Object = dict[str, Any]

INFO, SETTINGS = "cluster-info", "fairlead-config"
DEFAULT_GROUP = f"{GROUP}:kubeadm:default-node-token"
_ALPHABET = string.ascii_lowercase + string.digits
_RETRY, _SWEEP = 0.1, 30.0  # s


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node must know of the cluster besides where it is. Names are ClusterConfig's."""

    cluster: str
    pod_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...]
    ip_families: tuple[Literal["IPv4", "IPv6"], ...]
    proxy_mode: ProxyMode
    dns_ip: str
    cluster_domain: str
    api_endpoint: tuple[str, int]
    """The endpoint of the Service `kubernetes`, as nodes on the LAN reach it."""

    @classmethod
    def of(cls, config: ClusterConfig, api_port: int) -> Settings:
        """Of a cluster made by `up`."""
        return cls(
            cluster=config.name,
            pod_cidrs=config.pod_cidrs,
            service_cidrs=config.service_cidrs,
            ip_families=config.ip_families,
            proxy_mode=config.proxy_mode,
            dns_ip=config.dns_ip,
            cluster_domain=config.cluster_domain,
            api_endpoint=(config.api_ip, api_port),
        )


def new_token() -> str:
    """`<id>.<secret>`, as kubeadm makes it."""
    return ".".join("".join(secrets.choice(_ALPHABET) for _ in range(length)) for length in (6, 16))


def token_secret(token: str, lifetime: timedelta, description: str, now: datetime) -> Object:
    """The Secret that makes a token good until `now + lifetime`; a lifetime of zero is for ever. Pure."""
    identity, _, secret = token.partition(".")
    data = {
        "token-id": identity,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": DEFAULT_GROUP,
        "description": description,
    }
    if lifetime:
        data["expiration"] = times.render(now + lifetime)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_PREFIX + identity, "namespace": NAMESPACE},
        "type": SECRET_TYPE,
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items() if text},
    }


def expiration_of(secret: Object) -> datetime | None:
    """When a token ends; None for never, or if it says nothing readable."""
    try:
        return times.parse(base64.b64decode((secret.get("data") or {}).get("expiration") or "").decode())
    except ValueError:
        return None


def config_maps(settings: Settings, authority: bytes, server: str) -> list[Object]:
    """Both, as objects. Pure."""
    ca = base64.b64encode(authority).decode()
    cluster = {"name": "", "cluster": {"certificate-authority-data": ca, "server": server}}
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [], "contexts": []}
    info = {"kubeconfig": yaml.safe_dump(kubeconfig, sort_keys=False)}
    told = {"settings.json": msgspec.json.encode(settings).decode()}
    return [_config_map("kube-public", INFO, info), _config_map(NAMESPACE, SETTINGS, told)]


def _config_map(namespace: str, name: str, data: dict[str, str]) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def keep(client: Client, settings: Settings, authority: bytes, server: str) -> None:
    """Publish, then sweep expired tokens away until cancelled. `server`: the URL that machines elsewhere use."""
    for wanted in config_maps(settings, authority, server):
        while True:
            try:
                await _publish(client, wanted)
                break
            except StatusError as error:
                if error.code != 404 and error.code < 500:  # 404: its namespace is about to be made
                    raise
                await asyncio.sleep(_RETRY)
    while True:
        try:
            await _sweep(client)
        except StatusError as error:
            log.info("expired bootstrap tokens: %s", error)
        await asyncio.sleep(_SWEEP)


async def _publish(client: Client, wanted: Object) -> None:
    name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    try:
        await client.patch(CONFIGMAPS, name, {"data": wanted["data"]}, namespace, "merge")
    except StatusError as error:
        if error.code != 404:
            raise
        await client.create(CONFIGMAPS, wanted)


async def _sweep(client: Client) -> None:
    listed = await client.list(SECRETS, NAMESPACE, field_selector=f"type={SECRET_TYPE}")
    for secret in listed["items"]:
        ends = expiration_of(secret)
        if ends is not None and ends <= utc_now():
            await client.delete(SECRETS, secret["metadata"]["name"], NAMESPACE)
            log.info("bootstrap token %s expired: deleted", secret["metadata"]["name"].removeprefix(SECRET_PREFIX))
