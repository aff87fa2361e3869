"""CustomResourceDefinitions and custom resources, pure (apiextensions.k8s.io/v1).

`structural` checks and compiles schemas, `pruning` and `checking` apply them to objects, `definition` makes resources
of a definition, `crd` validates the definition itself, `columns`, `jsonpath` and `publish` show them.
"""

from fairlead.api.custom import definition, structural
from fairlead.api.custom.crd import default_crd, validate_crd, validate_crd_update
from fairlead.api.custom.definition import Definition, ScalePaths, compiled, is_true, precedence

__all__ = [
    "Definition",
    "ScalePaths",
    "compiled",
    "default_crd",
    "definition",
    "is_true",
    "precedence",
    "structural",
    "validate_crd",
    "validate_crd_update",
]
