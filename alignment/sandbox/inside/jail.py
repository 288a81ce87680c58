"""The jail: the isolated environment that the launcher enters once, and in which it then starts programs.

The layers of isolation, from the outside in: a new user (if started as root), namespaces, a private file tree, resource
limits, Landlock, no capabilities, a seccomp filter.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import cgroups, kernel, landlock, layer, program, seccomp, tree

UNSHARED = kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET
FIRST_USER = 2_000_000_000
"""A launcher that is started as root gets the user id FIRST_USER + process id of the launcher. No other process has
this user. The change is necessary because the kernel does not apply the process limit (RLIMIT_NPROC) to root."""
ALONE_READABLE = (  # without namespaces
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/dev/urandom",
    "/dev/random",
)
ALONE_WRITABLE = ("/dev/null",)
ROOTS_NAME = 1000
"""User id, inside the namespace, of programs that are root outside. The namespace then has no user 0, so a
program cannot become root."""
NO_LIMIT = (
    "the limit on processes has no effect: the kernel treats the programs as root, so a program could start processes "
    "until the machine stops responding"
)
HASH_SEED = "0"
"""PYTHONHASHSEED of every Python in the sandbox. With a fixed seed the order of a set is the same in every run, so that
grading a program again gives the same verdict. Random seeds protect servers against keys chosen by an attacker. Here
they are not needed: with chosen keys, a program in the sandbox can only slow itself down."""
VARIABLES = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": HASH_SEED}


class Weaker(Exception):
    """Raised if only a weaker sandbox is possible, and the caller does not allow a weaker sandbox."""


class Jail:
    """Starts programs in the jail that this process has entered.

    Args:
        namespaces: Whether programs run in namespaces. If False, only Landlock and seccomp restrict the programs.
        pid_namespace: Descriptor of the pid namespace of the launcher.
        has_proc: Whether a /proc is mounted for programs.
        abi: Version of Landlock's ABI; 0 if the kernel has no Landlock.
        notes: Differences from the full sandbox, one sentence each.
        root: Whether the kernel treats programs as root. The kernel then lets them read and write more of /proc.
        groups: Control groups of the programs. If the list is empty, no control groups are used.
    """

    def __init__(
        self,
        *,
        namespaces: bool,
        pid_namespace: int,
        has_proc: bool,
        abi: int,
        notes: list[str],
        root: bool = False,
        groups: Sequence[cgroups.ProgramGroup] = (),
    ) -> None:
        self.namespaces = namespaces
        self.root = root
        self.pid_namespace = pid_namespace
        self.has_proc = has_proc
        self.abi = abi
        self.notes = notes
        self.folders: dict[int, str] = {}
        self.groups = list(groups)
        self.group_of: dict[int, cgroups.ProgramGroup] = {}
        self.filter = seccomp.Filter(seccomp.filter_program(allow_processes=namespaces))

    def start(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Fork a program with `descriptors` as its descriptors 0, 1, 2, 3, ... and return its process id.

        With namespaces the program is process 1 of a new pid namespace: when it ends, the kernel kills its descendants.
        """
        if not self.namespaces:
            if request.get("cover") or request.get("replace") or request.get("layer"):
                raise OSError(1, "hiding or replacing files for one program needs namespaces")
            folder = tempfile.mkdtemp(prefix="sandbox-")
            pid = os.fork()
            if pid == 0:
                os.chdir(folder)
                self._run_restricted(request, descriptors)
            self.folders[pid] = folder
            return pid
        group = next((item for item in self.groups if item.is_free), None)
        if group is not None:
            group.prepare(request["limits"]["memory_bytes"], request["limits"]["processes"])
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                self._run_restricted(request, descriptors, group)
        finally:
            kernel.setns(self.pid_namespace, kernel.CLONE_NEWPID)
        if group is not None:
            self.group_of[pid] = group
        return pid

    def clean(self, pid: int) -> bool:
        """Remove what belongs to a program that has ended: its folder, if it had no private mount namespace.

        Return whether the kernel killed a process of the program at the memory limit of its control group.
        """
        folder = self.folders.pop(pid, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        group = self.group_of.pop(pid, None)
        return group.end() if group is not None else False

    def holds(self) -> list[str]:
        """Return what isolates and limits programs on this machine, one clause each."""
        isolated = "namespaces of users, processes, files, network and IPC" if self.namespaces else "no namespaces"
        if self.groups:
            memory = "memory and processes: a control group (cgroup v2) limits all processes of a program together"
        elif self.has_proc:
            memory = (
                "memory: the address space of each process is limited, and the memory of all processes together is checked "
                "several times per second (no cgroup v2 that this user may use)"
            )
        else:
            memory = "memory: only the address space of each process is limited"
        time = "of all processes of a program together" if self.has_proc else "of each process"
        return [
            f"isolation: {isolated}, seccomp, {f'Landlock ABI {self.abi}' if self.abi else 'no Landlock'}",
            memory,
            f"processes: {'not limited' if self.root else 'limited' if self.namespaces else 'programs cannot start any'}",
            f"time: the wall time of a program, and the CPU time {time}, are limited",
        ]

    def _run_restricted(
        self, request: dict[str, Any], descriptors: list[int], group: cgroups.ProgramGroup | None = None
    ) -> NoReturn:
        """Apply every restriction to the forked process, then run the program. Never returns."""
        try:
            if group is not None:
                group.enter()
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            limits = request["limits"]
            if self.namespaces:
                kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
                tree.mount_scratch(limits["tmp_bytes"], limits["tmp_inodes"])
                if self.has_proc:
                    tree.mount_proc()
                    if self.root:
                        tree.cover_proc()
                if request.get("layer"):
                    layer.mount(layer.read(descriptors[3], request["layer"]))
                for path in request.get("cover", ()):
                    tree.cover(path)
                for number, path in enumerate(request.get("replace", ())):
                    tree.replace(path, number)
                os.chdir("/tmp")
            _arrange_descriptors(descriptors)
            _set_limits(limits, request["address_space"], request["reserved_bytes"])
            if self.has_proc:
                Path("/proc/self/oom_score_adj").write_text("1000")  # killed first if memory runs out
                if self.root:
                    tree.make_proc_read_only()
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            if self.abi:
                readable = ["/"] if self.namespaces else [*ALONE_READABLE, *request["readable"]]
                writable = ["/tmp", "/dev"] if self.namespaces else [os.getcwd(), *ALONE_WRITABLE]
                landlock.restrict(readable, writable, self.abi)
            kernel.drop_capabilities()
            seccomp.apply(self.filter)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        except BaseException as error:
            os.write(3, json.dumps({"detail": f"{type(error).__name__}: {error}"}).encode() + b"\n")
            os._exit(125)
        program.run(request["entry"], len(descriptors) - 1)


def _arrange_descriptors(descriptors: list[int]) -> None:
    """Move the given descriptors to 0, 1, 2, ... and close all other descriptors of the process."""
    count = len(descriptors)
    high = [os.dup2(descriptor, 200 + index) for index, descriptor in enumerate(descriptors)]
    for index, descriptor in enumerate(high):
        os.dup2(descriptor, index, inheritable=index < 3)
    kernel.close_from(count)


def _set_limits(limits: dict[str, Any], address_space: bool, reserved_bytes: int) -> None:
    """Set the resource limits of this process and its descendants. A limit is never raised above its present value."""
    cpu = 1 + max(1, int(limits["cpu_seconds"] + 0.999))  # the launcher kills the program earlier, as a timeout
    memory = max(limits["memory_bytes"], reserved_bytes)
    values = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS if address_space else resource.RLIMIT_DATA: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_NOFILE: limits["files"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_MEMLOCK: 1 << 16,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_SIGPENDING: 256,
    }
    for kind, value in values.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def limit_on_processes_holds() -> bool:
    """Whether the kernel applies RLIMIT_NPROC to this user: a fork under a limit of 0 must fail.

    The kernel exempts the machine's root only, also where root has another user id inside a container.
    Call this function inside a user namespace, where no capability lifts the limit.
    """
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, limits[1]))
    try:
        pid = os.fork()
    except BlockingIOError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, limits)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return False


