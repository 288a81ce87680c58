"""Uploads the offline runs of a chain to Weights & Biases: each stage as one continuous run, the ladder, and lineage.

The starts of a stage are joined (`alignment.tracking.offline_runs`) and logged anew with wandb's public interface, so
that nothing depends on how the server treats several files with one id. What has been uploaded is recorded in
`wandb/uploaded.json` of the stage; a later upload adds only what is new.

Lineage: every artifact of the chain becomes an artifact of W&B with a reference instead of files. A reference is
`code-alignment://STEP/FINGERPRINT` for an artifact, and `sha256://DIGEST` for a file or folder outside of the chain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.files import write_json
from alignment.fingerprints import fingerprint
from alignment.provenance.base_model import base_digest, base_name
from alignment.provenance.lineage import StageArtifact
from alignment.tracking.offline_runs import STEP, JoinedRun, fill, join, offline_runs

MARKER = "uploaded.json"
"""Name of the file in `wandb/` that records what was uploaded."""
Tables = Mapping[str, Sequence[Mapping[str, Any]]]
"""Name of a table -> its rows."""


@dataclass(frozen=True)
class UploadOptions:
    """Where runs are uploaded to."""

    project: str | None = None
    """Project, instead of the one in the recipe."""
    entity: str | None = None
    """User or team, instead of the one in the recipe."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes the joined runs to `folder` instead of sending them; `wandb sync` can send them later."""
    folder: Path | None = None
    """Folder for wandb's files."""


@dataclass(frozen=True)
class UploadedRun:
    """What was uploaded of a stage."""

    name: str
    id: str
    starts: int
    rows: int
    """Number of rows that were logged by this upload."""


def upload_stage(artifact: StageArtifact, options: UploadOptions, tables: Tables) -> UploadedRun | None:
    """Upload the offline runs of one stage as one run. Return None if the stage has none.

    Args:
        artifact: the stage. Its lineage is logged if the stage is done.
        options: where to upload.
        tables: tables to log with the run. They contain text: only what the user asked for.
    """
    runs = offline_runs(artifact.folder)
    if not runs:
        return None
    joined = fill(join(runs), artifact.folder / "metrics.jsonl")
    marker = artifact.folder / "wandb" / MARKER
    uploaded = _read_marker(marker, joined, options)
    rows = _new_rows(joined, uploaded)
    done = {**uploaded, "tables": sorted({*uploaded.get("tables", []), *tables}), "lineage": bool(artifact.content)}
    if not rows and done == uploaded:
        return UploadedRun(joined.name, joined.id, joined.starts, 0)
    with _start(joined, options) as run:
        # The `step` of wandb is a counter of log calls; charts use the optimizer step, as in a run that is not joined.
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        for row in rows:
            run.log(row)
        for name in set(tables) - set(uploaded.get("tables", [])):
            run.log({name: _table(tables[name])})
        if artifact.content and not uploaded.get("lineage"):
            _log_lineage(run, artifact, options.mode)
    done |= {"id": joined.id, "project": _project(joined, options), "entity": options.entity or joined.entity}
    done |= {"rows": uploaded.get("rows", 0) + len(rows)}
    if steps := [row[STEP] for row in joined.rows if STEP in row]:
        done["step"] = steps[-1]
    if options.mode == "online":
        write_json(marker, done)
    return UploadedRun(joined.name, joined.id, joined.starts, len(rows))


def upload_ladder(
    recipe: str, ladder: Sequence[Mapping[str, Any]], template: JoinedRun, options: UploadOptions
) -> UploadedRun:
    """Upload the ladder as the history of one run: one step for each measured stage, in the order of the chain.

    Args:
        recipe: name of the recipe.
        ladder: entries of `ladder.json`.
        template: a run of the chain, from which project, entity and group are taken.
        options: where to upload.
    """
    stages = list(dict.fromkeys(entry["stage"] for entry in ladder))
    # A changed ladder is another run: W&B can't change steps that were uploaded.
    identifier = _name(f"{recipe}-ladder-{fingerprint([dict(entry) for entry in ladder])[:12]}")
    config = {"stages": stages}
    joined = JoinedRun(identifier, f"{recipe}/ladder", template.group, template.project, template.entity, config, [])
    with _start(joined, options) as run:
        for number, stage in enumerate(stages):
            entries = [entry for entry in ladder if entry["stage"] == stage]
            row = {f"ladder/{entry['metric']}{suffix}": entry[key] for entry in entries for key, suffix in _COLUMNS}
            run.log({**row, "ladder/stage": stage}, step=number)
    return UploadedRun(joined.name, joined.id, 1, len(stages))


