"""OpenAPI v3: which paths there are, what they take, and how the objects look.

Read by the API server for `/openapi/v3`. Everything is derived from `kinds` and `schema`; there are no descriptions.
kubectl needs of it: the PATCH operation of a kind with its `fieldValidation` parameter (whether the server validates),
the schemas by `x-kubernetes-group-version-kind` (`explain`, merge keys for `apply`), the paths (`explain`).
Invariant: every `$ref` of a document resolves within it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fairlead.api import schema
from fairlead.api.custom import publish
from fairlead.api.kinds import Resource

Object = dict[str, Any]

_GVK = "x-kubernetes-group-version-kind"
_MEDIA = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_STRATEGIC = "application/strategic-merge-patch+json"
_BOOLEANS = {"allowWatchBookmarks", "follow", "force", "orphanDependents", "previous", "sendInitialEvents", "stderr",
             "stdin", "stdout", "timestamps", "tty", "watch"}  # fmt: skip
_INTEGERS = {"gracePeriodSeconds", "limit", "limitBytes", "sinceSeconds", "tailLines", "timeoutSeconds"}

_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = ("allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
         "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch")  # fmt: skip
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_EXEC = ("container", "stderr", "stdin", "stdout", "tty")
_LOG = ("container", "follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "tailLines", "timestamps")

# subresource → (definition of its body or "" for the resource's own, methods); a definition of None means plain text.
_OBJECT_METHODS = ("get", "put", "patch")
_SUBRESOURCES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "status": ("", _OBJECT_METHODS),
    "scale": ("autoscaling.v1.Scale", _OBJECT_METHODS),
    "ephemeralcontainers": ("", _OBJECT_METHODS),
    "resize": ("", _OBJECT_METHODS),
    "approval": ("", _OBJECT_METHODS),
    "finalize": ("", ("put",)),
    "binding": ("core.v1.Binding", ("post",)),
    "eviction": ("policy.v1.Eviction", ("post",)),
    "token": ("authentication.v1.TokenRequest", ("post",)),
    "log": (None, ("get",)),
    "exec": (None, ("get", "post")),
    "attach": (None, ("get", "post")),
    "portforward": (None, ("get", "post")),
    "proxy": (None, ("get", "post", "put", "patch", "delete")),
}
_CONNECT_PARAMETERS = {
    "log": _LOG,
    "exec": ("command", *_EXEC),
    "attach": _EXEC,
    "portforward": ("ports",),
    "proxy": ("path",),
}

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_NAMED: dict[str, tuple[str, Object]] = {
    "Quantity": (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        {"oneOf": [{"type": "string"}, {"type": "number"}]},
    ),
    "IntOrString": (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
    ),
    "Time": (_META + "Time", {"type": "string", "format": "date-time"}),
    "MicroTime": (_META + "MicroTime", {"type": "string", "format": "date-time"}),
}
_PLAIN: dict[str, Object] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
}


def address(resource: Resource) -> str:
    """The document a resource is in: `api/v1` or `apis/apps/v1`."""
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def index(resources: Iterable[Resource]) -> Object:
    """The body of `/openapi/v3`: the address of each group version's document, without a hash."""
    found = sorted({address(resource) for resource in resources})
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in found}}


def document(group_version: str, resources: Iterable[Resource]) -> Object:
    """The document at one address of the index (`api/v1`, `apis/apps/v1`; `v1`, `apps/v1` will do).

    A group version that serves nothing gives a document without paths.
    """
    if not group_version.startswith(("api/", "apis/")):
        group_version = f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"
    builder = _Builder()
    for resource in resources:
        if address(resource) == group_version:
            builder.resource(resource)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{schema.kubernetes_version()}"},
        "paths": dict(sorted(builder.paths.items())),
        "components": {
            "schemas": dict(sorted(builder.schemas.items())),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization"}},
        },
    }


