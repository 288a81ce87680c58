"""Run jobs in fresh processes, so that the memory and threads of a runtime or engine end with its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alignment import logs
from alignment.processes import die_with_parent

logger = logs.get_logger(__name__)
MESSAGE_SECONDS = 60.0
"""Time between two messages of `run_job` about a running process."""


def run_job(
    module: str,
    job: Mapping[str, Any],
    python: str | Path | None = None,
    *,
    in_own_folder: bool = False,
    label: str = "",
) -> dict[str, Any]:
    """Run `python -m module JOB.json` and return the result that the process wrote.

    Args:
        module: A module that calls `serve_job`.
        job: JSON values, which the process reads from a file.
        python: Interpreter of another environment; by default the running one.
        in_own_folder: Whether to run in a temporary folder, which is removed afterwards with all files in it. All paths
            in `job` must then be absolute.
        label: Name of the work. If it is given, a message says every minute for how long the process has run, for programs
            of others that show no progress.

    Raises:
        RuntimeError: The process failed. The message is the last line of its stderr, or names the signal that killed
            it.
    """
    with tempfile.TemporaryDirectory(prefix="align-job-") as folder:
        file, result = Path(folder, "job.json"), Path(folder, "result.json")
        file.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
        root = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).strip(":"),
            "ALIGN_PARENT": str(os.getpid()),
        }
        command = [str(python or sys.executable), "-P", "-m", module, str(file)]
        # The stderr of the process is captured for its error; its log messages go to the user's terminal.
        terminal = logs.copy_of_terminal()
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment | {"ALIGN_TERMINAL": str(terminal)},
                cwd=folder if in_own_folder else None,
                pass_fds=(terminal,),
            )
        finally:
            os.close(terminal)
        errors = _wait(process, label)
        if process.returncode == 0 and result.is_file():
            return json.loads(result.read_text(encoding="utf-8"))
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        if process.returncode < 0:
            raise RuntimeError(f"the process was killed by signal {-process.returncode}")
        raise RuntimeError(lines[-1].removeprefix("error: ") if lines else "the process ended without a result")


def _wait(process: subprocess.Popen[str], label: str) -> str:
    """Wait for the end of a process, and return what it wrote to stderr. The process is killed if waiting is interrupted."""
    started = time.monotonic()
    with process:
        while True:
            try:
                return process.communicate(timeout=MESSAGE_SECONDS)[1]
            except subprocess.TimeoutExpired:
                if label:
                    logger.info("%s: running for %s", label, logs.format_duration(time.monotonic() - started))
            except BaseException:
                process.kill()
                raise


def serve_job(work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Serve `run_job` in the child process: read the job, call `work` with the job, and write the result.

    A ValueError is printed as one line on stderr. The process is killed when its parent dies, so that no quantization
    keeps running after an export was killed.
    """
    die_with_parent()
    logs.configure()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result_file = Path(job.pop("result"))
    try:
        result = work(job)
    except ValueError as error:
        message = str(error).replace("\n", " ")
        sys.exit(f"error: {message}")
    result_file.write_text(json.dumps(result), encoding="utf-8")
