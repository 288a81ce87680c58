"""Compiles programs, with a cache whose key is a hash of the source, the compiler's command and the toolchain.

The compiler runs in the sandbox, because its input is untrusted. This process reads the compiled files from a pipe and
writes them to a folder that only its user can enter, so no program can write to the cache or read another's entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from alignment.cache import cache_root
from alignment.sandbox.limits import COMPILE, Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import SandboxError, Slot
from alignment.sandbox.toolchains import JAVATUPLES, NoToolchain, Toolchain, file_name

CACHE_BYTES = 4 << 30
MAX_HEADER = 1 << 20
"""Largest number of bytes of the list of compiled files."""
PROJECT_MESSAGES = 1 << 15
"""Largest number of characters that are kept of the messages of a project's build."""
FINAL = (0, 1, 2)
"""Exit codes with which a compiler accepts or rejects a source. Results with other exit codes are not cached."""


@dataclass(frozen=True)
class Compiled:
    """Result of a compilation: the files to run, or the reason why the program does not compile."""

    files: tuple[tuple[str, bytes], ...] = ()
    """Name and content of every file that the program needs."""
    file: str = ""
    """Name of the source file."""
    problem: str = ""
    """The compiler's messages."""
    cpu_seconds: float = field(default=0.0, compare=False)
    """CPU time of the compiler, 0 if the result was in the cache."""
    reason: str = ""
    """``compile``, or the name of the limit at which the compiler was killed. Empty if the program compiles."""


def cache_folder() -> Path:
    """Return the folder of compiled programs; create it if it does not exist.

    Raises:
        SandboxError: The folder cannot be created, or other users can write to it.
    """
    folder = cache_root() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SandboxError(
            f"the folder of compiled programs cannot be created: {error}. Set ALIGN_CACHE to another folder"
        ) from None
    state = folder.stat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise SandboxError(
            f"other users can write to {folder} and could put programs there: chmod 700 it, or remove it"
        )
    return folder


def prepare(
    slot: Slot, tools: Toolchain, source: bytes, flags: tuple[str, ...] = (), cache: Path | None = None
) -> Compiled:
    """Compile a program, or read the compiled files from the cache.

    For a language without a compiler, the result contains the source itself.

    Args:
        slot: The sandbox in which the compiler runs.
        tools: The toolchain.
        source: The program.
        flags: Additional arguments of the compiler.
        cache: Folder of compiled programs. If None, the program is compiled every time.

    Raises:
        NoToolchain: A library that the program uses is not installed.
        SandboxError: The compiler could not be started.
    """
    file = file_name(tools.language, source.decode("utf-8", "replace"))
    if not tools.language.compile:
        return Compiled(((file, source),), file)
    if tools.language.name == "java" and b"org.javatuples" in source and not Path(JAVATUPLES).exists():
        raise NoToolchain(
            f"the program uses org.javatuples, but {JAVATUPLES} does not exist; install libjavatuples-java"
        )
    command = [*tools.command(tools.language.compile, file), *flags]
    extra, headers = _precompiled(slot, tools, source, flags, cache)
    digest = hashlib.sha256(json.dumps([command, tools.identity]).encode() + source).hexdigest()
    program = compile_program(tools, [*command, *extra], [(file, source), *headers])
    return replace(_built(slot, program, digest, cache), file=file)


def build(slot: Slot, program: Program, identity: str, file: str, cache: Path | None = None) -> Compiled:
    """Run a build step of a project, or read the files that it makes from the cache.

    Args:
        slot: The sandbox in which the step runs.
        program: A `command` that names the files to collect.
        identity: Hash of everything on which the result depends besides the content of the files in `program.body`.
        file: Name of the file with the answer. A failure is only stored if the compiler's messages contain this name:
            any other failure may be a fault of this machine.
        cache: Folder of compiled programs. If None, the step runs every time.

    Raises:
        SandboxError: The step could not be started.
    """
    return _built(slot, program, hashlib.sha256(identity.encode() + program.body).hexdigest(), cache, file)


def _built(slot: Slot, program: Program, digest: str, cache: Path | None, file: str = "") -> Compiled:
    entry = cache / digest[:2] / digest if cache else None
    cached = _fetch(entry)
    if cached is not None:
        return cached
    (run,) = slot.run([program])
    compiled = _outcome(run, PROJECT_MESSAGES if file else 1000)
    # "Killed": a part of the compiler was killed, perhaps because this machine was out of memory.
    if (
        run.stop is None
        and run.code in FINAL
        and b"Killed" not in run.stderr
        and (compiled.files or file in compiled.problem)
    ):
        _store(entry, compiled)
    return replace(compiled, cpu_seconds=run.cpu_seconds)


def compile_program(tools: Toolchain, command: list[str], files: list[tuple[str, bytes]]) -> Program:
    """Return the program that runs a compiler. The `reply` of its run contains the compiled files.

    Args:
        tools: The toolchain of the compiler.
        command: The command line of the compiler.
        files: Name and content of each file that the compiler reads.
    """
    header = {
        "files": [[name, len(data)] for name, data in files], "command": command,
        "environment": tools.language.environment, "collect": list(tools.language.collect),
    }  # fmt: skip
    body = b"".join(data for _, data in files)
    seconds = tools.language.compile_seconds
    limits = replace(COMPILE, cpu_seconds=seconds, wall_seconds=seconds)
    return Program("command", header, body, limits=limits, address_space=False)


