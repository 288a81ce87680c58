"""Uses Landlock, with which a process gives up access to all files except lists of readable and writable paths.

The full sandbox uses Landlock in addition to namespaces. The weaker sandbox uses Landlock without namespaces.
Constants are from linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os

from . import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446
EXECUTE, WRITE, READ_FILE, READ_DIR, REFER, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 13, 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
FILE_ONLY = EXECUTE | WRITE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Bit mask of the rights that apply to files. A rule for a file must not contain any other right."""


def version() -> int:
    """Return the version of the kernel's Landlock ABI; 0 if the kernel has no Landlock."""
    return max(0, kernel.LIBC.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)))


def _handled(abi: int) -> int:
    """Return the bit mask of all file rights that this ABI version can restrict."""
    access = (1 << 13) - 1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        access |= right if abi >= since else 0
    return access


def restrict(readable: list[str], writable: list[str], abi: int) -> None:
    """Restrict this process and its descendants.

    The processes can read and execute `readable`, have all rights on `writable`, and have no access to other paths.
    From ABI 4 on they cannot use TCP. From ABI 6 on they cannot connect to abstract Unix sockets of processes outside,
    or send signals to processes outside.
    """
    handled = _handled(abi)
    network = 3 if abi >= 4 else 0
    scoped = 3 if abi >= 6 else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = (ctypes.c_uint64 * 3)(handled, network, scoped)
    ruleset = kernel.checked(
        kernel.LIBC.syscall(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0)), "landlock_create_ruleset"
    )
    try:
        for paths, access in ((readable, READ), (writable, handled)):
            for path in paths:
                _allow(ruleset, path, access & handled)
        kernel.checked(kernel.LIBC.syscall(_RESTRICT, ruleset, ctypes.c_uint(0)), "landlock_restrict_self")
    finally:
        os.close(ruleset)


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # a path that does not exist, or that this user cannot reach, needs no rule
    try:
        if not os.path.isdir(path):
            access &= FILE_ONLY
        rule = _PathRule(access, descriptor)
        kernel.checked(
            kernel.LIBC.syscall(_ADD, ruleset, ctypes.c_uint(1), ctypes.byref(rule), ctypes.c_uint(0)),
            f"landlock_add_rule({path})",
        )
    finally:
        os.close(descriptor)
