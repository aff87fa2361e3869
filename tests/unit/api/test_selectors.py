"""Label and field selectors parse, render and match as upstream's."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.api.selectors import FieldSelector, LabelSelector, selectable_fields


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("  ", ""),
        ("a", "a"),
        ("!a", "!a"),
        ("! a", "!a"),
        ("a=b", "a=b"),
        ("a==b", "a==b"),
        ("a = b", "a=b"),
        ("a!=b", "a!=b"),
        ("a=", "a="),
        ("a=,b", "a=,b"),
        ("b=1,a=2", "a=2,b=1"),
        ("a in (y,x)", "a in (x,y)"),
        ("a in ( x , y )", "a in (x,y)"),
        ("a notin (x)", "a notin (x)"),
        ("a in ()", "a in ()"),
        ("a in (,x)", "a in (,x)"),
        ("a in (x,)", "a in (,x)"),
        ("a in (x,,y)", "a in (,x,y)"),
        ("a in (in,notin)", "a in (in,notin)"),
        ("in in (in)", "in in (in)"),
        ("a>5", "a>5"),
        ("a<5,!b", "a<5,!b"),
        ("example.com/a.b_c=x", "example.com/a.b_c=x"),
    ],
)
def test_label_selectors_parse_and_render(text: str, rendered: str) -> None:
    """What is parsed renders sorted by key, values sorted; and its rendering parses to the same."""
    selector = LabelSelector.parse(text)
    assert selector.render() == rendered
    assert LabelSelector.parse(rendered) == selector


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (x,", "unable to parse requirement: found '', expected: ',', or identifier"),
        ("a in (,", "unable to parse requirement: found '', expected: ',', or identifier"),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a in", "unable to parse requirement: found '', expected: '('".replace("found '', ", "found '' ")),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a=>", "unable to parse requirement: found '>', expected: identifier"),
        ("a>x", 'unable to parse requirement: values[0]: Invalid value: "x": '
                "for 'Gt', 'Lt' operators, the value must be an integer"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
    ],
)  # fmt: skip
def test_bad_label_selectors_are_refused_in_upstreams_words(text: str, message: str) -> None:
    """A malformed selector is a 400 with upstream's message."""
    with pytest.raises(StatusError) as caught:
        LabelSelector.parse(text)
    assert (caught.value.code, caught.value.message) == (400, message)


def test_bad_keys_and_values_are_refused() -> None:
    """Keys and values must have the syntax of labels."""
    with pytest.raises(StatusError, match='unable to parse requirement: <nil>: Invalid value: "a/b/c"'):
        LabelSelector.parse("a/b/c=d")
    with pytest.raises(StatusError, match=r'unable to parse requirement: values\[0\]\[a\]: Invalid value: "-x"'):
        LabelSelector.parse("a=-x")


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", None, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a=b", {"a": "c"}, False),
        ("a=b", None, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a notin (b)", {}, True),
        ("a in (b,c)", {"a": "c"}, True),
        ("a in (b,c)", {}, False),
        ("a>5", {"a": "6"}, True),
        ("a>5", {"a": "5"}, False),
        ("a<5", {"a": "x"}, False),
        ("a<5", {"a": "-1"}, True),
        ("a<5", {}, False),
        ("a,b", {"a": "1"}, False),
    ],
)
def test_label_selectors_match(text: str, labels: dict[str, str] | None, expected: bool) -> None:
    """All requirements must hold; != and notin hold where the label is absent."""
    assert LabelSelector.parse(text).matches(labels) is expected


