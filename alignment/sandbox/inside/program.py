"""The driver of a started program: reads the program from descriptor 3 and runs it.

This code runs in the candidate's process, so its reports are not trusted: exit codes, values and reasons are data that
the parent checks.
"""

from __future__ import annotations

import atexit
import io
import os
import signal
import subprocess
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

from . import patched, proxy, suite, tester, wire
from .channel import Channel, ChannelError

PARENT, PEER = 3, 4
"""Descriptors of two channels: to the parent process, and to the other program if two programs run as a pair."""
CODE_INFRASTRUCTURE = 125
TOO_LARGE: dict[str, Any] = {"reason": "output_limit", "detail": "the returned value is too large"}


def run(entry: str, announce: int) -> NoReturn:
    """Run a program and end the process.

    Args:
        entry: The kind of program, see `Program.entry`.
        announce: Descriptor to which one byte is written right before the program's own code begins.
    """
    code = CODE_INFRASTRUCTURE
    try:
        parent = Channel(PARENT)
        payload = parent.receive()
        if entry == "command":
            code = _command(parent, payload, announce)
        else:
            _standard_streams()
            source = parent.read(payload["size"])
            _begin(announce)
            if entry == "main":
                os.environ.update(payload["environment"])
                code = _main(parent, source)
            elif entry == "calls":
                code = _calls(parent, source, payload)
            elif entry == "candidate":
                code = _candidate(parent, source)
            elif entry == "tester":
                code = tester.run(parent, Channel(PEER), source, payload)
            elif entry == "suite_patched":
                code = patched.run(parent, payload)
            elif entry.startswith("suite_"):
                code = suite.run(entry, parent, source, payload)
    except ChannelError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _begin(announce: int) -> None:
    os.write(announce, b"1")
    os.close(announce)


def _standard_streams() -> None:
    """Open new standard streams on descriptors 0 to 2, because the launcher's stream objects cannot be used here."""
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), encoding="utf-8", errors="backslashreplace"
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = ["program.py"]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue


def _load(parent: Channel, source: bytes, name: str) -> dict[str, Any] | None:
    """Run the program's source in a new module and return the module's globals.

    If the source fails, report the error to the parent and return None.
    """
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        compiled = compile(source, "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _report(parent, "syntax", error)
        return None
    try:
        exec(compiled, module.__dict__)
    except SystemExit:
        if name == "__main__":
            raise
        parent.send({"reason": "exit", "detail": "the program called sys.exit"})
        return None
    except BaseException as error:
        _report(parent, reason_of(error), error)
        return None
    return module.__dict__


def reason_of(error: BaseException) -> str:
    return "memory" if isinstance(error, MemoryError) else "exception"


def _report(parent: Channel, reason: str, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    parent.send({"reason": reason, "detail": text[-2000:], "error": type(error).__name__[:100]})


def _main(parent: Channel, source: bytes) -> int:
    """Run a script as the Python interpreter does, and return its exit code."""
    code = 0
    try:
        if _load(parent, source, "__main__") is None:
            code = 1
    except SystemExit as error:
        if error.code is None:
            code = 0
        elif isinstance(error.code, int):
            code = error.code & 0xFF
        else:
            code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    return code


class _CallTooLong(BaseException):
    """Raised in a call that exceeds its limit of CPU time."""


class _CallClock:
    """Raises `_CallTooLong` in a call that exceeds its limit of CPU time.

    Without this clock, one endless loop would use up the time of all calls that follow.
    A program that stops this clock, or catches the exception, is killed later at the sandbox's limit. The clock raises
    an exception because the default action of a signal does not end the first process of a pid namespace.
    """

    def __init__(self, seconds: float):
        self.seconds, self.running = seconds, False
        if seconds:
            signal.signal(signal.SIGPROF, self._ring)

    def _ring(self, *_: object) -> None:
        if self.running:
            raise _CallTooLong("the call took too much CPU time")

    def start(self) -> None:
        if self.seconds:
            self.running = True
            signal.setitimer(signal.ITIMER_PROF, self.seconds, self.seconds)

    def stop(self) -> None:
        self.running = False


def _calls(parent: Channel, source: bytes, payload: dict[str, Any]) -> int:
    """Call the entry point for every case and send the returned values."""
    namespace = _load(parent, source, "program")
    if namespace is None:
        return 1
    try:
        function = proxy.resolve(namespace, payload["entry_point"])
    except Exception as error:
        parent.send({"reason": "missing_entry_point", "detail": f"{payload['entry_point']}: {error}"[:500]})
        return 1
    clock = _CallClock(payload.get("call_seconds") or 0.0)
    for number, (arguments, keywords) in enumerate(payload["cases"]):
        late = False
        try:
            clock.start()
            value = function(*wire.decode(arguments), **wire.decode(keywords))
            message = TOO_LARGE | {"case": number}
            if not wire.is_too_large(value):
                message = {"case": number, "value": wire.encode(value)}
        except BaseException as error:
            late = isinstance(error, _CallTooLong)
            detail = f"{type(error).__name__}: {_text(error)}"
            message = {"case": number, "reason": "timeout" if late else reason_of(error), "detail": detail}
        clock.stop()
        try:
            parent.send(message)
        except ValueError:
            parent.send(TOO_LARGE | {"case": number})
        except MemoryError:
            parent.send({"case": number, "reason": "memory", "detail": "no memory to send the returned value"})
        if late:
            return 1
    return 0


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:
        return "(no text)"


def _candidate(parent: Channel, source: bytes) -> int:
    """Load the candidate's code, then answer the tester's calls."""
    namespace = _load(parent, source, "program")
    if namespace is None:
        return 1
    proxy.CandidateServer(Channel(PEER), namespace).serve()
    return 0


def _command(parent: Channel, payload: dict[str, Any], announce: int) -> int:
    """Write files and run a command.

    If the payload names files to collect, run the command as a child process and send these files back. Otherwise
    replace this process with the command.
    """
    for name, size in payload["files"]:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(parent.read(size))
        path.chmod(0o755)
    environment = {**os.environ, **payload["environment"]}
    command = payload["command"]
    if not os.access(command[0], os.X_OK):
        raise FileNotFoundError(command[0])
    _begin(announce)
    if payload.get("peer"):
        os.set_inheritable(PEER, True)
    if not payload["collect"]:
        try:
            os.close(PARENT)
            os.execve(command[0], command, environment)
        except OSError as error:
            os.write(2, f"{command[0]}: {error}\n".encode())
            return CODE_INFRASTRUCTURE
    done = subprocess.run(command, env=environment, close_fds=True, check=False)
    code = done.returncode
    if code == 0:
        collected = []
        for pattern in payload["collect"]:
            collected += sorted(path for path in Path().glob(pattern) if path.is_file() and not path.is_symlink())
        parent.send({"files": [[str(path), path.stat().st_size] for path in collected]})
        for path in collected:
            _write_all(path.read_bytes())
    return code if code >= 0 else 128 - code


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(PARENT, view) :]
