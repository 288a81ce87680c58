"""A program to run in the sandbox, and the result of running it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignment.sandbox.limits import Limits
from alignment.sandbox.untrusted_json import parse_json


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
    reserved_bytes: int = 0
    """Memory that the runtime reserves without using it. The limit of the address space (or the data segment) is at
    least this number. The limit of resident memory is not raised."""
    cover: tuple[str, ...] = ()
    """Files that this program sees as empty, although the launcher sees their content."""
    replace: tuple[str, ...] = ()
    """Files that this program sees with different content. The new content of the file at position N is
    in ``/tmp/.replaced/N``, which must be one of the files that are sent to the program."""
    layer: bytes = b""
    """Changed files of the repository, as `layer_of` packs them. This program sees the repository with these changes."""


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

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines of the reply, each with its line end."""
        for line in io.BytesIO(self.reply):
            if line.endswith(b"\n"):
                yield line

    def messages(self, limit: int | None = None, largest: int | None = None) -> list[dict[str, Any]]:
        """Parse each line of the reply as a JSON object, and return the first `limit` objects.

        The list ends before the first line that is not a JSON object or has more than `largest` bytes.
        """
        objects: list[dict[str, Any]] = []
        for line in self.lines():
            message = parsed_object(line) if largest is None or len(line) <= largest else None
            if message is None or (limit is not None and len(objects) >= limit):
                break
            objects.append(message)
        return objects


def parsed_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line that an untrusted process sent, or None if the line is not a JSON object."""
    try:
        message = parse_json(line)
    except ValueError:
        return None
    return message if type(message) is dict else None


def layer_of(changes: Mapping[str, bytes | None]) -> bytes:
    """Pack changed files for `Program.layer`: a JSON list of paths and sizes on one line, then all contents.

    Args:
        changes: the new content of each file by its path relative to the repository, or None for a deleted file.
    """
    sizes = [[path, -1 if content is None else len(content)] for path, content in changes.items()]
    return json.dumps(sizes).encode() + b"\n" + b"".join(content or b"" for content in changes.values())
