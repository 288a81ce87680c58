"""A program to run in the sandbox, and the result of running it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

from alignment.sandbox.limits import Limits


@dataclass
class Program:
    """One program to start."""

    entry: str
    """``main``, ``calls``, ``candidate`` or ``tester`` (Python code, run by the warm interpreter), ``command`` (an
    executable), or one of the ``suite_*`` entries of `inside.suite`."""
    header: dict[str, Any]
    """JSON object that the program's driver receives first; its keys depend on `entry`."""
    body: bytes = b""
    """What follows the header: source code, or the content of files."""
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)
    address_space: bool = True
    """Limit memory by address space. False limits the data segment, for runtimes that reserve much address space."""
    cover: tuple[str, ...] = ()
    """Files that this program sees as empty, although its launcher can read them."""
    replace: tuple[str, ...] = ()
    """Files that this program sees with other content: that of ``/tmp/.replaced/0``, ``1``, ..., which are among the
    files it is sent."""


@dataclass
class ProgramRun:
    """The result of one program."""

    began: bool = False
    """Whether the program's own code was reached. If not, the sandbox or a toolchain is at fault."""
    code: int = 0
    """Exit code; negative for a signal."""
    stop: str | None = None
    """Limit at which the sandbox killed it: ``timeout``, ``memory`` or ``output_limit``; None if it ended itself."""
    stdout: bytes = b""
    stderr: bytes = b""
    reply: bytes = b""
    """What its driver sent back: data from an untrusted process."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0
    """Largest resident set of one of its processes."""

    def messages(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The JSON objects of the reply, one per line, at most `limit`; the first line that is none ends the list."""
        objects: list[dict[str, Any]] = []
        stream = io.BytesIO(self.reply)
        while limit is None or len(objects) < limit:
            line = stream.readline()
            if not line.endswith(b"\n"):
                break
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                break
            if type(message) is not dict:
                break
            objects.append(message)
        return objects
