"""Controls one launcher: starts it, sends it programs, collects their results, and restarts it after a failure.

Only one thread may use a slot. The launcher is a separate process with a clean environment and closed descriptors.
Programs are forked from the launcher. The calling process itself never forks, because it may be a trainer with threads
and a GPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from alignment.logs import get_logger
from alignment.sandbox.exchange import Connection, Exchange
from alignment.sandbox.inside import cgroups, jail
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import WALL_GRACE
from alignment.sandbox.program_run import Program, ProgramRun

logger = get_logger(__name__)

CLOSE_SECONDS = 5.0
WARM = ("abc", "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq",
        "inspect", "itertools", "json", "math", "operator", "queue", "random", "re", "statistics", "string", "subprocess",
        "textwrap", "typing", "unittest")  # fmt: skip
"""Names of modules that the launcher imports before it forks programs, so that programs do not have to load these
modules."""
PATH = "/usr/local/bin:/usr/bin:/bin"
CONSENT = (
    "allow the weaker sandbox: `sandbox: {allow_weaker: true}` in a recipe, --allow-weaker-sandbox on the command line, "
    "`Grader(allow_weaker=True)` in Python"
)


class SandboxError(RuntimeError):
    """Raised if the sandbox itself failed, so that there is no verdict. The tested program is not the cause."""


class SandboxUnavailable(SandboxError):
    """Raised if the kernel or the container of this machine does not allow the requested sandbox."""


class Slot:
    """One launcher and its programs. Only one thread at a time may use it."""

    def __init__(self, settings: LauncherSettings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.notes: list[str] = []
        """Differences from the full sandbox on this machine, one sentence each."""
        self.holds: list[str] = []
        """What isolates and limits programs on this machine, one clause each."""
        self.suite_state: dict[str, Any] = {}
        """The launcher's report about the repository that it loaded (see `inside.suite`): problems, tests, threads."""

    def start(self) -> None:
        """Start the launcher.

        Raises:
            SandboxUnavailable: The kernel refuses the sandbox, and `allow_weaker` is not set.
            SandboxError: The launcher did not start.
        """
        try:
            self._launch()
        except SandboxUnavailable:
            if not (self.settings.namespaces and self.settings.allow_weaker):
                raise
            self.settings = replace(self.settings, namespaces=False)
            self._launch()
        if self.settings.allow_weaker and self.notes[:1] and self.notes[0].startswith("weaker"):
            _warn_once(f"the sandbox is {self.notes[0]}")

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = _start_launcher(self.settings, theirs)
        theirs.close()
        self.connection = Connection(ours, self.settings.readable)
        ours.settimeout(self.settings.start_seconds)
        try:
            message = ours.recv(1 << 16)
        except TimeoutError:
            message = b""
        if not message:
            problem = self._last_line()
            self.close()
            raise SandboxError(f"the sandbox's launcher did not start: {problem}")
        state = json.loads(message)
        if state.get("state") != "ready":
            self.close()
            raise SandboxUnavailable(_refusal(state))
        self.notes, self.holds, self.suite_state = state["notes"], state["holds"], state["suite"]

    def connected(self) -> Connection:
        """Return the connection to the launcher. The launcher must have been started."""
        assert self.connection is not None
        return self.connection

    def _last_line(self) -> str:
        """Kill the launcher and return the last line that the launcher wrote to stderr."""
        assert self.process is not None and self.process.stderr is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        text = self.process.stderr.read(4000).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "no message"

    def close(self) -> None:
        """End the launcher. The kernel then removes every process, mount and file of the launcher's programs."""
        if self.connection is not None:
            self.connection.control.close()
            self.connection = None
        if self.process is not None:
            try:
                self.process.wait(CLOSE_SECONDS)  # it ends when its socket closes; wait() collects its CPU time
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            if self.process.stderr is not None:
                self.process.stderr.close()
            parent = cgroups.parent_folder()
            if parent is not None:
                cgroups.remove_groups(parent, self.process.pid)
            self.process = None

    def run(self, programs: Sequence[Program]) -> list[ProgramRun]:
        """Run one program, or two programs that are connected by descriptor 4 until the first program has ended.

        Raises:
            SandboxError: The launcher failed. The next call starts a new launcher.
        """
        return run_across([(self, program) for program in programs])


def run_across(pairs: Sequence[tuple[Slot, Program]]) -> list[ProgramRun]:
    """Run one program, or two programs of different launchers.

    Two programs are connected by descriptor 4 until the first program has ended.

    Raises:
        SandboxError: A launcher failed. The next call starts new launchers.
    """
    slots = list(dict.fromkeys(slot for slot, _ in pairs))
    for slot in slots:
        if slot.process is None:
            slot.start()
    try:
        connections = [slot.connected() for slot, _ in pairs]
        return Exchange(connections, [program for _, program in pairs]).run()
    except BaseException as error:
        for slot in slots:
            slot.close()
        if isinstance(error, OSError | ValueError | KeyError):
            raise SandboxError(f"the sandbox's launcher failed: {type(error).__name__}: {error}") from error
        raise


def _start_launcher(settings: LauncherSettings, control: socket.socket) -> subprocess.Popen[bytes]:
    """Start the launcher's process and write its configuration to its stdin."""
    configuration = {
        "control": control.fileno(), "parent": os.getpid(), "namespaces": settings.namespaces, "path": PATH,
        "allow_weaker": settings.allow_weaker, "wall_grace": WALL_GRACE,
        "readable": list(settings.readable), "hidden": list(settings.hidden), "packages": list(settings.packages),
        "warm": list(WARM), "suite": settings.suite, "role": settings.role,
        "mounts": [list(pair) for pair in settings.mounts],
    }  # fmt: skip
    folder = str(Path(__file__).parent)
    # The option -I would ignore PYTHONHASHSEED. Instead, the environment is set here and sys.path[0] is replaced.
    text = f"import sys; sys.path[0] = {folder!r}; from inside.launcher import main; main()"
    process = subprocess.Popen(
        [settings.interpreter or os.path.realpath(sys.executable), "-s", "-S", "-c", text],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={"LANG": "C.UTF-8", "PYTHONHASHSEED": jail.HASH_SEED},
        close_fds=True, pass_fds=(control.fileno(),), start_new_session=True, cwd="/",
    )  # fmt: skip
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps(configuration).encode())
    return process


def _refusal(state: dict[str, Any]) -> str:
    """Return a message that says why the launcher refused to start, and how to fix the cause."""
    if state.get("state") == "weaker":
        return (
            f"{state['error']}. Start the container as a user other than the machine's root (Docker: --user 1000, or "
            "userns-remap; Podman: --userns=auto; or as a root that keeps the capabilities SETUID and SETGID), or "
            f"{CONSENT}; then limit the container's processes (--pids-limit)"
        )
    return (
        f"the kernel refused to make the sandbox ({state.get('error')}). Allow user namespaces (in Docker: "
        "--security-opt seccomp=unconfined, or run as root with --cap-add SYS_ADMIN; on Ubuntu 24.04: sysctl "
        f"kernel.apparmor_restrict_unprivileged_userns=0), or {CONSENT}"
    )


@cache
def _warn_once(message: str) -> None:
    """Log a warning only once per process, since a pool starts many launchers."""
    logger.warning(message)
