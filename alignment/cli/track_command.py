"""`align track upload`: upload the offline runs of W&B, each stage as one continuous run, with the ladder and lineage.

align track upload runs/app                       all stages of a recipe
align track upload runs/app/sft --project shop    one stage, to another project
align track upload runs/app --text                also tables of rollouts and verdicts, which contain prompts and code
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands
    from alignment.provenance.lineage import StageArtifact

TABLE_ROWS = 200
"""Largest number of rows of a table."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    track = add_command(commands, "track", "Upload runs that were tracked offline.")
    actions = track.add_subparsers(dest="action", required=True, metavar="ACTION")
    upload = add_command(
        actions, "upload", "Upload the offline runs of W&B: each stage as one run, the ladder, lineage."
    )
    upload.add_argument(
        "folder", type=Path, help="folder of a recipe's results (runs/NAME), or of one stage (runs/NAME/sft)"
    )
    upload.add_argument("--project", help="project of W&B (default: that of the recipe)")
    upload.add_argument("--entity", help="user or team that owns the project (default: that of the recipe)")
    upload.add_argument(
        "--text",
        action="store_true",
        help="also upload tables of rollouts and verdicts, which contain prompts and code",
    )
    upload.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="send nothing: write the joined runs to this folder, for `wandb sync` elsewhere",
    )
    upload.set_defaults(handler=_upload)


def _upload(arguments: argparse.Namespace) -> int:
    from alignment.tracking.offline_runs import join, offline_runs
    from alignment.tracking.wandb_upload import UploadOptions, flush, upload_ladder, upload_stage

    os.environ.setdefault("WANDB_SILENT", "true")
    mode: Any = "online" if arguments.into is None else "offline"
    options = UploadOptions(arguments.project, arguments.entity, mode, arguments.into)
    if arguments.into is not None:
        arguments.into.mkdir(parents=True, exist_ok=True)
    stages = [stage for stage in _stages(arguments.folder) if offline_runs(stage.folder)]
    if not stages:
        raise ValueError(f"{arguments.folder} has no offline runs of W&B: they are in the folders wandb/ of stages")
    for stage in stages:
        uploaded = upload_stage(stage, options, dict(_tables(stage)) if arguments.text else {})
        assert uploaded is not None
        print(f"{uploaded.name}: {uploaded.rows} rows of {uploaded.starts} starts, run {uploaded.id}")
    ladder = arguments.folder / "ladder.json"
    if ladder.is_file():
        template = join(offline_runs(stages[0].folder))
        run = upload_ladder(arguments.folder.resolve().name, json.loads(ladder.read_text()), template, options)
        print(f"{run.name}: {run.rows} stages, run {run.id}")
    flush()
    return 0


def _stages(folder: Path) -> list[StageArtifact]:
    """Return the stages in a folder, those that are not done included, oldest first."""
    from alignment.provenance import artifact_file
    from alignment.provenance.lineage import StageArtifact

    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: name a recipe's folder such as runs/NAME, or a stage's folder")
    folder = folder.resolve()
    places = [folder] if (folder / "wandb").is_dir() else sorted((folder / "artifacts").glob("*"))
    stages = [StageArtifact(place, artifact_file.read(place) or {}) for place in places if (place / "wandb").is_dir()]
    return sorted(stages, key=lambda stage: (stage.folder / "wandb").stat().st_ctime)


def _tables(stage: StageArtifact) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the tables of a stage: the last rollouts of GRPO, and the verdicts of an evaluation."""
    from alignment.rows.reading import read_rows

    for name, pattern in (("rollouts", "rollouts/rank-*.jsonl"), ("verdicts", "verdicts.jsonl")):
        files = sorted(stage.folder.glob(pattern))
        rows = [row for file in files for row in read_rows(file)][-TABLE_ROWS:]
        if rows:
            yield name, rows
