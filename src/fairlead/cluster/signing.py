"""Signs approved CertificateSigningRequests with the cluster's authority, as upstream's controller manager does.

Runs beside the controllers, where the authority's key is. Signers: `kubernetes.io/kube-apiserver-client`,
`…-client-kubelet` and `kubernetes.io/kubelet-serving`, each by its rules. A kubelet's request for its own client
certificate is approved for whoever may create `certificatesigningrequests/selfnodeclient` (or `nodeclient`); a node's
request to serve under its own name, for that node. Invariants: nothing is signed that is not approved; what breaks its
signer's rules is marked Failed, with the reason; who is not yet a node becomes none that there is.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CERTIFICATESIGNINGREQUESTS, NODES, SUBJECT_ACCESS_REVIEWS
from fairlead.apiserver import pki
from fairlead.client import Client, Watched, follow

log = logging.getLogger("fairlead.cluster")

Object = dict[str, Any]

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
_NODE = "system:node:"
_NODES = ("system:nodes",)
_BASIC = {"digital signature", "key encipherment"}
_NOBODY: Mapping[str, Collection[str]] = {}


class Signer(msgspec.Struct, frozen=True):
    """Who signs, and for how long at most. `reserved`: names that no node may serve under; `addresses`: node → those
    that are surely its own, so that it may serve under them."""

    authority: pki.KeyPair
    lasts: timedelta = pki.LEAF
    reserved: Collection[str] = ()
    addresses: Mapping[str, Collection[str]] = _NOBODY


async def keep(client: Client, signer: Signer) -> None:
    """Approve and sign until cancelled."""
    async for batch in follow(client, Watched(CERTIFICATESIGNINGREQUESTS)):
        for event in batch.events:
            if event.type == "DELETED":
                continue
            try:
                await _serve(client, signer, event.object)
            except StatusError as error:
                if error.reason not in ("Conflict", "NotFound"):  # a newer state comes as an event of its own
                    log.warning("certificate signing request %s: %s", event.object["metadata"]["name"], error)


async def _serve(client: Client, signing: Signer, request: Object) -> None:
    spec, status = request["spec"], request.get("status") or {}
    kinds = {c["type"] for c in status.get("conditions") or ()}
    signer = spec["signerName"]
    if signer not in (CLIENT, KUBELET_CLIENT, KUBELET_SERVING) or status.get("certificate") or "Failed" in kinds:
        return
    try:
        asked = pki.read_request(base64.b64decode(spec["request"]))
        why = refusal(signer, asked, set(spec.get("usages") or ()), spec.get("username") or "")
    except pki.BadCredentials as error:
        asked, why = None, str(error)
    if not kinds and signer != CLIENT and asked is not None and not why:
        decided = await _decide(client, spec, asked, signing)
        if decided is not None:
            await _write(client, request, {"conditions": [decided]}, "approval")
        return
    if "Approved" not in kinds:
        return
    if asked is None or why:
        failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why}
        await _write(client, request, {**status, "conditions": [*status["conditions"], failed]}, "status")
        return
    asked_for = spec.get("expirationSeconds")
    lasts = min(timedelta(seconds=asked_for), signing.lasts) if asked_for else signing.lasts
    serving = signer == KUBELET_SERVING
    signed = pki.sign_request(signing.authority, asked, client=not serving, server=serving, lasts=lasts)
    await _write(client, request, {**status, "certificate": base64.b64encode(signed).decode()}, "status")


async def _decide(client: Client, spec: Object, asked: pki.Requested, signing: Signer) -> Object | None:
    """The condition that a node's request gets without anybody's doing; None leaves it to people."""
    if spec["signerName"] == KUBELET_SERVING:
        if not serves_itself(asked, signing):
            return None
        return _condition("Approved", "Auto approving the serving certificate of a node under its own name.")
    own = asked.cn == spec.get("username")
    if not await _may(client, spec, "selfnodeclient" if own else "nodeclient"):
        return None
    name = asked.cn.removeprefix(_NODE)
    if not own and await _exists(client, name):
        what = f'a Node named "{name}" is part of the cluster; delete it, or join under another name'
        return {"type": "Denied", "status": "True", "reason": "NodeNameInUse", "message": what}
    return _condition("Approved", "Auto approving kubelet client certificate after SubjectAccessReview.")


def serves_itself(asked: pki.Requested, signing: Signer) -> bool:
    """Whether it is a serving certificate for the node's own name and addresses: no address that the node might only
    claim, and no name that is, or may be taken for, the API server's or a Service's. Pure."""
    name = asked.cn.removeprefix(_NODE)
    own = set(asked.ips) <= set(signing.addresses.get(name, ()))
    return own and asked.dns_names == (name,) and name not in signing.reserved and ".svc" not in name


def _condition(kind: str, message: str) -> Object:
    return {"type": kind, "status": "True", "reason": "AutoApproved", "message": message}


async def _exists(client: Client, node: str) -> bool:
    try:
        await client.get(NODES, node)
    except StatusError as error:
        if error.code == 404:
            return False
        raise
    return True


def refusal(signer: str, asked: pki.Requested, usages: set[str], username: str) -> str:
    """Why the signer does not sign that; empty if it does. Upstream's rules and words. Pure."""
    client = "client auth"
    if not asked.cn:
        return "subject common name is required"
    if signer == CLIENT:
        if "system:masters" in asked.organizations:
            return f"use of {CLIENT} signer with system:masters group is not allowed"
        if not usages <= _BASIC | {client} or client not in usages:
            return f"usages did not match [client auth digital signature key encipherment]: {sorted(usages)}"
        return ""
    wanted = "server auth" if signer == KUBELET_SERVING else client
    if not usages <= _BASIC | {wanted} or not {wanted, "digital signature"} <= usages:
        return f"usages did not match [{wanted} digital signature key encipherment]: {sorted(usages)}"
    if asked.organizations != _NODES:
        return "subject organization is not system:nodes"
    if not asked.cn.startswith(_NODE) or asked.cn == _NODE:
        return "subject common name does not begin with system:node:"
    named = asked.dns_names or asked.ips
    if asked.others:
        return "email and URI subject alternative names are not allowed"
    if signer == KUBELET_CLIENT:
        return "DNS and IP subject alternative names are not allowed" if named else ""
    if not named:
        return "DNS or IP subjectAltName is required"
    return "" if asked.cn == username else f"common name {asked.cn} is not the requestor's, {username}"


async def _may(client: Client, spec: Object, subresource: str) -> bool:
    asked = {
        "verb": "create",
        "group": CERTIFICATESIGNINGREQUESTS.group,
        "resource": CERTIFICATESIGNINGREQUESTS.plural,
        "subresource": subresource,
    }
    review = {
        "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version,
        "kind": SUBJECT_ACCESS_REVIEWS.kind,
        "spec": {
            "user": spec.get("username") or "",
            "groups": spec.get("groups") or [],
            "uid": spec.get("uid") or "",
            "extra": spec.get("extra") or {},
            "resourceAttributes": asked,
        },
    }
    answer = await client.create(SUBJECT_ACCESS_REVIEWS, review)
    return bool(answer["status"]["allowed"])


async def _write(client: Client, request: Object, status: Object, subresource: str) -> None:
    patch = {"metadata": {"resourceVersion": request["metadata"]["resourceVersion"]}, "status": status}
    name = request["metadata"]["name"]
    await client.patch(CERTIFICATESIGNINGREQUESTS, name, patch, kind="merge", subresource=subresource)
