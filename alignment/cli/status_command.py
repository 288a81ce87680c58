"""`align status`: which steps are done or running, how far training is, and the ladder so far.

align status recipe.yaml    the steps of a recipe, those included that a change would make run again
align status runs/app       the last run in a folder of results, without its recipe, also while it runs elsewhere

Only files are read: the run may go on in another process, or on another machine that shares the folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command, add_json, add_recipe

if TYPE_CHECKING:
    from alignment.chain.ladder import Rung
    from alignment.cli.shared_options import Commands
    from alignment.report.run_folder import StageFolder

LABELS = {"waiting": "to do"}
"""State of a step -> its name in the output, where it differs."""


def add(commands: Commands) -> None:
    """Add the parser."""
    status = add_command(
        commands,
        "status",
        "Show which steps of a recipe or of a results folder are done or running, and the ladder so far.",
    )
    add_recipe(status)
    add_json(status)
    status.set_defaults(handler=_status)


def _status(arguments: argparse.Namespace) -> int:
    from alignment.chain import ladder
    from alignment.report.run_folder import is_run, read_run

    if arguments.recipe.is_dir():
        if not is_run(arguments.recipe):
            raise ValueError(
                f"{arguments.recipe} holds no results of a recipe: name a recipe, or a folder such as runs/NAME"
            )
        if arguments.overrides:
            raise ValueError("--set changes a recipe, and this is a folder of results: leave it out")
        run = read_run(arguments.recipe)
        name, folder, rows = run.name, run.folder, [_row(stage) for stage in run.stages]
        entries = _stored_ladder(run.folder)
        note = f"\nthe run failed: {run.message}" if run.state == "failed" and run.message else ""
    else:
        name, folder, rows, entries = _of_recipe(arguments)
        note = ""
    if arguments.json:
        print(json.dumps({"name": name, "folder": str(folder), "steps": rows, "ladder": entries}, indent=2))
        return 0
    for row in rows:
        print(_line(row))
    table = ladder.table_of(entries)
    print("\n".join(["", *table]) + note if table else f"\nno evaluation is done yet{note}")
    return 0


def _of_recipe(arguments: argparse.Namespace) -> tuple[str, Path, list[dict[str, Any]], list[Rung]]:
    """Return name, folder, rows of steps, and ladder of a recipe."""
    from alignment.chain import ladder
    from alignment.chain.plan import plan
    from alignment.cli.recipe_commands import step_rows
    from alignment.recipe import load
    from alignment.report.run_folder import stage_folders

    recipe = load(arguments.recipe, arguments.overrides)
    steps = plan(recipe)
    rows = [
        {**row, **_progress(stage), "state": LABELS.get(stage.state, stage.state)}
        for row, stage in zip(step_rows(steps), stage_folders(steps), strict=True)
    ]
    return recipe.name, recipe.folder, rows, ladder.rungs(steps)


def _row(stage: StageFolder) -> dict[str, Any]:
    """Return the values that `--json` prints for a step of a results folder."""
    return {
        "step": stage.name,
        "kind": stage.kind,
        "state": LABELS.get(stage.state, stage.state),
        "model": stage.model,
        "fingerprint": stage.content.get("fingerprint"),
        "folder": str(stage.folder),
        "seconds": stage.content.get("seconds"),
        "peak_memory_mb": stage.content.get("peak_memory_mb"),
        **_progress(stage),
    }


def _progress(stage: StageFolder) -> dict[str, Any]:
    """Return `progress` of a training step that is not done: the last step, all steps, and figures."""
    from alignment.report.training_curves import MetricsFile

    progress = MetricsFile(stage.folder).progress() if stage.trains and stage.state in ("running", "stopped") else None
    if progress is None:
        return {"progress": None}
    return {"progress": {"step": progress.step, "steps": progress.steps, "figures": progress.figures}}


def _line(row: dict[str, Any]) -> str:
    seconds = f"{row['seconds']:.0f} s" if row["seconds"] is not None else ""
    memory = f"{row['peak_memory_mb'] / 1000:.1f} GB" if row["peak_memory_mb"] is not None else ""
    progress = row["progress"]
    text = f"  step {progress['step']:,} of {progress['steps']:,}: {progress['figures']}" if progress else ""
    return f"{row['state']:7} {row['step']:28} {seconds:>8} {memory:>9}{text}".rstrip()


def _stored_ladder(folder: Path) -> list[Rung]:
    """Return the entries of `ladder.json`, or an empty list if no evaluation is done."""
    try:
        entries: Sequence[Rung] = json.loads((folder / "ladder.json").read_text())
    except (OSError, ValueError):
        return []
    return list(entries)
