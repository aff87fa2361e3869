"""The address book: one owner per address, across restarts."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.podnetwork.addresses import AddressBook, AddressesExhausted

TINY = ipaddress.ip_network("10.244.9.0/29")


def test_gateway_network_and_broadcast_are_never_given(tmp_path: Path) -> None:
    """A /29 has five addresses for pods; the sixth request is refused in words."""
    book = AddressBook(TINY, tmp_path / "a")
    taken = {str(book.take(f"pod-{i}")) for i in range(5)}
    assert taken == {f"10.244.9.{i}" for i in range(2, 7)}
    with pytest.raises(AddressesExhausted, match=r"no free address in 10\.244\.9\.0/29"):
        book.take("one-too-many")


def test_a_returned_address_is_reused_last(tmp_path: Path) -> None:
    """An address that was just given back is not the next to be given out."""
    book = AddressBook(TINY, tmp_path / "a")
    first = book.take("old")
    book.give_back("old")
    assert book.take("new") != first


def test_owners_survive_a_restart(tmp_path: Path) -> None:
    """A new book over the same directory knows every owner."""
    book = AddressBook(TINY, tmp_path / "a")
    address = book.take("pod")
    again = AddressBook(TINY, tmp_path / "a")
    assert again.take("pod") == address
    assert again.owners() == {"pod"}


@given(steps=st.lists(st.tuples(st.sampled_from(["take", "back", "restart"]), st.integers(0, 9)), max_size=60))
def test_an_address_never_has_two_owners(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever is taken, given back and restarted: owners and addresses stay one to one."""
    directory = tmp_path_factory.mktemp("book") / "a"
    book = AddressBook(TINY, directory)
    model: dict[str, str] = {}
    for what, number in steps:
        pod = f"pod-{number}"
        if what == "restart":
            book = AddressBook(TINY, directory)
        elif what == "back":
            book.give_back(pod)
            model.pop(pod, None)
        elif len(model) < 5 or pod in model:
            address = str(book.take(pod))
            assert model.get(pod, address) == address
            assert address not in {a for p, a in model.items() if p != pod}
            model[pod] = address
    assert book.owners() == set(model)
