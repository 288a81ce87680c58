"""The file tree that programs see: system folders and toolchains, read-only; a private /tmp; nobody's home."""

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
STAGE = "/tmp"  # where the new root is put together; any folder that exists will do


EMPTY, NOTHING = "/etc/empty", "/etc/nothing"
REPLACED = "/tmp/.replaced"
SHOWN = "/etc/shown"  # folders and files below the machine's own /tmp, which each program's own /tmp would cover


def build(extra: list[str], hidden: list[str], mounts: Sequence[Sequence[str]] = ()) -> None:
    """Put the tree together in a tmpfs. `extra` are further folders and files to show; `hidden` are files to show
    empty, and folders to show without anything in them.
    `mounts` are folders to show at another place.

    Needs a private mount namespace and the right to mount in it.
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    old = os.open("/", os.O_PATH)
    below = [path for path in extra if Path(STAGE) in Path(path).parents and os.path.exists(path)]
    # What lies below STAGE is about to be covered.
    opened = [(os.open(source, os.O_PATH), place) for source, place in (*mounts, *zip(below, below, strict=True))]
    kernel.mount("tree", STAGE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    seen = f"/proc/self/fd/{old}"
    root = Path(STAGE)
    for path in ("/usr", *TOP, *(item for item in extra if item not in below and item != STAGE)):
        _show(seen, path, root)
    for descriptor, place in opened:
        target = root / place.lstrip("/")
        _mount_point(target, f"/proc/self/fd/{descriptor}")  # it may lie in one that is shown already
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
    """Make the built tree the root, read-only from now on."""
    kernel.pivot_root(STAGE)
    kernel.mount("none", "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)


def mount_proc(root: str = "") -> bool:
    """Mount a /proc of this pid namespace; False where the kernel refuses (containers that mask parts of /proc)."""
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
    """Hide what /proc shows to root alone, from programs that are root to the kernel."""
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
    """Hide one file from the program that is about to start: it finds it empty."""
    kernel.mount(EMPTY, path, None, kernel.MS_BIND)


def replace(path: str, number: int) -> None:
    """Show one file with other content: that of a file of the program's own /tmp, which it writes before it begins."""
    own = Path(REPLACED) / str(number)
    own.parent.mkdir(exist_ok=True)
    own.touch()
    kernel.mount(str(own), path, None, kernel.MS_BIND)


def mount_scratch(size: int, inodes: int) -> None:
    """A fresh /tmp for one program: `size` bytes, `inodes` files, and what of the machine's own /tmp is shown.

    Each name at the top of that is a mount of its own, read-only with all that is below it. A program can neither write
    there, nor rename or remove a folder above what is shown and put its own in that place: a mount point is busy.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("scratch", "/tmp", "tmpfs", flags, f"size={size},nr_inodes={inodes},mode=700")
    for name in os.listdir(SHOWN):
        source, target = f"{SHOWN}/{name}", f"/tmp/{name}"
        _mount_point(Path(target), source)
        kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _show(seen: str, path: str, root: Path) -> None:
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
    """What a mount of `source` needs in its place: a folder, or a file."""
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