def enter(configuration: dict[str, Any], groups: Sequence[cgroups.ProgramGroup] = ()) -> Jail | None:
    """Enter the jail.

    With namespaces this function forks: the inner process is the first process of a new pid namespace.

    Args:
        configuration: The launcher's configuration.
        groups: Control groups of the programs, made before the process enters the jail.

    Returns:
        The `Jail` in the inner process. None in the outer process, after the inner process has ended.

    Raises:
        OSError: The kernel refuses.
        Weaker: The process limit has no effect, and the configuration does not allow a weaker sandbox.
    """
    abi = landlock.version()
    if not configuration["namespaces"]:
        return _without_namespaces(abi)
    notes = [] if abi else ["this kernel has no Landlock: namespaces and seccomp only"]
    root = os.geteuid() == 0
    user = group = FIRST_USER + os.getpid() if root else os.getuid()
    built = False
    if root:
        try:
            kernel.unshare(UNSHARED)
            socket.sethostname("sandbox")
            tree.build(configuration["readable"], configuration["hidden"], configuration.get("mounts", ()))
            tree.mount_proc(tree.STAGE)
            tree.enter()
            built = True
        except PermissionError:
            notes.append("root without the right to mount: programs do not see folders that only root can read")
        if not _become_user(user):
            user, group = os.getuid(), os.getgid()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # otherwise /proc/self would belong to root
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # changing the user cleared this setting
    else:
        group = os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | UNSHARED)
    kernel.map_user(user or ROOTS_NAME, user, group)
    kernel.drop_bounding_set()
    pid = os.fork()
    if pid:
        os.closerange(3, 1024)
        os.waitpid(pid, 0)
        return None
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    limited = limit_on_processes_holds()
    if not limited:
        if not configuration["allow_weaker"]:
            raise Weaker(NO_LIMIT)
        notes.insert(0, f"weaker: {NO_LIMIT}")
    pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    if built:
        has_proc = tree.mount_proc()
    else:
        socket.sethostname("sandbox")
        tree.build(configuration["readable"], configuration["hidden"], configuration.get("mounts", ()))
        has_proc = tree.mount_proc(tree.STAGE)
        tree.enter()
    if not has_proc:
        notes.append("this container masks parts of /proc, so programs have no /proc")
    os.environ.clear()
    os.environ.update(VARIABLES, HOME="/tmp", TMPDIR="/tmp", PATH=configuration["path"], LANG="C.UTF-8")
    return Jail(
        namespaces=True,
        pid_namespace=pid_namespace,
        has_proc=has_proc,
        abi=abi,
        notes=notes,
        root=not limited,
        groups=groups,
    )


