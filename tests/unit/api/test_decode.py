"""Bodies become dicts, or a 400 that says what is wrong with them."""

from __future__ import annotations

import pytest

from fairlead.api import kinds
from fairlead.api.decode import decode_json, duplicate_fields, identify
from fairlead.api.errors import StatusError


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "unexpected end of JSON input"),
        (b"hello", "json parse error"),
        (b'{"a": }', "line 1, column 7"),
        (b"[]", "cannot unmarshal array into an object"),
        (b"5", "cannot unmarshal number"),
        (b"null", "cannot unmarshal null"),
        (b'{"a":NaN}', "json parse error"),
        (b"\xff\xfe\x00", "json parse error"),
    ],
)
def test_a_body_that_is_not_an_object_is_refused(body: bytes, message: str) -> None:
    """Anything but one JSON object is a 400 that names the expected kind and where parsing stopped."""
    with pytest.raises(StatusError) as caught:
        decode_json(body, "Service")
    assert caught.value.code == 400
    assert "must be of type Service" in caught.value.message
    assert message in caught.value.message


def test_an_object_is_decoded() -> None:
    """Ints stay ints."""
    assert decode_json(b'{"a": 1, "b": 1.5}') == {"a": 1, "b": 1.5}


def test_duplicates_are_found_with_their_path() -> None:
    """Strict validation names every repeated key by its path, once, outermost first."""
    body = b'{"kind":"A","spec":{"ports":[{"port":1},{"port":1,"port":2,"port":3}],"x":1,"x":1},"kind":"B"}'
    assert duplicate_fields(body) == [
        'duplicate field "kind"',
        'duplicate field "spec.x"',
        'duplicate field "spec.ports[1].port"',
    ]
    assert duplicate_fields(b'{"a":{"b":1},"c":{"b":1}}') == []


def test_missing_type_is_filled_in() -> None:
    """A body may leave out apiVersion and kind: the path says them."""
    obj: dict[str, object] = {}
    identify(kinds.DEPLOYMENTS, obj)
    assert obj == {"apiVersion": "apps/v1", "kind": "Deployment"}


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (
            {"apiVersion": "v1", "kind": "Pod"},
            'Pod in version "v1" cannot be handled as a Service: this path takes kind "Service" of v1',
        ),
        (
            {"apiVersion": "apps/v1", "kind": "Service"},
            "the API version in the data (apps/v1) does not match the expected API version (v1)",
        ),
        ({"apiVersion": "v2"}, "the API version in the data (v2) does not match the expected API version (v1)"),
        ({"kind": 5}, "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct "
         "field .kind of type string"),
    ],
)  # fmt: skip
def test_another_type_than_the_path_says_is_refused(obj: dict[str, object], message: str) -> None:
    """The object's own type must be that of the path."""
    with pytest.raises(StatusError) as caught:
        identify(kinds.SERVICES, obj)
    assert (caught.value.code, caught.value.message) == (400, message)
