"""The seccomp filter: refuses, with EPERM, system calls that programs and compilers do not need.

The filter is a deny list, because fourteen language runtimes have to work under it. Namespaces are the main
containment. The filter refuses rarely used parts of the kernel (new namespaces, tracing, keys, bpf, io_uring,
userfaultfd), memory that the limits do not count (memfd, System V and POSIX IPC, shared mappings without a file: their
pages stay in memory when most of the mapping is unmapped), the choice of cores and scheduling classes, and sockets. The filter is a classic
BPF program (linux/filter.h, linux/seccomp.h).
"""

from __future__ import annotations

import ctypes
import errno
import struct

from . import kernel

# Name: number on x86_64, number on aarch64. None means that the machine type does not have the system call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "perf_event_open": (298, 241), "bpf": (321, 280),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_setup": (206, 0), "io_submit": (209, 2),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "statmount": (457, 457), "listmount": (458, 458),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162), "ioperm": (173, None),
    "iopl": (172, None), "modify_ldt": (154, None), "personality": (135, 92), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18),
    "vhangup": (153, 58), "nfsservctl": (180, 42), "uselib": (134, None), "ustat": (136, None), "sysfs": (139, None),
    "socket": (41, 198), "bind": (49, 200), "listen": (50, 201), "connect": (42, 203), "accept": (43, 202),
    "accept4": (288, 242), "lsm_set_self_attr": (460, 460), "migrate_pages": (256, 238), "move_pages": (279, 239), "vmsplice": (278, 75),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274),
}  # fmt: skip
NAMESPACE_FLAGS = 0x7E020080  # every CLONE_NEW* flag of clone(), including CLONE_NEWTIME
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
# Refused if there is no pid namespace, because the processes that a program starts could then survive the program:
# fork and vfork (and clone without CLONE_THREAD, see `filter_program`).
FORKS = {"fork": (57, None), "vfork": (58, None)}
# Also refused if there is no pid namespace: signals and priorities, which could affect other processes of the user.
SIGNALS = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
           "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
           "setpriority": (141, 140), "ioprio_set": (251, 30)}  # fmt: skip
PRLIMIT = (302, 261)
MMAP = (9, 222)
SHARED_ANONYMOUS = 0x21  # MAP_SHARED | MAP_ANONYMOUS

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54


def filter_program(*, allow_processes: bool = True) -> bytes:
    """Return the BPF program of the filter for this machine, as the bytes of an array of ``struct sock_filter``.

    Args:
        allow_processes: If False, the filter also refuses to start processes, to send signals, and to change the limits
            of other processes.
    """
    column = {"x86_64": 0, "aarch64": 1}[kernel.MACHINE]
    audit = (0xC000003E, 0xC00000B7)[column]
    refused = dict(REFUSED) if allow_processes else {**REFUSED, **FORKS, **SIGNALS}
    clone, clone3, ioctl = ((56, 435, 16), (220, 435, 29))[column]
    steps: list[tuple[int, int, int, int]] = []

    def add(code: int, value: int, yes: int = 0, no: int = 0) -> None:
        steps.append((code, yes, no, value))

    add(_LOAD, 4)  # the architecture of the call
    add(_EQUAL, audit, 1, 0)
    add(_RETURN, _KILL)
    add(_LOAD, 0)  # the number of the call
    if column == 0:
        add(_AT_LEAST, 0x40000000, 0, 1)  # system calls of the x32 ABI
        add(_RETURN, _KILL)
    for pair in refused.values():
        number = pair[column]
        if number is not None:
            add(_EQUAL, number, 0, 1)
            add(_RETURN, _ERRNO | errno.EPERM)
    if not allow_processes:  # allow prlimit for the calling process only
        add(_EQUAL, PRLIMIT[column], 0, 4)
        add(_LOAD, 16)
        add(_EQUAL, 0, 1, 0)
        add(_RETURN, _ERRNO | errno.EPERM)
        add(_RETURN, _ALLOW)
    add(_EQUAL, MMAP[column], 0, 5)
    add(_LOAD, 40)  # lower half of the fourth argument
    add(_AND, SHARED_ANONYMOUS)
    add(_EQUAL, SHARED_ANONYMOUS, 0, 1)
    add(_RETURN, _ERRNO | errno.ENOMEM)
    add(_RETURN, _ALLOW)
    add(_EQUAL, clone3, 0, 1)  # its flags are behind a pointer, which a filter cannot read; libc falls back to clone
    add(_RETURN, _ERRNO | errno.ENOSYS)
    add(_EQUAL, clone, 0, 4 if allow_processes else 6)
    add(_LOAD, 16)  # lower half of the first argument
    add(_ANY_BIT, NAMESPACE_FLAGS, 0, 1)
    add(_RETURN, _ERRNO | errno.EPERM)
    if not allow_processes:
        add(_ANY_BIT, 0x00010000, 1, 0)  # CLONE_THREAD
        add(_RETURN, _ERRNO | errno.EAGAIN)
    add(_RETURN, _ALLOW)
    add(_LOAD, 0)
    add(_EQUAL, ioctl, 0, 4)
    add(_LOAD, 24)  # lower half of the second argument
    add(_EQUAL, TIOCSTI, 1, 0)
    add(_EQUAL, TIOCLINUX, 0, 1)
    add(_RETURN, _ERRNO | errno.EPERM)
    add(_RETURN, _ALLOW)
    return b"".join(struct.pack("HBBI", *step) for step in steps)


class Filter(ctypes.Structure):
    """``struct sock_fprog``. Holds a reference to the BPF program, so that the program stays in memory."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    def __init__(self, steps: bytes) -> None:
        super().__init__(len(steps) // 8, steps)


def apply(filter_: Filter) -> None:
    """Install a filter for this process and its descendants. The process must have set no_new_privs."""
    kernel.checked(kernel.LIBC.prctl(kernel.PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(filter_), 0, 0), "seccomp")
