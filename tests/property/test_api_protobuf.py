"""No bytes make the protobuf decoder fail in another way than a 4xx."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import fields, protobuf, schema
from fairlead.api.errors import StatusError

DATA = Path(__file__).parents[1] / "unit/api/data/kubectl_bodies.json"
BODIES = [base64.b64decode(entry["body"]) for entry in json.loads(DATA.read_text())]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(BODIES), st.lists(st.tuples(st.integers(4, 2000), st.integers(0, 255)), max_size=4), st.data())
def test_damaged_bodies_are_decoded_or_refused(
    body: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """A damaged body gives a 4xx, or an object whose fields are known and of the right types."""
    damaged = bytearray(body)
    for position, value in changes:
        damaged[4 + position % (len(damaged) - 4)] = value
    cut = data.draw(st.integers(4, len(damaged)))
    try:
        obj = protobuf.decode(bytes(damaged[:cut]))
    except StatusError as error:
        assert error.code in (400, 415)
        return
    name = schema.kind_definition(obj["apiVersion"], obj["kind"])
    if name is not None:
        try:
            assert fields.check_schema(schema.named(name), obj).unknown == ()
        except StatusError as error:
            assert "quantities must match" in error.message or "unable to parse quantity" in error.message
