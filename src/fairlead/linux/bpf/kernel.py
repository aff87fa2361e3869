"""bpf(2): maps, programs, and their attachment to a control group, through ctypes.

Stands on libc. Invariant: nothing is pinned; maps, programs and attachments are descriptors, and gone with the process.
Raises OSError: EPERM without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN), EINVAL or ENOSYS on kernels that have not
what is asked for. Sources: linux/bpf.h; links of control groups are there since Linux 5.7.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from fairlead.linux.bpf.assembler import MapShape, Program, render_program

_CALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361, "armv7l": 386}
_MAP_CREATE, _MAP_LOOKUP, _PROG_LOAD = 0, 1, 5
_MAP_UPDATE_BATCH, _MAP_DELETE_BATCH, _LINK_CREATE = 26, 27, 28
_HASH, _ARRAY, _LRU_HASH = 1, 2, 9
_NO_PREALLOC = 1
_CGROUP_SOCK_ADDR = 18
_LOG_BYTES = 1 << 16
_SO_NETNS_COOKIE = 71

ATTACH_TYPES = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    number = _CALL_NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) is not known for {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(ctypes.c_long(number), ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes))))
    if result < 0:
        failure = ctypes.get_errno()
        raise OSError(failure, os.strerror(failure))
    return result


def _pointer(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


class Map:
    """A map of bytes to bytes. Its elements are replaced whole: who reads sees the old or the new value."""

    def __init__(self, name: str, shape: MapShape, capacity: int) -> None:
        self.shape = shape
        kind = _ARRAY if shape.slots else _LRU_HASH if shape.recent else _HASH
        flags = _NO_PREALLOC if kind == _HASH else 0
        head = struct.pack("=IIIII", kind, shape.key, shape.value, capacity, flags)
        self._fd = _bpf(_MAP_CREATE, head + struct.pack("=II", 0, 0) + _name(name))

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def put(self, elements: Iterable[tuple[bytes, bytes]]) -> None:
        """Add or replace, in order. Raises OSError E2BIG when the map is full."""
        pairs = list(elements)
        if pairs:
            self._batch(_MAP_UPDATE_BATCH, [key for key, _ in pairs], [value for _, value in pairs])

    def drop(self, keys: Iterable[bytes]) -> None:
        """Remove; each must be there."""
        gone = list(keys)
        if gone:
            self._batch(_MAP_DELETE_BATCH, gone, [])

    def get(self, key: bytes) -> bytes | None:
        """The value, if there is one."""
        asked = ctypes.create_string_buffer(key, self.shape.key)
        found = ctypes.create_string_buffer(self.shape.value)
        try:
            _bpf(_MAP_LOOKUP, struct.pack("=IIQQQ", self._fd, 0, _pointer(asked), _pointer(found), 0))
        except FileNotFoundError:
            return None
        return found.raw

    def close(self) -> None:
        """Let go of it: the kernel frees it once no program uses it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _batch(self, command: int, keys: list[bytes], values: list[bytes]) -> None:
        asked = ctypes.create_string_buffer(b"".join(keys), len(keys) * self.shape.key)
        given = ctypes.create_string_buffer(b"".join(values), max(1, len(values) * self.shape.value))
        places = (_pointer(asked), _pointer(given) if values else 0)
        _bpf(command, struct.pack("=QQQQIIQQ", 0, 0, *places, len(keys), self._fd, 0, 0))


class Attached:
    """A program on a control group, beside those of others; gone when it is closed, or the process ends."""

    def __init__(self, hook: str, program: Program, maps: Mapping[str, Map], group: Path) -> None:
        kind = ATTACH_TYPES[hook]
        fd = _load(f"fl_{hook}", program, {name: entry.fileno() for name, entry in maps.items()}, kind)
        try:
            target = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._fd = _bpf(_LINK_CREATE, struct.pack("=IIII", fd, target, kind, 0))
            finally:
                os.close(target)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Take it away."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _load(name: str, program: Program, maps: Mapping[str, int], kind: int) -> int:
    code = render_program(program, maps)
    instructions, terms = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(_LOG_BYTES)

    def attributes(level: int) -> bytes:
        head = struct.pack("=IIQQ", _CGROUP_SOCK_ADDR, len(code) // 8, _pointer(instructions), _pointer(terms))
        verbose = struct.pack("=IIQ", level, _LOG_BYTES if level else 0, _pointer(log) if level else 0)
        return head + verbose + struct.pack("=II", 0, 0) + _name(name) + struct.pack("=II", 0, kind)

    try:
        return _bpf(_PROG_LOAD, attributes(0))
    except PermissionError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            return _bpf(_PROG_LOAD, attributes(1))
        said = log.value.decode(errors="replace").strip().splitlines()
        raise OSError(error.errno, f"{name} was not loaded: {said[-1] if said else error.strerror}") from error


def _name(text: str) -> bytes:
    return text.replace("-", "_").encode()[:15].ljust(16, b"\0")


def allow_locked_memory() -> None:
    """Kernels before 5.11 count maps as locked memory: lift the limit, if we may."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def namespace_cookie() -> int:
    """The number of the calling thread's network namespace, as programs see it (Linux 5.14)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
