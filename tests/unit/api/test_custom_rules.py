"""CEL as Kubernetes' validation rules use it: expressions, their faults, and rules on custom objects."""

from __future__ import annotations

import pytest

from fairlead.api.custom import cel, checking, structural
from fairlead.api.custom.cel.evaluate import Unknown, compiled, run
from fairlead.api.custom.cel.syntax import SyntaxFault
from fairlead.api.custom.cel.values import Fault
from fairlead.api.custom.structural import Node

SELF = {
    "a": 1,
    "b": ["x", "y"],
    "m": {"k": "v"},
    "s": "abc",
    "f": 1.5,
    "t": True,
    "my-name": "n",
    "namespace": "ns",
    "list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}],
}


def value(text, self=SELF, old=None):
    """The value of an expression."""
    return run(compiled(text, frozenset({"self", "oldSelf"}))[0], {"self": self, "oldSelf": old})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("1 + 2 * 3 - 4 / 2 % 3", 5),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("0x10 + 1u", 17),
        ("1.5 + 1.0", 2.5),
        ("'a' + \"b\" + r'\\n'", "ab\\n"),
        ("'\\u0041\\x42\\n'", "AB\n"),
        ("[1] + [2, 3]", [1, 2, 3]),
        ("{'a': 1}.a == 1 && {'a': 1}['a'] == 1", True),
        ("1 == 1.0", True),
        ("true == 1", False),
        ("self.a <= 3 ? 'low' : 'high'", "low"),
        ("self.a > 3 || self.none == 1 || true", True),
        ("false && self.none == 1", False),
        ("has(self.a) && !has(self.z)", True),
        ("'x' in self.b && !('z' in self.b) && 'k' in self.m", True),
        ("self.b.all(x, x.size() == 1)", True),
        ("self.b.exists(x, x == 'y') && self.b.exists_one(x, x == 'x')", True),
        ("self.list.filter(i, i.v > 1).map(i, i.n)", ["b"]),
        ("self.list.map(i, i.v > 1, i.n)", ["b"]),
        ("self.m.all(k, self.m[k] == 'v')", True),
        ("self.list.all(i, self.list.exists_one(j, j.n == i.n))", True),
        ("self.s.startsWith('ab') && self.s.endsWith('bc') && self.s.contains('b')", True),
        ("self.s.matches('^a.c$')", True),
        ("self.s.matches('[[:digit:]]')", False),
        ("'a,b,c'.split(',')[1]", "b"),
        ("self.b.join('-')", "x-y"),
        ("' Abc '.trim().lowerAscii().replace('b', 'x').upperAscii()", "AXC"),
        ("'abcd'.substring(1, 3) + 'abcd'.charAt(0)", "bca"),
        ("'a1b22'.findAll('[0-9]+')", ["1", "22"]),
        ("[1, 2, 3].isSorted() && [1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [3, 1].max() == 3", True),
        ("self.b.indexOf('y')", 1),
        ("self.?z.orValue(5) + self.?a.orValue(5)", 6),
        ("self.?m.?k.hasValue() && !self.?z.k.hasValue()", True),
        ("optional.of(1).or(optional.none()).value()", 1),
        ("[?optional.none(), ?optional.of(2)]", [2]),
        ("duration('1h30m') > duration('80m')", True),
        ("timestamp('2024-02-29T00:00:00Z') + duration('24h') == timestamp('2024-03-01T00:00:00Z')", True),
        ("timestamp('2024-02-29T10:00:00Z').getMonth()", 1),
        ("quantity('1Gi').isGreaterThan(quantity('1000Mi')) && isQuantity('1k') && !isQuantity('x')", True),
        ("quantity('100m').add(quantity('900m')).compareTo(quantity('1')) == 0", True),
        ("url('https://a.b:80/p?q=1').getHostname() + url('https://a.b:80/p?q=1').getPort()", "a.b80"),
        ("isURL('not a url')", False),
        ("ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')", True),
        ("cidr('10.0.0.0/8').prefixLength() == 8 && isIP('::1') && !isIP('x')", True),
        ("sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])", True),
        ("self.my__dash__name + self.__namespace__", "nns"),
        ("type(self.a) == int && type('x') == string && type(type(1)) == type", True),
        ("int('3') + int(2.9) == 5 && string(3) == '3' && double('1.5') == 1.5", True),
        ("dyn(self.a) == 1 // said twice", True),
        ("self.b[0]", "x"),
    ],
)
def test_expressions(text, result):
    """Each gives what CEL says."""
    assert value(text) == result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("self.zz == 1", "no such key: zz"),
        ("self.b[5]", "index out of bounds: 5"),
        ("1 / 0", "division by zero"),
        ("1 + 1.0", "no such overload"),
        ("'a' < 1", "no such overload"),
        ("9223372036854775807 * 9223372036854775807", "integer overflow"),
        ("self.a && true", "no such overload"),
        ("self.s.all(x, true)", "no such overload"),
        ("quantity('x')", "quantity"),
        ("optional.none().value()", "optional.none"),
        ("self.s.substring(9)", "index out of range"),
        ("self.b.all(a, self.b.all(b, [1,2,3,4,5,6,7,8,9,0].all(c, self.s.matches(1))))", "no such overload"),
    ],
)
def test_faults(text, said):
    """What has no value says why, and is no exception of Python's."""
    with pytest.raises(Fault, match=said):
        value(text)


