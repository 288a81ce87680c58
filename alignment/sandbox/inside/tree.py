"""The file tree of programs: system folders and toolchains, read-only, and a private /tmp. No home folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from . import kernel

DEVICES = ("null", "zero", "full", "random", "urandom")
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
"""Where the new root is assembled; any existing folder would do."""
EMPTY, NOTHING = "/etc/empty", "/etc/nothing"
"""An empty file and an empty folder, mounted over what programs must not see."""
REPLACED = "/tmp/.replaced"
"""Folder of the files that replace others for one program, see `replace`."""
SHOWN = "/etc/shown"
"""Folders and files of the machine's /tmp that programs see; they are mounted here because each program has its own /tmp."""


def build(extra: list[str], hidden: list[str], mounts: Sequence[Sequence[str]] = ()) -> None:
    """Assemble the tree in a tmpfs.

    Needs a mount namespace of its own and the right to mount in it.

    Args:
        extra: Further files and folders that programs can read.
        hidden: Files and folders that programs see as empty.
        mounts: Folders to show at another place: pairs of path on this machine and path in the tree.
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    old = os.open("/", os.O_PATH)
    below = [path for path in extra if Path(STAGE) in Path(path).parents and os.path.exists(path)]
    # Opened now, because the tmpfs is about to cover everything below STAGE.
    opened = [(os.open(source, os.O_PATH), place) for source, place in (*mounts, *zip(below, below, strict=True))]
    kernel.mount("tree", STAGE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    seen = f"/proc/self/fd/{old}"
    root = Path(STAGE)
    for path in ("/usr", *TOP, *(item for item in extra if item not in below and item != STAGE)):
        _show(seen, path, root)
    for descriptor, place in opened:
        target = root / place.lstrip("/")
        _mount_point(target, f"/proc/self/fd/{descriptor}")  # it may be inside a folder that is shown already
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
    """Make the assembled tree the root, read-only."""
    kernel.pivot_root(STAGE)
    kernel.mount("none", "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)


def mount_proc(root: str = "") -> bool:
    """Mount a /proc of this pid namespace; False if the kernel refuses, as in containers that mask parts of /proc."""
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
    """Hide the parts of /proc that only root can read, for programs that are root to the kernel."""
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
    """Make one file appear empty to the program that is about to start."""
    kernel.mount(EMPTY, path, None, kernel.MS_BIND)


def replace(path: str, number: int) -> None:
    """Give a file other content: that of file `number` in `REPLACED`, which the driver writes before the program runs."""
    replacement = Path(REPLACED) / str(number)
    replacement.parent.mkdir(exist_ok=True)
    replacement.touch()
    kernel.mount(str(replacement), path, None, kernel.MS_BIND)


def mount_scratch(size: int, inodes: int) -> None:
    """Mount a new /tmp for one program, with the parts of the machine's /tmp that are shown.

    Each top-level name of these parts is a read-only mount. A program cannot write below it. It cannot rename or remove
    the folder to put its own in the same place either, because the kernel refuses that for a mount point.

    Args:
        size: Bytes that the program can write.
        inodes: Number of files that it can create.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("scratch", "/tmp", "tmpfs", flags, f"size={size},nr_inodes={inodes},mode=700")
    for name in os.listdir(SHOWN):
        source, target = f"{SHOWN}/{name}", f"/tmp/{name}"
        _mount_point(Path(target), source)
        kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _show(seen: str, path: str, root: Path) -> None:
    """Show a path of the old root, which is open at `seen`, at the same place in the new root."""
    source = Path(seen + path)
    target = root / path.lstrip("/")
    if source.is_symlink():
        if not target.is_symlink() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(source))
        return
    if not source.exists() or target.exists():
        return  # not on this machine, or inside a folder that is shown already
    _mount_point(target, str(source))
    kernel.mount(str(source), str(target), None, kernel.MS_BIND | kernel.MS_REC)
    kernel.make_read_only(str(target))


def _mount_point(target: Path, source: str) -> None:
    """Create the file or folder that a mount of `source` needs as its target."""
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
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
