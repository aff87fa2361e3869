"""What each client's Accept header gets."""

import pytest

from fairlead.api.errors import StatusError
from fairlead.apiserver.negotiation import Representation, accepts_gzip, negotiate, parse_accept

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Representation()),
        ("*/*", Representation()),
        ("application/json", Representation()),
        (f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Representation("Table", "v1")),
        ("application/vnd.kubernetes.protobuf,application/json", Representation()),
        ("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1, application/json", Representation()),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Representation("PartialObjectMetadata")),
        ("application/json;as=Sculpture;v=v1;g=meta.k8s.io,application/yaml", Representation(yaml=True)),
        ("application/json;stream=watch", Representation()),
        ("text/html;q=0.9, application/yaml;q=0.8, application/json;q=0.7", Representation(yaml=True)),
    ],
)
def test_the_first_servable_offer_wins(accept, expected):
    """Tables, metadata and plain objects as asked; protobuf falls through to JSON."""
    assert negotiate(accept) == expected


@pytest.mark.parametrize("accept", ["application/vnd.kubernetes.protobuf", "text/html", "application/json;as=X"])
def test_nothing_servable_is_406(accept):
    """A client that takes none of our forms is told which there are."""
    with pytest.raises(StatusError) as caught:
        negotiate(accept)
    assert caught.value.status["code"] == 406


def test_quality_orders_offers():
    """Higher q first; equal q keeps the order given; a bad q counts as 1."""
    assert [m.name for m in parse_accept("a/a;q=0.1,b/b,c/c;q=x")] == ["b/b", "c/c", "a/a"]


def test_gzip_is_used_only_when_asked():
    """`gzip;q=0` and silence mean no."""
    assert accepts_gzip("deflate, gzip;q=1.0")
    assert not accepts_gzip("")
    assert not accepts_gzip("gzip;q=0")
