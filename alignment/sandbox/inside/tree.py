"""Builds the file tree that programs see: read-only system folders and toolchains, and a private /tmp.

Home folders are not visible.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from . import kernel

DEVICES = ("null", "full", "random", "urandom")
ZEROS = 1 << 40
"""Size of the sparse file that programs see as /dev/zero. A mapping of the real device would be memory without limit."""
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
ETC = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mono",
    "php",
    "python3.11",
    "perl",
    "lua",
)
TOP = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
STAGE = "/tmp"
"""Folder in which the new root is assembled. Any existing folder can be used."""
EMPTY, NOTHING = "/etc/empty", "/etc/nothing"
"""Paths of an empty file and an empty folder, which are mounted over files and folders that programs must not see."""
REPLACED = "/tmp/.replaced"
"""Folder with the files that replace other files for one program. See `replace`."""
SHOWN = "/etc/shown"
"""Mount point for folders and files of the machine's /tmp that programs may see. They cannot stay below /tmp, because
each program has a private /tmp."""


def build(extra: list[str], hidden: list[str], mounts: Sequence[Sequence[str]] = ()) -> None:
    """Assemble the tree in a tmpfs.

    The calling process must be in a private mount namespace, with the right to mount.

    Args:
        extra: Additional files and folders that programs can read.
        hidden: Files and folders that programs see as empty.
        mounts: Folders to mount at a different path: pairs (path on this machine, path in the tree).
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    old = os.open("/", os.O_PATH)
    below = [path for path in extra if Path(STAGE) in Path(path).parents and os.path.exists(path)]
    # Opened before the tmpfs is mounted, because the tmpfs covers everything below STAGE.
    opened = [(os.open(source, os.O_PATH), place) for source, place in (*mounts, *zip(below, below, strict=True))]
    kernel.mount("tree", STAGE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    seen = f"/proc/self/fd/{old}"
    root = Path(STAGE)
    for path in ("/usr", *TOP, *(item for item in extra if item not in below and item != STAGE)):
        _show(seen, path, root)
    for descriptor, place in opened:
        target = root / place.lstrip("/")
        _mount_point(target, f"/proc/self/fd/{descriptor}")  # the target may be inside a folder that is already shown
        kernel.mount(f"/proc/self/fd/{descriptor}", str(target), None, kernel.MS_BIND | kernel.MS_REC)
        kernel.make_read_only(str(target))
        os.close(descriptor)
    etc = root / "etc"
    etc.mkdir()
    for name in (*ETC, *(item for item in os.listdir(f"{seen}/etc") if item.startswith("java"))):
        _show(seen, f"/etc/{name}", root)
    (root / EMPTY.lstrip("/")).touch()
    user, group = os.getuid(), os.getgid()
    (etc / "passwd").write_text(f"sandbox:x:{user}:{group}::/tmp:/bin/sh\n")
    (etc / "group").write_text(f"sandbox:x:{group}:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    _devices(seen, root)
    for path in hidden:
        if (root / path.lstrip("/")).is_file():
            kernel.mount(str(root / "dev/null"), str(root / path.lstrip("/")), None, kernel.MS_BIND)
        elif (root / path.lstrip("/")).is_dir():
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY
            kernel.mount("hidden", str(root / path.lstrip("/")), "tmpfs", flags, "size=4k,mode=755")
    for name in ("proc", "tmp", SHOWN, NOTHING):
        (root / name.lstrip("/")).mkdir(exist_ok=True)
    if below:
        kernel.mount(str(root / "tmp"), str(root / SHOWN.lstrip("/")), None, kernel.MS_BIND | kernel.MS_REC)
        kernel.make_read_only(str(root / SHOWN.lstrip("/")))
    os.close(old)


def enter() -> None:
    """Make the assembled tree the root file system, mounted read-only."""
    kernel.pivot_root(STAGE)
    kernel.mount("none", "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)


def mount_proc(root: str = "") -> bool:
    """Mount a /proc of this pid namespace. Return False if the kernel refuses, as in containers that mask /proc."""
    try:
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("proc", f"{root}/proc", "proc", flags)
    except OSError:
        return False
    return True


def make_proc_read_only() -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("none", "/proc", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | flags)


def cover_proc() -> None:
    """Hide the parts of /proc that only root can read. Needed if the kernel treats programs as root."""
    for item in os.scandir("/proc"):
        if item.name in ROOTS_FOLDERS:
            kernel.mount(NOTHING, item.path, None, kernel.MS_BIND)
        elif item.is_file(follow_symlinks=False) and (
            item.name in ROOTS_KEYS or not item.stat().st_mode & stat.S_IROTH
        ):
            kernel.mount(EMPTY, item.path, None, kernel.MS_BIND)


ROOTS_FOLDERS = frozenset({"acpi", "bus", "driver", "dynamic_debug", "fs", "irq", "scsi", "tty"})
ROOTS_KEYS = frozenset({"keys", "key-users"})


def cover(path: str) -> None:
    """Make the file `path` appear empty to the program that is about to start."""
    kernel.mount(EMPTY, path, None, kernel.MS_BIND)


def replace(path: str, number: int) -> None:
    """Mount the file ``REPLACED/number`` over `path`. The driver writes this file before the program runs."""
    replacement = Path(REPLACED) / str(number)
    replacement.parent.mkdir(exist_ok=True)
    replacement.touch()
    kernel.mount(str(replacement), path, None, kernel.MS_BIND)


def mount_scratch(size: int, inodes: int) -> None:
    """Mount a new /tmp for one program, including the visible parts of the machine's /tmp.

    Each top-level entry of the visible parts is a read-only mount. A program cannot write below a read-only mount. The
    program can also not replace the entry, because the kernel refuses to rename or remove a mount point.

    Args:
        size: Number of bytes that the program can write.
        inodes: Number of files that the program can create.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("scratch", "/tmp", "tmpfs", flags, f"size={size},nr_inodes={inodes},mode=700")
    for name in os.listdir(SHOWN):
        source, target = f"{SHOWN}/{name}", f"/tmp/{name}"
        _mount_point(Path(target), source)
        kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _show(seen: str, path: str, root: Path) -> None:
    """Bind-mount `path`, read-only, at the same path below `root`. `seen` is a path of the old root folder."""
    source = Path(seen + path)
    target = root / path.lstrip("/")
    if source.is_symlink():
        if not target.is_symlink() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(source))
        return
    if not source.exists() or target.exists():
        return  # the path does not exist, or is inside a folder that is already shown
    _mount_point(target, str(source))
    kernel.mount(str(source), str(target), None, kernel.MS_BIND | kernel.MS_REC)
    kernel.make_read_only(str(target))


def _mount_point(target: Path, source: str) -> None:
    """Create the empty file or folder `target`, onto which `source` will be mounted."""
    if target.exists():
        return
    if stat.S_ISDIR(os.stat(source).st_mode):
        target.mkdir(parents=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def _devices(seen: str, root: Path) -> None:
    folder = root / "dev"
    folder.mkdir()
    for name in DEVICES:
        (folder / name).touch()
        kernel.mount(f"{seen}/dev/{name}", str(folder / name), None, kernel.MS_BIND)
    with (folder / "zero").open("wb") as zeros:
        zeros.truncate(ZEROS)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
