"""What this machine can do, and what to install for the rest: `align doctor [--json]`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from alignment.fingerprints import package_versions

# package -> (extra that brings it, what it is for)
OPTIONAL = {
    "xllamacpp": ("gguf", "GGUF export and its comparison with llama.cpp"),
    "bitsandbytes": ("qlora", "QLoRA"),
    "vllm": ("vllm", "fast generation on GPUs"),
    "tree-sitter-language-pack": ("syntax", "fill-in-the-middle spans along the syntax tree"),
}


def examine() -> dict[str, Any]:
    """Everything as plain values: python, memory, devices, packages, the sandbox, and each language it can run."""
    from alignment.sandbox.self_check import probe_languages, probe_sandbox

    sandbox, languages = probe_sandbox(), probe_languages()
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
        "sandbox": sandbox,
        "languages": languages,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def describe(found: dict[str, Any]) -> list[str]:
    """The same for a person: one line a fact, and what to install for what is missing."""
    lines = [
        f"Python {found['python']} on {found['system']}",
        f"{found['cores']} cores, {found['memory_gb']} GB of memory, {found['disk_free_gb']} GB of free disk here",
        f"accelerators: {', '.join(found['devices']) or 'none'}",
        "packages: " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()),
    ]
    for item in found["optional"]:
        state = item["version"] or f"not installed: pip install 'code-alignment[{item['extra']}]'"
        lines.append(f"  {item['package']} ({item['for']}): {state}")
    sandbox = found["sandbox"]
    lines.append("sandbox: works" if sandbox["works"] else f"sandbox: refused: {sandbox['reason']}")
    lines += [f"  note: {note}" for note in sandbox["notes"]]
    if not sandbox["works"]:
        return lines  # of the languages too there is no more to say
    lines.append("languages in the sandbox:")
    for item in found["languages"]:
        state = f"works, {item['version']}" if item["works"] else f"no: {item['reason']}; {item['install']}"
        lines.append(f"  {item['language']}: {state}")
    return lines


def main(json_output: bool) -> int:
    """Print what was found; 0 when Python programs can be run in the sandbox, else 1."""
    import json

    found = examine()
    print(json.dumps(found, indent=2) if json_output else "\n".join(describe(found)))
    python = next((item for item in found["languages"] if item["language"] == "python"), None)
    if python is None or not python["works"]:
        print("the sandbox can't run Python here: rewards and evaluation would refuse to start", file=sys.stderr)
        return 1
    return 0
