"""Small things done on a node by a pod: to make a directory on a machine elsewhere, to remove one.

For the provisioner, as upstream's local-path-provisioner does it. In: the node, a directory, what is to be done in it.
Invariant: asked again for one errand, there is one pod, however often the asker was started anew; it is gone when its
outcome was told.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PODS
from fairlead.client import Client
from fairlead.client.rest import is_gone

Object = dict[str, Any]
Outcome = Literal["underway", "done", "failed"]

NAMESPACE = "kube-system"
_IMAGE = "fairlead/host"  # the machine's own files: it is on every node, nothing is pulled


class Errand(msgspec.Struct, frozen=True):
    """`command` is run in `directory` of the node, which is made if it is not there."""

    name: str
    node: str
    directory: str
    command: tuple[str, ...]


def pod_for(errand: Errand) -> Object:
    """The pod that runs it. Pure."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": errand.name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": errand.node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "errand",
                    "image": _IMAGE,
                    "command": list(errand.command),
                    "workingDir": "/errand",
                    "volumeMounts": [{"name": "directory", "mountPath": "/errand"}],
                }
            ],
            "volumes": [
                {"name": "directory", "hostPath": {"path": errand.directory, "type": "DirectoryOrCreate"}},
            ],
        },
    }


async def run(client: Client, errand: Errand) -> Outcome:
    """Begin, or look how it goes; done or failed is told once. Raises StatusError."""
    try:
        pod = await client.get(PODS, errand.name, NAMESPACE)
    except StatusError as error:
        if not is_gone(error):
            raise
        await client.create(PODS, pod_for(errand))
        return "underway"
    phase = (pod.get("status") or {}).get("phase")
    if phase not in ("Succeeded", "Failed"):
        return "underway"
    await client.delete(PODS, errand.name, NAMESPACE)
    return "done" if phase == "Succeeded" else "failed"
