"""The fault laboratory: one running cluster, a small healthy world in it, and the means to break it for real.

Every means is a context manager that puts things back. Nothing here knows what `explain` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.kinds import DEPLOYMENTS, ENDPOINTSLICES, EVENTS, NAMESPACES, PODS, SERVICES, Resource
from fairlead.client import Client
from fairlead.cluster import config as configuration
from fairlead.cluster.eyes import LocalEyes
from fairlead.cluster.layout import RUNTIME_ROOT, Layout
from fairlead.cluster.supervisor import running
from fairlead.explain.question import parse_origin, parse_target
from fairlead.explain.report import Report
from fairlead.podnetwork.plan import link_name
from fairlead.survey import sight
from fairlead.survey.answering import answer
from fairlead.survey.eyes import Eyes
from tests.cluster.conftest import Cluster

Object = dict[str, Any]
T = TypeVar("T")
DEADLINE = 30.0
SPACE = "lab"

SERVER = """
import signal, socket, sys, threading
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
def tcp(address, port):
    server = socket.create_server((address, port))
    while True:
        client, _ = server.accept()
        with client:
            client.recv(1000) if port == 8404 else None
            client.sendall(b"HTTP/1.0 404 Not Found\\r\\nContent-Length: 0\\r\\n\\r\\n")
def udp(address, port):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, port))
    while True:
        data, client = server.recvfrom(512)
        server.sendto(data, client)
for word in sys.argv[1:]:
    kind, address, port = word.split(":")
    threading.Thread(target={"tcp": tcp, "udp": udp}[kind], args=(address, int(port)), daemon=True).start()
