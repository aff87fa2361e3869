"""BPF instructions as values, an assembler that resolves labels, and their wire form (linux/bpf.h). Pure.

Stands under the programs of the socket balancer. Only what those need is here: loads and stores, moves, a remainder,
comparisons, calls of helpers. Invariant: every jump leads forward to a label of the same program, so each program ends.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Size = Literal[2, 4, 8]

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)
"""R0: results; R1–R5: arguments, lost by a call; R6–R9 are kept; FP: the end of 512 bytes of stack."""

_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_SIZES: dict[Size, int] = {4: 0x00, 2: 0x08, 8: 0x18}
_MEM, _IMM, _REGISTER = 0x60, 0x00, 0x08
_ADD, _MOD, _MOV = 0x00, 0x90, 0xB0
_JA, _JEQ, _JNE, _CALL, _EXIT = 0x00, 0x10, 0x50, 0x80, 0x90
_PSEUDO_MAP_FD = 1

LOAD = {_LDX | _MEM | bits: size for size, bits in _SIZES.items()}
STORE = {_STX | _MEM | bits: size for size, bits in _SIZES.items()}
STORE_NUMBER = {_ST | _MEM | bits: size for size, bits in _SIZES.items()}
LOAD_WIDE = _LD | _IMM | _SIZES[8]
ADD_NUMBER, MOVE = _ALU64 | _ADD, _ALU64 | _MOV | _REGISTER
MOVE_NUMBER, REMAINDER = _ALU64 | _MOV, _ALU | _MOD | _REGISTER
JUMP, IF_EQUAL, IF_NOT_EQUAL = _JMP | _JA, _JMP | _JEQ, _JMP | _JNE
IF_SAME, IF_DIFFERENT = _JMP | _JEQ | _REGISTER, _JMP | _JNE | _REGISTER
CALL, EXIT = _JMP | _CALL, _JMP | _EXIT

Helper = Literal["map_lookup_elem", "map_update_elem", "get_prandom_u32", "get_socket_cookie", "get_netns_cookie"]
HELPERS: dict[Helper, int] = {
    "map_lookup_elem": 1,
    "map_update_elem": 2,
    "get_prandom_u32": 7,
    "get_socket_cookie": 46,
    "get_netns_cookie": 122,
}


class MapShape(NamedTuple):
    """A map: bytes of a key and of a value. `recent`: it forgets what was used least recently when it is full. `slots`:
    its keys are the numbers below its capacity, all there from the start, with zeros."""

    key: int
    value: int
    recent: bool = False
    slots: bool = False


class Instruction(NamedTuple):
    """One instruction. `map` names the map whose descriptor a wide load gives; `number` of a wide load is 64 bits."""

    code: int
    target: int = 0
    source: int = 0
    offset: int = 0
    number: int = 0
    map: str = ""


Program = tuple[Instruction, ...]


class Assembler:
    """Collects instructions; `program` resolves the labels."""

    def __init__(self) -> None:
        self._instructions: list[Instruction] = []
        self._labels: dict[str, int] = {}
        self._jumps: dict[int, str] = {}

    def load(self, size: Size, target: int, base: int, offset: int) -> None:
        """target = *(base + offset)"""
        self._add(Instruction(_LDX | _MEM | _SIZES[size], target, base, offset))

    def store(self, size: Size, base: int, offset: int, source: int) -> None:
        """*(base + offset) = source"""
        self._add(Instruction(_STX | _MEM | _SIZES[size], base, source, offset))

    def store_number(self, size: Size, base: int, offset: int, number: int) -> None:
        """*(base + offset) = number"""
        signed = number - (1 << 32) if number >= 1 << 31 else number
        self._add(Instruction(_ST | _MEM | _SIZES[size], base, 0, offset, signed))

    def move(self, target: int, source: int) -> None:
        """target = source"""
        self._add(Instruction(MOVE, target, source))

    def move_number(self, target: int, number: int) -> None:
        """target = number (32 bits, signed)"""
        self._add(Instruction(MOVE_NUMBER, target, 0, 0, number))

    def move_wide(self, target: int, number: int) -> None:
        """target = number (64 bits)"""
        self._add(Instruction(LOAD_WIDE, target, 0, 0, number))

    def move_map(self, target: int, name: str) -> None:
        """target = the map"""
        self._add(Instruction(LOAD_WIDE, target, _PSEUDO_MAP_FD, 0, 0, name))

    def address(self, target: int, base: int, offset: int) -> None:
        """target = base + offset"""
        self.move(target, base)
        self._add(Instruction(ADD_NUMBER, target, 0, 0, offset))

    def remainder(self, target: int, source: int) -> None:
        """target = target % source (32 bits)"""
        self._add(Instruction(REMAINDER, target, source))

    def call(self, helper: Helper) -> None:
        """R0 = helper(R1, R2, …)"""
        self._add(Instruction(CALL, number=HELPERS[helper]))

    def unless(self, register: int, number: int, label: str) -> None:
        """Go to the label unless register == number."""
        self._jump(Instruction(IF_NOT_EQUAL, register, 0, 0, number), label)

    def when(self, register: int, number: int, label: str) -> None:
        """Go to the label if register == number."""
        self._jump(Instruction(IF_EQUAL, register, 0, 0, number), label)

    def when_same(self, register: int, other: int, label: str) -> None:
        """Go to the label if register == other."""
        self._jump(Instruction(IF_SAME, register, other), label)

    def unless_same(self, register: int, other: int, label: str) -> None:
        """Go to the label unless register == other."""
        self._jump(Instruction(IF_DIFFERENT, register, other), label)

    def goto(self, label: str) -> None:
        """Go to the label."""
        self._jump(Instruction(JUMP), label)

    def label(self, name: str) -> None:
        """Name the next instruction."""
        if name in self._labels:
            raise ValueError(f"label {name} is there twice")
        self._labels[name] = len(self._instructions)

    def exit(self, result: int) -> None:
        """Return the number."""
        self.move_number(R0, result)
        self._add(Instruction(EXIT))

    def program(self) -> Program:
        """The instructions, jumps resolved. Raises ValueError for a label that is not there or lies behind."""
        places, place = [], 0
        for instruction in self._instructions:
            places.append(place)
            place += 2 if instruction.code == LOAD_WIDE else 1
        found = list(self._instructions)
        for at, label in self._jumps.items():
            to = self._labels.get(label, -1)
            if to <= at:
                raise ValueError(f"no label {label} after the jump")
            found[at] = found[at]._replace(offset=places[to] - places[at] - 1)
        return tuple(found)

    def _add(self, instruction: Instruction) -> None:
        self._instructions.append(instruction)

    def _jump(self, instruction: Instruction, label: str) -> None:
        self._jumps[len(self._instructions)] = label
        self._add(instruction)


def render_program(program: Iterable[Instruction], maps: Mapping[str, int]) -> bytes:
    """The kernel's form. `maps`: the descriptors by name."""
    out = bytearray()
    for i in program:
        registers = i.target | i.source << 4 if sys.byteorder == "little" else i.target << 4 | i.source
        if i.code == LOAD_WIDE:
            value = maps[i.map] if i.map else i.number
            out += struct.pack("=BBhI", i.code, registers, 0, value & 0xFFFFFFFF)
            out += struct.pack("=BBhI", 0, 0, 0, value >> 32)
        else:
            out += struct.pack("=BBhi", i.code, registers, i.offset, i.number)
    return bytes(out)
