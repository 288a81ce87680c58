"""Make virtual environments for the engines of GPTQ and AWQ, each on first use.

    python -m alignment.export.engine_environment [ENGINE]           make an environment now, for example before going offline
    python -m alignment.export.engine_environment --wheels FOLDER    write the wheels of all engines to a folder

The engines need other versions of transformers or torch than the training stack. Each engine gets a virtual environment
in the user's cache. That environment also sees the packages of the running environment, with lower priority, so that
torch is not installed twice and the training stack is not changed. The folder's name contains a hash of the pinned
packages and of the versions of Python and torch, so a new environment is made when one of them changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alignment.cache import cache_root
from alignment.logs import configure, get_logger

logger = get_logger("alignment.export.engine_environment")  # __name__ is "__main__" when it runs as a program


@dataclass(frozen=True)
class EngineEnvironment:
    """Which packages pip installs into the virtual environment of an engine."""

    name: str
    pins: tuple[str, ...]
    """Pinned requirements for pip. The first requirement is the engine itself."""
    resolve: bool
    """Whether pip also installs the dependencies of the pins."""


ENGINES = {
    engine.name: engine
    for engine in (
        EngineEnvironment(
            "llm-compressor",
            (
                "llmcompressor==0.14.0.1",
                "compressed-tensors==0.19.0",
                "transformers==5.17.0",
                "auto-round==0.15.1",
                "huggingface-hub==1.33.0",
            ),
            resolve=True,
        ),
        # gptqmodel 7.7.0 requires torch 2.14.1 but works with 2.13, so its dependencies are listed, without torch.
        EngineEnvironment(
            "gptqmodel",
            (
                "gptqmodel==7.7.0",
                "optimum==2.3.0",
                "device-smi==0.5.7",
                "pypcre==0.6.4",
                "tokenicer==0.0.14",
                "logbar==0.4.15",
                "threadpoolctl==3.8.0",
                "torchao==0.18.0",
                "defuser==0.0.28",
                "pillow==13.0.0",
            ),
            resolve=False,
        ),
    )
}

# This script runs in the new environment. It puts the environment's packages first in sys.path, before PYTHONPATH
# (which may name the training stack), and the folders given as arguments last.
_INHERIT = """
import pathlib, sys, sysconfig
own = sysconfig.get_paths()["purelib"]
lines = [f"import sys; sys.path.insert(0, {own!r})"]
lines += [f"import site; site.addsitedir({path!r})" for path in sys.argv[1:]]
pathlib.Path(own, "inherited.pth").write_text("\\n".join(lines))
"""
_COMPLETE = "complete"


def environment_folder(engine: str) -> Path:
    """Return the folder of an engine's environment. The folder may not exist yet."""
    made_from = [_INHERIT, *ENGINES[engine].pins, *_inherited(), sys.version, importlib.metadata.version("torch")]
    digest = hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:12]
    return cache_root() / f"{engine}-{digest}"


def is_ready(engine: str) -> bool:
    """Whether the environment of `engine` exists and is complete."""
    return (environment_folder(engine) / _COMPLETE).is_file()


def engine_python(engine: str) -> str:
    """Return a Python interpreter in which `engine` is installed. Make the engine's environment if it does not exist.

    Raises:
        ValueError: The environment can't be made. The message says why, and how to make it on another machine.
    """
    folder = environment_folder(engine)
    python = folder / "bin" / "python"
    if is_ready(engine):
        return str(python)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        if not is_ready(engine):
            _make(ENGINES[engine], folder, python)
    return str(python)


def _make(engine: EngineEnvironment, folder: Path, python: Path) -> None:
    logger.info(f"making an environment for {engine.pins[0]} in {folder} (once; takes minutes) ...")
    shutil.rmtree(folder, ignore_errors=True)
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    install += [*([] if engine.resolve else ["--no-deps"]), *engine.pins]
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-c", _INHERIT, *_inherited()],
        install,
    ):
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise ValueError(
                f"GPTQ and AWQ need {engine.pins[0]}, and an environment with it could not be made in {folder}: "
                f"{_reason(done)}. Without a package index, set PIP_NO_INDEX=1 and PIP_FIND_LINKS to the folder that `make "
                f"wheelhouse` wrote, and run: python -m alignment.export.engine_environment {engine.name}"
            )
    (folder / _COMPLETE).write_text("\n".join(engine.pins) + "\n", encoding="utf-8")


def write_wheels(folder: Path) -> None:
    """Write the wheels of all engines to a folder, from which pip makes the environments without a package index.

    Raises:
        ValueError: a wheel can't be had or built.
    """
    torch = f"torch=={importlib.metadata.version('torch')}"
    for engine in ENGINES.values():
        logger.info(f"collecting the wheels of {engine.pins[0]} in {folder} ...")
        command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--wheel-dir", str(folder)]
        command += ["--find-links", str(folder), *([torch] if engine.resolve else ["--no-deps"]), *engine.pins]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            raise ValueError(f"the wheels of {engine.pins[0]} can't be collected: {_reason(done)}")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the first error that pip printed, or the end of what it printed."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.lower().startswith("error")]
    return lines[0] if lines else (done.stderr or done.stdout).strip()[-300:] or "no reason given"


def _inherited() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a lock, so that only one process at a time makes the environment."""
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Make the environment of the engine that the command line names (default: llm-compressor), or write wheels."""
    configure()
    name = sys.argv[1] if len(sys.argv) > 1 else "llm-compressor"
    wheels = Path(sys.argv[2]) if name == "--wheels" and len(sys.argv) == 3 else None
    if wheels is None and name not in ENGINES:
        print(f"error: there is no engine {name!r}; choose from {', '.join(ENGINES)}", file=sys.stderr)
        return 2
    try:
        if wheels is not None:
            write_wheels(wheels)
        else:
            print(engine_python(name))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
