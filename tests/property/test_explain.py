"""Whatever was seen or not seen, explaining never fails, and what is missing is never called broken."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.explain import render
from fairlead.explain.evidence import Evidence, NodeKernel, PodKernel
from fairlead.explain.question import QuestionError, parse_origin, parse_target
from fairlead.explain.strangers import Packet, Ruleset
from tests.unit.explain.world import evidence, explain

WORLD = evidence()
NODE_PARTS = ("ruleset", "links", "routes", "sysctls", "flows")
POD_PARTS = ("links", "routes", "resolv_conf", "environment")


@st.composite
def partly_seen(draw: st.DrawFn) -> Evidence:
    """The healthy world with holes: whole kernels, or parts of them, that were not read."""
    empty_node, empty_pod = NodeKernel(), PodKernel()

    def holes(kernel: NodeKernel | PodKernel, empty: NodeKernel | PodKernel, parts: tuple[str, ...]) -> object:
        gone = draw(st.sets(st.sampled_from(parts)))
        return msgspec.structs.replace(kernel, **{part: getattr(empty, part) for part in gone if part != "links"})

    kernels = {name: holes(k, empty_node, NODE_PARTS) for name, k in WORLD.kernels.items() if draw(st.booleans())}
    pods = {uid: holes(k, empty_pod, POD_PARTS) for uid, k in WORLD.pod_kernels.items() if draw(st.booleans())}
    return msgspec.structs.replace(
        WORLD, kernels=kernels, pod_kernels=pods, processes=draw(st.sampled_from(({}, WORLD.processes)))
    )


@settings(deadline=None, max_examples=60)
@given(partly_seen(), st.sampled_from(("pod/client", "node/n1", "outside")))
def test_holes_in_the_evidence_are_no_faults(world: Evidence, origin: str) -> None:
    """What was not read may make the report say less, never that something is broken."""
    report = explain(world, origin=origin)
    if origin != "outside":  # a cluster IP is not reached from there
        assert report.works, report.verdict
    assert render.text(report).splitlines()[0].endswith(report.verdict)
    assert msgspec.json.encode(report.document())


@given(st.text(max_size=40))
def test_any_words_are_understood_or_refused(words: str) -> None:
    """Never anything but QuestionError."""
    for parse in (lambda: parse_target((words,), "default"), lambda: parse_origin(words, "default")):
        try:
            parse()
        except QuestionError as error:
            assert str(error)


VALUES = st.recursive(
    st.none() | st.integers(0, 70000) | st.sampled_from(("10.244.1.4", "tcp", "@set", "fl*", "new")),
    lambda inner: st.lists(inner, max_size=3) | st.fixed_dictionaries({"set": st.lists(inner, max_size=3)}),
    max_leaves=5,
)
LEFT = st.sampled_from(
    (
        {"payload": {"protocol": "ip", "field": "daddr"}},
        {"payload": {"protocol": "tcp", "field": "dport"}},
        {"meta": {"key": "oifname"}},
        {"ct": {"key": "state"}},
        {"fib": {}},
        "odd",
    )
)
MATCH = st.fixed_dictionaries(
    {"match": st.fixed_dictionaries({"op": st.sampled_from(("==", "!=", "<", "in")), "left": LEFT, "right": VALUES})}
)
VERDICT = st.sampled_from(({"drop": None}, {"accept": None}, {"return": None}, {"jump": {"target": "c"}}, {"xt": None}))


@given(st.lists(st.lists(MATCH | VERDICT, max_size=4), max_size=4))
def test_any_rules_of_others_are_followed_to_an_end(rules: list[list[dict[str, object]]]) -> None:
    """Loops, unknown matches, odd values: an answer or a doubt, never an exception; and a doubt is never an answer."""
    chain = {"family": "inet", "table": "t", "name": "c", "hook": "forward", "prio": 0, "policy": "accept"}
    listing: list[dict[str, object]] = [{"chain": chain}]
    listing += [{"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": r}} for r in rules]
    ruleset = Ruleset(listing)
    found = ruleset.meet("forward", Packet("10.244.0.3", "10.244.1.4", "tcp", 8080))
    assert found is None or found.sure
