"""Jobs in fresh processes: what a runtime or an engine does to memory, threads and signals ends with its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.processes import die_with_parent


def run_job(
    module: str, job: dict[str, Any], python: str | Path | None = None, *, in_own_folder: bool = False
) -> dict[str, Any]:
    """Run `python -m module JOB.json` and return the result it wrote.

    `python` names the interpreter of another environment. With `in_own_folder` what the process leaves in its working
    directory goes when it ends; the job's paths must be absolute then. RuntimeError carries the last line that a failed process
    wrote, or the signal it died of.
    """
    with tempfile.TemporaryDirectory(prefix="align-job-") as folder:
        file, result = Path(folder, "job.json"), Path(folder, "result.json")
        file.write_text(json.dumps(job | {"result": str(result)}), encoding="utf-8")
        root = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).strip(":"),
            "ALIGN_PARENT": str(os.getpid()),
        }
        command = [str(python or sys.executable), "-P", "-m", module, str(file)]
        cwd = folder if in_own_folder else None
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, cwd=cwd)
        if done.returncode == 0 and result.is_file():
            return json.loads(result.read_text(encoding="utf-8"))
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        if done.returncode < 0:
            raise RuntimeError(f"the process died by signal {-done.returncode}")
        raise RuntimeError(lines[-1].removeprefix("error: ") if lines else "the process ended without a result")


def serve_job(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other side of `run_job`: read the job, work, write the result; ValueError ends in one line.

    A job does not outlive who asked for it: a killed export would leave hours of quantization behind.
    """
    die_with_parent()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        result = work(job)
    except ValueError as error:
        message = str(error).replace("\n", " ")
        sys.exit(f"error: {message}")
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")
