"""Which languages work on this machine, proven by a program compiled and run inside the sandbox."""

from __future__ import annotations

from typing import Any

from alignment.sandbox import toolchains
from alignment.sandbox.compiled import compiled_program, prepare
from alignment.sandbox.launcher_settings import launcher_settings
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program
from alignment.sandbox.slot import SandboxError, Slot

LIMITS = Limits(cpu_seconds=30, wall_seconds=30)


def probe_languages() -> list[dict[str, Any]]:
    """One entry per language: ``language``, ``works``, ``version``, ``reason`` (why not), ``packages`` (Debian),
    ``install``.

    Takes seconds: compilers run. Where the sandbox itself is refused, every language says so.
    """
    slot = Slot(launcher_settings(extra=toolchains.shown_folders()))
    try:
        return [_probe(slot, language) for language in toolchains.LANGUAGES.values()]
    finally:
        slot.close()


def _probe(slot: Slot, language: toolchains.Language) -> dict[str, Any]:
    version, reason = "", ""
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
        "install": toolchains.install(language).removeprefix("install it with: "),
    }


def _run(slot: Slot, language: toolchains.Language) -> tuple[str, str]:
    if language.name == "python":
        (run,) = slot.run(
            [Program("main", {"environment": {}}, b"import sys; print(42); print(sys.version)", limits=LIMITS)]
        )
        lines = run.stdout.decode().splitlines()
        return "Python " + " ".join(lines[1:])[:40], "" if lines[:1] == [
            "42"
        ] else "the warm interpreter does not run programs"
    tools = toolchains.toolchain(language.name)
    compiled = prepare(slot, tools, language.probe.encode())
    if compiled.reason:
        return tools.version, f"its compiler fails in the sandbox: {compiled.problem[:200]}"
    (run,) = slot.run([compiled_program(tools, compiled, b"", LIMITS, {})])
    if run.stdout.strip() == b"42":
        return tools.version, ""
    return (
        tools.version,
        f"its programs fail in the sandbox: {(run.stderr or run.stdout)[:200].decode(errors='replace')}",
    )


def probe_sandbox() -> dict[str, Any]:
    """Whether the sandbox works here: ``works``, ``reason``, ``notes`` (what is weaker than it could be)."""
    slot = Slot(launcher_settings())
    try:
        slot.start()
    except SandboxError as error:
        return {"works": False, "reason": str(error), "notes": []}
    try:
        return {"works": True, "reason": "", "notes": slot.notes}
    finally:
        slot.close()