def compile_run(slot: Slot, tools: Toolchain, command: list[str], files: list[tuple[str, bytes]]) -> ProgramRun:
    """Run a compiler in the sandbox, see `compile_program`."""
    return slot.run([compile_program(tools, command, files)])[0]


def _outcome(run: ProgramRun, longest: int = 1000) -> Compiled:
    text = (run.stderr + run.stdout).decode(errors="replace").strip()
    if not run.began:
        raise SandboxError(
            f"the compiler could not be started: {text[:300] or run.reply[:300].decode(errors='replace')}"
        )
    if run.stop is not None:
        return Compiled(problem=text[:longest] or f"the compiler was killed at its limit ({run.stop})", reason=run.stop)
    if run.code != 0:
        return Compiled(problem=text[:longest] or f"the compiler ended with exit code {run.code}", reason="compile")
    return _unpack(run.reply)


def _unpack(data: bytes) -> Compiled:
    head, _, body = data.partition(b"\n")
    try:
        if len(head) > MAX_HEADER:
            raise ValueError("the list of files is too long")
        header = json.loads(head)
        if "problem" in header:
            return Compiled(problem=header["problem"], reason=header["reason"])
        files, position = [], 0
        for name, size in header["files"]:
            files.append((str(name), body[position : position + size]))
            position += size
    except (ValueError, KeyError, TypeError) as error:
        raise SandboxError(f"the compiled files could not be read: {error}") from error
    if not files or position != len(body):
        return Compiled(problem="the compiler made no program", reason="compile")
    return Compiled(tuple(files))


def _fetch(entry: Path | None) -> Compiled | None:
    """Read a cache entry. Return None if the entry does not exist. Delete a damaged entry."""
    if entry is None:
        return None
    try:
        data = entry.read_bytes()
        compiled = _unpack(data)
        if compiled.problem and not data.startswith(b'{"problem"'):
            raise SandboxError(compiled.problem)  # the entry is truncated
        os.utime(entry)
    except FileNotFoundError:
        return None
    except (OSError, SandboxError):
        with contextlib.suppress(OSError):
            entry.unlink()
        return None
    return compiled


def _store(entry: Path | None, compiled: Compiled) -> None:
    """Write a cache entry. If the disk is full or read-only, write nothing: the next run compiles the program again."""
    if entry is None:
        return
    with contextlib.suppress(OSError):
        _write(entry, compiled)


def _write(entry: Path, compiled: Compiled) -> None:
    if compiled.files:
        header: dict[str, object] = {"files": [[name, len(data)] for name, data in compiled.files]}
    else:
        header = {"problem": compiled.problem, "reason": compiled.reason}
    entry.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=entry.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n" + b"".join(data for _, data in compiled.files))
        os.replace(name, entry)
    except OSError:
        os.unlink(name)
        raise


def prune(cache: Path, limit: int = CACHE_BYTES) -> None:
    """Delete temporary files of killed processes, then the least recently used entries until the cache fits `limit`.

    Args:
        cache: Folder of compiled programs.
        limit: Maximum total size of the remaining entries, in bytes.
    """
    entries = []
    for path in cache.glob("??/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.name.startswith("tmp") and time.time() - stat.st_mtime > 3600:
            path.unlink(missing_ok=True)
        else:
            entries.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _precompiled(
    slot: Slot, tools: Toolchain, source: bytes, flags: tuple[str, ...], cache: Path | None
) -> tuple[list[str], list[tuple[str, bytes]]]:
    """Return the compiler flags and files with which a C++ program uses a precompiled ``bits/stdc++.h``.

    Return two empty lists if the program is not C++, or does not include this header.
    """
    if tools.language.name != "cpp" or b"<bits/stdc++.h>" not in source or cache is None:
        return [], []
    options = [part for part in tools.language.compile if part.startswith("-std")] + list(flags)
    digest = hashlib.sha256(json.dumps([options, tools.identity, "header"]).encode()).hexdigest()
    entry = cache / digest[:2] / digest
    compiled = _fetch(entry)
    if compiled is None:
        header = b"#include <bits/stdc++.h>\n"
        command = [tools.tool, *options, "-w", "-x", "c++-header", "all.h", "-o", "program"]
        compiled = _outcome(compile_run(slot, tools, command, [("all.h", header)]))
        _store(entry, compiled)
    if not compiled.files:
        return [], []
    return ["-I", ".", "-include", "all.h"], [
        ("all.h", b"#include <bits/stdc++.h>\n"),
        ("all.h.gch", compiled.files[0][1]),
    ]


def compiled_program(
    tools: Toolchain, compiled: Compiled, stdin: bytes, limits: Limits, environment: dict[str, str]
) -> Program:
    """Return the `Program` that runs a compiled program."""
    header = {
        "files": [[name, len(data)] for name, data in compiled.files], "command": tools.command(tools.language.run, compiled.file),
        "environment": {**tools.language.environment, **environment}, "collect": [],
    }  # fmt: skip
    size = sum(len(data) for _, data in compiled.files)
    limits = limits.at_least(file_bytes=size + (1 << 20), tmp_bytes=2 * size + (32 << 20))
    body = b"".join(data for _, data in compiled.files)
    language = tools.language
    return Program(
        "command", header, body, stdin, limits,
        address_space=language.address_space, reserved_bytes=language.reserved_bytes,
    )  # fmt: skip
