"""The parent's side of one launcher: start it, hand it programs, read what they print, and never wait forever.

A slot belongs to one thread. Programs are started by a launcher that was exec'd with a clean environment and closed
descriptors; this process, which may be a trainer with threads and a GPU, never forks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.sandbox.inside import jail
from alignment.sandbox.limits import Limits

START_SECONDS = 60.0
CLOSE_SECONDS = 5.0
WALL_GRACE = 6.0  # a program that waits for a busy machine may take this many times its wall limit (launcher.GRACE)
SPARE_SECONDS = 65.0  # beyond a program's own limit, before the launcher itself is taken for dead
WARM = ("abc", "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq",
        "inspect", "itertools", "json", "math", "operator", "queue", "random", "re", "statistics", "string", "subprocess",
        "textwrap", "typing", "unittest")  # fmt: skip
PATH = "/usr/local/bin:/usr/bin:/bin"


class SandboxError(RuntimeError):
    """The sandbox itself failed: no verdict can be given. Never the program's fault."""


class SandboxUnavailable(SandboxError):
    """This machine refuses what the sandbox is made of."""


@dataclass
class Job:
    """One program to start."""

    entry: str
    """``main``, ``calls``, ``candidate``, ``tester`` (Python, in the warm interpreter) or ``command``."""
    header: dict[str, Any]
    body: bytes = b""
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)
    address_space: bool = True
    """Whether memory is limited by address space; runtimes that reserve a lot of it are limited by data instead."""
    cover: tuple[str, ...] = ()
    """Files that this program finds empty, though its launcher can read them."""
    replace: tuple[str, ...] = ()
    """Files that this program finds with the content of its own ``/tmp/.replaced/0``, ``1``, ..., which it is sent."""


