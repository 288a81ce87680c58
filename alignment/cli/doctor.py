"""`align doctor`: show which features work on this machine, and which packages to install for the other features.

align doctor                what this machine can do
align doctor recipe.yaml    whether this machine can run a recipe, and what to install or change if not
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command, add_json, add_recipe

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands

# optional package -> (the extra of code-alignment that installs the package, the purpose of the package)
OPTIONAL = {
    "xllamacpp": ("gguf", "GGUF export and its comparison with llama.cpp"),
    "bitsandbytes": ("qlora", "QLoRA"),
    "vllm": ("vllm", "fast generation on GPUs"),
    "tree-sitter-language-pack": ("syntax", "fill-in-the-middle spans along the syntax tree"),
}


def add(commands: Commands) -> None:
    """Add the parser of `align doctor`."""
    doctor = add_command(
        commands,
        "doctor",
        "Show what this machine can do, or whether it can run a recipe, and what to install for the rest.",
    )
    add_recipe(doctor, optional=True)
    add_json(doctor)
    doctor.set_defaults(handler=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    """Print what `examine` found out. Return the exit code: 0 if the sandbox can run Python programs, else 1."""
    if arguments.recipe is not None:
        return _examine_recipe(arguments)
    findings = examine()
    print(json.dumps(findings, indent=2) if arguments.json else "\n".join(describe(findings)))
    python = next((item for item in findings["languages"] if item["language"] == "python"), None)
    if python is None or not python["works"]:
        print(
            "the sandbox can't run Python on this machine: rewards and evaluation would not start",
            file=sys.stderr,
        )
        return 1
    return 0


def _examine_recipe(arguments: argparse.Namespace) -> int:
    """Print what the recipe needs. Return the exit code: 0 if this machine has it all, else 1."""
    from alignment.planning.readiness import requirements
    from alignment.recipe import load

    needs = requirements(load(arguments.recipe, arguments.overrides))
    runs = all(need.state != "missing" for need in needs)
    if arguments.json:
        document = {
            "recipe": str(arguments.recipe),
            "runs": runs,
            "needs": [dataclasses.asdict(need) for need in needs],
        }
        print(json.dumps(document, indent=2))
    else:
        for need in needs:
            print(f"{need.state:7}  {need.what}: {need.detail}")
        missing = sum(need.state == "missing" for need in needs)
        verdict = "can run here" if runs else f"can't run here: {missing} missing"
        print(f"\n{arguments.recipe} {verdict}. `align check` checks rows and settings")
    return 0 if runs else 1


def examine() -> dict[str, Any]:
    """Collect facts about this machine as JSON values: Python, memory, devices, packages, sandbox, and the sandbox's
    languages.
    """
    from alignment.fingerprints import package_versions
    from alignment.sandbox.self_check import probe_languages, probe_sandbox

    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "devices": _devices(),
        "packages": package_versions(),
        "optional": [
            {"package": name, "version": _version(name), "extra": extra, "for": purpose}
            for name, (extra, purpose) in OPTIONAL.items()
        ],
        "sandbox": probe_sandbox(),
        "languages": probe_languages(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def describe(findings: dict[str, Any]) -> list[str]:
    """Format the facts that `examine` returns, one per line.

    A missing package is listed with the command that installs it.
    """
    lines = [
        f"Python {findings['python']} on {findings['system']}",
        f"{findings['cores']} cores, {findings['memory_gb']} GB of memory, {findings['disk_free_gb']} GB of free disk here",
        f"accelerators: {', '.join(findings['devices']) or 'none'}",
        "packages: " + ", ".join(f"{name} {version}" for name, version in findings["packages"].items()),
    ]
    for item in findings["optional"]:
        state = item["version"] or f"not installed: pip install 'code-alignment[{item['extra']}]'"
        lines.append(f"  {item['package']} ({item['for']}): {state}")
    sandbox = findings["sandbox"]
    lines.append("sandbox: works" if sandbox["works"] else f"sandbox: does not work: {sandbox['reason']}")
    lines += [f"  {clause}" for clause in sandbox["holds"]]
    lines += [f"  note: {note}" for note in sandbox["notes"]]
    if not sandbox["works"]:
        return lines  # no language works without it
    lines.append("languages in the sandbox:")
    for item in findings["languages"]:
        state = f"works, {item['version']}" if item["works"] else f"does not work: {item['reason']}; {item['install']}"
        lines.append(f"  {item['language']}: {state}")
    return lines
