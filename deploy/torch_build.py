"""Stop an installation that would bring torch with CUDA, several gigabytes, to a machine without an NVIDIA GPU.

    pip install --dry-run --report - torch | python deploy/torch_build.py

Reads pip's report of what it would install, before anything is downloaded. `make setup` runs this script; it needs
nothing but the standard library.
"""

import json
import sys
from pathlib import Path
from typing import Any

DRIVER = Path("/proc/driver/nvidia")
"""Exists where the kernel has loaded NVIDIA's driver."""


def refusal(report: dict[str, Any], *, has_gpu: bool) -> str:
    """Return why the installation in a report of `pip install --report` should not happen, or "" if it may.

    Args:
        report: pip's report.
        has_gpu: whether this machine has an NVIDIA GPU.
    """
    names = [item["metadata"]["name"] for item in report.get("install", [])]
    libraries = [name for name in names if name.lower().startswith(("nvidia-", "cuda-", "cuda_"))]
    if has_gpu or not libraries:
        return ""
    return (
        f"pip would install torch with {len(libraries)} packages of CUDA, several gigabytes, and this machine has no NVIDIA GPU.\n"
        "  Name a source of torch's build for CPUs, which the page 'Get started' of PyTorch gives, to pip:\n"
        "      PIP_EXTRA_INDEX_URL=... make setup        or, for a folder with the wheel: PIP_FIND_LINKS=... make setup\n"
        "  To install torch with CUDA nevertheless: make setup CUDA=1"
    )


def main() -> int:
    report = sys.stdin.read()
    if not report.strip():  # pip failed and said why
        return 1
    message = refusal(json.loads(report), has_gpu=DRIVER.exists())
    if message:
        print(f"error: {message}", file=sys.stderr)
    return 1 if message else 0


if __name__ == "__main__":
    raise SystemExit(main())
