"""The command line: `align run, check, plan, status, launch, report, schema`.

align run RECIPE              launch a recipe with the Accelerate file it names
align check RECIPE            find every mistake before anything runs
align plan RECIPE             the steps, which would run, and what they need
align launch RECIPE --slurm   files that start the recipe on a cluster
align status RECIPE           what is done, and the ladder so far
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment import __version__, logs
from alignment.cli import commands as more
from alignment.cli.launch_command import add_launch_arguments, launch_lines
from alignment.launch.accelerate_launcher import explain
from alignment.planning import presentation
from alignment.recipe import Recipe, RecipeError, load

if TYPE_CHECKING:
    from alignment.chain.plan import Step


def parser() -> argparse.ArgumentParser:
    """The whole command line; heavy modules are imported only by the command that needs them."""
    top = argparse.ArgumentParser(prog="align", description="Post-training for code models, from one recipe.")
    top.add_argument("--version", action="version", version=f"align {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, recipe: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if recipe:
            sub.add_argument("recipe", type=Path, help="a recipe, for example recipes/quickstart.yaml")
            sub.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                help="override one setting, for example stages.dpo.train.beta=0.2; may be repeated",
            )  # fmt: skip
        return sub

    run = command("run", "Run the steps of a recipe that are not done yet.")
    run.add_argument("--until", metavar="STEP", help="stop after this step")
    run.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    check = command("check", "Check a recipe: all mistakes at once, with file and line.")
    check.add_argument("--fast", action="store_true", help="skip building TRL's own config objects (about 8 s)")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    plan = command("plan", "Show the steps of a recipe, which of them would run, and what they need.")
    plan.add_argument("--json", action="store_true", help="print one JSON document")
    plan.add_argument("--device-memory", type=float, metavar="GIB", help="of one device (default: this machine's)")
    command("status", "Show what is done, and the ladder so far.").add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    add_launch_arguments(command("launch", "Write files that start a recipe on a cluster: Slurm or Kubernetes."))
    command("report", "Write the report of a recipe anew.")
    command("schema", "Print the recipe's JSON schema, for editors.", recipe=False)
    more.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0 for success, 1 for a stop that was explained, 2 for a wrong command line."""
    arguments = parser().parse_args(argv)
    logs.configure()
    try:
        if arguments.command in more.NAMES:
            return more.run(arguments)
        return int(globals()[f"_{arguments.command}"](arguments))
    except RecipeError as error:
        if getattr(arguments, "json", False):
            print(json.dumps({"ok": False, "problems": [vars(problem) for problem in error.problems]}, indent=2))
        else:
            explain(str(error))
        return 1
    except (ValueError, OSError) as error:
        if getattr(arguments, "json", False):
            problem = {"file": str(getattr(arguments, "recipe", "")), "line": 0, "key": "", "message": str(error)}
            print(json.dumps({"ok": False, "problems": [problem]}, indent=2))
        else:
            explain(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    recipe = load(arguments.recipe, arguments.overrides)
    from alignment.chain.conductor import ChainStopped, run
    from alignment.chain.plan import plan
    from alignment.processes import World, die_with_parent

    if arguments.launched:
        die_with_parent()  # torch's agent starts us in a session of our own: a killed launcher would leave us behind
    elif not all(step.artifact() for step in plan(recipe)):
        return _become_launcher(recipe, arguments)
    try:
        steps = run(recipe, until=arguments.until)
    except ChainStopped as stop:
        explain(f"stopped: {stop}")
        return 1
    if World.from_environment(os.environ).rank == 0:
        _print_summary(recipe, steps)
    return 0


def _print_summary(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Print the ladder, write the report, and print its path."""
    from alignment.chain import ladder
    from alignment.report import page

    for line in ladder.table([step for step in steps if step.rung]):
        print(line)
    print(f"report: {page.write(recipe, steps)}")


def _become_launcher(recipe: Recipe, arguments: argparse.Namespace) -> int:
    """Become `accelerate launch`, with the file the recipe names."""
    if recipe.launch is None:
        raise ValueError("the recipe names no `launch:` file: add one of accelerate_configs/, or use accelerate launch")
    target = Path(__file__).resolve().parents[2] / "recipes" / "run.py"
    options = [item for override in arguments.overrides for item in ("--set", override)]
    options += ["--until", arguments.until] if arguments.until else []
    launcher = ["-m", "alignment.launch.accelerate_launcher", "--config_file", str(recipe.launch.path())]
    command = [sys.executable, *launcher, str(target), str(arguments.recipe), *options]
    os.execv(sys.executable, command)


def _check(arguments: argparse.Namespace) -> int:
    recipe = load(arguments.recipe, arguments.overrides)
    refused = [] if arguments.fast else _refused(recipe)
    if arguments.json:
        problems = [
            {"file": str(getattr(arguments, "recipe", "")), "line": 0, "key": "", "message": text} for text in refused
        ]
        print(json.dumps({"ok": not refused, "name": recipe.name, "problems": problems}, indent=2))
    elif refused:
        print("\n".join(refused), file=sys.stderr)
    else:
        print(f"{arguments.recipe}: no mistakes found; {len(recipe.stages)} stages")
        for line in _still_to_make(recipe):
            print(line)
    return 1 if refused else 0


def _still_to_make(recipe: Recipe) -> list[str]:
    """What a run will install before its first step: worth knowing where the network is somewhere else."""
    from alignment.export.engine_environment import is_ready
    from alignment.recipe import ExportStage
    from alignment.recipe.export_checks import engines_needed

    engines = {engine for stage in recipe.stages if isinstance(stage, ExportStage) for engine in engines_needed(stage)}
    return [
        f"the run will first make an environment for {engine}; to do it now: python -m alignment.export.engine_environment "
        f"{engine}"
        for engine in sorted(engines)
        if not is_ready(engine)
    ]


def _refused(recipe: Recipe) -> list[str]:
    """What TRL's and PEFT's own dataclasses have against the training stages."""
    from alignment.recipe import TrainingStage
    from alignment.stages.configs import refusals

    # DeepSpeed logs to stdout when it is imported; stdout belongs to our one document.
    with contextlib.redirect_stdout(sys.stderr):
        return refusals([stage for stage in recipe.stages if isinstance(stage, TrainingStage)])


def _steps(arguments: argparse.Namespace) -> tuple[Recipe, list[Step], list[dict[str, Any]]]:
    from alignment.chain.plan import plan

    recipe = load(arguments.recipe, arguments.overrides)
    steps, rows = plan(recipe), []
    for step in steps:
        artifact = step.artifact()
        state = "done" if artifact else ("begun" if step.folder.exists() else "to do")
        rows.append(
            {
                "step": step.name,
                "kind": step.kind,
                "state": state,
                "model": step.model,
                "fingerprint": step.fingerprint,
                "folder": str(step.folder),
                "seconds": (artifact or {}).get("seconds"),
                "peak_memory_mb": (artifact or {}).get("peak_memory_mb"),
            }
        )
    return recipe, steps, rows


def _plan(arguments: argparse.Namespace) -> int:
    recipe, _, rows = _steps(arguments)
    needs = presentation.needs(recipe, arguments.device_memory)
    if arguments.json:
        document = {"name": recipe.name, "folder": str(recipe.folder), "steps": rows, **needs}
        print(json.dumps(document, indent=2))
        return 0
    for row in rows:
        print(f"{row['state']:6}  {row['step']:28} {row['kind']:9} {row['fingerprint'][:12]}")
    print("\n".join(["", *presentation.describe(needs)]))
    return 0


def _launch(arguments: argparse.Namespace) -> int:
    recipe = load(arguments.recipe, arguments.overrides)
    for line in launch_lines(recipe, arguments):
        print(line)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from alignment.chain import ladder

    recipe, steps, rows = _steps(arguments)
    if arguments.json:
        document = {"name": recipe.name, "folder": str(recipe.folder), "steps": rows, "ladder": ladder.rungs(steps)}
        print(json.dumps(document, indent=2))
        return 0
    for row in rows:
        seconds = f"{row['seconds']:.0f} s" if row["seconds"] is not None else ""
        memory = f"{row['peak_memory_mb'] / 1000:.1f} GB" if row["peak_memory_mb"] is not None else ""
        print(f"{row['state']:6}  {row['step']:28} {seconds:>8} {memory:>9}".rstrip())
    table = ladder.table([step for step in steps if step.rung])
    print("\n".join(["", *table]) if table else "\nno evaluation is done yet")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from alignment.chain.plan import plan
    from alignment.report import page as report

    recipe = load(arguments.recipe, arguments.overrides)
    print(report.write(recipe, plan(recipe)))
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from alignment.recipe import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0
