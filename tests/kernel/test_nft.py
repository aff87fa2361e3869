"""nftables in this kernel and nftables in memory, under the same tests; nft(8) and libnftables as oracles."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from immutables import Map

from fairlead.discovery.model import ServiceKey
from fairlead.linux import namespaces
from fairlead.linux.netlink import NetlinkError
from fairlead.linux.nft import datatypes as types
from fairlead.linux.nft.expressions import Decide, Lookup, Payload, Verdict
from fairlead.linux.nft.kernel import Monitor, Nftables, NftSocket
from fairlead.linux.nft.memory import MemoryNftables
from fairlead.linux.nft.objects import Chain, Element, Rule, Set, TableName, TableState
from fairlead.linux.nft.text import render_table
from fairlead.linux.nft.transaction import (
    AddElements,
    Change,
    DropChain,
    DropElements,
    DropSet,
    DropTable,
    PutChain,
    PutSet,
    PutTable,
    SetRules,
)
from fairlead.proxy.nftables import diff, layout
from fairlead.proxy.nftables.desired import NODE, Piece, piece_of
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Forwarding, NodePlace, Pods, ServiceTable, Target

pytestmark = pytest.mark.kernel

TABLE = TableName("ip", "fairlead")
IPS = Set("ips", (types.IPV4_ADDR,))
VERDICTS = Set("verdicts", (types.IPV4_ADDR,), verdicts=True)
IN_SET = Rule((Payload("network", 16, 4), Lookup("ips"), Decide(Verdict("drop"))), "in the set")


@pytest.fixture(params=["kernel", "memory"])
def nft(request: pytest.FixtureRequest, make_namespace: Callable[[str], str]) -> Iterator[Nftables]:
    if request.param == "memory":
        yield MemoryNftables()
        return
    with namespaces.entered(namespaces.path(make_namespace("nft"))):
        made = NftSocket()
    yield made
    made.close()


def refusal(nft: Nftables, *changes: Change) -> int:
    """The errno with which a transaction is refused; the table must be as before."""
    before = nft.read(TABLE)
    with pytest.raises(NetlinkError) as caught:
        nft.commit(TABLE, changes)
    assert nft.read(TABLE) == before
    return caught.value.errno or 0


def test_what_is_written_is_read(nft: Nftables) -> None:
    """Chains with rules, sets and elements come back as they were; the table goes as one."""
    assert nft.read(TABLE) is None
    element = Element(("10.0.0.1",), Verdict("goto", "c"), "shop/web")
    nft.commit(
        TABLE,
        (
            PutTable("ours"),
            PutSet(IPS),
            PutSet(VERDICTS),
            PutChain(Chain("c")),
            SetRules("c", (IN_SET, IN_SET), fresh=True),
            AddElements(IPS, (Element(("10.0.0.1",)),)),
            AddElements(VERDICTS, (element,)),
        ),
    )
    assert nft.read(TABLE) == TableState(
        {"c": Chain("c", (IN_SET, IN_SET))},
        {"ips": IPS, "verdicts": VERDICTS},
        {"ips": {("10.0.0.1",): Element(("10.0.0.1",))}, "verdicts": {element.key: element}},
        "ours",
    )
    nft.commit(TABLE, (DropTable(),))
    assert nft.read(TABLE) is None


def test_refusals(nft: Nftables) -> None:
    """What would leave a dangling reference or contradict what is there is refused whole, with the kernel's errno."""
    assert refusal(nft, PutChain(Chain("c"))) == errno.ENOENT
    nft.commit(TABLE, (PutTable(), PutSet(IPS), PutSet(VERDICTS), PutChain(Chain("c")), PutChain(Chain("d"))))
    assert refusal(nft, SetRules("c", (Rule((Payload("network", 16, 4), Lookup("no-such-set"))),))) == errno.ENOENT
    assert refusal(nft, DropElements(IPS, (("10.0.0.1",),))) == errno.ENOENT
    assert refusal(nft, DropChain("e")) == errno.ENOENT
    goto = AddElements(VERDICTS, (Element(("10.0.0.1",), Verdict("goto", "d")),))
    nft.commit(TABLE, (SetRules("c", (IN_SET,)), goto))
    assert refusal(nft, DropSet("ips")) == errno.EBUSY
    assert refusal(nft, DropChain("d")) == errno.EBUSY
    other = AddElements(VERDICTS, (Element(("10.0.0.1",), Verdict("goto", "c")),))
    assert refusal(nft, AddElements(IPS, (Element(("10.0.0.9",)),)), other) == errno.EEXIST
    nft.commit(TABLE, (DropElements(VERDICTS, (("10.0.0.1",),)), other, DropChain("d")))
    nft.commit(TABLE, (SetRules("c", ()), DropSet("ips")))


_names = st.sampled_from(["a", "b", "c"])
_elements = st.dictionaries(
    st.tuples(st.sampled_from([f"10.0.0.{n}" for n in range(6)])), st.sampled_from(["a", "b", "c", ""]), max_size=6
)


