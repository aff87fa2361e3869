"""The assembler's form of programs, and the interpreter's refusals: those of the kernel's verifier."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from fairlead.linux.bpf import interpret
from fairlead.linux.bpf.assembler import FP, R0, R1, R2, R3, Assembler, MapShape, Program, render_program

SHAPES = {"m": MapShape(4, 4)}


def run(program: Program, held: dict[bytes, bytes] | None = None, context: bytes = bytes(8)) -> int:
    machine = interpret.Machine({"m": held if held is not None else {}}, SHAPES, bytearray(context), 1, 2, lambda: 7)
    return interpret.run(program, machine)


def assembled(*steps: Callable[[Assembler], None]) -> Program:
    a = Assembler()
    for step in steps:
        step(a)
    return a.program()


def test_a_jump_is_counted_in_places() -> None:
    """A wide load takes two places of eight bytes; a jump over it counts both (linux/bpf.h)."""
    a = Assembler()
    a.when(R1, 5, "end")
    a.move_map(R1, "m")
    a.label("end")
    a.exit(1)
    data = render_program(a.program(), {"m": 9})
    assert len(data) == 8 * 5
    code, registers, offset, number = struct.unpack("=BBhi", data[:8])
    assert (code, registers, offset, number) == (0x15, 1, 2, 5)
    assert struct.unpack("=BBhi", data[8:16]) == (0x18, 1 | 1 << 4, 0, 9)


def test_labels_lie_ahead() -> None:
    """No loops: a program that ends is the only kind."""
    a = Assembler()
    a.label("start")
    a.goto("start")
    with pytest.raises(ValueError, match="no label start after the jump"):
        a.program()


def test_a_map_is_asked_and_changed() -> None:
    """What was put is found, by the bytes of the key on the stack."""
    held: dict[bytes, bytes] = {}
    a = Assembler()
    a.store_number(4, FP, -4, 17)
    a.store_number(4, FP, -8, 3)
    for helper in ("map_update_elem", "map_lookup_elem"):
        a.move_map(R1, "m")
        a.address(R2, FP, -4)
        a.address(R3, FP, -8)
        a.move_number(4, 0)
        a.call(helper)  # type: ignore[arg-type]
    a.load(4, 1, R0, 0)
    a.unless(R1, 3, "wrong")
    a.exit(1)
    a.label("wrong")
    a.exit(0)
    assert run(a.program(), held) == 1
    assert held == {struct.pack("=I", 17): struct.pack("=I", 3)}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((lambda a: a.load(4, R0, FP, -8), lambda a: a.exit(0)), "where nothing was written"),
        ((lambda a: a.load(4, R0, R1, 8), lambda a: a.exit(0)), "not in a region"),
        ((lambda a: a.move(R0, R3), lambda a: a.exit(0)), "R3 holds nothing"),
        ((lambda a: a.store(8, FP, -8, R1), lambda a: a.exit(0)), "holds no number"),
        (
            (lambda a: a.call("get_prandom_u32"), lambda a: a.load(4, R0, R1, 0), lambda a: a.exit(0)),
            "R1 holds nothing",
        ),
        ((lambda a: a.move_number(R0, 1),), "no instruction at 1"),
    ],
)
def test_what_the_verifier_would_refuse(steps: tuple[Callable[[Assembler], None], ...], said: str) -> None:
    """Unwritten stack, a place outside, an empty register, a pointer given away, what a call has lost, no end."""
    with pytest.raises(ValueError, match=said):
        run(assembled(*steps))
