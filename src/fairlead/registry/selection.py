"""Which objects of a resource a list or a watch is about.

Invariant: what a selector looks at (labels and selectable fields) is read out of a record once, and hung on it, so that
any number of watchers can ask.
"""

from __future__ import annotations

import msgspec
import orjson

from fairlead.api.kinds import Resource
from fairlead.api.selectors import FieldSelector, LabelSelector, selectable_fields
from fairlead.registry.stored import stored_resource
from fairlead.store.interface import Record


class Selection(msgspec.Struct, frozen=True):
    """A parsed label selector and a parsed field selector."""

    resource: Resource
    labels: LabelSelector
    fields: FieldSelector

    @classmethod
    def parse(cls, resource: Resource, label_selector: str, field_selector: str) -> Selection:
        """From the query's texts. Raises StatusError 400."""
        fields = FieldSelector.parse(field_selector, resource)
        return cls(stored_resource(resource), LabelSelector.parse(label_selector), fields)

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.labels.empty and self.fields.empty

    @property
    def name(self) -> str | None:
        """The one name it can match, if there is such."""
        return self.fields.exact("metadata.name")

    def matches(self, record: Record) -> bool:
        """Whether the object of that record is meant."""
        if self.labels.empty and self.fields.empty:
            return True
        seen = record.__dict__.get("selectable")
        if seen is None:
            obj = orjson.loads(record.value)
            seen = (obj["metadata"].get("labels") or {}, selectable_fields(self.resource, obj))
            record.__dict__["selectable"] = seen
        return self.labels.matches(seen[0]) and self.fields.matches(seen[1])