def flush() -> None:
    """Wait until wandb has written all files. The end of an offline run does not wait for them."""
    import wandb

    wandb.teardown()


_COLUMNS = (("value", ""), ("low", "/low"), ("high", "/high"))


def _new_rows(joined: JoinedRun, uploaded: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that an earlier upload has not sent."""
    if not uploaded:
        return joined.rows
    if "step" not in uploaded:
        return joined.rows[uploaded.get("rows", 0) :]
    # A process that resumed from a checkpoint trains some steps again, to the same bits.
    last = next((i for i in reversed(range(len(joined.rows))) if joined.rows[i].get(STEP, -1) <= uploaded["step"]), -1)
    return joined.rows[last + 1 :]


def _read_marker(marker: Path, joined: JoinedRun, options: UploadOptions) -> dict[str, Any]:
    """Return what was uploaded before, or an empty mapping if nothing was uploaded to this project."""
    try:
        uploaded: dict[str, Any] = json.loads(marker.read_text())
    except (OSError, ValueError):
        return {}
    same = uploaded.get("project") == _project(joined, options)
    return uploaded if same and uploaded.get("entity") == (options.entity or joined.entity) else {}


def _project(joined: JoinedRun, options: UploadOptions) -> str:
    return options.project or joined.project


def _start(joined: JoinedRun, options: UploadOptions) -> Any:
    import wandb

    settings = wandb.Settings(silent=True, disable_code=True, disable_git=True, console="off", x_disable_stats=True)
    return wandb.init(
        id=joined.id,
        name=joined.name,
        group=joined.group,
        project=_project(joined, options),
        entity=options.entity or joined.entity or None,
        config=joined.config,
        mode=options.mode,
        resume="allow" if options.mode == "online" else None,
        dir=str(options.folder) if options.folder is not None else None,
        settings=settings,
        reinit="finish_previous",
    )


def _log_lineage(run: Any, artifact: StageArtifact, mode: str) -> None:
    """Log the artifact of a stage as the output of its run, and what the stage read as inputs."""
    inputs = [_chain_reference(item) for item, _ in artifact.inputs() if item.content]
    content = artifact.content
    for file in content.get("files", []):
        name = Path(file.get("path") or file["hub"]).name
        inputs.append(
            _reference(name, "file", f"sha256://{file['sha256']}" if "sha256" in file else f"hub://{file['hub']}", {})
        )
    if base := content.get("base_model"):
        digest = base_digest(base)
        uri = f"sha256://{digest}" if digest else f"hub://{base_name(base)}"
        inputs.append(_reference(base_name(base), "model", uri, {"revision": base.get("revision") or ""}))
    if mode == "online":  # wandb has no inputs of offline runs
        for item in inputs:
            run.use_artifact(item)
    run.config.update({"inputs": [item.name.partition(":")[0] for item in inputs]}, allow_val_change=True)
    run.log_artifact(_chain_reference(artifact))


def _chain_reference(artifact: StageArtifact) -> Any:
    content = artifact.content
    kind = "dataset" if artifact.kind == "build" else "evaluation" if artifact.kind == "evaluate" else "model"
    metadata = {key: content.get(key) for key in ("kind", "fingerprint", "seed", "versions", "git_commit", "finished")}
    metadata["repositories"] = [f"{item['name']} {item['commit']}" for item in artifact.repositories()]
    uri = f"code-alignment://{artifact.name}/{content['fingerprint']}"
    return _reference(f"{artifact.folder.parent.parent.name}-{artifact.name}", kind, uri, metadata)


def _reference(name: str, kind: str, uri: str, metadata: Mapping[str, Any]) -> Any:
    """Return an artifact of W&B that has a reference and no file. Its digest is that of the reference."""
    import wandb

    item = wandb.Artifact(_name(name), type=kind, metadata={key: value for key, value in metadata.items() if value})
    item.add_reference(uri, name="content", checksum=False)
    return item


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
    return wandb.Table(columns=columns, data=[[_cell(row.get(str(column))) for column in columns] for row in rows])


def _cell(value: Any) -> Any:
    return (
        value
        if isinstance(value, str | int | float | bool | None)
        else json.dumps(value, ensure_ascii=False, default=str)
    )


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:128]
