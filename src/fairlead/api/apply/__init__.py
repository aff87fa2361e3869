"""Server-side apply and field ownership (KEP-555), pure.

`shapes` says how values merge, `sets` are the field sets of `managedFields`, `compare` makes them of objects, `merge`
puts an applied object into the live one, `owners` decides who owns what after a write, and what conflicts.
"""

from fairlead.api.apply.owners import Applied, Writer, applied, created, touched, untyped, updated
from fairlead.api.apply.shapes import Shape, of_definition, of_resource

__all__ = [
    "Applied",
    "Shape",
    "Writer",
    "applied",
    "created",
    "of_definition",
    "of_resource",
    "touched",
    "untyped",
    "updated",
]
