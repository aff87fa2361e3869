"""What a manifest takes for granted: the pods behind its Services, the ConfigMaps and Secrets that its pods read.

Pure. The documentation makes these in other steps of the same page. Each is made here with recognisable values, and
`promises` says which values a pod must then be seen to have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Object = dict[str, Any]

ANSWERS = """
import http.server, os, socket, sys, threading
class Both(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["NAME"].encode())
    def log_message(self, *_): pass
for port in sys.argv[1:]:
    server = Both(("::", int(port)), Answer)
    threading.Thread(target=server.serve_forever).start()
"""
TEMPLATES = {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController"}


class Promise(NamedTuple):
    """A value that a container must have: in a variable, or in a file of a volume."""

    container: str
    where: str  # a variable's name, or an absolute path
    value: str


def pod_specs(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each pod's metadata and spec, of pods themselves and of templates."""
    for obj in objects:
        if obj.get("kind") == "Pod":
            yield obj.get("metadata") or {}, obj["spec"]
        elif obj.get("kind") in TEMPLATES:
            template = obj["spec"].get("template") or {}
            yield template.get("metadata") or {}, template.get("spec") or {}
        elif obj.get("kind") == "CronJob":
            yield {}, obj["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def containers(spec: Object) -> list[Object]:
    """A pod's containers, those that come first included."""
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def value(name: str, key: str) -> str:
    """What a ConfigMap or Secret made here holds under a key."""
    return f"{name}-has-{key}"


def default_key(name: str) -> str:
    """The key of one that is read as a whole."""
    return name.replace("-", "_").upper()


def missing(objects: list[Object]) -> list[Object]:
    """The objects to make first."""
    there = {(o.get("kind"), (o.get("metadata") or {}).get("name")) for o in objects}
    wanted: dict[tuple[str, str], set[str]] = {}
    made: list[Object] = []
    for _, spec in pod_specs(objects):
        for kind, name, keys in _references(spec):
            wanted.setdefault((kind, name), set()).update(keys)
        account = spec.get("serviceAccountName")
        if account and account != "default":
            wanted.setdefault(("ServiceAccount", account), set())
    for secret in (o for o in objects if o.get("type") == "kubernetes.io/service-account-token"):
        wanted["ServiceAccount", secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]] = set()
    for (kind, name), keys in wanted.items():
        if (kind, name) in there:
            continue
        obj: Object = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
        if kind == "PersistentVolumeClaim":
            obj["spec"] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        elif kind != "ServiceAccount":
            field = "stringData" if kind == "Secret" else "data"
            obj[field] = {key: value(name, key) for key in keys or {default_key(name)}}
        made.append(obj)
    return made + _backends(objects)


def _references(spec: Object) -> Iterator[tuple[str, str, set[str]]]:
    """The ConfigMaps, Secrets and claims that a pod reads, and of which keys."""
    for container in containers(spec):
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            for member, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if member in source:
                    yield kind, source[member]["name"], {source[member]["key"]}
        for source in container.get("envFrom") or ():
            for member, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if member in source:
                    yield kind, source[member]["name"], set()
    for volume in spec.get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            for member, kind, field in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                if source.get(member):
                    named = source[member].get(field) or source[member].get("name")
                    yield kind, named, {item["key"] for item in source[member].get("items") or ()}
            if source.get("persistentVolumeClaim"):
                yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"], set()


def promises(spec: Object, made: list[Object]) -> list[Promise]:
    """What a pod's containers must be seen to have of the values that were made here."""
    data = {(o["kind"], o["metadata"]["name"]): o.get("data") or o.get("stringData") or {} for o in made}
    found: list[Promise] = []
    volumes = {v["name"]: v for v in spec.get("volumes") or ()}
    for container in spec.get("containers") or ():
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            for member, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                reference = source.get(member)
                if reference and reference["key"] in data.get((kind, reference["name"]), {}):
                    held = data[kind, reference["name"]][reference["key"]]
                    found.append(Promise(container["name"], variable["name"], held))
        for source in container.get("envFrom") or ():
            for member, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                for key, held in data.get((kind, (source.get(member) or {}).get("name")), {}).items():
                    found.append(Promise(container["name"], key, held))
        for mount in container.get("volumeMounts") or ():
            volume = volumes.get(mount["name"]) or {}
            if "subPath" in mount:
                continue
            for source in [volume, *((volume.get("projected") or {}).get("sources") or ())]:
                for member, kind, field in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                    given = source.get(member) or {}
                    held = data.get((kind, given.get(field) or given.get("name")), {})
                    paths = {item["key"]: item["path"] for item in given.get("items") or ()} or {k: k for k in held}
                    for key, path in paths.items():
                        if key in held:
                            found.append(Promise(container["name"], f"{mount['mountPath']}/{path}", held[key]))
    return found


def _backends(objects: list[Object]) -> list[Object]:
    """Pods for Services that select none of the manifest's; Services for what Ingresses name."""
    labels = [metadata.get("labels") or {} for metadata, _ in pod_specs(objects)]
    services = {o["metadata"]["name"] for o in objects if o.get("kind") == "Service"}
    made: list[Object] = []
    for service in [o for o in objects if o.get("kind") == "Service"]:
        selector = service["spec"].get("selector")
        if selector and not any(selector.items() <= own.items() for own in labels):
            made.append(_answering(f"for-{service['metadata']['name']}", selector, service["spec"].get("ports") or ()))
    for name, ports in _named_by_ingresses(objects).items():
        if name not in services:
            spec = [
                {"name": f"p{i}" if isinstance(p, int) else p, "port": p} for i, p in enumerate(sorted(ports, key=str))
            ]
            for port in spec:
                if not isinstance(port["port"], int):
                    port["port"] = 80
            metadata = {"name": name}
            made.append(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": metadata,
                    "spec": {"selector": {"for": name}, "ports": spec},
                }
            )
            made.append(_answering(f"for-{name}", {"for": name}, spec))
    return made


def _named_by_ingresses(objects: list[Object]) -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    for ingress in (o for o in objects if o.get("kind") == "Ingress"):
        spec = ingress["spec"]
        backends = [spec.get("defaultBackend") or {}]
        backends += [path["backend"] for _, path in paths(ingress)]
        for backend in backends:
            service = backend.get("service")
            if service:
                port = service["port"]
                found.setdefault(service["name"], set()).add(port.get("number") or port.get("name"))
    return found


def paths(ingress: Object) -> list[tuple[str, Object]]:
    """The host and the path of each rule."""
    return [
        (rule.get("host") or "", path)
        for rule in ingress["spec"].get("rules") or ()
        for path in (rule.get("http") or {}).get("paths") or ()
    ]


def _answering(name: str, selector: Object, ports: Any) -> Object:
    """A Deployment of one pod that answers on the targets of these ports with its name."""
    listening: list[Object] = []
    for number, port in enumerate(ports):
        target = port.get("targetPort") or port["port"]
        listening.append({"containerPort": target if isinstance(target, int) else 8000 + number})
        if not isinstance(target, int):
            listening[-1]["name"] = target
    container = {
        "name": "answers",
        "image": "fairlead/host",
        "command": ["python3", "-c", ANSWERS, *(str(p["containerPort"]) for p in listening)],
        "env": [{"name": "NAME", "value": name.removeprefix("for-")}],
        "ports": listening,
        "readinessProbe": {"tcpSocket": {"port": listening[0]["containerPort"]}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": selector}, "spec": {"containers": [container]}},
        },
    }
