"""Manifests in a cluster: each is applied as it stands, and watched until it has done what it is made for.

What a manifest takes for granted is made first (`surroundings`), images are stood in for (`standins`). Seen of each
file: its objects settle (`settled`); its Services answer by name from another namespace, its StatefulSets' pods by
theirs; what its pods were promised of ConfigMaps and Secrets is in their variables and files; and what `expected` says.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.cluster.conftest import Cluster
from tests.manifests import expected, standins, surroundings
from tests.manifests.settled import settled

Object = dict[str, Any]
DEADLINE = 240.0
_ENDING = ("Pod", "Job", "Ingress", "StatefulSet")
_SHARED = ("PersistentVolume", "StorageClass", "IngressClass", "PriorityClass")
CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default}
spec: {containers: [{name: client, image: fairlead/host, command: [sleep, infinity]}]}
"""
ZONE = "topology.kubernetes.io/zone"
NODES = {
    "n1": {"disktype": "ssd", "zone": "zoneA", "node": "n1", ZONE: "antarctica-east1"},
    "n2": {"zone": "zoneB", "node": "n2", ZONE: "antarctica-west1"},
    "n3": {"zone": "zoneB", "node": "n3", ZONE: "antarctica-west1"},
}


class Behaviour(NamedTuple):
    """What a file did: `behaves` or `differs`, and what was seen."""

    file: str
    outcome: str
    seen: str


class Differs(Exception):
    """Something else was seen than should be."""


