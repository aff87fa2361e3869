"""Requests nobody should send: right ones, nearly right ones, and nonsense, all from one die.

Pure: what comes out depends on the die, the paths the server names, and nothing else. Commands do
nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from fairlead.api import schema
from fairlead.api.kinds import Resource
from fairlead.api.schema import Schema, Type
from tests.fuzz.nonsense import (
    ACCEPTS,
    HEADERS,
    METHODS,
    NOT_HTTP,
    NUMBERS,
    PATCH_TYPES,
    QUERY,
    SIMPLE,
    STRANGE_KEYS,
    STRANGE_NAMES,
    TEXTS,
    TYPES,
    UPGRADES,
)
from tests.fuzz.seeds import NAMES, NAMESPACES, SEEDS

Object = dict[str, Any]


class Path(NamedTuple):
    """A path as OpenAPI writes it, its methods there, and the resource behind it (None: a document)."""

    template: str
    methods: tuple[str, ...]
    resource: Resource | None
    subresource: str


class Asked(NamedTuple):
    """One request. `stream`: it may go on for ever, by right."""

    data: bytes
    about: str
    subresource: str
    stream: bool


class Maker:
    """Makes requests for the paths a server names."""

    def __init__(self, paths: Sequence[Path], protobuf: Sequence[bytes], dice: Random) -> None:
        self._paths, self._protobuf, self._dice = paths, protobuf, dice

    def request(self) -> Asked:
        """The next one."""
        dice = self._dice
        if dice.random() < 0.03:
            data = dice.choice(NOT_HTTP)
            return Asked(data, repr(data[:200]), "", False)
        path = dice.choice(self._paths)
        method = dice.choice(path.methods) if path.methods and dice.random() < 0.9 else dice.choice(METHODS)
        name = self._name(NAMES)
        target = self._target(path, name)
        query = self._query(path, method)
        headers = {"Host": "fuzz", "Accept": dice.choice(ACCEPTS) if dice.random() < 0.25 else "*/*"}
        body = b""
        if method in ("POST", "PUT", "PATCH", "DELETE") and dice.random() < (0.2 if method == "DELETE" else 0.97):
            content_type, body = self._body(path, method, name)
            headers["Content-Type"] = content_type
        if dice.random() < 0.15:
            name = dice.choice(list(HEADERS))
            headers[name] = dice.choice(HEADERS[name])
        upgrade = path.subresource in ("exec", "attach", "portforward", "proxy")
        if dice.random() < (0.6 if upgrade else 0.02):
            protocol, more = dice.choice(UPGRADES)
            headers |= {"Connection": "Upgrade", "Upgrade": protocol, **more}
        if body or method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(len(body))
        head = f"{method} {target}{'?' + query if query else ''} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        stream = (
            "watch" in query
            or "/watch/" in target
            or path.subresource in ("log", "exec", "attach", "portforward", "proxy")
        )
        data = head.encode("utf-8", "surrogateescape") + b"\r\n" + body
        return Asked(data, f"{head}\n{body[:3000]!r}", path.subresource, stream)

    # ---- where
    def _target(self, path: Path, name: str) -> str:
        dice, target = self._dice, path.template
        target = target.replace("{namespace}", self._name(NAMESPACES))
        target = target.replace("{name}", name).replace("{path}", self._name(("", "index.html", "a/b/")))
        if dice.random() < 0.02:
            target += dice.choice(("/", "//", "/x", "/status/x", "/../..", "%2f", ";a=b", "#x"))
        if dice.random() < 0.01:
            target = target.replace("/v1/", "/v1/watch/", 1)
        return target

    def _name(self, good: Sequence[str]) -> str:
        dice = self._dice
        return dice.choice(good) if dice.random() < 0.93 else dice.choice(STRANGE_NAMES).replace(" ", "%20")

    def _query(self, path: Path, method: str) -> str:
        dice = self._dice
        keys = [key for key in QUERY if dice.random() < 0.06]
        if "watch" in keys and "timeoutSeconds" not in keys:
            keys.append("timeoutSeconds")
        if method == "PATCH" and dice.random() < 0.5:
            keys += ["fieldManager"]
        if path.subresource in ("exec", "attach"):
            keys += ["command", "stdout"]
        pairs = []
        for key in keys:
            value = dice.choice(QUERY[key])
            safe = "%" if dice.random() < 0.1 else ""
            pairs.append(f"{key}={quote(value, safe=safe, errors='replace')}")
        return "&".join(pairs)

    # ---- what
    def _body(self, path: Path, method: str, name: str) -> tuple[str, bytes]:
        dice = self._dice
        kind = dice.random()
        if kind < 0.06:
            return dice.choice(TYPES), dice.choice(
                (
                    b"",
                    b"{",
                    b"[]",
                    b"null",
                    b'"x"',
                    b"\x00\x01\x02",
                    b"k8s\x00",
                    b"k8s\x00\x0a\xff\xff\xff\xff\x0f",
                    b"[" * 20000,
                    b'{"a":' * 5000,
                    b"- " * 3000,
                    b"a: &x [*x]",
                    b"\xff\xfe{\x00}\x00",
                    b"!!python/object:os.system {}",
                    b"a: 1\na: 2",
                    b'{"metadata":{"name":"a","name":"b"}}',
                    b"? [a]\n: b",
                    b"{1: 2, true: 3, null: 4}",
                    b"a: .nan\nb: .inf",
                    b"1",
                    dice.randbytes(dice.randint(1, 200)),
                    b'{"spec":' + b"9" * 5000 + b"}",
                    b'{"a":1e999}',
                    b"%YAML 9.9\n---\n",
                )
            )
        if kind < 0.10:
            data = bytearray(dice.choice(self._protobuf))
            for _ in range(dice.choice((0, 1, 1, 3))):
                data[dice.randrange(4, len(data))] = dice.randrange(256)
            return "application/vnd.kubernetes.protobuf", bytes(
                data[: dice.randint(4, len(data))] if dice.random() < 0.3 else data
            )
        obj = self._object(path, method, name)
        if method == "PATCH" and dice.random() < 0.9:
            return self._patch(obj)
        content_type = "application/json" if dice.random() < 0.85 else dice.choice(TYPES)
        if content_type == "application/yaml":
            return content_type, yaml.safe_dump(obj, allow_unicode=True).encode("utf-8", "surrogatepass")
        return content_type, self._json(obj)

    def _json(self, value: Any) -> bytes:
        text = json.dumps(value, ensure_ascii=self._dice.random() < 0.5).encode("utf-8", "surrogatepass")
        if self._dice.random() < 0.03:
            at = self._dice.randrange(len(text))
            text = text[:at] + self._dice.choice((b"", b"\xff", b"}", b",", b"\x00", b"//")) + text[at + 1 :]
        return text

    def _object(self, path: Path, method: str, name: str) -> Object:
        """A right object of the path's kind, or any its schema allows; then changed here and there."""
        dice, resource = self._dice, path.resource
        if method == "DELETE":
            obj: Object = self._any(schema.named(schema.DELETE_OPTIONS), 0)
        elif resource is None:
            obj = {"a": 1}
        else:
            bodies = SEEDS.get(path.subresource) or SEEDS.get(resource.kind)
            if bodies and dice.random() < 0.75:
                obj = copy.deepcopy(dice.choice(bodies))
            elif resource.definition is None:
                obj = self._any(schema.schema_of(resource), 0)
                obj["metadata"] = {
                    "name": dice.choice(NAMES),
                    **({} if dice.random() < 0.8 else obj.get("metadata") or {}),
                }
            else:
                obj = {"metadata": {"name": dice.choice(NAMES)}, "spec": dice.choice(SIMPLE["any"])}
        if method in ("PUT", "PATCH") and dice.random() < 0.9:
            obj["metadata"] = {**obj.get("metadata", {}), "name": name}
        for _ in range(dice.choice((0, 0, 1, 1, 1, 4))):
            self._change(obj)
        return obj

    def _any(self, described: Schema, depth: int) -> Object:
        dice = self._dice
        likely = 0.75 if depth < 2 else 0.3 if depth < 5 else 0.05
        return {
            name: self._value(field.type, depth)
            for name, field in described.fields.items()
            if name not in ("kind", "apiVersion") and (field.required or dice.random() < likely)
        }

    def _value(self, of: Type, depth: int) -> Any:
        dice = self._dice
        if of.form == "object":
            return self._any(of.schema, depth + 1)
        if of.form == "list":
            assert of.item is not None
            return [self._value(of.item, depth + 1) for _ in range(dice.choice((0, 1, 1, 2)))]
        if of.form == "map":
            assert of.item is not None
            return {dice.choice(TEXTS): self._value(of.item, depth + 1) for _ in range(dice.choice((0, 1, 2)))}
        return dice.choice(SIMPLE[of.form])

    def _garbage(self) -> Any:
        dice = self._dice
        return dice.choice(
            (
                None,
                True,
                {},
                [],
                [[]],
                [None],
                {"": None},
                dice.choice(TEXTS),
                dice.choice(NUMBERS),
                dice.choice(TEXTS),
                [{}],
                {dice.choice(STRANGE_KEYS): dice.choice(TEXTS)},
                {"a": {"b": {"c": [[[{}]]]}}},
            )
        )

    def _change(self, obj: Object) -> None:
        """Replace, remove, double or add something, somewhere."""
        dice = self._dice
        here: Any = obj
        while True:
            inner = [v for v in (here.values() if isinstance(here, dict) else here) if isinstance(v, dict | list) and v]
            if not inner or dice.random() < 0.25:
                break
            here = dice.choice(inner)
        what = dice.random()
        keys: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys or (what < 0.2 and isinstance(here, dict)):
            if isinstance(here, dict):
                here[dice.choice(STRANGE_KEYS)] = self._garbage()
            return
        key = dice.choice(keys)
        if what < 0.4:
            del here[key]
        elif what < 0.5 and isinstance(here, list):
            here.append(copy.deepcopy(here[key]))
        else:
            here[key] = self._garbage()

    def _patch(self, obj: Object) -> tuple[str, bytes]:
        dice = self._dice
        content_type = dice.choice(PATCH_TYPES)
        if content_type == "application/apply-patch+yaml":
            return content_type, yaml.safe_dump(obj, allow_unicode=True).encode("utf-8", "surrogatepass")
        if content_type == "application/json-patch+json":
            return content_type, self._json(self._operations(obj))
        if dice.random() < 0.3 and obj:
            obj = {key: obj[key] for key in dice.sample(list(obj), 1)}
        if dice.random() < 0.3:
            self._direct(obj)
        return content_type, self._json(obj)

    def _direct(self, obj: Object) -> None:
        """Put a strategic merge's directive somewhere."""
        dice = self._dice
        places: list[Object] = [obj]
        for place in places:
            places += [v for v in place.values() if isinstance(v, dict)]
            places += [i for v in place.values() if isinstance(v, list) for i in v if isinstance(i, dict)]
        dice.choice(places)[
            dice.choice(
                (
                    "$patch",
                    "$retainKeys",
                    "$setElementOrder/ports",
                    "$setElementOrder/containers",
                    "$deleteFromPrimitiveList/finalizers",
                    "$patch/x",
                    "$setElementOrder/",
                    "$nope",
                )
            )
        ] = dice.choice(("delete", "replace", "merge", "nope", ["a"], [{"name": "a"}], [{"port": 80}], {}, 1, None))

    def _operations(self, obj: Object) -> Any:
        dice = self._dice
        if dice.random() < 0.05:
            return self._garbage()
        found = []
        for _ in range(dice.choice((0, 1, 1, 1, 2, 5))):
            operation: Object = {"op": dice.choice(("add", "remove", "replace", "move", "copy", "test", "nope"))}
            operation["path"] = self._pointer(obj)
            if dice.random() < 0.7:
                operation["value"] = self._garbage()
            if operation["op"] in ("move", "copy") and dice.random() < 0.9:
                operation["from"] = self._pointer(obj)
            if dice.random() < 0.05:
                operation[dice.choice(list(operation))] = self._garbage()
            found.append(operation)
        return found

    def _pointer(self, obj: Object) -> Any:
        dice = self._dice
        if dice.random() < 0.1:
            return dice.choice(
                (
                    "",
                    "/",
                    "a",
                    "/-",
                    "/~",
                    "/~2",
                    "/a/-1",
                    "/spec/01",
                    "/" * 50,
                    "/metadata/9999999999999999999",
                    7,
                    None,
                )
            )
        here: Any = obj
        path = ""
        while isinstance(here, dict | list) and here and dice.random() < 0.8:
            keys: list[Any] = list(here) if isinstance(here, dict) else [*range(len(here)), "-"]
            key = dice.choice(keys)
            path += "/" + str(key).replace("~", "~0").replace("/", "~1")
            here = None if key == "-" else here[key]
        return path


