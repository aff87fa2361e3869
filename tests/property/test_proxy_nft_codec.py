"""nftables' netlink form: what is written is read back as it was."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.linux.conntrack import Flow, Tuple, parse_flow, render_flow, render_tuple
from fairlead.linux.netlink import attribute_map, attributes
from fairlead.linux.nft import datatypes, dump, expressions, transaction
from fairlead.linux.nft.expressions import Verdict
from fairlead.linux.nft.objects import Chain, Element, Hook, Rule, Set, TableName
from fairlead.proxy.nftables import layout

TABLE = TableName("ip", "fairlead")

registers = st.sampled_from([expressions.register(word) for word in range(16)])
names = st.text("abcxyz0189-/.", min_size=1, max_size=40)
u32 = st.integers(0, 2**32 - 1)
blobs = st.integers(1, 4).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
verdicts = st.one_of(
    st.builds(Verdict, st.sampled_from(["drop", "accept", "return", "continue"]), st.just("")),
    st.builds(Verdict, st.sampled_from(["jump", "goto"]), names),
)
expression = st.one_of(
    st.builds(
        expressions.Payload,
        st.sampled_from(["network", "transport"]),
        st.integers(0, 40),
        st.integers(1, 16),
        registers,
    ),
    st.builds(expressions.Meta, st.sampled_from(["mark", "l4proto"]), registers),
    st.builds(expressions.SetMeta, st.just("mark"), registers),
    st.builds(expressions.Conntrack, st.sampled_from(["state", "status"]), registers),
    st.builds(expressions.FibType, st.sampled_from(["saddr", "daddr"]), registers),
    st.builds(expressions.Compare, st.binary(min_size=1, max_size=16), st.booleans(), registers),
    blobs.flatmap(
        lambda mask: st.builds(
            expressions.Bitwise, st.just(mask), st.binary(min_size=len(mask), max_size=len(mask)), registers
        )
    ),
    st.builds(expressions.Numgen, st.integers(1, 2**32 - 1), registers),
    st.builds(expressions.Lookup, names, registers, st.one_of(st.none(), st.just(0), registers)),
    st.builds(expressions.Immediate, st.binary(min_size=1, max_size=16), registers),
    st.builds(expressions.Decide, verdicts),
    st.builds(expressions.Update, names, registers),
    st.builds(expressions.DNAT, st.sampled_from([2, 10]), registers, registers),
    st.just(expressions.Masquerade()),
    st.builds(expressions.Reject, st.just(False), st.integers(0, 255)),
    st.just(expressions.Reject(tcp_reset=True)),
)
comments = st.text(max_size=60).filter(lambda text: "\0" not in text).map(transaction.cut_comment)

ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None and int(a) > 1 << 64).map(str)
_FIELDS = {
    7: ipv4,
    8: ipv6,
    12: st.sampled_from(["TCP", "UDP", "SCTP"]),
    13: st.integers(0, 65535),
    4: u32,
}
sets = st.sampled_from([s for d in layout.DIALECTS.values() for s in layout.sets_of(d)])


@settings(deadline=None)
@given(st.lists(expression).map(tuple), comments)
def test_rules(parts: tuple[expressions.Expression, ...], comment: str) -> None:
    """parse(render(rule)) == rule, for every expression there is."""
    rule = Rule(parts, comment)
    payload = transaction.render_rule(TABLE, "some/chain", rule)
    assert dump.parse_rule(payload) == ("fairlead", "some/chain", rule)
    assert dump.table_of(payload) == (2, "fairlead")


@settings(deadline=None)
@given(
    names,
    st.one_of(
        st.none(),
        st.builds(
            Hook,
            st.sampled_from(["filter", "nat"]),
            st.sampled_from(list(transaction.HOOK_POINTS)),
            st.integers(-(2**31), 2**31 - 1),
        ),
    ),
)
def test_chains(name: str, hook: Hook | None) -> None:
    """parse(render(chain)) == chain."""
    chain = Chain(name, (), hook)
    assert dump.parse_chain(transaction.render_chain(TABLE, chain)) == ("fairlead", chain)


@settings(deadline=None)
@given(sets, names, comments, st.sampled_from([0, 1, 10800]))
def test_sets(shape: Set, name: str, comment: str, timeout: int) -> None:
    """parse(render(set)) == set, for every shape the proxy makes."""
    dynamic = timeout if not (shape.verdicts or shape.data) else 0
    entry = Set(name, shape.key, shape.data, shape.verdicts, dynamic, 65536 if dynamic else 0, comment)
    assert dump.parse_set(transaction.render_set(TABLE, entry)) == ("fairlead", name, entry)


@settings(deadline=None)
@given(st.data())
def test_elements(data: st.DataObject) -> None:
    """parse(render(element)) == element, for every shape, by the message of a transaction."""
    entry = data.draw(sets)

    def fields(types: tuple[datatypes.DataType, ...]) -> st.SearchStrategy[tuple[str | int, ...]]:
        return st.tuples(*(_FIELDS[t.number] for t in types))

    value = verdicts if entry.verdicts else fields(entry.data) if entry.data else st.none()
    element = data.draw(st.builds(Element, fields(entry.key), value, comments))
    (message,) = transaction.render_change(TABLE, transaction.AddElements(entry, (element,)))
    assert dump.parse_elements(entry, message.payload) == [element]
    assert all(len(data) % 4 == 0 for data in transaction.render_elements(entry, [element, element]))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 127), st.integers(1, 120))
def test_many_elements_are_cut_into_messages_that_fit(comment: int, chain: int) -> None:
    """No attribute passes its 16-bit length, and nothing is lost or reordered."""
    entry = next(s for s in layout.sets_of(layout.DIALECTS["IPv4"]) if s.name == layout.NODEPORTS)
    elements = tuple(Element(("TCP", port), Verdict("goto", "c" * chain), "x" * comment) for port in range(1000))
    messages = list(transaction.render_change(TABLE, transaction.AddElements(entry, elements)))
    found = [e for m in messages for e in dump.parse_elements(entry, m.payload)]
    assert tuple(found) == elements
    assert all(len(m.payload) < 1 << 16 for m in messages)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_an_unknown_expression_is_kept_as_unknown(data: bytes) -> None:
    """What this project does not write is read as itself, and equals nothing it writes."""
    odd = expressions.Unknown("quota", data)
    rendered = expressions.render_expression(odd)
    ((_, body),) = attributes(rendered)
    assert expressions.parse_expression(body) == odd


@settings(deadline=None)
@given(st.data(), st.integers(0, 65535), st.one_of(st.just(b""), st.binary(min_size=4, max_size=4)))
def test_flows(data: st.DataObject, zone: int, number: bytes) -> None:
    """parse(render(flow)) == flow."""
    address = data.draw(st.sampled_from([(2, ipv4), (10, ipv6)]))
    port = st.integers(0, 65535)
    one = st.builds(Tuple, st.just(address[0]), st.just(17), address[1], port, address[1], port)
    flow = Flow(data.draw(one), data.draw(one), zone, number)
    payload = b"\0\0\0\0" + render_flow(flow) + render_tuple(2, flow.reply)
    assert attribute_map(payload[4:])
    assert parse_flow(payload) == flow