def _become_user(user: int) -> bool:
    """Become another user irrevocably. Return False if this process lacks the right, or the user does not exist."""
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL) or os.getgid() == user:
            raise
        return False
    return True


def _without_namespaces(abi: int) -> Jail:
    """Return the weaker jail, in which only Landlock and seccomp restrict programs.

    A program cannot start processes, send signals or open sockets. It can read `ALONE_READABLE` and the files that the
    settings name, and write to a private folder. This jail is weaker than namespaces: programs share the process table
    and other kernel resources with the machine, and disk and memory of several programs are not counted together. If
    the launcher is started as root, it becomes another user, so programs cannot read folders that only root can read.
    """
    if not abi:
        raise OSError(38, "this kernel has neither user namespaces nor Landlock")
    notes = [
        "weaker: Landlock and seccomp without namespaces; programs cannot start processes, so compilers do not run"
    ]
    if os.geteuid() == 0:
        user = FIRST_USER + os.getpid()
        if not _become_user(user):
            notes.append("root without the right to become another user: programs run as this container's root")
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # other processes of the same user cannot trace the launcher
    os.environ.clear()
    os.environ.update(VARIABLES, PATH="/usr/bin:/bin", LANG="C.UTF-8")
    return Jail(namespaces=False, pid_namespace=-1, has_proc=False, abi=abi, notes=notes)
