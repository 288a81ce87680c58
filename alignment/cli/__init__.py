"""The command line `align`.

align init                    write a recipe for your repositories, a model and hardware
align run RECIPE              run the steps of a recipe that are not done yet
align check RECIPE            find all mistakes of a recipe
align plan RECIPE             show the steps, which of them would run, and the memory, disk and tokens that they need
align status RECIPE|RUN       show which steps are done or running, and the ladder (metrics after each stage) so far
align logs RECIPE [STAGE]     print the log of a stage
align report RECIPE           write the report of a recipe again
align ui [RUN...]             serve a live page about runs
align launch RECIPE --slurm   write files that start a recipe on a cluster
align schema                  print the recipe's JSON schema
align evaluate MODEL          measure a model on benchmarks, grade completions, compare two evaluations
align chat MODEL              talk to a model
align complete FILE:LINE      complete a file at a cursor
align compare A B             compare two models or two evaluations
align import FILE.gguf OUT    write a GGUF file as a model folder
align extract MODEL           write the difference from a base model as a LoRA adapter
align export MODEL            convert and quantize a model
align build BUILDER           make a dataset
align tasks export-harbor     write repair tasks as Harbor task folders, and read such folders
align show DATASET            show rows of a dataset
align rollouts RUN            show the completions of GRPO stages with their rewards
align lineage RUN             show of what artifacts were made, or find those that contain a repository
align sign, align verify      sign the files of an export with a key, and verify the signature
align sandbox serve           grade programs for other machines
align track upload RUN        upload offline runs to Weights & Biases
align doctor [RECIPE]         show what this machine can do, or whether it can run a recipe

Each group of commands has a module with a function `add`, which adds the parsers of the commands. Each parser has a
default `handler`: a function that takes the parsed arguments and returns the exit code. Handlers import modules only
when they are called, so that `align --help` starts quickly.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment import __version__, logs
from alignment.cli import (
    complete_command,
    data_commands,
    doctor,
    evaluation_commands,
    export_command,
    extract_command,
    import_command,
    init_command,
    launch_command,
    lineage_command,
    log_command,
    model_commands,
    recipe_commands,
    rollouts_command,
    sandbox_commands,
    signature_commands,
    status_command,
    tasks_command,
    track_command,
    ui_command,
)

ROOT = Path(__file__).resolve().parents[2]


class _Version(argparse.Action):
    """Action of `--version`: print the version, and also the commit if the code is in a Git checkout."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        commit = None
        if (ROOT / ".git").exists():
            from alignment.chain.artifacts import git_commit

            commit = git_commit(ROOT)
        print(f"align {__version__}" + (f" (commit {commit})" if commit else ""))
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(prog="align", description="Post-training for code models, from one recipe.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the version, and the commit of a checkout")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (
        init_command,
        recipe_commands,
        status_command,
        log_command,
        ui_command,
        launch_command,
        evaluation_commands,
        model_commands,
        complete_command,
        import_command,
        extract_command,
        export_command,
        data_commands,
        tasks_command,
        rollouts_command,
        lineage_command,
        signature_commands,
        track_command,
        sandbox_commands,
        doctor,
    ):
        group.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the command.

    Returns:
        The exit code: 0 for success, 1 for an error that was explained, 130 after Ctrl-C. For a wrong command line
        argparse raises SystemExit(2).
    """
    arguments = parser().parse_args(argv)
    logs.configure()
    try:
        return int(arguments.handler(arguments))
    except (ValueError, OSError) as error:
        _report_error(error, arguments)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command resumes from here", file=sys.stderr)
        return 130


def _report_error(error: ValueError | OSError, arguments: argparse.Namespace) -> None:
    """Print an error: with `--json` as a JSON document on stdout, else as text on stderr."""
    from alignment.launch.accelerate_launcher import explain
    from alignment.recipe.problems import RecipeError

    if getattr(arguments, "json", False):
        problem = {"file": str(getattr(arguments, "recipe", "")), "line": 0, "key": "", "message": str(error)}
        problems = [vars(item) for item in error.problems] if isinstance(error, RecipeError) else [problem]
        print(json.dumps({"ok": False, "problems": problems}, indent=2))
    else:
        explain(str(error) if isinstance(error, RecipeError) else f"error: {error}")
