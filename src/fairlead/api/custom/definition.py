"""A CustomResourceDefinition, compiled: what the rest of the API must know to treat its objects as any other's.

`compiled` makes the `Resource`s of a definition; each carries a `Definition`, which whoever works by schema asks
instead. Pure. Invariant: resources of one definition are made together, and are replaced together when it changes.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from fairlead.api.apply.shapes import ANY_SHAPE, KEYED, LEAF_SHAPE, MAP, SET, Shape, metadata_shape
from fairlead.api.custom import checking, columns, jsonpath, pruning
from fairlead.api.custom.structural import LIST_KEYS, LIST_TYPE, MAP_TYPE, Node
from fairlead.api.errors import FieldError
from fairlead.api.fields import FieldReport
from fairlead.api.kinds import Resource

Object = dict[str, Any]

_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")

ESTABLISHED, NAMES_ACCEPTED, TERMINATING = "Established", "NamesAccepted", "Terminating"


class ScalePaths(msgspec.Struct, frozen=True):
    """Where the scale subresource finds what it shows. An empty selector: there is none."""

    spec: tuple[str, ...]
    status: tuple[str, ...]
    selector: tuple[str, ...] = ()


class Definition:
    """What one served version of a definition says of its objects."""

    def __init__(self, crd: Object, version: Object) -> None:
        spec = crd["spec"]
        names = (crd.get("status") or {}).get("acceptedNames") or spec["names"]
        self.crd: str = crd["metadata"]["name"]
        self.revision = 0  # of the definition's record, set by who read it
        self.singular: str = names.get("singular") or names["kind"].lower()
        self.list_kind: str = names.get("listKind") or names["kind"] + "List"
        self.terminating = bool(crd["metadata"].get("deletionTimestamp"))
        self.kind: str = names["kind"]
        self.version: str = version["name"]
        self.schema: Object = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        self.node = Node(self.schema)
        self.shape = _root_shape(self.node)
        self.printer = columns.printer(version.get("additionalPrinterColumns"))
        self.scale = _scale((version.get("subresources") or {}).get("scale"))
        self.selectable = {
            field["jsonPath"].removeprefix("."): jsonpath.simple(field["jsonPath"])
            for field in version.get("selectableFields") or ()
        }
        self.warning = ""
        if version.get("deprecated"):
            api_version = f"{spec['group']}/{version['name']}"
            self.warning = version.get("deprecationWarning") or f"{api_version} {self.kind} is deprecated"
        storage = next(each["name"] for each in spec["versions"] if each.get("storage"))
        self.stored_api_version = f"{spec['group']}/{storage}"

    def pruned(self, obj: Object) -> FieldReport:
        """The object without what the schema does not know."""
        return pruning.pruned(self.node, obj, self.kind, self.version)

    def default(self, obj: Object) -> None:
        """Fill in defaults, in place."""
        pruning.default(self.node, obj)

    def check(self, obj: Object) -> list[FieldError]:
        """What is wrong with a new object."""
        return checking.check(self.node, obj)

    def check_change(self, new: Object, old: Object) -> list[FieldError]:
        """What is wrong with a changed object, but for what was wrong before and was not touched (KEP-4008)."""
        errors = checking.check(self.node, new, old=old)
        if not errors:
            return errors
        before = {orjson.dumps([error.field, error.value, error.detail]) for error in self.check(old)}
        return [error for error in errors if orjson.dumps([error.field, error.value, error.detail]) not in before]


def _scale(spec: Object | None) -> ScalePaths | None:
    if not spec:
        return None
    selector = spec.get("labelSelectorPath")
    return ScalePaths(
        jsonpath.simple(spec["specReplicasPath"]),
        jsonpath.simple(spec["statusReplicasPath"]),
        jsonpath.simple(selector) if selector else (),
    )


def _root_shape(node: Node) -> Shape:
    shape = _shape(node)
    if shape.form != MAP:
        shape = Shape(MAP)
    for name in ("apiVersion", "kind"):
        shape.fields.pop(name, None)
    shape.add("metadata", metadata_shape())
    return shape


def _shape(node: Node) -> Shape:
    schema = node.schema
    if node.type == "object" or (not node.type and node.properties):
        if schema.get(MAP_TYPE) == "atomic":
            return LEAF_SHAPE
        rest = _shape(node.additional) if node.additional else ANY_SHAPE if node.preserve or node.embedded else None
        shape = Shape(MAP, rest)
        for name, inner in node.properties.items():
            shape.add(name, _shape(inner))
        return shape
    if node.type == "array":
        kind = schema.get(LIST_TYPE)
        if kind == "set":
            return Shape(SET, LEAF_SHAPE)
        if kind == "map" and node.items is not None:
            keys = tuple(schema.get(LIST_KEYS) or ())
            members = node.items.properties
            defaults = {
                key: members[key].default for key in keys if key in members and members[key].default is not None
            }
            return Shape(KEYED, _shape(node.items), keys, defaults)
        return LEAF_SHAPE
    return ANY_SHAPE if node.preserve and not node.type else LEAF_SHAPE


def compiled(crd: Object) -> tuple[Resource, ...]:
    """The resources a definition serves, in order of preference; none unless its names were accepted."""
    if not is_true(crd, NAMES_ACCEPTED):
        return ()
    spec, names = crd["spec"], (crd.get("status") or {}).get("acceptedNames") or crd["spec"]["names"]
    made = []
    for version in sorted(spec["versions"], key=lambda each: precedence(each["name"])):
        if not version.get("served"):
            continue
        subresources = tuple(
            sub for sub in ("status", "scale") if (version.get("subresources") or {}).get(sub) is not None
        )
        made.append(
            Resource(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames") or ()),
                tuple(names.get("categories") or ()),
                subresources,
                definition=Definition(crd, version),
            )
        )
    return tuple(made)


def is_true(crd: Object, condition: str) -> bool:
    """Whether a condition of the definition's status holds."""
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == condition and each.get("status") == "True" for each in conditions)


def precedence(version: str) -> tuple[int, int, int, str]:
    """A key that sorts versions as Kubernetes prefers them: v2, v1, v1beta2, v1beta1, v1alpha1, then others by name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return 1, 0, 0, version
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return 0, stage * 10_000 - int(match[1]), -int(match[3] or 0), version