def _reference(name: str) -> Object:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, where: str = "query") -> Object:
    kind = "boolean" if name in _BOOLEANS else "integer" if name in _INTEGERS else "string"
    return {
        "name": name,
        "in": where,
        **({"required": True} if where == "path" else {}),
        "schema": {"type": kind, "uniqueItems": True},
    }


class _Builder:
    """Collects the paths of resources and the schemas they refer to."""

    def __init__(self) -> None:
        self.paths: dict[str, Object] = {}
        self.schemas: dict[str, Object] = {}

    # --- schemas

    def define(self, name: str, gvk: Object | None = None) -> str:
        """Publish a definition with all it refers to; gives its published name."""
        published = schema.long_name(name)
        if published not in self.schemas:
            described = schema.named(name)
            entry: Object = {"type": "object"}
            self.schemas[published] = entry  # before its fields: definitions may contain themselves
            properties = {field.name: self._property(field) for field in described.fields.values()}
            if properties:
                entry["properties"] = properties
            if required := [field.name for field in described.fields.values() if field.required]:
                entry["required"] = required
            if described.atomic:
                entry["x-kubernetes-map-type"] = "atomic"
        if gvk is not None:
            known = self.schemas[published].setdefault(_GVK, [])
            if gvk not in known:
                known.append(gvk)
        return published

    def _property(self, field: schema.Field) -> Object:
        entry = self._type(field.type)
        marks: Object = {}
        if field.list_type:
            marks["x-kubernetes-list-type"] = field.list_type
        if field.list_keys:
            marks["x-kubernetes-list-map-keys"] = list(field.list_keys)
        if field.map_type:
            marks["x-kubernetes-map-type"] = field.map_type
        if field.merge_key:
            marks["x-kubernetes-patch-merge-key"] = field.merge_key
        if field.strategy:
            marks["x-kubernetes-patch-strategy"] = ",".join(field.strategy)
        if marks and "$ref" in entry:
            entry = {"allOf": [entry]}
        return {**entry, **marks}

    def _type(self, of: schema.Type) -> Object:
        if of.item is not None:
            item = self._type(of.item)
            return (
                {"type": "array", "items": item}
                if of.form == "list"
                else {"type": "object", "additionalProperties": item}
            )
        if of.form == "object":
            return _reference(self.define(of.definition))
        if of.form in _NAMED:
            name, entry = _NAMED[of.form]
            self.schemas.setdefault(name, dict(entry))
            return _reference(name)
        return dict(_PLAIN[of.form])

    def _object(self, resource: Resource, gvk: Object) -> str:
        """Publish the kind of a resource."""
        if resource.definition is None:
            return self.define(schema.schema_of(resource).name, gvk)
        name = publish.name_of(resource)
        metadata = _reference(self.define("meta.v1.ObjectMeta"))
        self.schemas[name] = {**publish.v3(resource, metadata), _GVK: [gvk]}
        return name

    def define_list(self, resource: Resource, item: str) -> str:
        """Publish the list kind of a resource."""
        published = f"{item}List"
        self.schemas[published] = {
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "items": {"type": "array", "items": _reference(item)},
                "kind": {"type": "string"},
                "metadata": _reference(self.define(schema.LIST_META)),
            },
            "required": ["items"],
            _GVK: [{"group": resource.group, "version": resource.version, "kind": resource.list_kind}],
        }
        return published

    # --- paths

    def resource(self, resource: Resource) -> None:
        """Publish a resource with its paths."""
        gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        name = self._object(resource, gvk)
        collection = resource.path("{namespace}") if resource.namespaced else resource.path()
        place = [_parameter("namespace", "path")] if resource.namespaced else []
        if not resource.stored:
            self.paths[collection] = {"parameters": place, "post": self._write("post", gvk, name, resource)}
            return
        listed = self.define_list(resource, name)
        status = self.define(schema.STATUS)
        options = self.define(schema.DELETE_OPTIONS)
        self.paths[collection] = {
            "parameters": place,
            "get": _operation("list", gvk, _LIST, listed, resource),
            "post": self._write("post", gvk, name, resource),
            "delete": _operation("deletecollection", gvk, (*_DELETE, *_LIST), status, resource, body=options),
        }
        if resource.namespaced:
            self.paths[resource.path()] = {"get": _operation("list", gvk, _LIST, listed, resource, everywhere=True)}
        if resource.plural == "namespaces":
            del self.paths[collection]["delete"]
        one = f"{collection}/{{name}}"
        place = [_parameter("name", "path"), *place]
        self.paths[one] = {
            "parameters": place,
            "get": _operation("get", gvk, (), name, resource),
            "put": self._write("put", gvk, name, resource),
            "patch": self._write("patch", gvk, name, resource),
            "delete": _operation("delete", gvk, _DELETE, status, resource, body=options),
        }
        for subresource in resource.subresources:
            self.paths[f"{one}/{subresource}"] = {
                "parameters": place,
                **self._subresource(resource, gvk, name, subresource),
            }

    def _subresource(self, resource: Resource, gvk: Object, name: str, subresource: str) -> Object:
        body, methods = _SUBRESOURCES[subresource]
        if body is None:
            parameters = _CONNECT_PARAMETERS[subresource]
            return {
                method: _operation("connect", gvk, parameters, None, resource, sub=subresource, method=method)
                for method in methods
            }
        if body:
            gvk = _kind_of(body)
            name = self.define(body, gvk)
        return {
            method: _operation("get", gvk, (), name, resource, sub=subresource)
            if method == "get"
            else self._write(method, gvk, name, resource, subresource)
            for method in methods
        }

    def _write(self, method: str, gvk: Object, name: str, resource: Resource, sub: str = "") -> Object:
        if method != "patch":
            return _operation(method, gvk, _WRITE, name, resource, body=name, sub=sub)
        patch = _META + "Patch"
        self.schemas.setdefault(patch, {"type": "object"})
        return _operation("patch", gvk, (*_WRITE, "force"), name, resource, body=patch, sub=sub)


