"""Checks which languages work on this machine by compiling and running a small program in each language."""

from __future__ import annotations

import shutil
from typing import TypedDict

from alignment.sandbox import toolchains
from alignment.sandbox.compiled import compiled_program, prepare
from alignment.sandbox.launcher_settings import launcher_settings
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program
from alignment.sandbox.slot import SandboxError, Slot

LIMITS = Limits(cpu_seconds=30, wall_seconds=30)


class LanguageReport(TypedDict):
    """Result of checking one language in the sandbox."""

    language: str
    works: bool
    version: str
    reason: str
    """Reason why the language does not work. Empty if the language works."""
    packages: list[str]
    """Debian packages that provide the toolchain."""
    install: str
    """Command that installs the packages."""


class SandboxReport(TypedDict):
    """Result of starting the sandbox on this machine."""

    works: bool
    reason: str
    """Reason why the sandbox does not work. Empty if the sandbox works."""
    notes: list[str]
    """Differences from the full sandbox on this machine, one sentence each, for example a kernel without Landlock."""
    holds: list[str]
    """What isolates and limits programs on this machine, one clause each."""


def probe_languages() -> list[LanguageReport]:
    """Compile and run a small program in every language, and report which languages work.

    This takes some seconds, because compilers run. If the sandbox itself does not start, no language works.
    """
    slot = Slot(launcher_settings(extra=toolchains.shown_folders()))
    try:
        return [_probe(slot, language) for language in toolchains.LANGUAGES.values()]
    finally:
        slot.close()


def _probe(slot: Slot, language: toolchains.Language) -> LanguageReport:
    version, reason = "", ""
    if language.name != "python" and shutil.which(language.tool) is None:
        reason = f"{language.tool} is not installed"
    else:
        try:
            version, reason = _run(slot, language)
        except (toolchains.NoToolchain, SandboxError) as error:
            reason = str(error)
    return {
        "language": language.name,
        "works": not reason,
        "version": version,
        "reason": reason,
        "packages": list(language.packages),
        "install": toolchains.install_command(language),
    }


def _run(slot: Slot, language: toolchains.Language) -> tuple[str, str]:
    """Check one language: return its toolchain's version, and why the language does not work (empty if it works)."""
    if language.name == "python":
        return _run_python(slot)
    tools = toolchains.toolchain(language.name)
    compiled = prepare(slot, tools, language.probe.encode())
    if compiled.reason:
        return tools.version, f"its compiler fails in the sandbox: {compiled.problem[:200]}"
    (run,) = slot.run([compiled_program(tools, compiled, b"", LIMITS, {})])
    if run.stdout.strip() == b"42":
        return tools.version, ""
    output = (run.stderr or run.stdout)[:200].decode(errors="replace")
    return tools.version, f"its programs fail in the sandbox: {output}"


def _run_python(slot: Slot) -> tuple[str, str]:
    code = b"import sys; print(42); print(sys.version)"
    (run,) = slot.run([Program("main", {"environment": {}}, code, limits=LIMITS)])
    lines = run.stdout.decode().splitlines()
    reason = "" if lines[:1] == ["42"] else "the warm interpreter does not run programs"
    return "Python " + " ".join(lines[1:])[:40], reason


def probe_sandbox() -> SandboxReport:
    """Start the sandbox on this machine and report whether it works."""
    slot = Slot(launcher_settings())
    try:
        slot.start()
    except SandboxError as error:
        return {"works": False, "reason": str(error), "notes": [], "holds": []}
    try:
        return {"works": True, "reason": "", "notes": slot.notes, "holds": slot.holds}
    finally:
        slot.close()
