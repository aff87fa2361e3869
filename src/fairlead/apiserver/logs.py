"""Pod logs: from the kubelet's chunks to the client's, as they come.

Invariant: nothing of a log is held here; when the client leaves, the kubelet's side is closed, and the reverse.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import web

from fairlead.api import errors
from fairlead.apiserver import kubelets, respond
from fairlead.apiserver.call import Call, integer
from fairlead.apiserver.request import is_true
from fairlead.apiserver.streams import Streams

_FLAGS = ("follow", "timestamps", "previous")
_NUMBERS = ("tailLines", "sinceSeconds", "limitBytes")


async def serve(call: Call, nodes: kubelets.Kubelets, streams: Streams) -> web.StreamResponse:
    """GET pods/NAME/log."""
    pod = await nodes.pod(call.namespace, call.info.name)
    container = kubelets.choose_container(pod, call.query.get("container", ""))
    query = _query(call)
    node = (pod.get("spec") or {}).get("nodeName")
    headers = {**respond.BASE_HEADERS, "Content-Type": "text/plain"}
    if not node:  # nothing has been logged yet, as upstream answers
        return web.Response(body=b"", headers=headers)
    url = f"{await nodes.base_url(node)}/containerLogs/{call.namespace}/{call.info.name}/{container}"
    session = await nodes.session()
    task = asyncio.current_task()
    assert task is not None
    try:
        async with session.get(url, params=query) as upstream:
            if upstream.status != 200:
                raise await kubelets.refusal(upstream)
            response = web.StreamResponse(headers=headers)
            response.enable_chunked_encoding()
            await response.prepare(call.request)
            try:
                with streams.open(call.request, upstream.close):
                    async for chunk in upstream.content.iter_any():
                        await response.write(chunk)
            except (aiohttp.ClientError, ConnectionError):
                pass  # the kubelet or the client is gone, or the server stops: end what was begun
            await response.write_eof()
            return response
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise kubelets.unreachable("Get", url, error) from None


def _query(call: Call) -> dict[str, str]:
    """PodLogOptions, checked. Raises 422 in upstream's words."""
    asked, query = call.query, {}
    wrong = []
    for key in _FLAGS:
        if is_true(asked, key):
            query[key] = "true"
    numbers: dict[str, Any] = {key: integer(asked, key) for key in _NUMBERS}
    for key, number in numbers.items():
        if number is None:
            continue
        if number < 0 or (number == 0 and key != "tailLines"):
            least = "0" if key == "tailLines" else "1"
            wrong.append(errors.invalid(key, number, f"must be greater than or equal to {least}"))
        query[key] = str(number)
    if asked.get("sinceTime"):
        if numbers["sinceSeconds"] is not None:
            wrong.append(
                errors.forbidden("sinceSeconds", "at most one of `sinceTime` or `sinceSeconds` may be specified")
            )
        query["sinceTime"] = asked["sinceTime"]
    if wrong:
        raise errors.unprocessable("PodLogOptions", "", call.info.name, wrong)
    return query
