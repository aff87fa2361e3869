"""Requests for NodeMetrics and PodMetrics: asks the kubelets concerned, all at once, and answers with what they say.

Beside the verbs. Invariant: a kubelet that does not answer in time takes only its own node and pods out of the answer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from fairlead.api import errors, measures
from fairlead.api.kinds import NODE_METRICS, NODES, PODS
from fairlead.apiserver import respond
from fairlead.apiserver.call import Call
from fairlead.apiserver.config import ServerConfig
from fairlead.apiserver.kubelets import Kubelets
from fairlead.registry import ListOptions

log = logging.getLogger("fairlead.apiserver")
Object = dict[str, Any]

PATIENCE_SECONDS = 5.0


async def serve(call: Call, config: ServerConfig, kubelets: Kubelets) -> web.StreamResponse:
    """Answer a get or a list. Raises 404 for what nobody measures."""
    info, resource = call.info, call.info.resource
    assert resource is not None
    form = call.form()
    of_nodes = resource == NODE_METRICS
    base = NODES if of_nodes else PODS
    if info.name:
        try:
            objects = [await config.registry.get(base, call.namespace, info.name)]
        except errors.StatusError as error:
            raise _not_measured(call) if error.code == 404 else error from None
    else:
        options = ListOptions(call.query.get("labelSelector", ""), call.query.get("fieldSelector", ""))
        objects = (await config.registry.list(base, call.namespace, options)).items
    items = await _measured(objects, of_nodes, kubelets)
    if info.name:
        if not items:
            raise _not_measured(call)
        return respond.value(call.request, items[0], yaml=form.yaml)
    body = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": {}, "items": items}
    return respond.value(call.request, body, yaml=form.yaml)


async def _measured(objects: list[Object], of_nodes: bool, kubelets: Kubelets) -> list[Object]:
    def place(obj: Object) -> str:
        return str(obj["metadata"]["name"] if of_nodes else (obj.get("spec") or {}).get("nodeName") or "")

    nodes = sorted({place(obj) for obj in objects} - {""})
    said = dict(zip(nodes, await asyncio.gather(*(_summary(node, kubelets) for node in nodes)), strict=True))
    if of_nodes:
        return [measures.node_metrics(o, said[place(o)]["node"]) for o in objects if "node" in said[place(o)]]
    by_uid = {each["podRef"]["uid"]: each for summary in said.values() for each in summary.get("pods") or ()}
    return [measures.pod_metrics(o, by_uid[o["metadata"]["uid"]]) for o in objects if o["metadata"]["uid"] in by_uid]


async def _summary(node: str, kubelets: Kubelets) -> Object:
    """A kubelet's summary; empty if it can't be had."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            session, base = await kubelets.session(), await kubelets.base_url(node)
            async with session.get(f"{base}/stats/summary") as answer:
                if answer.status == 200:
                    found: Object = orjson.loads(await answer.read())
                    return found
                log.info("node %s is not measured: its kubelet answers %d", node, answer.status)
    except (aiohttp.ClientError, OSError, TimeoutError, errors.StatusError, ValueError) as error:
        log.info("node %s is not measured: %s", node, error or type(error).__name__)
    return {}


def _not_measured(call: Call) -> errors.StatusError:
    resource, name = call.info.resource, call.info.name
    assert resource is not None
    full = f"{call.namespace}/{name}" if call.namespace else name
    return errors.not_found(resource.plural, resource.group, full)
