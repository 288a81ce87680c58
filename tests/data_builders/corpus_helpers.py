"""Small git repositories and folders to build corpora from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.grading import SandboxSettings
from data_builders.builder import BuildContext
from data_builders.builder_registry import find_builder

MakeRepository = Callable[..., Path]


def git(folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    identity = {
        "GIT_AUTHOR_NAME": "Ada Byron",
        "GIT_AUTHOR_EMAIL": "ada@firm.example",
        "GIT_COMMITTER_NAME": "Ada Byron",
        "GIT_COMMITTER_EMAIL": "ada@firm.example",
        "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, env=environment | identity
    )
    return done.stdout.strip()


def write_files(folder: Path, files: dict[str, str | bytes]) -> None:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())


def commit(folder: Path, message: str, files: dict[str, str | bytes], author: str = "") -> str:
    write_files(folder, files)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message, *(["--author", author] if author else []))
    return git(folder, "rev-parse", "HEAD")


def code(name: str, lines: int = 12) -> str:
    """A Python module with words that contain `name`, so that no two modules are near-duplicates."""
    body = "\n".join(
        f"    {name}_{number} = {name}_step_{number}({name}_{number - 1 if number else 'input'}, {number})"
        for number in range(lines)
    )
    return (
        f'"""How {name} is computed."""\n\n\ndef compute_{name}({name}_input):\n{body}\n    return {name}_{lines - 1}\n'
    )


def run_builder(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    model: Path | None = None,
    sandbox: SandboxSettings | None = None,
    clone_folder: Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Run a built-in builder into a folder, with settings as a recipe has them (paths may be Path objects)."""
    builder = find_builder(name)
    out.mkdir(parents=True, exist_ok=True)
    context = BuildContext(out, seed, workers, model, sandbox or SandboxSettings(), clone_folder=clone_folder)
    return builder.run(builder.validate(settings), context)