class Watcher:
    """Applies files to a running cluster, each in a namespace of its own, and looks at what they do."""

    def __init__(self, cluster: Cluster, top: Path) -> None:
        self._cluster, self._top = cluster, top
        self._one = threading.Lock()  # files with objects outside namespaces take turns

    def prepare(self, files: list[Path], directory: Path) -> None:
        """Load the images, mark the nodes as the documentation's are, start a client."""
        images = {c["image"] for f in files for _, s in _specs(f) for c in surroundings.containers(s) if "image" in c}
        for layout in standins.layouts(directory, images):
            self._cluster.fairlead("image", "load", str(layout))
        for node, labels in NODES.items():
            marks = [f"{key}={value}" for key, value in labels.items()]
            self._cluster.kubectl("label", "node", node, "--overwrite", *marks)
            patch = '[{"op":"add","path":"/status/capacity/example.com~1dongle","value":"4"}]'
            self._cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch)
            profiles = self._cluster.state / self._cluster.name / "nodes" / node / "seccomp" / "profiles"
            shutil.copytree(self._top / "pods/security/seccomp/profiles", profiles, dirs_exist_ok=True)
        self.start_client()

    def start_client(self) -> None:
        """The pod that asks Services and Ingresses, in another namespace than they are."""
        self._cluster.apply(CLIENT)
        self._cluster.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")

    def watch(self, file: Path) -> Behaviour:
        """Apply one file and say what it does."""
        name = str(file.relative_to(self._top))
        files = [file, *(self._top / before for before in expected.FIRST.get(name, ()))]
        shared = [obj for each in files for obj in objects_of(each) if obj["kind"] in _SHARED]
        with self._one if shared else contextlib.nullcontext():
            return self._watch(name, file, shared)

    def _watch(self, name: str, file: Path, shared: list[Object]) -> Behaviour:
        namespace = namespace_for("b", name)
        self._cluster.kubectl("create", "namespace", namespace)
        try:
            seen = list(self._seen(name, file, namespace))
            return Behaviour(name, "behaves", "; ".join(seen) or "stored")
        except (Differs, AssertionError, OSError, LookupError, ValueError) as error:
            if name in expected.REFUSED and not isinstance(error, Differs):
                return Behaviour(name, "behaves", "refused, as it is upstream")
            return Behaviour(name, "differs", str(error).splitlines()[0][:300] if str(error) else repr(error))
        finally:
            self._cluster.kubectl("delete", "namespace", namespace, f"--wait={bool(shared)}".lower(), check=False)
            for obj in shared:
                named = f"{obj['kind'].lower()}/{obj['metadata']['name']}"
                self._cluster.kubectl("delete", named, "--ignore-not-found", check=False)

    def _seen(self, name: str, file: Path, namespace: str) -> Iterator[str]:
        objects = objects_of(file)
        first = [obj for before in expected.FIRST.get(name, ()) for obj in objects_of(self._top / before)]
        made = surroundings.missing([*first, *objects])
        self._apply([*made, *first, *objects], namespace)
        if name in expected.REFUSED:
            raise Differs("is not refused")
        yield from self._settle(name, objects, namespace)
        if name not in expected.ENDS:
            yield from self._answers(objects, namespace)
            yield from self._ordered(objects, namespace)
            yield from self._promised(objects, made, namespace)
        yield from self._said(name, objects, namespace)

    def _apply(self, objects: list[Object], namespace: str) -> None:
        """In that namespace, whatever namespace they name; images are not asked of their registries."""
        for obj in objects:
            if obj["kind"] == "Namespace":
                continue
            metadata = {key: value for key, value in obj["metadata"].items() if key != "namespace"}
            for _, spec in surroundings.pod_specs([obj]):
                for container in surroundings.containers(spec):
                    container["imagePullPolicy"] = "IfNotPresent"
            text = json.dumps({**obj, "metadata": metadata})
            self._cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=text)

    def _settle(self, name: str, objects: list[Object], namespace: str) -> Iterator[str]:
        wanted = expected.ENDS.get(name)
        for obj in objects:
            what = f"{obj['kind']} {obj['metadata'].get('name')}"
            if obj["kind"] in ("Namespace", "List"):
                continue
            last = self._settled(obj, what, wanted, namespace)
            if last:
                yield f"{what}: {last}"

    def _settled(self, obj: Object, what: str, wanted: str | None, namespace: str) -> str:
        """Wait for that; what is to be said of it."""
        last = ""

        def there() -> bool:
            nonlocal last
            done, last = settled(self._get(obj, namespace))
            if wanted is not None and obj["kind"] in _ENDING:
                return wanted in last
            if done is False:
                raise Differs(f"{what}: {last}")
            return bool(done)

        self._until(there, lambda: f"{what}: {last}")
        return last

    def _get(self, obj: Object, namespace: str) -> Object:
        group = obj["apiVersion"].rpartition("/")[0]
        version = obj["apiVersion"].rpartition("/")[2]
        if obj["kind"] == "HorizontalPodAutoscaler":
            version = "v2"  # v1 has no conditions
        kind = f"{obj['kind'].lower()}.{version}.{group}" if group else obj["kind"].lower()
        found: Object = self._cluster.get("-n", namespace, kind, obj["metadata"]["name"])
        return found

    def _answers(self, objects: list[Object], namespace: str) -> Iterator[str]:
        for obj in objects:
            if obj["kind"] == "Service" and obj["spec"].get("selector"):
                name = f"{obj['metadata']['name']}.{namespace}.svc.cluster.local"
                ports = [p["port"] for p in obj["spec"].get("ports") or () if p.get("protocol", "TCP") == "TCP"]
                for port in ports:
                    self._connects(name, port)
                yield f"{obj['metadata']['name']} answers by name on {', '.join(map(str, ports))}"
            elif obj["kind"] == "Ingress":
                yield from self._routes(obj, namespace)

    def _connects(self, name: str, port: int) -> None:
        command = ("timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{name}/{port}")
        self._until(lambda: self._in_client(*command) is not None, lambda: f"no answer of {name}:{port}")

    def _leads(self, service: str, url: str, command: tuple[str, ...]) -> None:
        self._until(lambda: self._in_client(*command) == service, lambda: f"{url} does not lead to {service}")

    def _resolves(self, host: str, address: str) -> None:
        def found() -> bool:
            return (self._in_client("getent", "hosts", host) or "").startswith(f"{address} ")

        self._until(found, lambda: f"{host} does not resolve")

    def _routes(self, ingress: Object, namespace: str) -> Iterator[str]:
        address = self._get(ingress, namespace)["status"]["loadBalancer"]["ingress"][0]["ip"]
        scheme = "https" if ingress["spec"].get("tls") else "http"
        for host, path in surroundings.paths(ingress):
            service = path["backend"].get("service")
            if not service:
                continue
            named = (host or "any.example").replace("*", "some")
            url = f"{scheme}://{named}{path.get('path') or '/'}"
            port = 443 if scheme == "https" else 80
            command = ("curl", "-ksS", "--max-time", "3", "--resolve", f"{named}:{port}:{address}", url)
            self._leads(service["name"], url, command)
            yield f"{url} leads to {service['name']}"

    def _in_client(self, *command: str) -> str | None:
        try:
            return self._cluster.kubectl("-n", "default", "exec", "client", "--", *command).strip()
        except AssertionError:
            return None

    def _ordered(self, objects: list[Object], namespace: str) -> Iterator[str]:
        """Of StatefulSets: their pods' names resolve, and each was ready before the next was made."""
        services = {o["metadata"]["name"] for o in objects if o["kind"] == "Service"}
        for obj in (o for o in objects if o["kind"] == "StatefulSet"):
            spec, name = obj["spec"], obj["metadata"]["name"]
            pods = [self._cluster.get("-n", namespace, "pod", f"{name}-{i}") for i in range(spec.get("replicas", 1))]
            if spec.get("podManagementPolicy") != "Parallel":
                for before, after in itertools.pairwise(pods):
                    ready = next(c for c in before["status"]["conditions"] if c["type"] == "Ready")
                    if ready["lastTransitionTime"] > after["metadata"]["creationTimestamp"]:
                        raise Differs(f"{after['metadata']['name']} was made before the one before it was ready")
                yield f"{len(pods)} pods in order"
            if spec.get("serviceName") in services:
                for pod in pods:
                    host = f"{pod['metadata']['name']}.{spec['serviceName']}.{namespace}.svc.cluster.local"
                    self._resolves(host, pod["status"]["podIP"])
                yield "each by its own name"

    def _promised(self, objects: list[Object], made: list[Object], namespace: str) -> Iterator[str]:
        """What was put into ConfigMaps and Secrets is in the containers that run."""
        wanted = [(m, p) for m, s in surroundings.pod_specs(objects) for p in surroundings.promises(s, made)]
        found = 0
        for metadata, promise in wanted:
            pod = metadata.get("name") or self._pod_with(metadata.get("labels") or {}, namespace)
            phase = self._cluster.get("-n", namespace, "pod", pod)["status"]["phase"]
            if phase != "Running":
                continue
            command = ["cat", promise.where] if promise.where.startswith("/") else ["printenv", promise.where]
            said = self._cluster.kubectl("-n", namespace, "exec", pod, "-c", promise.container, "--", *command).strip()
            if said != promise.value:
                raise Differs(f"{promise.where} of {promise.container} is {said!r} instead of {promise.value!r}")
            found += 1
        if found:
            yield f"{found} value(s) of ConfigMaps or Secrets in their place"

    def _pod_with(self, labels: Object, namespace: str) -> str:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found: str = self._cluster.get("-n", namespace, "pods", "-l", selector)["items"][0]["metadata"]["name"]
        return found

    def _said(self, name: str, objects: list[Object], namespace: str) -> Iterator[str]:
        if name in expected.SAYS:
            last = ""

            def said() -> bool:
                nonlocal last
                pods = self._cluster.get("-n", namespace, "pods")["items"]
                logs = [
                    self._cluster.kubectl(
                        "-n", namespace, "logs", p["metadata"]["name"], "--all-containers", check=False
                    )
                    for p in pods
                ]
                last = "\n".join(logs)
                return all(word in last for word in expected.SAYS[name])

            self._until(said, lambda: f"logs: {last[-200:]!r}")
            yield f"said {expected.SAYS[name][0]!r}" + (" …" if len(expected.SAYS[name]) > 1 else "")
        if name in expected.RUNS:
            command, part = expected.RUNS[name]
            pod = next(o["metadata"]["name"] for o in objects if o["kind"] == "Pod")
            printed = self._cluster.kubectl("-n", namespace, "exec", pod, "--", *shlex.split(command))
            if part not in printed:
                raise Differs(f"{command}: {printed.strip()!r}, not {part!r}")
            yield f"`{command}` has {part if len(part) > 2 else 'a token'!r}"
        if name in expected.RESTARTS:
            pod = next(o["metadata"]["name"] for o in objects if o["kind"] == "Pod")
            self._until(
                lambda: (
                    self._cluster.get("-n", namespace, "pod", pod)["status"]["containerStatuses"][0]["restartCount"] > 0
                ),
                lambda: "was never restarted",
            )
            yield "restarted by its probe"

    def _until(self, condition: Callable[[], bool], what: Callable[[], str]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                raise Differs(what())
            time.sleep(1)


def objects_of(file: Path) -> list[Object]:
    """The objects of a file; none, if it holds no objects."""
    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except yaml.YAMLError:
        return []
    mappings = [d for d in documents if isinstance(d, dict)]
    lists = [d for d in mappings if str(d.get("kind")).endswith("List")]
    singles = [d for d in mappings if d not in lists and d.get("kind") and isinstance(d.get("metadata"), dict)]
    return singles + [item for each in lists for item in each.get("items") or ()]


def namespace_for(prefix: str, name: str) -> str:
    """The namespace of a file of that name."""
    words = "".join(c if c.isalnum() else "-" for c in name.lower().rsplit(".", 1)[0])
    return f"{prefix}-{words[-50:].strip('-')}"


def _specs(file: Path) -> Iterator[tuple[Object, Object]]:
    return surroundings.pod_specs(objects_of(file))
