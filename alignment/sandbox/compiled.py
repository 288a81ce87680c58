"""Compiling, with a cache: programs by the hash of their source, the compiler's command and the toolchain.

The compiler runs in the sandbox, since its input is hostile. What it made comes back over a pipe and is written by
this process alone, into a folder that only its user can enter: no program can put anything into the cache, or read
another's entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from alignment.cache import cache_root
from alignment.sandbox.limits import COMPILE, Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import SandboxError, Slot
from alignment.sandbox.toolchains import JAVATUPLES, NoToolchain, Toolchain, file_name

CACHE_BYTES = 4 << 30
FINAL = (0, 1, 2)  # exit codes by which a compiler says that it has judged the source


@dataclass(frozen=True)
class Compiled:
    """A program ready to run: files to write, or what the compiler said."""

    files: tuple[tuple[str, bytes], ...] = ()
    file: str = ""
    """Name of the source."""
    problem: str = ""
    reason: str = ""


def cache_folder() -> Path:
    """Where compiled programs are kept, a folder that is its user's alone. Raises SandboxError where it is not."""
    folder = cache_root() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SandboxError(f"compiled programs need a folder: {error}; set ALIGN_CACHE to another folder") from None
    state = folder.stat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise SandboxError(f"others can write to {folder}, and could put programs there: chmod 700 it, or remove it")
    return folder


def prepare(
    slot: Slot, tools: Toolchain, source: bytes, flags: tuple[str, ...] = (), cache: Path | None = None
) -> Compiled:
    """Compile a program, or fetch it from the cache. For languages that need no compiler: the source itself."""
    file = file_name(tools.language, source.decode("utf-8", "replace"))
    if not tools.language.compile:
        return Compiled(((file, source),), file)
    if tools.language.name == "java" and b"org.javatuples" in source and not Path(JAVATUPLES).exists():
        raise NoToolchain(f"the program uses org.javatuples, and {JAVATUPLES} is not there; install libjavatuples-java")
    command = [*tools.command(tools.language.compile, file), *flags]
    extra, shown = _precompiled(slot, tools, source, flags, cache)
    digest = hashlib.sha256(json.dumps([command, tools.identity]).encode() + source).hexdigest()
    entry = cache / digest[:2] / digest if cache else None
    known = _fetch(entry)
    if known is not None:
        return replace(known, file=file)
    run = compile_run(slot, tools, [*command, *extra], [(file, source), *shown])
    compiled = _outcome(run)
    if run.stop is None and run.code in FINAL and b"Killed" not in run.stderr:  # which may be for want of memory here
        _store(entry, compiled)
    return replace(compiled, file=file)


def compile_run(slot: Slot, tools: Toolchain, command: list[str], files: list[tuple[str, bytes]]) -> ProgramRun:
    """Run a compiler in the sandbox; `ProgramRun.reply` then holds what it made."""
    header = {
        "files": [[name, len(data)] for name, data in files], "command": command,
        "environment": tools.language.environment, "collect": list(tools.language.collect),
    }  # fmt: skip
    body = b"".join(data for _, data in files)
    program = Program("command", header, body, limits=COMPILE, address_space=False)
    return slot.run([program])[0]


def _outcome(run: ProgramRun) -> Compiled:
    text = (run.stderr + run.stdout).decode(errors="replace").strip()
    if not run.began:
        raise SandboxError(
            f"the compiler could not be started: {text[:300] or run.reply[:300].decode(errors='replace')}"
        )
    if run.stop is not None:
        return Compiled(problem=text[:1000] or "the compiler was stopped", reason=run.stop)
    if run.code != 0:
        return Compiled(problem=text[:1000] or f"the compiler ended with exit code {run.code}", reason="compile")
    return _unpack(run.reply)


def _unpack(data: bytes) -> Compiled:
    head, _, body = data.partition(b"\n")
    try:
        header = json.loads(head)
        if "problem" in header:
            return Compiled(problem=header["problem"], reason=header["reason"])
        files, position = [], 0
        for name, size in header["files"]:
            files.append((str(name), body[position : position + size]))
            position += size
    except (ValueError, KeyError, TypeError) as error:
        raise SandboxError(f"the compiler's output could not be read: {error}") from error
    if not files or position != len(body):
        return Compiled(problem="the compiler made no program", reason="compile")
    return Compiled(tuple(files))


def _fetch(entry: Path | None) -> Compiled | None:
    """What the cache holds, if anything; an entry that can't be read is no entry."""
    if entry is None:
        return None
    try:
        data = entry.read_bytes()
        found = _unpack(data)
        if found.problem and not data.startswith(b'{"problem"'):
            raise SandboxError(found.problem)  # it was cut short
        os.utime(entry)
    except FileNotFoundError:
        return None
    except (OSError, SandboxError):
        with contextlib.suppress(OSError):
            entry.unlink()
        return None
    return found


def _store(entry: Path | None, compiled: Compiled) -> None:
    """Keep what was compiled. A disk that is full or read-only costs speed, not verdicts."""
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
    """Delete the entries that were used longest ago until the rest fits; also what a killed writer left."""
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
    """For C++ that includes all of the standard library anyway: flags and file of a precompiled ``bits/stdc++.h``."""
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
    """The job that runs a compiled program."""
    header = {
        "files": [[name, len(data)] for name, data in compiled.files], "command": tools.command(tools.language.run, compiled.file),
        "environment": {**tools.language.environment, **environment}, "collect": [],
    }  # fmt: skip
    size = sum(len(data) for _, data in compiled.files)
    limits = limits.at_least(
        memory_bytes=tools.language.memory_bytes, file_bytes=size + (1 << 20), tmp_bytes=2 * size + (32 << 20)
    )
    body = b"".join(data for _, data in compiled.files)
    return Program("command", header, body, stdin, limits, address_space=tools.language.address_space)