def test_a_run_ends():
    """Loops within loops are cut off."""
    many = list(range(500))
    with pytest.raises(Fault, match="cost limit exceeded"):
        value("self.all(a, self.all(b, a + b >= 0))", many)


@pytest.mark.parametrize("text", ["self.", "1 +", "(1", "[1", "{'a'}", "'a", "a b", "self.a = 1", "if", "@", "(" * 300])
def test_what_does_not_parse(text):
    """A fault that says where."""
    with pytest.raises(SyntaxFault):
        compiled(text, frozenset({"self"}))


@pytest.mark.parametrize("text", ["other.a", "self.fly()", "fly(self)", "has(self)", "self.b.all(x, y)"])
def test_what_is_not_there(text):
    """Variables and functions are known when a definition is written."""
    with pytest.raises(Unknown):
        compiled(text, frozenset({"self"}))


def rules(*given, **properties):
    """A schema whose spec has these rules."""
    spec = {"type": "object", "properties": properties, "x-kubernetes-validations": list(given)}
    return {"type": "object", "properties": {"spec": spec}}


def said(root, new, old=cel.ABSENT):
    """The errors, as text."""
    assert structural.check(root, "s") == []
    return [str(error) for error in checking.check(Node(root), new, old=old)]


INTEGER = {"type": "integer"}


def test_a_rule_that_fails():
    """Its message, its reason, its place; without a message the rule itself."""
    bounds = {"rule": "self.low <= self.high", "message": "low must not exceed high"}
    root = rules(
        bounds,
        {"rule": "self.low > 0", "reason": "FieldValueForbidden", "fieldPath": ".low"},
        low=INTEGER,
        high=INTEGER,
    )
    assert said(root, {"spec": {"low": 1, "high": 2}}) == []
    assert said(root, {"spec": {"low": 3, "high": 2}}) == ['spec: Invalid value: "object": low must not exceed high']
    assert said(root, {"spec": {"low": 0, "high": 2}}) == ["spec.low: Forbidden: failed rule: self.low > 0"]
    assert said(root, {"spec": {"low": 0}}) == [
        'spec: Invalid value: "object": no such key: high evaluating rule: low must not exceed high',
        "spec.low: Forbidden: failed rule: self.low > 0",
    ]
    assert said(root, {"spec": {"low": "x"}})[0].startswith('spec.low: Invalid value: "string"')  # types come first


def test_rules_on_changes():
    """They are silent on creation, and know what an item of a keyed list was."""
    frozen = {"rule": "self == oldSelf", "message": "is immutable"}
    item = {
        "type": "object",
        "properties": {"n": {"type": "string"}, "v": {**INTEGER, "x-kubernetes-validations": [frozen]}},
        "required": ["n"],
    }
    root = rules(
        {"rule": "!oldSelf.hasValue() || self.a >= oldSelf.value().a", "optionalOldSelf": True, "message": "must grow"},
        a=INTEGER,
        list={"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]},
    )
    new = {"spec": {"a": 1, "list": [{"n": "y", "v": 2}, {"n": "x", "v": 1}]}}
    assert said(root, new) == []
    old = {"spec": {"a": 1, "list": [{"n": "x", "v": 1}]}}
    assert said(root, new, old) == []
    old = {"spec": {"a": 2, "list": [{"n": "x", "v": 5}]}}
    assert said(root, new, old) == [
        'spec: Invalid value: "object": must grow',
        'spec.list[1].v: Invalid value: "integer": is immutable',
    ]


def test_messages_may_be_expressions():
    """What they give is the message, unless they fail."""
    root = rules(
        {"rule": "self.a < 5", "messageExpression": "'a is ' + string(self.a)"},
        {"rule": "self.a < 5", "messageExpression": "self.none", "message": "too much"},
        a=INTEGER,
    )
    assert said(root, {"spec": {"a": 7}}) == [
        'spec: Invalid value: "object": a is 7',
        'spec: Invalid value: "object": too much',
    ]


def test_values_have_their_types():
    """Times, durations and numbers are such in rules; of metadata the name alone is seen."""
    root = rules(
        {"rule": "self.at > timestamp('2024-01-01T00:00:00Z')"},
        {"rule": "self.wait <= duration('1h')"},
        {"rule": "self.share + 0.5 <= 1.5"},
        at={"type": "string", "format": "date-time"},
        wait={"type": "string", "format": "duration"},
        share={"type": "number"},
    )
    assert said(root, {"spec": {"at": "2025-01-01T00:00:00Z", "wait": "5m", "share": 1}}) == []
    assert len(said(root, {"spec": {"at": "2023-01-01T00:00:00Z", "wait": "2h", "share": 2}})) == 3
    root["x-kubernetes-validations"] = [{"rule": "self.metadata.name.size() < 4 && !has(self.metadata.labels)"}]
    assert (
        said(
            root,
            {
                "metadata": {"name": "abc", "labels": {}},
                "spec": {"at": "2025-01-01T00:00:00Z", "wait": "5m", "share": 1},
            },
        )
        == []
    )


@pytest.mark.parametrize("rule", ["", "self.", "other == 1", "self.a.fly()"])
def test_rules_that_are_refused_with_their_definition(rule):
    """The error names the rule's place."""
    errors = structural.check(rules({"rule": rule}, a=INTEGER), "s")
    assert [error.field for error in errors] == ["s.properties[spec].x-kubernetes-validations[0].rule"]