signal.pause()
"""


class Lab:
    """A cluster with pods client-1, web-1 (node n1), client-2, web-2 (n2) and Services web, udp in namespace lab."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.layout = Layout(cluster.name, cluster.state / cluster.name, RUNTIME_ROOT / cluster.name)
        self.config = configuration.load(self.layout.config)
        self.loop = asyncio.new_event_loop()
        self.client = Client.from_kubeconfig(self.layout.kubeconfig("admin"))
        self.here = LocalEyes(self.layout, self.config, self.client)
        self.eyes: Eyes = self.here

    def close(self) -> None:
        """Let go of the API."""
        self.run(self.client.close())
        self.loop.close()

    def run(self, work: Awaitable[T]) -> T:
        """Wait for a coroutine."""
        return self.loop.run_until_complete(work)  # type: ignore[arg-type]

    # -- asking ------------------------------------------------------------------------------------------------------

    def explain(self, target: str, origin: str = "pod/client-1", **more: Any) -> Report:
        """As the command line would."""
        question = parse_target(tuple(target.split()), SPACE)
        question = msgspec.structs.replace(question, origin=parse_origin(origin, SPACE), **more)
        return self.run(answer(self.client, self.eyes, question))

    # -- objects -----------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until something true is given."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with contextlib.suppress(StatusError, LookupError, OSError, AssertionError):
                if found := condition():
                    return found
            time.sleep(0.02)
        raise AssertionError(f"{what}: not within {DEADLINE:.0f} s; {self.cluster.logs()}")

    def get(self, resource: Resource, name: str, namespace: str = SPACE) -> Object:
        """One object."""
        return self.run(self.client.get(resource, name, namespace))

    def pod(self, name: str, namespace: str = SPACE) -> Object:
        """One pod."""
        return self.get(PODS, name, namespace)

    @contextlib.contextmanager
    def made(self, resource: Resource, obj: Object, namespace: str = SPACE) -> Iterator[Object]:
        """An object for the time being."""
        space = namespace if resource.namespaced else ""
        made = self.run(self.client.create(resource, obj, space))
        try:
            yield made
        finally:
            with contextlib.suppress(StatusError):
                grace = 0 if resource is PODS else None
                self.run(self.client.delete(resource, obj["metadata"]["name"], space, grace_period_seconds=grace))
            if resource is PODS:
                self.until(lambda: not self._there(resource, obj["metadata"]["name"], space), "the pod's end")

    def _there(self, resource: Resource, name: str, namespace: str) -> bool:
        try:
            self.run(self.client.get(resource, name, namespace))
        except StatusError as error:
            return error.code != 404
        return True

    @contextlib.contextmanager
    def patched(self, resource: Resource, name: str, patch: Object, undo: Object) -> Iterator[None]:
        """An object changed for the time being (merge patches)."""
        self.run(self.client.patch(resource, name, patch, SPACE))
        try:
            yield
        finally:
            self.run(self.client.patch(resource, name, undo, SPACE))

    def events(self, pod: str, reason: str) -> list[Object]:
        """What was told of a pod, of that kind."""
        listed = self.run(self.client.list(EVENTS, SPACE, field_selector=f"involvedObject.name={pod},reason={reason}"))
        return list(listed["items"])

    def endpoints(self, service: str, namespace: str = SPACE) -> set[str]:
        """The ready addresses in a Service's slices."""
        listed = self.run(
            self.client.list(ENDPOINTSLICES, namespace, label_selector=f"kubernetes.io/service-name={service}")
        )
        return {
            e["addresses"][0]
            for item in listed["items"]
            for e in item.get("endpoints") or ()
            if (e.get("conditions") or {}).get("ready") is not False
        }

    def in_kernel(self, service: str, *nodes: str) -> bool:
        """Whether the Service's endpoints are in the nodes' rules."""
        vip, wanted = self.get(SERVICES, service)["spec"]["clusterIP"], self.endpoints(service)
        iptables = self.config.proxy_mode == "iptables"
        command = "iptables-save -t nat" if iptables else "nft list map ip fairlead eps"
        needles = [f"-d {vip}/32 " if iptables else f"{vip} ."] * bool(wanted)
        needles += [f"--to-destination {address}:" if iptables else f"{address} ." for address in wanted]
        for node in nodes or ("n1", "n2"):
            listed = self.on_node(node, *command.split())
            if any(needle not in listed for needle in needles):
                return False
        return True

    def settle(self) -> None:
        """Wait until nothing is left of what was broken: both Services have their endpoints, in both kernels."""
        self.until(lambda: len(self.endpoints("web")) == 2 and len(self.endpoints("udp")) == 2, "endpoints")
        self.until(lambda: self.in_kernel("web") and self.in_kernel("udp"), "rules")

    @contextlib.contextmanager
    def serving(self, name: str, spec: Object, pods: list[Object], *, ready: bool = True) -> Iterator[None]:
        """A Service with pods for the time being; waits until they serve, if they will."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.made(SERVICES, service(name, spec)))
            for each in pods:
                stack.enter_context(self.made(PODS, each))
            if ready:
                self.until(lambda: len(self.endpoints(name)) == len(pods), f"endpoints of {name}")
                self.until(lambda: self.in_kernel(name), f"rules of {name}")
            yield

    # -- kernel and processes ----------------------------------------------------------------------------------------

    def on_node(self, node: str, *command: str) -> str:
        """Run a program in a node's network namespace."""
        return _run("ip", "netns", "exec", self.layout.node_namespace(node), *command)

    def pid(self, pod: Object) -> int:
        """The process that holds a pod's namespaces."""
        folder = self.layout.runtime / "nodes" / pod["spec"]["nodeName"] / "pods" / pod["metadata"]["uid"]
        return int((folder / "shim.pid").read_text())

    def in_pod(self, name: str, *command: str) -> str:
        """Run a program of this machine in a pod's network namespace."""
        return _run("nsenter", "--target", str(self.pid(self.pod(name))), "--net", *command)

    def link(self, name: str) -> str:
        """The node's end of a pod's link."""
        return link_name(self.pod(name)["metadata"]["uid"])

    def programs(self, pod: Object) -> list[int]:
        """The processes of a pod's containers."""
        shim = self.pid(pod)
        own = sight.processes_by_namespace().get(sight.namespace_of(shim), [])
        return [pid for pid in own if pid != shim and "fl-" not in Path(f"/proc/{pid}/comm").read_text()]

    @contextlib.contextmanager
    def stopped(self, *pids: int) -> Iterator[None]:
        """Processes that stand still for the time being."""
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            for pid in pids:
                self.until(lambda pid=pid: sight.process_state(pid) in "Tt", "a process' stop")  # type: ignore[misc]
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def stopped_process(self, name: str) -> Iterator[None]:
        """One of the cluster's processes that stands still."""
        with self.stopped(running(self.layout)[name]):
            yield

    @contextlib.contextmanager
    def stranger(self, run: Callable[..., str], hook: str, rule: str, **more: str) -> Iterator[None]:
        """Somebody else's table with one rule."""
        kind, priority, policy = more.get("kind", "filter"), more.get("priority", "0"), more.get("policy", "accept")
        run("nft", "add", "table", "inet", "wall")
        try:
            run("nft", f"add chain inet wall c {{ type {kind} hook {hook} priority {priority}; policy {policy}; }}")
            if rule:
                run("nft", f"add rule inet wall c {rule}")
            yield
        finally:
            run("nft", "delete", "table", "inet", "wall")

    def node(self, name: str) -> Callable[..., str]:
        """`on_node` of one node."""
        return lambda *command: self.on_node(name, *command)

    def inside(self, name: str) -> Callable[..., str]:
        """`in_pod` of one pod."""
        return lambda *command: self.in_pod(name, *command)

    @contextlib.contextmanager
    def done(self, run: Callable[..., str], do: str, undo: str) -> Iterator[None]:
        """A command, and the one that takes it back."""
        run(*do.split())
        try:
            yield
        finally:
            run(*undo.split())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} → {done.returncode}: {done.stderr}")
    return done.stdout