@dataclass
class Run:
    """What a program did."""

    began: bool = False
    """Whether the program itself was reached; otherwise the sandbox or a toolchain is at fault."""
    code: int = 0
    """Exit code; negative for a signal."""
    stop: str | None = None
    """Why the sandbox ended it: ``timeout``, ``memory``, ``output_limit``; None where it ended by itself."""
    stdout: bytes = b""
    stderr: bytes = b""
    reply: bytes = b""
    """What its driver sent back: data from an untrusted process."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0

    def messages(self, most: int | None = None) -> list[dict[str, Any]]:
        """The JSON lines of the reply, at most so many; what is no JSON object ends the list."""
        found: list[dict[str, Any]] = []
        stream = io.BytesIO(self.reply)
        while most is None or len(found) < most:
            line = stream.readline()
            if not line.endswith(b"\n"):
                break
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                break
            if type(message) is not dict:
                break
            found.append(message)
        return found


@dataclass(frozen=True)
class Settings:
    """How launchers are made."""

    namespaces: bool = True
    fallback: bool = False
    """Consent to a weaker grade: Landlock and seccomp alone, where the kernel refuses namespaces; no limit on processes,
    where programs are root to it."""
    readable: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    """Files and folders that programs find empty, though the machine has them."""
    interpreter: str = ""
    """Python that launchers run; by default this one."""
    suite: str = ""
    """File that says which repository the launcher loads before it starts programs (`inside.suite`)."""
    start_seconds: float = START_SECONDS
    mounts: tuple[tuple[str, str], ...] = ()
    """Further folders, read-only: where they are, and where programs see them."""


def settings_for(fallback: bool = False, extra: Sequence[str] = (), hidden: Sequence[str] = ()) -> Settings:
    """Show programs this interpreter's own installation and its packages, whose folder may well lie in somebody's
    home."""
    packages = tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    base = (sys.base_prefix,) if not sys.base_prefix.startswith("/usr") else ()
    return Settings(True, fallback, (*base, *packages, *extra), packages, tuple(hidden))


class Slot:
    """One launcher and its programs. Not for use by several threads at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.notes: list[str] = []
        self.told: dict[str, Any] = {}
        self.count = 0

    def start(self) -> None:
        """Start the launcher. Raises SandboxUnavailable where the kernel refuses, and the weaker mode is not
        consented to."""
        try:
            self._launch()
        except SandboxUnavailable:
            if not (self.settings.namespaces and self.settings.fallback):
                raise
            self.settings = replace(self.settings, namespaces=False)
            self._launch()
        if self.settings.fallback and self.notes[:1] and self.notes[0].startswith("weaker"):
            warnings.warn(f"the sandbox is {self.notes[0]}", RuntimeWarning, stacklevel=2)

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = self.settings
        configuration = {
            "control": theirs.fileno(), "parent": os.getpid(), "namespaces": settings.namespaces, "path": PATH,
            "weaker": settings.fallback,
            "readable": list(settings.readable), "hidden": list(settings.hidden), "packages": list(settings.packages),
            "warm": list(WARM), "suite": settings.suite,
            "mounts": [list(pair) for pair in settings.mounts],
        }  # fmt: skip
        folder = str(Path(__file__).parent)
        # Not -I, which would ignore the hash seed: the environment is ours, and the current folder goes from the path.
        text = f"import sys; sys.path[0] = {folder!r}; from inside.launcher import main; main()"
        self.process = subprocess.Popen(
            [settings.interpreter or os.path.realpath(sys.executable), "-s", "-S", "-c", text],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={"LANG": "C.UTF-8", "PYTHONHASHSEED": jail.HASH_SEED},
            close_fds=True, pass_fds=(theirs.fileno(),), start_new_session=True, cwd="/",
        )  # fmt: skip
        theirs.close()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(json.dumps(configuration).encode())
        self.control = ours
        ours.settimeout(settings.start_seconds)
        try:
            message = ours.recv(1 << 16)
        except TimeoutError:
            message = b""
        if not message:
            problem = self._last_words()
            self.close()
            raise SandboxError(f"the sandbox's launcher did not start: {problem}")
        state = json.loads(message)
        if state.get("state") == "weaker":
            self.close()
            raise SandboxUnavailable(
                f"{state['error']}. Start the container as a user other than the machine's root (Docker: --user 1000, or "
                "userns-remap; Podman: --userns=auto; a root that keeps the capabilities SETUID and SETGID will also do), "
                "or consent to the weaker mode (then limit the container's processes: --pids-limit): in a recipe "
                "`sandbox: {allow_weaker: true}`, on the command line --allow-weaker-sandbox"
            )
        if state.get("state") != "ready":
            self.close()
            raise SandboxUnavailable(
                f"the kernel refused to make the sandbox ({state.get('error')}). Allow user namespaces (in Docker: "
                "--security-opt seccomp=unconfined, or run as root with --cap-add SYS_ADMIN; on Ubuntu 24.04: sysctl "
                "kernel.apparmor_restrict_unprivileged_userns=0), or consent to the weaker mode: in a recipe "
                "`sandbox: {allow_weaker: true}`, on the command line --allow-weaker-sandbox"
            )
        self.notes, self.told = state["notes"], state["told"]

    def _last_words(self) -> str:
        assert self.process is not None and self.process.stderr is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        text = self.process.stderr.read(4000).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "no message"

    def close(self) -> None:
        """End the launcher, and with it every process, mount and file of its programs."""
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.process is not None:
            try:
                self.process.wait(CLOSE_SECONDS)  # it ends when its socket does, and its CPU time is accounted for
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            if self.process.stderr is not None:
                self.process.stderr.close()
            self.process = None

    def run(self, jobs: Sequence[Job]) -> list[Run]:
        """Run one program; or several that talk to each other over descriptor 4, until the first has ended.

        Raises SandboxError where the launcher fails; it is started anew the next time.
        """
        if self.process is None:
            self.start()
        try:
            return Exchange([self] * len(jobs), jobs).run()
        except (OSError, ValueError, KeyError) as error:
            self.close()
            raise SandboxError(f"the sandbox's launcher failed: {type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise


def run_across(pairs: Sequence[tuple[Slot, Job]]) -> list[Run]:
    """Run programs of different launchers that talk to each other over descriptor 4, until the first has ended.

    Raises SandboxError where a launcher fails; they are started anew the next time.
    """
    for slot, _ in pairs:
        if slot.process is None:
            slot.start()
    try:
        return Exchange([slot for slot, _ in pairs], [job for _, job in pairs]).run()
    except BaseException as error:
        for slot, _ in pairs:
            slot.close()
        if isinstance(error, OSError | ValueError | KeyError):
            raise SandboxError(f"the sandbox's launcher failed: {type(error).__name__}: {error}") from error
        raise


class Exchange:
    """Feeds and drains the descriptors of programs until they have ended. `slots` has the launcher of each job."""

    def __init__(self, slots: Sequence[Slot], jobs: Sequence[Job]) -> None:
        self.slots = slots
        self.jobs = jobs
        self.runs = [Run() for _ in jobs]
        self.numbers: dict[tuple[Slot, int], int] = {}
        self.selector = selectors.DefaultSelector()
        self.open: set[int] = set()
        self.buffers: dict[tuple[int, str], bytearray] = {}

    def run(self) -> list[Run]:
        try:
            self._start()
            self._exchange()
        finally:
            self.selector.close()
            for descriptor in self.open:
                os.close(descriptor)
        for index, run in enumerate(self.runs):
            run.stdout, run.stderr, run.reply = (bytes(self.buffers[index, name]) for name in ("out", "err", "reply"))
        return self.runs

    def _start(self) -> None:
        peers: list[int] = []
        if len(self.jobs) == 2:
            first, second = socket.socketpair()
            peers = [first.detach(), second.detach()]
        theirs: list[int] = [*peers]
        try:
            for index, job in enumerate(self.jobs):
                stdin, our_stdin = os.pipe()
                theirs.append(stdin)
                self._watch(our_stdin, index, "in", bytearray(job.stdin))
                sent = [stdin]
                for name in ("out", "err"):
                    ours, their = os.pipe()
                    theirs.append(their)
                    sent.append(their)
                    self._watch(ours, index, name, bytearray())
                left, right = socket.socketpair()
                ours, their = left.detach(), right.detach()
                theirs.append(their)
                header = json.dumps({**job.header, "size": len(job.body)}).encode() + b"\n"
                self._watch(ours, index, "reply", bytearray(), header + job.body)
                slot = self.slots[index]
                slot.count += 1
                self.numbers[slot, slot.count] = index
                request = {
                    "id": slot.count, "entry": job.entry, "limits": asdict(job.limits),
                    "address_space": job.address_space, "readable": list(slot.settings.readable), "cover": list(job.cover),
                    "replace": list(job.replace),
                }  # fmt: skip
                sent += [their, *peers[index : index + 1]]
                assert slot.control is not None
                socket.send_fds(slot.control, [json.dumps(request).encode()], sent)
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _watch(self, descriptor: int, index: int, name: str, buffer: bytearray, payload: bytes = b"") -> None:
        self.open.add(descriptor)
        os.set_blocking(descriptor, False)
        self.buffers[index, name] = buffer
        if name == "in" and not buffer:
            self._drop(descriptor)
            return
        events = selectors.EVENT_WRITE if name == "in" else selectors.EVENT_READ
        if payload:
            events |= selectors.EVENT_WRITE
        feed = memoryview(bytes(buffer)) if name == "in" else memoryview(payload)
        self.selector.register(descriptor, events, (index, name, [feed]))

    def _drop(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(descriptor)
        self.open.discard(descriptor)
        os.close(descriptor)

    def _exchange(self) -> None:
        spare = max(WALL_GRACE * job.limits.wall_seconds for job in self.jobs) + SPARE_SECONDS
        deadline = time.monotonic() + spare
        for slot in dict.fromkeys(self.slots):
            assert slot.control is not None
            self.selector.register(slot.control, selectors.EVENT_READ, slot)
        waiting = set(self.numbers.values())
        while waiting:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise OSError("the launcher does not answer")
            for key, events in self.selector.select(remaining):
                if isinstance(key.data, Slot):
                    waiting.discard(self._ended(key.data))
                    if 0 not in waiting:
                        for index in waiting:
                            self._kill(index, "finished")
                    continue
                if key.fd not in self.open:
                    continue
                if events & selectors.EVENT_READ:
                    self._read(key.fd, *key.data[:2])
                if events & selectors.EVENT_WRITE and key.fd in self.open:
                    self._write(key.fd, *key.data)
        self._drain()

    def _drain(self) -> None:
        """All writers have ended: what is left in the pipes is all there is."""
        for descriptor, key in [
            (key.fd, key) for key in self.selector.get_map().values() if not isinstance(key.data, Slot)
        ]:
            while descriptor in self.open and key.data[1] != "in":
                if not self._read(descriptor, *key.data[:2]):
                    break

    def _ended(self, slot: Slot) -> int:
        assert slot.control is not None
        message = slot.control.recv(1 << 16)
        if not message:
            raise OSError("it ended")
        state = json.loads(message)
        index = self.numbers[slot, state["id"]]
        if "error" in state:
            raise OSError(state["error"])
        run = self.runs[index]
        run.code, run.cpu_seconds, run.wall_seconds = state["code"], state["cpu"], state["wall"]
        run.memory_bytes, run.began = state["memory"], state["began"]
        run.stop = run.stop or (state["stop"] if state["stop"] != "finished" else None)
        return index

    def _kill(self, index: int, reason: str) -> None:
        slot, number = next(key for key, owner in self.numbers.items() if owner == index)
        assert slot.control is not None
        slot.control.send(json.dumps({"kill": number, "reason": reason}).encode())

    def _read(self, descriptor: int, index: int, name: str) -> bool:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._drop(descriptor)
            return False
        buffer = self.buffers[index, name]
        job = self.jobs[index]
        room = (job.limits.reply_bytes if name == "reply" else job.limits.output_bytes) - len(buffer)
        buffer += data[:room]
        if len(data) > room:
            self.runs[index].stop = "output_limit"
            self._drop(descriptor)
            self._kill(index, "output_limit")
            return False
        return True

    def _write(self, descriptor: int, index: int, name: str, feed: list[memoryview]) -> None:
        try:
            feed[0] = feed[0][os.write(descriptor, feed[0][: 1 << 16]) :]
        except BlockingIOError:
            return
        except OSError:  # it closed its end
            feed[0] = feed[0][:0]
        if not feed[0]:
            if name == "in":
                self._drop(descriptor)
            else:
                self.selector.modify(descriptor, selectors.EVENT_READ, (index, name, feed))
