"""Derive `src/fairlead/api/data/structure.json` from the OpenAPI definitions in the PyPI package `kubernetes-validate`.

Run it with the package installed (it is a development dependency): `python tools/derive_schema.py`. The result holds
only structure (names, types, how lists merge), no descriptions; its grammar is described in `fairlead.api.schema`.
It is committed, so that nobody needs the package (108 MB) at run time. Running it twice changes nothing.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from fairlead.api.kinds import RESOURCES

OUT = Path(__file__).parent.parent / "src/fairlead/api/data/structure.json"

# What is reachable from these is kept: every resource that is served, and those that will be.
KINDS = {(r.group, r.version, r.kind) for r in RESOURCES} | {
    ("", "v1", "Binding"),
    ("", "v1", "LimitRange"),
    ("", "v1", "PersistentVolume"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "PodTemplate"),
    ("", "v1", "ReplicationController"),
    ("", "v1", "ResourceQuota"),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "v1", "APIService"),
    ("apps", "v1", "ControllerRevision"),
    ("apps", "v1", "DaemonSet"),
    ("apps", "v1", "StatefulSet"),
    ("authentication.k8s.io", "v1", "TokenRequest"),
    ("authentication.k8s.io", "v1", "TokenReview"),
    ("authorization.k8s.io", "v1", "LocalSubjectAccessReview"),
    ("authorization.k8s.io", "v1", "SubjectAccessReview"),
    ("autoscaling", "v1", "HorizontalPodAutoscaler"),
    ("autoscaling", "v1", "Scale"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("batch", "v1", "CronJob"),
    ("batch", "v1", "Job"),
    ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
    ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration"),
    ("networking.k8s.io", "v1", "IPAddress"),
    ("networking.k8s.io", "v1", "Ingress"),
    ("networking.k8s.io", "v1", "IngressClass"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("networking.k8s.io", "v1", "ServiceCIDR"),
    ("node.k8s.io", "v1", "RuntimeClass"),
    ("policy", "v1", "Eviction"),
    ("policy", "v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "v1", "Role"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ("scheduling.k8s.io", "v1", "PriorityClass"),
    ("storage.k8s.io", "v1", "CSIDriver"),
    ("storage.k8s.io", "v1", "CSINode"),
    ("storage.k8s.io", "v1", "StorageClass"),
    ("storage.k8s.io", "v1", "VolumeAttachment"),
}
MORE = ("meta.v1.DeleteOptions", "meta.v1.Status", "meta.v1.WatchEvent", "meta.v1.ListMeta")

# Upstream's definition name begins with the first; ours with the second.
PREFIXES = (
    ("io.k8s.api.", ""),
    ("io.k8s.apimachinery.pkg.apis.meta.", "meta."),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.", "apiextensions."),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.", "apiregistration."),
)
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "IntOrString",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "any",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "any",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "Time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "MicroTime",
    **{
        f"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}": "any"
        for name in ("JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray")
    },
}
MARKS = {
    "x-kubernetes-list-type": "list",
    "x-kubernetes-list-map-keys": "keys",
    "x-kubernetes-map-type": "map",
    "x-kubernetes-patch-merge-key": "merge",
    "x-kubernetes-patch-strategy": "strategy",
}


def newest_definitions() -> tuple[str, dict[str, Any]]:
    """The package's newest Kubernetes version and its definitions by upstream's names."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise SystemExit("kubernetes-validate is not installed: pip install kubernetes-validate, then run this again")
    folders = Path(spec.origin).parent.joinpath("kubernetes-json-schema").glob("v*-local")
    newest = max(folders, key=lambda f: [int(n) for n in re.findall(r"\d+", f.name)])
    definitions = json.loads((newest / "_definitions.json").read_bytes())["$defs"]
    return newest.name.removeprefix("v").removesuffix("-local"), definitions


def short(name: str) -> str:
    """Our name of a definition."""
    for theirs, ours in PREFIXES:
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    raise SystemExit(f"no short name is known for {name}: add its prefix to PREFIXES here and in fairlead.api.schema")


def type_of(schema: dict[str, Any]) -> str:
    """A field's type in the grammar of `fairlead.api.schema`."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return SCALARS.get(name) or "#" + short(name)
    kinds = schema.get("type")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    if kind == "array":
        return "[]" + type_of(schema["items"])
    if kind == "object":
        return "{}" + type_of(schema["additionalProperties"]) if "additionalProperties" in schema else "any"
    if kind == "integer":
        return str(schema.get("format", "int64"))
    if kind == "string":
        return {"byte": "bytes"}.get(schema.get("format", ""), "string")
    return {"number": "double", "boolean": "boolean", None: "any"}[kind]


def definition(schema: dict[str, Any]) -> dict[str, Any]:
    """One definition in our form."""
    properties = schema.get("properties", {})
    entry: dict[str, Any] = {"fields": {name: type_of(value) for name, value in properties.items()}}
    if schema.get("required"):
        entry["required"] = schema["required"]
    marks = {}
    for name, value in properties.items():
        mark = {ours: value[theirs] for theirs, ours in MARKS.items() if theirs in value}
        if "strategy" in mark:
            mark["strategy"] = mark["strategy"].split(",")
        if mark:
            marks[name] = mark
    if marks:
        entry["marks"] = marks
    if schema.get("x-kubernetes-map-type") == "atomic":
        entry["atomic"] = True
    return entry


def main() -> None:
    version, definitions = newest_definitions()
    by_short = {short(name): name for name in definitions if name.startswith(tuple(p for p, _ in PREFIXES))}
    kinds: dict[str, str] = {}
    for ours, theirs in by_short.items():
        for gvk in definitions[theirs].get("x-kubernetes-group-version-kind", ()):
            found = (gvk["group"], gvk["version"], gvk["kind"])
            if found in KINDS:
                kinds["/".join(found)] = ours
    if missing := KINDS - {tuple(k.split("/")) for k in kinds}:
        raise SystemExit(f"not in kubernetes-validate {version}: {sorted(missing)}")
    kept: dict[str, Any] = {}
    pending = [*kinds.values(), *MORE]
    while pending:
        name = pending.pop()
        if name in kept:
            continue
        kept[name] = definition(definitions[by_short[name]])
        pending += [t.split("#")[1] for t in kept[name]["fields"].values() if "#" in t]
    lines = [f' "{name}": {json.dumps(kept[name], separators=(",", ":"), sort_keys=True)}' for name in sorted(kept)]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        f'{{"version": "{version}",\n"kinds": {json.dumps(dict(sorted(kinds.items())), indent=1)},\n'
        '"definitions": {\n' + ",\n".join(lines) + "\n}}\n"
    )
    print(
        f"{OUT.name}: {len(kept)} definitions, {len(kinds)} kinds of Kubernetes {version}, {OUT.stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