def service(name: str, spec: Object | None = None) -> Object:
    """A Service, by default for the pods app=web, 80 → http."""
    whole: Object = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]} | (spec or {})
    if spec and "selector" in spec and spec["selector"] is None:
        del whole["selector"]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


def pod(name: str, node: str = "", app: str = "", listen: str = "tcp:0.0.0.0:8080", **more: Any) -> Object:
    """A pod that listens as told, or sleeps."""
    command = ["python3", "-c", SERVER, *listen.split()] if listen else ["sleep", "infinity"]
    container: Object = {"name": "c", "image": "fairlead/host", "command": command} | more.pop("container", {})
    spec: Object = {"terminationGracePeriodSeconds": 0, "containers": [container]} | more
    if listen and "readinessProbe" not in container and "image" not in more and listen.startswith("tcp:0.0.0.0"):
        container["readinessProbe"] = {
            "tcpSocket": {"port": int(listen.split(maxsplit=1)[0].rsplit(":", 1)[1])},
            "periodSeconds": 1,
            "failureThreshold": 60,  # a fault that hides the pod from its probe is not to take it out meanwhile
        }
    if node:
        spec["nodeName"] = node
    labels = {"app": app} if app else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def endpoint_slice(name: str, of: str, address: str, port: int, **more: Any) -> Object:
    """An EndpointSlice as somebody would write it by hand."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv6" if ":" in address else "IPv4",
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address]}],
    } | more


@contextlib.contextmanager
def healthy(cluster: Cluster) -> Iterator[Lab]:
    """The laboratory, with its world set up."""
    lab = Lab(cluster)
    try:
        for name in (SPACE, "annex"):
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            lab.run(lab.client.create(NAMESPACES, space))
        ports = [{"name": "http", "containerPort": 8080}]
        container = {"ports": ports, "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}]}
        listen = "tcp:0.0.0.0:8080 udp:0.0.0.0:9053"
        for number in ("1", "2"):
            node = f"n{number}"
            lab.run(lab.client.create(PODS, pod(f"client-{number}", node, listen=""), SPACE))
            web = pod(f"web-{number}", node, "web", listen, container=dict(container))
            lab.run(lab.client.create(PODS, web, SPACE))
        lab.run(lab.client.create(PODS, pod("guest", "n1", listen=""), "annex"))
        http = [{"name": "http", "port": 80, "targetPort": "http"}]
        lab.run(lab.client.create(SERVICES, service("web", {"ports": http, "type": "NodePort"}), SPACE))
        echo = {"selector": {"app": "web"}, "ports": [{"port": 9053, "protocol": "UDP"}]}
        lab.run(lab.client.create(SERVICES, service("udp", echo), SPACE))
        for name, space in (("client-1", SPACE), ("client-2", SPACE), ("guest", "annex")):
            lab.until(
                lambda name=name, space=space: lab.pod(name, space)["status"].get("podIP"),  # type: ignore[misc]
                f"pod {name}",
            )
        lab.settle()
        lab.until(lambda: len(lab.endpoints("kube-dns", "kube-system")) == 2, "the DNS")
        lab.until(lambda: lab.explain("svc/web").works, "the healthy world")
        yield lab
    finally:
        lab.close()


def is_ready(lab: Lab, name: str) -> bool:
    """By its condition."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in lab.pod(name)["status"]["conditions"])


def scale(lab: Lab, name: str, namespace: str, replicas: int) -> None:
    """Set a Deployment's replicas."""
    lab.run(lab.client.patch(DEPLOYMENTS, name, {"spec": {"replicas": replicas}}, namespace))
