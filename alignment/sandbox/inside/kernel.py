"""Makes Linux system calls that the standard library lacks (namespaces, mounts, capabilities, prctl) with ctypes.

All functions raise OSError if the system call fails.
Constants are from the kernel's headers: linux/sched.h, linux/mount.h, linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
MACHINE = platform.machine()

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
PR_SET_SECCOMP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 22, 47, 4

# System call numbers of each machine type. Numbers from 424 on are the same on all machine types.
CALLS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "close_range": 436, "mount_setattr": 442},
    "aarch64": {"pivot_root": 41, "capset": 91, "close_range": 436, "mount_setattr": 442},
}


def call(name: str, *arguments: object) -> int:
    """Make the system call that `CALLS` lists under `name`, and return its result."""
    return checked(LIBC.syscall(CALLS[MACHINE][name], *arguments), name)


def checked(result: int, action: str) -> int:
    """Return the result of a libc function. Raises OSError, with `action` in the message, if the result is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{action}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    arguments = [ctypes.c_ulong(item) for item in (value, third, 0, 0)]
    return checked(LIBC.prctl(option, *arguments), f"prctl({option})")


def unshare(flags: int) -> None:
    checked(LIBC.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int) -> None:
    checked(LIBC.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    result = LIBC.mount(
        source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), data and data.encode()
    )
    checked(result, f"mount({target})")


def make_read_only(path: str) -> None:
    """Make a bind mount and all mounts below it read-only, without set-user-ID programs.

    On kernels without mount_setattr (before 5.12), only the mount itself becomes read-only, not the mounts below it.
    """
    attributes = (ctypes.c_uint64 * 4)(0x1 | 0x2, 0, 0, 0)  # MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
    try:
        call("mount_setattr", -100, path.encode(), 0x8000, attributes, ctypes.sizeof(attributes))  # AT_RECURSIVE
    except OSError:
        mount("none", path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def pivot_root(new_root: str) -> None:
    """Make `new_root` the root and unmount the old root."""
    os.chdir(new_root)
    call("pivot_root", b".", b".")
    checked(LIBC.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def map_user(name: int, user: int, group: int) -> None:
    """Map exactly one user and one group in a new user namespace.

    Args:
        name: The user's id inside the namespace.
        user: The user's id outside the namespace.
        group: The group's id outside the namespace. The group's id inside the namespace is `group` if `name` equals
            `user`, otherwise `name`.
    """
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{name} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group if name == user else name} {group} 1")


def drop_bounding_set() -> None:
    """Drop all capabilities from the bounding set, so that no executed program can gain one."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # the number is above the last capability of this kernel
            return


def drop_capabilities() -> None:
    """Drop the effective, permitted, inheritable and ambient capabilities."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    call("capset", header, (ctypes.c_uint32 * 6)())
    try:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != 22:  # EINVAL: a kernel without ambient capabilities
            raise


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    try:
        call("close_range", ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0)
    except OSError:
        os.closerange(first, 65536)
