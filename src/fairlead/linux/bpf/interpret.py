"""What a program does, instruction by instruction: the kernel's BPF machine in small. Pure.

Stands beside the kernel and says what it would do; tests run the very programs that are loaded. Memory is in regions
(context, stack, map values), a pointer is a region and an offset: what the kernel's verifier refuses (reading what was
never written, leaving a region) is an error here. Invariant: dice are an argument.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple

from fairlead.linux.bpf import assembler
from fairlead.linux.bpf.assembler import FP, HELPERS, Instruction, MapShape, Program

_STACK = 512
_HELPER_NAMES = {number: name for name, number in HELPERS.items()}


class Machine(NamedTuple):
    """What surrounds a run. `maps`: keys and values as bytes, by the map's name; `shapes` says their sizes. `context`:
    what the program reads and changes. `draw`: the dice, 32 bits at a time."""

    maps: Mapping[str, MutableMapping[bytes, bytes]]
    shapes: Mapping[str, MapShape]
    context: bytearray
    socket_cookie: int
    namespace_cookie: int
    draw: Callable[[], int]


class Pointer(NamedTuple):
    """A place in a region of memory."""

    region: bytearray
    offset: int


class MapName(NamedTuple):
    """What a register holds that names a map."""

    name: str


Value = int | Pointer | MapName


def run(program: Program, machine: Machine) -> int:
    """Run the program; changes the context and the maps. Returns its result. Raises ValueError for what the kernel
    would not load."""
    return _Run(program, machine).result()


class _Run:
    """One run: registers, stack, and the place in the program."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.machine = machine
        self.stack, self.written = bytearray(_STACK), bytearray(_STACK)
        self.registers: dict[int, Value] = {1: Pointer(machine.context, 0), FP: Pointer(self.stack, _STACK)}
        self.place = 0
        self.places: dict[int, Instruction] = {}
        place = 0
        for instruction in program:
            self.places[place] = instruction
            place += 2 if instruction.code == assembler.LOAD_WIDE else 1

    def result(self) -> int:
        while True:
            if self.place not in self.places:
                raise ValueError(f"no instruction at {self.place}")
            i = self.places[self.place]
            self.place += 2 if i.code == assembler.LOAD_WIDE else 1
            if i.code == assembler.EXIT:
                return self._integer(0)
            self._step(i)

    def _step(self, i: Instruction) -> None:
        if i.code in assembler.LOAD:
            self.registers[i.target] = _number(self._read(i.source, i.offset, assembler.LOAD[i.code]))
        elif i.code in assembler.STORE:
            self._write(i.target, i.offset, self._integer(i.source), assembler.STORE[i.code])
        elif i.code in assembler.STORE_NUMBER:
            self._write(i.target, i.offset, i.number, assembler.STORE_NUMBER[i.code])
        elif i.code == assembler.LOAD_WIDE:
            self.registers[i.target] = MapName(i.map) if i.map else i.number
        elif i.code == assembler.MOVE:
            self.registers[i.target] = self._value(i.source)
        elif i.code == assembler.MOVE_NUMBER:
            self.registers[i.target] = i.number
        elif i.code == assembler.ADD_NUMBER:
            base = self._pointer(i.target)
            self.registers[i.target] = base._replace(offset=base.offset + i.number)
        elif i.code == assembler.REMAINDER:
            one, other = self._integer(i.target) & 0xFFFFFFFF, self._integer(i.source) & 0xFFFFFFFF
            self.registers[i.target] = one % other if other else one
        elif i.code == assembler.CALL:
            result = self._call(_HELPER_NAMES[i.number])
            for lost in range(1, 6):
                self.registers.pop(lost, None)
            self.registers[0] = result
        elif self._jumps(i):
            self.place += i.offset

    def _jumps(self, i: Instruction) -> bool:
        if i.code == assembler.JUMP:
            return True
        if i.code in (assembler.IF_SAME, assembler.IF_DIFFERENT):
            return (self._value(i.target) == self._value(i.source)) == (i.code == assembler.IF_SAME)
        if i.code in (assembler.IF_EQUAL, assembler.IF_NOT_EQUAL):
            return (self._value(i.target) == i.number) == (i.code == assembler.IF_EQUAL)
        raise ValueError(f"not an instruction of ours: {i}")

    def _call(self, helper: str) -> Value:
        machine = self.machine
        if helper == "get_prandom_u32":
            return machine.draw()
        if helper in ("get_socket_cookie", "get_netns_cookie"):
            if self._pointer(1).region is not machine.context:
                raise ValueError(f"{helper} of something else than the context")
            return machine.socket_cookie if helper == "get_socket_cookie" else machine.namespace_cookie
        named = self._value(1)
        if not isinstance(named, MapName):
            raise ValueError(f"{helper} without a map")
        held, shape = machine.maps[named.name], machine.shapes[named.name]
        key = self._read(2, 0, shape.key)
        if helper == "map_lookup_elem":
            value = held.get(key, bytes(shape.value) if shape.slots else None)
            return 0 if value is None else Pointer(bytearray(value), 0)
        if self._integer(4) != 0:
            raise ValueError("map_update_elem with flags")
        held[key] = self._read(3, 0, shape.value)
        return 0

    def _value(self, register: int) -> Value:
        if register not in self.registers:
            raise ValueError(f"R{register} holds nothing")
        return self.registers[register]

    def _integer(self, register: int) -> int:
        value = self._value(register)
        if not isinstance(value, int):
            raise ValueError(f"R{register} holds no number")
        return value

    def _pointer(self, register: int) -> Pointer:
        value = self._value(register)
        if not isinstance(value, Pointer):
            raise ValueError(f"R{register} holds no address")
        return value

    def _span(self, register: int, offset: int, size: int) -> tuple[bytearray, slice]:
        base = self._pointer(register)
        start = base.offset + offset
        if start < 0 or start + size > len(base.region):
            raise ValueError(f"{size} bytes at {start} are not in a region of {len(base.region)}")
        return base.region, slice(start, start + size)

    def _read(self, register: int, offset: int, size: int) -> bytes:
        region, span = self._span(register, offset, size)
        if region is self.stack and not all(self.written[span]):
            raise ValueError(f"the stack is read at {span.start - _STACK}, where nothing was written")
        return bytes(region[span])

    def _write(self, register: int, offset: int, number: int, size: int) -> None:
        region, span = self._span(register, offset, size)
        region[span] = (number & (1 << 8 * size) - 1).to_bytes(size, sys.byteorder)
        if region is self.stack:
            self.written[span] = b"\1" * size


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)
