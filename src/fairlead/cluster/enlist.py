"""How a machine gets an identity in a cluster that it knows only by address, authority's hash and token.

Source: kubeadm's join. First the authority, fetched without trust and held to its hash; from then on only servers that
it vouches for. Then, by certificate signing requests, the node's own certificates: one to show the API server, one to
serve logs and exec under the node's name. Invariant: the token is shown to nobody who has not proved to be the cluster;
private keys never leave this machine.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import orjson
import yaml

from fairlead.api import nodenetworks
from fairlead.api.errors import StatusError
from fairlead.api.kinds import CERTIFICATESIGNINGREQUESTS, CONFIGMAPS, NODES
from fairlead.apiserver import bootstraptokens, pki
from fairlead.apiserver.pki import KeyPair
from fairlead.client import Client
from fairlead.client.config import StaticToken, client_ssl_context
from fairlead.client.rest import Unreachable
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.invitation import INFO, SETTINGS, Settings
from fairlead.cluster.signing import KUBELET_CLIENT, KUBELET_SERVING
from fairlead.linux.links import Links

Object = dict[str, Any]

ADDRESS_PATH = "/fairlead/address"
"""Answered with the address the connection comes from."""

_ANYWHERE6 = "2001:db8::1"  # RFC 3849: of documentation, so routed by default
_NEW_TOKEN = "make a new one where the cluster is: fairlead node token create"
_CONNECT_SECONDS, _SIGN_SECONDS, _LOOK = 5.0, 30.0, 0.05


class Enlisted(msgspec.Struct, frozen=True):
    """What the machine has afterwards."""

    authority: bytes
    settings: Settings
    client: KeyPair
    serving: KeyPair
    network: str
    """The network it is in, as far as can be told; empty: the cluster's own LAN."""