def test_selectors_of_objects() -> None:
    """None selects nothing, an empty one everything; expressions and labels are both required."""
    assert not LabelSelector.of(None).matches({"a": "b"})
    assert LabelSelector.of({}).matches(None)
    selector = LabelSelector.of(
        {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]},
                                                             {"key": "old", "operator": "DoesNotExist"}]}
    )  # fmt: skip
    assert selector.render() == "app=web,!old,tier notin (db)"
    assert selector.matches({"app": "web"})
    assert not selector.matches({"app": "web", "old": ""})
    assert LabelSelector.of_labels({"b": "2", "a": "1"}).render() == "a=1,b=2"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"key": "a", "operator": "Foo"}, '"Foo" is not a valid label selector operator'),
        ({"key": "a", "operator": "In"}, "values: Invalid value: []: for 'in', 'notin' operators, values set can't be "
                                         "empty"),
        ({"key": "a", "operator": "Exists", "values": ["x"]}, 'values: Invalid value: ["x"]: values set must be empty '
                                                              "for exists and does not exist"),
    ],
)  # fmt: skip
def test_bad_expressions_are_refused(expression: dict[str, Any], message: str) -> None:
    """An expression upstream cannot convert is a 400."""
    with pytest.raises(StatusError) as caught:
        LabelSelector.of({"matchExpressions": [expression]})
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("metadata.name=a", "metadata.name=a"),
        ("b==x,a!=y", "a!=y,b=x"),
        (r"a=x\,y\=z\\", r"a=x\,y\=z\\"),
        ("a=", "a="),
        ("a=1,,b=2", "a=1,b=2"),
    ],
)
def test_field_selectors_parse_and_render(text: str, rendered: str) -> None:
    """Terms are sorted; == renders as =; escapes survive."""
    assert FieldSelector.parse(text).render() == rendered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        (r"a=x\y", r"invalid field selector: invalid escape sequence: \y"),
        ("a=x\\", "invalid field selector: invalid escape sequence: \\"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ],
)
def test_bad_field_selectors_are_refused(text: str, message: str) -> None:
    """A malformed field selector is a 400 with upstream's message."""
    with pytest.raises(StatusError) as caught:
        FieldSelector.parse(text)
    assert (caught.value.code, caught.value.message) == (400, message)


def test_unsupported_fields_are_refused() -> None:
    """Only the fields upstream supports for the kind may be selected by."""
    with pytest.raises(StatusError, match=r"field label not supported: spec\.foo"):
        FieldSelector.parse("spec.foo=1", kinds.PODS)
    with pytest.raises(
        StatusError, match=r'"spec\.x" is not a known field selector: only "metadata.name", "metadata.namespace"'
    ):
        FieldSelector.parse("spec.x=1", kinds.DEPLOYMENTS)
    with pytest.raises(StatusError, match=r"field label not supported: involvedObject\.name"):
        FieldSelector.parse("involvedObject.name=a", kinds.EVENTS_V1)


POD = {
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {"nodeName": "n1", "hostNetwork": True},
    "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "podIP": "10.0.0.1"},
}
EVENT = {
    "metadata": {"name": "e", "namespace": "n"},
    "involvedObject": {"kind": "Pod", "name": "p", "uid": "u"},
    "reason": "Killing",
    "source": {"component": "kubelet"},
    "type": "Normal",
}


@pytest.mark.parametrize(
    ("resource", "obj", "text", "expected"),
    [
        (kinds.PODS, POD, "spec.nodeName=n1,status.phase!=Failed", True),
        (kinds.PODS, POD, "spec.host=n1", True),
        (kinds.PODS, POD, "spec.nodeName=", False),
        (kinds.PODS, POD, "spec.hostNetwork=true", True),
        (kinds.PODS, POD, "status.podIP=10.0.0.1", True),
        (kinds.PODS, POD, "metadata.namespace=n,metadata.name=q", False),
        (kinds.EVENTS, EVENT, "involvedObject.kind=Pod,involvedObject.name=p,involvedObject.uid=u", True),
        (kinds.EVENTS_V1, EVENT, "regarding.name=p,reason=Killing", True),
        (kinds.EVENTS, EVENT, "source=kubelet,type=Warning", False),
        (kinds.SERVICES, {"spec": {"type": "ClusterIP", "clusterIP": "None"}}, "spec.clusterIP=None", True),
        (kinds.NODES, {"spec": {}}, "spec.unschedulable=false", True),
        (kinds.NAMESPACES, {"status": {"phase": "Active"}}, "status.phase=Active", True),
        (kinds.SECRETS, {"type": "Opaque"}, "type!=Opaque", False),
        (kinds.NODES, {"metadata": {"name": "n1"}}, "metadata.name=n1", True),
    ],
)
def test_field_selectors_match_objects(
    resource: kinds.Resource, obj: dict[str, Any], text: str, expected: bool
) -> None:
    """The selectable fields of each kind are read from the object."""
    selector = FieldSelector.parse(text, resource)
    assert selector.matches_object(resource, obj) is expected
    assert selector.matches(selectable_fields(resource, obj)) is expected


def test_exact_value_of_a_field() -> None:
    """A required single value can be read off, for looking one object up."""
    selector = FieldSelector.parse("metadata.name=a,type!=b")
    assert selector.exact("metadata.name") == "a"
    assert selector.exact("type") is None