def paths_of(documents: Sequence[Object], resources: Sequence[Resource]) -> list[Path]:
    """What OpenAPI v3 documents name, and the documents themselves."""
    by_start = {resource.path(): resource for resource in resources}
    by_start |= {resource.path(namespace="{namespace}"): resource for resource in resources}
    found = []
    for document in documents:
        for template, operations in document["paths"].items():
            methods = tuple(
                m.upper() for m in operations if m in ("get", "put", "post", "patch", "delete", "head", "options")
            )
            parts = template.split("/{name}")
            resource = by_start.get(parts[0])
            subresource = parts[1].split("/")[1] if len(parts) > 1 and parts[1] else ""
            found.append(Path(template, methods, resource, subresource))
    return found


DOCUMENTS = tuple(
    Path(template, ("GET",), None, "")
    for template in (
        "/",
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        "/apis/{name}",
        "/apis/{name}/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/api/v1",
        "/openapi/v3/{name}",
        "/version",
        "/healthz",
        "/readyz/{name}",
        "/livez",
        "/metrics",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
        "/{name}",
        "/api/{name}/{name}",
        "/api/v1/watch/pods",
        "/api/v1/watch/{name}",
        "/api/v1/namespaces/{namespace}/{name}",
        "/apis/fuzz.example.com/v1/{name}",
    )
)