@st.composite
def states(draw: st.DrawFn) -> TableState:
    chains = {name: Chain(name, (IN_SET,) * draw(st.integers(0, 2))) for name in draw(st.sets(_names))}
    sets = {"ips": IPS, "verdicts": VERDICTS}
    verdicts = {}
    for key, chain in draw(_elements).items():
        data = Verdict("goto", chain) if chain in chains else Verdict("drop")
        verdicts[key] = Element(key, data, draw(st.sampled_from(["", "shop/web"])))
    ips = {key: Element(key) for key in draw(_elements)}
    return TableState(chains, sets, {"ips": ips, "verdicts": verdicts}, "")


@given(st.lists(states(), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_can_follow_any_other(nft: Nftables, history: list[TableState]) -> None:
    """What diff works out the kernel accepts, and then it holds what was wanted."""
    for wanted in history:
        changes = diff.reconcile(nft.read(TABLE), wanted)
        if changes:
            nft.commit(TABLE, changes)
        assert nft.read(TABLE) == wanted


def _in(namespace: str) -> tuple[NftSocket, Callable[[str], str]]:
    with namespaces.entered(namespaces.path(namespace)):
        made = NftSocket()

    def run(command: str) -> str:
        with namespaces.entered(namespaces.path(namespace)):
            done = subprocess.run(["nft", *command.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return made, run


@pytest.mark.parametrize("by", ["address", "link"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_nft_lists_what_it_can_load(make_namespace: Callable[[str], str], family: str, by: str) -> None:
    """nft(8) lists our whole layout without fault, loads its own listing, and we read that as what we wrote."""
    dialect = layout.DIALECTS[family]  # type: ignore[index]
    options = ProxyOptions("n1", cluster_cidrs=("10.244.0.0/16", "fd00:244::/56"), service_cidrs=("10.96.0.0/16",))
    pods = Pods(options.cluster_cidrs) if by == "address" else Pods(interface="cni", prefix=True)
    place = NodePlace(("192.0.2.0/24", "0.0.0.0/0", "2001:db8::/64", "::/0"), pods, localhost=True)
    wanted = TableState(
        {c.name: c for c in layout.chains_of(dialect, options, place)},
        {s.name: s for s in layout.sets_of(dialect)},
        {s.name: {} for s in layout.sets_of(dialect)},
    )
    nft, run = _in(make_namespace("one"))
    with nft:
        nft.commit(dialect.table, diff.reconcile(None, wanted))
        assert diff.reconcile(nft.read(dialect.table), wanted) == ()
        listing = run(f"list table {dialect.table.family} {dialect.table.name}")
        listed = json.loads(run(f"-j list table {dialect.table.family} {dialect.table.name}"))
    assert len([o for o in listed["nftables"] if "chain" in o]) == len(wanted.chains)
    target = make_namespace("two")
    with namespaces.entered(namespaces.path(target)):
        loaded = subprocess.run(["nft", "-f", "-"], input=listing, text=True, capture_output=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    other, _ = _in(target)
    with other:
        state = other.read(dialect.table)
    assert state is not None
    assert state.sets == wanted.sets
    assert state.chains.keys() == wanted.chains.keys()


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_the_text_loads_into_the_same(make_namespace: Callable[[str], str], family: str) -> None:
    """What is shown as text is what would be loaded: nft(8) makes the same objects of it as the netlink codec."""
    dialect = layout.DIALECTS[family]  # type: ignore[index]
    options = ProxyOptions("n1", cluster_cidrs=("10.244.0.0/16", "fd00:244::/56"), service_cidrs=("10.96.0.0/16",))
    v6 = family == "IPv6"
    vip, endpoint, client = (
        ("fd00::5", "fd00:244::2", "fd01::/16") if v6 else ("10.96.0.5", "10.244.1.2", "10.1.0.0/16")
    )
    targets = (Target(endpoint, 80, True), Target(endpoint, 81))
    entries = tuple(
        Forwarding(dialect.family, *address, name, verdict, targets, affinity_seconds=seconds, allowed=allowed, via=via)
        for address, name, verdict, seconds, allowed, via in (
            ((vip, "TCP", 80), "a", "forward", 0, (), "cluster IP"),
            ((vip, "UDP", 53), "b", "forward", 60, (), "cluster IP"),
            ((vip, "TCP", 81), "c", "forward", 0, (client,), "load balancer"),
            ((vip, "SCTP", 82), "d", "drop", 0, (), "cluster IP"),
            (("", "TCP", 30080), "a", "forward", 0, (), "node port"),
        )
    )
    place = NodePlace(("192.0.2.1", "192.0.2.0/24", "2001:db8::/64"), Pods(options.cluster_cidrs), localhost=True)
    table = ServiceTable(Map({ServiceKey("shop", "web"): entries}), place)
    ledger = diff.Ledger()
    ledger.replace([(k, Piece(), piece_of(dialect.family, options, table, k)) for k in (NODE, *table.services)])
    wanted = ledger.state(layout.COMMENT)
    target = make_namespace("text")
    with namespaces.entered(namespaces.path(target)):
        text = render_table(dialect.table, wanted)
        loaded = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    nft, run = _in(make_namespace("netlink"))
    with nft:
        nft.commit(dialect.table, diff.reconcile(None, wanted))
    other, run_other = _in(target)
    with other:
        state = other.read(dialect.table)
    assert state is not None
    assert (state.sets, state.elements) == (wanted.sets, wanted.elements)
    listing = f"list table {dialect.table.family} {dialect.table.name}"
    assert _words(run(listing)) == _words(run_other(listing))


def _words(listing: str) -> list[str]:
    """Its lines in any order, with what nft calls a port the same in all: it takes a guess at the protocol."""
    lines = (line.strip("\t ,{}") for line in listing.replace(" tcp dport", " th dport").splitlines())
    return sorted(line.removeprefix("elements = { ") for line in lines)


def test_a_stranger_is_noticed_and_we_are_not(make_namespace: Callable[[str], str]) -> None:
    """The monitor wakes for others' changes, names the table, and stays silent about our own, however large."""
    name = make_namespace("nft")
    nft, run = _in(name)
    with namespaces.entered(namespaces.path(name)):
        monitor = Monitor(ignore_port=nft.port)
    try:
        many = tuple(Element((f"10.{n >> 8 & 255}.{n & 255}.1",)) for n in range(20_000))
        nft.commit(TABLE, (PutTable(), PutSet(IPS), AddElements(IPS, many)))
        assert monitor.drain() == ((), False)
        run("add table ip stranger")
        assert monitor.drain().tables == (TableName("ip", "stranger"),)
        run("delete element ip fairlead ips { 10.0.0.1 }")
        assert monitor.drain().tables == (TABLE,)
        run("flush ruleset")
        assert TABLE in monitor.drain().tables
    finally:
        monitor.close()
        nft.close()


def test_shapes_we_never_write_are_told(make_namespace: Callable[[str], str]) -> None:
    """A set or base chain of a stranger's shape in our table makes the state not whole, so the table is made anew."""
    nft, run = _in(make_namespace("nft"))
    with nft:
        run("add table ip fairlead")
        assert nft.read(TABLE) == TableState()
        run("add set ip fairlead odd { type mark ; flags interval ; }")
        state = nft.read(TABLE)
        assert state is not None
        assert not state.whole
        changes = diff.reconcile(state, TableState({}, {"ips": IPS}, {"ips": {}}))
        assert DropTable() in changes
        nft.commit(TABLE, changes)
        assert nft.read(TABLE) == TableState({}, {"ips": IPS}, {"ips": {}})


def test_the_kernels_words_are_in_the_error(make_namespace: Callable[[str], str]) -> None:
    """A refusal is an OSError with the kernel's errno."""
    nft, _ = _in(make_namespace("nft"))
    with nft, pytest.raises(NetlinkError, match="No such file") as caught:
        nft.commit(TABLE, (PutChain(Chain("c")),))
    assert caught.value.errno == errno.ENOENT


def test_a_small_send_buffer_cuts_the_transaction(make_namespace: Callable[[str], str]) -> None:
    """Without the right to a large buffer a large load arrives all the same, in several transactions."""
    with namespaces.entered(namespaces.path(make_namespace("nft"))):
        nft = NftSocket()
    with nft:
        nft._netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        many = tuple(Element((f"10.{n >> 8 & 255}.{n & 255}.1",)) for n in range(20_000))
        before = nft.generation()
        nft.commit(TABLE, (PutTable(), PutSet(IPS), AddElements(IPS, many)))
        assert nft.generation() - before > 2
        state = nft.read(TABLE)
    assert state is not None
    assert len(state.elements["ips"]) == 20_000


def test_a_large_set_is_read_whole(make_namespace: Callable[[str], str]) -> None:
    """At once after it was filled, and after most of it went, while the kernel makes its hash table larger or smaller:
    a proxy that starts then would leave a missed element for ever."""
    many = tuple(Element((f"10.{n >> 8 & 255}.{n & 255}.1",)) for n in range(60_000))
    nft, _ = _in(make_namespace("nft"))
    with nft:
        for _ in range(2):
            nft.commit(TABLE, (PutTable(), PutSet(IPS), AddElements(IPS, many)))
            assert nft.read(TABLE) == TableState({}, {"ips": IPS}, {"ips": {entry.key: entry for entry in many}})
            nft.commit(TABLE, (DropElements(IPS, tuple(entry.key for entry in many[5000:])),))
            assert nft.read(TABLE) == TableState({}, {"ips": IPS}, {"ips": {entry.key: entry for entry in many[:5000]}})
            nft.commit(TABLE, (PutTable(), DropTable()))