async def discover(server: str, ca_hash: str) -> bytes:
    """The cluster's authority (PEM), if its public key has that hash. Raises ClusterError."""
    url = f"{server}/api/v1/namespaces/kube-public/configmaps/{INFO}"
    timeout = aiohttp.ClientTimeout(total=2 * _CONNECT_SECONDS, sock_connect=_CONNECT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as answer:
            status, body = answer.status, await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        why = str(error) or f"no answer within {_CONNECT_SECONDS:g} s"
        raise ClusterError(f"cannot reach {server}: {why}", "check the address, and that it can be reached") from error
    try:
        if status != 200:
            raise ValueError(f"it answered {status}")
        config = yaml.safe_load(orjson.loads(body)["data"]["kubeconfig"])
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
        found = pki.ca_hash(authority)
    except (ValueError, KeyError, TypeError, IndexError, yaml.YAMLError) as error:
        raise ClusterError(
            f"{server} does not say what cluster it is ({INFO} in kube-public: {error})",
            "use the address that fairlead node token create prints",
        ) from error
    if not hmac.compare_digest(found, ca_hash.lower()):
        raise ClusterError(
            f"{server} is not the cluster you mean: its authority has the hash {found}, not {ca_hash}",
            "compare --ca-hash with what fairlead node token create prints; do not go on if it is right",
        )
    return authority


async def enlist(server: str, token: str, ca_hash: str, node: str) -> Enlisted:
    """Become node `node`. Raises ClusterError."""
    if bootstraptokens.parse(token) is None:
        raise ClusterError("--token is not of the form abcdef.0123456789abcdef", _NEW_TOKEN)
    authority = await discover(server, ca_hash)
    trust = client_ssl_context(authority.decode())
    try:
        async with Client(server, trust, StaticToken(token), timeout=10.0) as stranger:
            settings = await _settings(stranger)
            await _refuse_known(stranger, node)
            mine = await obtain(stranger, node, KUBELET_CLIENT)
        context = client_ssl_context(authority.decode(), mine.cert_pem, mine.key_pem)
        async with Client(server, context, timeout=10.0) as itself:
            serving = await obtain(itself, node, KUBELET_SERVING)
            network = await _network(itself)
    except Unreachable as error:
        raise ClusterError(*_unreachable(server, error)) from error
    except StatusError as error:
        raise ClusterError(*_refused(server, error)) from error
    return Enlisted(authority, settings, mine, serving, network)


async def obtain(client: Client, node: str, signer: str, ips: Sequence[str] = ()) -> KeyPair:
    """A certificate of that signer for the node, with a new key; one to serve with bears the node's name and `ips`.
    Raises ClusterError (denied, or nobody signs it) and StatusError."""
    serving = signer == KUBELET_SERVING
    user = f"system:node:{node}"
    key, request = pki.create_request(user, ["system:nodes"], [node] if serving else [], ips if serving else [])
    wanted = {
        "apiVersion": CERTIFICATESIGNINGREQUESTS.api_version,
        "kind": CERTIFICATESIGNINGREQUESTS.kind,
        "metadata": {"generateName": "node-csr-"},
        "spec": {
            "request": base64.b64encode(request).decode(),
            "signerName": signer,
            "usages": ["digital signature", "server auth" if serving else "client auth"],
        },
    }
    name = (await client.create(CERTIFICATESIGNINGREQUESTS, wanted))["metadata"]["name"]
    deadline = time.monotonic() + _SIGN_SECONDS
    while time.monotonic() < deadline:
        status = (await client.get(CERTIFICATESIGNINGREQUESTS, name)).get("status") or {}
        for condition in status.get("conditions") or ():
            if condition["type"] in ("Denied", "Failed"):
                raise ClusterError(f"the cluster refuses to let this machine in as {node}: {condition['message']}")
        if status.get("certificate"):
            return KeyPair(base64.b64decode(status["certificate"]), key)
        await asyncio.sleep(_LOOK)
    raise ClusterError(
        f"the certificate signing request {name} was not signed within {_SIGN_SECONDS:g} s",
        f"see: kubectl describe certificatesigningrequest {name}",
    )


def own_address(server: str) -> str:
    """The address this machine has on the way to the API server. Raises OSError when there is no way."""
    parts = urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((socket.gethostbyname(parts.hostname or ""), parts.port or 443))
        return str(probe.getsockname()[0])


def own_address6() -> str:
    """The IPv6 address this machine has on the way to any other network; empty if it has none."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ANYWHERE6, 9))  # nothing is sent
        except OSError:
            return ""
        return str(probe.getsockname()[0])


async def _network(client: Client) -> str:
    """The LAN, if a node of the LAN is on a network that this machine is on; else one named by the address that the
    API server sees."""
    with Links() as links:
        near = [route.destination for route in links.routes() if route.gateway is None]
    for node in (await client.list(NODES))["items"]:
        address = nodenetworks.address(node, "InternalIP")
        if address and not nodenetworks.network_of(node) and any(ipaddress.ip_address(address) in net for net in near):
            return ""
    seen = orjson.loads(await client.get_raw(ADDRESS_PATH))["address"]
    return "behind-" + str(seen).replace(".", "-").replace(":", "-")


async def _settings(client: Client) -> Settings:
    found = await client.get(CONFIGMAPS, SETTINGS, bootstraptokens.NAMESPACE)
    try:
        return msgspec.json.decode((found.get("data") or {}).get("settings.json") or "", type=Settings)
    except msgspec.MsgspecError as error:
        raise ClusterError(
            f"the ConfigMap {bootstraptokens.NAMESPACE}/{SETTINGS} says nothing this version understands ({error})",
            "use the same version of fairlead here and there",
        ) from error


async def _refuse_known(client: Client, node: str) -> None:
    try:
        await client.get(NODES, node)
    except StatusError as error:
        if error.code == 404:
            return
        raise
    raise ClusterError(
        f'a Node named "{node}" is part of the cluster already',
        f"choose another --node-name, or remove that one: kubectl delete node {node}",
    )


def _unreachable(server: str, error: StatusError) -> tuple[str, str]:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        host = server.partition("://")[2]
        return (
            f"the API server's certificate does not hold for {server}: {error.message}",
            f"start the cluster with --apiserver-cert-extra-sans {host.rpartition(':')[0] or host}",
        )
    return error.message, "check that the address can be reached from here"


def _refused(server: str, error: StatusError) -> tuple[str, str]:
    if error.code == 401:
        return f"{server} does not take the token: it is wrong, or has expired", _NEW_TOKEN
    return f"{server} refused: {error.message}", ""
