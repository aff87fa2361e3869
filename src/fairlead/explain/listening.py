"""The hop of the process: does one listen on that port, at that address, and does it run? Pure."""

from __future__ import annotations

import ipaddress

from fairlead.discovery.choose import Backend
from fairlead.discovery.model import ServicePort
from fairlead.explain.evidence import Listener
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene, host, label


def examine(scene: Scene, port: ServicePort, backend: Backend, hop: Hop) -> None:
    """What was found in the endpoint's namespace."""
    pod = scene.evidence.pod_at(backend.endpoint.address)
    if pod is None:
        hop.say(f"{host(backend.endpoint.address)} is no pod's address: what listens there was not looked at")
        hop.state = "unseen"
        return
    kernel = scene.evidence.kernel_of(pod)
    if kernel is None or kernel.problem:
        why = kernel.problem if kernel else ""
        hop.say(f"what listens in {label(pod)} was not seen" + (f": {why}" if why else ""))
        hop.state = "unseen"
        return
    if not kernel.present:
        return
    name, protocol, number = label(pod), port.protocol, backend.port
    namespace = pod["metadata"].get("namespace", "")
    at_port = [entry for entry in kernel.listeners if entry.port == number]
    same = [entry for entry in at_port if entry.protocol == protocol]
    serving = [entry for entry in same if _hears(entry, backend.endpoint.address)]
    if serving:
        stopped = [entry for entry in serving if entry.state in ("T", "t")]
        if stopped and len(stopped) == len(serving):
            one = stopped[0]
            hop.find(
                "FL085",
                f"{one.process or 'the process'} (pid {one.pid}) in {name} listens on port {number}, but is stopped",
                f"let it go on: kill -CONT {one.pid}; or delete the pod",
            )
            return
        one = serving[0]
        who = f"{one.process} (pid {one.pid})" if one.pid else "a process"
        hop.say(f"{name}: {who} listens on {protocol} {host(one.address)}:{number}")
        return
    if same and ipaddress.ip_address(same[0].address).is_unspecified:
        hop.find(
            "FL084",
            f"in {name} {same[0].process or 'the process'} listens on {same[0].address}:{number}, by IPv4 only, "
            f"not on {backend.endpoint.address}",
            "make it listen on [::] (both families), or leave IPv6 out of the Service's spec.ipFamilies",
        )
        return
    if same:
        hop.find(
            "FL081",
            f"in {name} {same[0].process or 'the process'} listens on {same[0].address}:{number} only, "
            f"not on {backend.endpoint.address}",
            "make it listen on 0.0.0.0 (all addresses)",
        )
        return
    if at_port:
        hop.find(
            "FL083",
            f"in {name} port {number} is listened on for {at_port[0].protocol}, not {protocol}",
            f"make the Service's port protocol: {at_port[0].protocol}, or the program listen on {protocol}",
        )
        return
    others = sorted({e.port for e in kernel.listeners if e.protocol == protocol and not _is_loopback(e.address)})
    if others:
        listed = ", ".join(map(str, others[:5]))
        hop.find(
            "FL082",
            f"in {name} nothing listens on port {number}; {protocol} is listened on at {listed}",
            f"set targetPort: {others[0]}, or make the program listen on {number}",
        )
        return
    hop.find(
        "FL080",
        f"in {name} nothing listens on {protocol} port {number}",
        f"see whether the program started: kubectl -n {namespace} logs {pod['metadata']['name']}",
    )


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _hears(entry: Listener, address: str) -> bool:
    """Whether a socket bound so takes what is sent to that address. `::` takes IPv4, too."""
    bound = ipaddress.ip_address(entry.address)
    if bound.is_unspecified:
        return bound.version == 6 or ":" not in address
    mapped = getattr(bound, "ipv4_mapped", None)
    return str(mapped or bound) == address