def _kind_of(definition: str) -> Object:
    _, version, kind = definition.rsplit(".", 2)
    group = {
        "core.v1.Binding": "",
        "authentication.v1.TokenRequest": "authentication.k8s.io",
    }.get(definition, definition.split(".", 1)[0])
    return {"group": group, "version": version, "kind": kind}


def _operation(
    action: str,
    gvk: Object,
    parameters: Sequence[str],
    result: str | None,
    resource: Resource,
    *,
    body: str = "",
    sub: str = "",
    method: str = "",
    everywhere: bool = False,
) -> Object:
    answer = {"application/json": {"schema": _reference(result)}} if result else {"*/*": {"schema": {"type": "string"}}}
    codes = {"post": ("200", "201", "202"), "put": ("200", "201"), "patch": ("200", "201"), "delete": ("200", "202")}
    group = resource.group.split(".")[0] or "core"
    name = f"{method or action}{group.title()}{resource.version.title()}"
    name += "Namespaced" if resource.namespaced and not everywhere else ""
    name += resource.kind + sub.title() + ("ForAllNamespaces" if everywhere else "")
    operation: Object = {
        "operationId": name,
        "parameters": [_parameter(parameter) for parameter in (*parameters, "pretty")],
        "responses": {
            code: {"description": "OK", "content": answer} for code in codes.get(action, ("200",))
        } | {"401": {"description": "Unauthorized"}},
        "tags": [f"{group}_{resource.version}"],
        "x-kubernetes-action": action,
        _GVK: gvk,
    }  # fmt: skip
    if body:
        custom = resource.definition is not None
        patches = [kind for kind in _PATCHES if not (custom and kind == _STRATEGIC)]
        media = patches if action == "patch" else _MEDIA
        operation["requestBody"] = {
            "content": {kind: {"schema": _reference(body)} for kind in media},
            **({"required": True} if action in ("post", "put", "patch") else {}),
        }
    return operation
