"""What a set holds, from dumps that miss some of it."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.linux.netlink import Received
from fairlead.linux.nft.kernel import settled


class Kernel:
    """Gives one dump after the other, then the last again."""

    def __init__(self, *dumps: str) -> None:
        self.asked = 0
        self._dumps = dumps

    def dump(self) -> Iterator[Received]:
        """The next."""
        said = self._dumps[min(self.asked, len(self._dumps) - 1)]
        self.asked += 1
        return (Received(0, 0, 0, 0, part.encode()) for part in said.split())


def parts(kernel: Kernel) -> list[str]:
    return [bytes(received.payload).decode() for received in settled(kernel.dump)]


def test_one_part_is_whole() -> None:
    """Nothing can happen between the parts of such a dump: a small set costs one."""
    for said in ("", "ab"):
        kernel = Kernel(said)
        assert (parts(kernel), kernel.asked) == (said.split(), 1)


def test_dumped_until_nothing_is_new() -> None:
    """What any of the dumps had counts, once."""
    kernel = Kernel("ab cd", "ab cd")
    assert (parts(kernel), kernel.asked) == (["ab", "cd"], 2)
    kernel = Kernel("ab c", "ab cd ef", "ab ef")
    assert (parts(kernel), kernel.asked) == (["ab", "c", "cd", "ef"], 3)


def test_what_never_settles_ends() -> None:
    """Elements with counters are different each time."""
    kernel = Kernel(*(f"a{n} b" for n in range(100)))
    assert len(parts(kernel)) == kernel.asked + 1 < 20
