"""Filters of system calls, as an OCI runtime's configuration describes them, over the calling process.

Stands on libseccomp, which knows every architecture's numbers and writes the kernel's program. Source: the OCI runtime
specification, config-linux.md. Invariant: what the profile names and this machine's architecture does not have is
passed over, as runtimes do; anything else that can't be done is an error, and then no filter is there. Nothing is
loaded from a file after the import: whoever calls may be in a container's root by then.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

Object = dict[str, Any]
_ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = {
    f"SCMP_CMP_{name}": number for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}
_NO_NEW_PRIVILEGES = 3  # SCMP_FLTATR_CTL_NNP
_UNKNOWN = -1  # __NR_SCMP_ERROR


class _Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _load() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    return found


_LIBRARY = _load()  # now: in a container's root it would be the container's library, if it had one


def available() -> bool:
    """Whether filters can be made here."""
    return _LIBRARY is not None


def problem(profile: Object) -> str:
    """What in a profile can't be had, or ""."""
    if not isinstance(profile, dict) or profile.get("defaultAction") not in _ACTIONS:
        return f"unknown defaultAction {profile.get('defaultAction') if isinstance(profile, dict) else profile!r}"
    for rule in profile.get("syscalls") or ():
        if rule.get("action") not in _ACTIONS:
            return f"unknown action {rule.get('action')!r} of {', '.join(rule.get('names') or ())}"
        for argument in rule.get("args") or ():
            if argument.get("op") not in _OPERATORS:
                return f"unknown operator {argument.get('op')!r} of {', '.join(rule.get('names') or ())}"
    return ""


def limit_own_calls(profile: Object) -> None:
    """Put the filter over this process and all it will start. OSError if it can't be had; needs no_new_privs, or
    CAP_SYS_ADMIN, as the kernel demands."""
    library = _loaded()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    if not context:
        raise OSError(errno.EINVAL, "the seccomp filter could not be made")
    try:
        _check(library.seccomp_attr_set(context, _NO_NEW_PRIVILEGES, ctypes.c_uint32(0)))
        for name in profile.get("architectures") or ():
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            if token:
                _check(library.seccomp_arch_add(context, ctypes.c_uint32(token)), errno.EEXIST)
        for rule in profile.get("syscalls") or ():
            action = _action(rule["action"], rule.get("errnoRet"))
            if action != default:
                _add(context, action, rule)
        _check(library.seccomp_load(context))
    finally:
        library.seccomp_release(context)


def _loaded() -> ctypes.CDLL:
    if _LIBRARY is None:
        raise OSError(errno.ENOENT, "libseccomp is not there")
    return _LIBRARY


def _action(name: str, number: int | None) -> int:
    if name in _WITH_NUMBER:
        return _ACTIONS[name] | ((errno.EPERM if number is None else number) & 0xFFFF)
    return _ACTIONS[name]


def _add(context: ctypes.c_void_p, action: int, rule: Object) -> None:
    given = rule.get("args") or ()
    arguments = (_Argument * max(1, len(given)))(
        *(_Argument(a["index"], _OPERATORS[a["op"]], a.get("value", 0), a.get("valueTwo", 0)) for a in given)
    )
    for name in rule.get("names") or ():
        number = _loaded().seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN:
            continue
        code = _loaded().seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(given), arguments)
        _check(code, errno.EEXIST, errno.EDOM)


def _check(code: int, *fine: int) -> None:
    if code < 0 and -code not in fine:
        raise OSError(-code, f"the seccomp filter could not be made: {os.strerror(-code).lower()}")
