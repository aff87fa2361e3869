"""What is remembered, and when it is forgotten."""

from __future__ import annotations

from fairlead.dns.table import MAX_KEY, ByClient, Table

WEB = ("shop", "web")


def test_a_service_takes_its_answers_with_it() -> None:
    """Forgetting a Service forgets what followed from it, positive and negative, and nothing else."""
    table = Table()
    table.put(b"web A", b"1", (WEB,))
    table.put(b"web AAAA", b"2", (WEB,))
    table.put(b"api A", b"3", (("shop", "api"),))
    table.put(b"web elsewhere", b"4", (("default", "web"),))
    table.put(b"for ever", b"5")
    table.forget_service(*WEB)
    assert set(table.young) == {b"api A", b"web elsewhere", b"for ever"}


def test_a_namespace_takes_all_of_its_services() -> None:
    """A namespace that comes or goes changes every name in it."""
    table = Table()
    table.put(b"web A", b"1", (WEB,))
    table.put(b"shop", b"2", (("shop", ""),))
    table.put(b"other", b"3", (("default", "web"),))
    table.forget_namespace("shop")
    assert set(table.young) == {b"other"}


def test_forgetting_reaches_the_old_generation() -> None:
    """An answer of a generation ago is gone too."""
    table = Table(size=1)
    table.put(b"web A", b"1", (WEB,))
    table.put(b"api A", b"2", (("shop", "api"),))
    assert set(table.young) == {b"api A"}
    table.forget_service(*WEB)
    assert table.recall(b"web A") is None


def test_a_recalled_answer_can_still_be_forgotten() -> None:
    """What moves back to the young generation keeps what it depends on."""
    table = Table(size=2)
    for key in (b"web A", b"b", b"c"):
        table.put(key, b"1", (WEB,))
    assert b"web A" not in table.young
    assert table.recall(b"web A") == b"1"
    assert b"web A" in table.young
    table.put(b"d", b"1", (WEB,))
    table.forget_service(*WEB)
    assert len(table) == 0
    assert table.recall(b"web A") is None


def test_memory_is_bounded() -> None:
    """However many different packets come, two generations are all there is; what is in use stays."""
    table = Table(size=100)
    table.put(b"used", b"1", (WEB,))
    for number in range(10_000):
        table.put(b"%d" % number, b"1", (("shop", str(number)),))
        assert table.young.get(b"used") or table.recall(b"used")
    assert len(table) <= 200
    assert len(table._depends) <= 200


def test_long_keys_are_not_kept() -> None:
    """A packet longer than any question with EDNS is not worth remembering."""
    table = Table()
    table.put(b"x" * (MAX_KEY + 1), b"1")
    assert len(table) == 0


def test_young_stays_the_same_object() -> None:
    """The server's loop holds on to it."""
    table = Table(size=1)
    young = table.young
    table.put(b"a", b"1")
    table.put(b"b", b"1")
    table.clear()
    table.put(b"c", b"1")
    assert young is table.young
    assert set(young) == {b"c"}


def test_what_is_kept_briefly() -> None:
    """Gone at the next tick, wherever it is by then."""
    table = Table(size=1)
    table.put(b"www A", b"1", briefly=True)
    table.put(b"web A", b"2", (WEB,))
    assert table.recall(b"www A") == b"1"
    table.tick()
    assert table.recall(b"www A") is None
    assert b"www A" not in table.young


def test_an_answer_that_depends_on_who_asks() -> None:
    """One for the pods of a namespace, one for all others; both go with what they follow from."""
    table = Table()
    table.put_for(b"x A", "shop", b"1", (WEB,), theirs=False)
    table.put_for(b"x A", "shop", b"2", (("default", "x"),), theirs=True, briefly=True)
    entry = table.young[b"x A"]
    assert isinstance(entry, ByClient)
    assert (entry.namespace, entry.plain, entry.theirs) == ("shop", b"1", b"2")
    table.forget_service(*WEB)
    assert not table.young


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    """Not under the other things that it followed from either: answers that come and go by the second do not add up."""
    table = Table()
    for number in range(1000):
        table.put(b"%d" % number, b"1", (WEB, ("default", str(number))), briefly=True)
        if number % 2:
            table.tick()
        else:
            table.forget_service("default", str(number))
    table.tick()
    assert len(table) == 0
    assert (table._young_dependants, table._old_dependants, table._depends, table.brief) == ({}, {}, {}, [])
