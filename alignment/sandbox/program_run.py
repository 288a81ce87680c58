"""A program to run in the sandbox, and the result of running it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

from alignment.sandbox.limits import Limits


@dataclass
class Program:
    """Describes one program to start."""

    entry: str
    """Kind of the program: ``main``, ``calls``, ``candidate`` or ``tester`` (Python code, run by a forked interpreter),
    ``command`` (an executable), or one of the ``suite_*`` kinds of `inside.suite`."""
    header: dict[str, Any]
    """JSON object that the program's driver receives first. Its keys depend on `entry`."""
    body: bytes = b""
    """Data that the driver receives after the header: source code, or the content of files."""
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)
    address_space: bool = True
    """Whether to limit the address space or (if False) the data segment: some runtimes reserve much address space."""
    cover: tuple[str, ...] = ()
    """Files that this program sees as empty, although the launcher sees their content."""
    replace: tuple[str, ...] = ()
    """Files that this program sees with different content. The new content of the file at position N is
    in ``/tmp/.replaced/N``, which must be one of the files that are sent to the program."""


@dataclass
class ProgramRun:
    """The result of running one program."""

    began: bool = False
    """Whether the program's own code has begun. If not, the sandbox or a toolchain is at fault."""
    code: int = 0
    """Exit code, or minus the number of the signal that ended the program."""
    stop: str | None = None
    """Limit at which the sandbox killed the program: ``timeout``, ``memory`` or ``output_limit``. None if the program
    ended by itself."""
    stdout: bytes = b""
    stderr: bytes = b""
    reply: bytes = b""
    """Data that the program's driver sent back. The data comes from an untrusted process."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0
    """Largest resident set of any process of the program, in bytes."""

    def messages(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Parse each line of the reply as a JSON object, and return the first `limit` objects.

        The list ends before the first line that is not a JSON object.
        """
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
