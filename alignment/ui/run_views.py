"""What the live page shows of a run, as values for JSON. Tables and charts are trees of elements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.chain import ladder
from alignment.logs import format_duration
from alignment.report import components
from alignment.report.data_summary import data_section
from alignment.report.elements import element
from alignment.report.run_folder import RunFolder, StageFolder
from alignment.stages.rollout_rows import RolloutFilter, written
from alignment.ui.run_library import OpenRun

PAGE_ROWS = 200
"""Maximum number of rows in one answer."""
LOG_BYTES = 200_000
"""Maximum number of bytes of a log in one answer."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b\x0c\x0e-\x1f]")


class NotThere(LookupError):
    """Raised if a run, stage, rollout, task or log does not exist."""


@dataclass(frozen=True)
class Query:
    """The parameters of a request. Missing and empty parameters count as not given."""

    values: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return a parameter, or an empty text."""
        return self.values.get(name, "")

    def number(self, name: str) -> float | None:
        """Return a parameter as a number, or None. Raises ValueError."""
        text = self.values.get(name, "").strip()
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{name} must be a number, not {text[:40]!r}") from None

    def count(self, name: str, default: int = 0) -> int:
        """Return a parameter as a number of at least 0. Raises ValueError."""
        value = self.number(name)
        return default if value is None else max(0, int(min(value, 1e15)))


def run_list(runs: Mapping[str, OpenRun]) -> dict[str, Any]:
    """Return all runs with their states."""
    return {"runs": [{"id": name, **_headline(run, run.read())} for name, run in runs.items()]}


def _headline(opened: OpenRun, run: RunFolder) -> dict[str, Any]:
    done = sum(stage.state == "done" for stage in run.stages)
    current = run.current
    progress = opened.progress(run).get(current.name) if current is not None else None
    share = (done + (progress.share if progress else 0)) / len(run.stages) if run.stages else 0
    seconds = sum(stage.seconds() or 0 for stage in run.stages)
    where = ""
    if current is not None and run.state != "waiting":
        where = f"{current.name}, step {progress.step} of {progress.steps}" if progress else current.name
    return {
        "name": run.name,
        "folder": str(run.folder),
        "seed": run.seed,
        "state": run.state,
        "message": run.message,
        "stages": len(run.stages),
        "done": done,
        "share": round(share, 4),
        "where": where,
        "time": format_duration(seconds) if seconds else "",
    }


def overview(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return the headline, the stages, the ladder and the exports of a run."""
    run = opened.read()
    rungs = ladder.rungs(run.stages)
    rows = components.export_rows(run.stages)
    sections = {
        "Stages": components.stage_table(run.stages, opened.progress(run), _last_log_lines(run)),
        "The ladder": components.ladder(rungs, opened.gains(run)) if rungs else None,
        "Exports": components.exports(rows) if rows else None,
    }
    tabs = {
        "curves": any(stage.trains for stage in run.stages),
        "rollouts": any(stage.kind == "grpo" for stage in run.stages),
        "completions": len(_measured(run)) > 1,
        "logs": [[stage.name, stage.logs()] for stage in run.stages if stage.logs()],
    }
    shown = [[title, tree.as_json()] for title, tree in sections.items() if tree is not None]
    return {**_headline(opened, run), "sections": shown, "tabs": tabs}


def _last_log_lines(run: RunFolder) -> dict[str, str]:
    """Return the last message of each running stage."""
    lines = {}
    for stage in run.stages:
        if stage.state == "running":
            text, _, _ = _log_part(stage.folder / "logs" / "rank0.log", None, 4000)
            lines[stage.name] = next((line.strip()[:160] for line in reversed(text.splitlines()) if line.strip()), "")
    return lines


def curves(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return the curves of all training stages, those of a running stage first."""
    run = opened.read()
    trained = sorted((stage for stage in run.stages if stage.trains), key=lambda stage: stage.state != "running")
    sections = []
    for stage in trained:
        if of_stage := opened.metrics(stage).curves(stage.kind):
            cards = components.curves([(stage.name, of_stage)])
            title = element("span", f"{stage.name} ", components.state_mark(stage.state))
            sections.append([stage.name, title.as_json(), cards.as_json()])
    return {"state": run.state, "sections": sections}


def data(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return what data each stage made or read, and what was removed and why."""
    sections = []
    for stage in opened.read().stages:
        if (section := data_section(stage)) is not None:
            sections.append([stage.name, f"{stage.name} ({stage.kind})", section.as_json()])
    return {"sections": sections}


def rollouts(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return a part of the rollouts of a stage that match the filter, and what can be filtered by."""
    run = opened.read()
    sources = [stage for stage in run.stages if stage.kind == "grpo" and stage.folder.is_dir()]
    if not sources:
        return {"stages": [], "stage": "", "total": 0, "all": 0, "rows": [], "verdicts": [], "steps": [0, 0]}
    stage = _stage_of(run, query.text("stage") or sources[-1].name)
    index = opened.rollouts(stage)
    step, below, above = query.number("step"), query.number("below"), query.number("above")
    wanted = RolloutFilter(None if step is None else int(step), None, below, above, query.text("ungraded") == "1")
    selected = index.select(wanted, query.text("task"), query.text("verdict"))
    start = query.count("offset")
    entries = index.entries()
    return {
        "stages": [source.name for source in sources],
        "stage": stage.name,
        "state": stage.state,
        "all": len(entries),
        "total": len(selected),
        "verdicts": sorted({entry.verdict for entry in entries if entry.verdict}),
        "steps": [entries[0].step, entries[-1].step] if entries else [0, 0],
        "rows": [entry.as_json() for entry in selected[start : start + min(query.count("limit", 100), PAGE_ROWS)]],
    }


def rollout(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return one rollout with prompt, turns and verdict."""
    stage = _stage_of(opened.read(), query.text("stage"))
    row = opened.rollouts(stage).row(query.text("file"), query.count("offset"))
    if row is None:
        raise NotThere("this rollout is no longer in the file")
    return {"row": written(row)}


def _measured(run: RunFolder) -> dict[str, StageFolder]:
    """Return the finished evaluations, keyed by the stage whose model they measure."""
    return {stage.rung: stage for stage in run.stages if stage.rung and stage.content}


def completions(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return completions before and after a stage, a part of those that match the filter."""
    run = opened.read()
    measured = _measured(run)
    trained = [stage for stage in run.stages if stage.name in measured and stage.model in measured]
    if not trained:
        return {"stages": [], "stage": "", "total": 0, "all": 0, "rows": [], "benchmarks": []}
    stage = _stage_of(run, query.text("stage") or trained[-1].name)
    if stage not in trained:
        raise NotThere(f"{stage.name} was not measured before and after")
    pairs = opened.pairs(measured[stage.model or ""], measured[stage.name])
    selected = pairs.select(query.text("benchmark"), query.text("change"), query.text("task"))
    start = query.count("offset")
    return {
        "stages": [item.name for item in trained],
        "stage": stage.name,
        "before": stage.model,
        "after": stage.name,
        "all": len(pairs.pairs),
        "total": len(selected),
        "benchmarks": pairs.benchmarks(),
        "rows": [pair.as_json() for pair in selected[start : start + min(query.count("limit", 100), PAGE_ROWS)]],
    }


def completion(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return both completions of one task."""
    run = opened.read()
    measured = _measured(run)
    stage = _stage_of(run, query.text("stage"))
    if stage.name not in measured or stage.model not in measured:
        raise NotThere(f"{stage.name} was not measured before and after")
    pairs = opened.pairs(measured[stage.model or ""], measured[stage.name])
    details = pairs.detail((query.text("benchmark"), query.text("task"), query.count("sample")))
    if details is None:
        raise NotThere("there is no such task")
    return {"before": stage.model, "after": stage.name, "details": details}


def log(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return a part of a log: from byte `from` on, or the end of the log."""
    stage = _stage_of(opened.read(), query.text("stage"))
    name = query.text("file") or "rank0.log"
    if name not in stage.logs():
        raise NotThere(f"{stage.name} has no log {name[:80]!r}")
    begin = query.count("from") if query.text("from") else None
    text, first, end = _log_part(stage.folder / "logs" / name, begin, LOG_BYTES)
    return {"stage": stage.name, "state": stage.state, "text": text, "first": first, "next": end}


def models(opened: OpenRun, query: Query) -> dict[str, Any]:
    """Return the names of the models that can be talked to, with what each of them was trained for last."""
    run = opened.read()
    kinds = {stage.name: stage.kind for stage in run.stages}
    return {"models": [[name, kinds.get(name, "the recipe's model")] for name in run.models()]}


def _log_part(path: Path, begin: int | None, most: int) -> tuple[str, int, int]:
    """Return the text of a log from a byte on, and the offsets where the text begins and ends.

    Progress bars write a line many times with carriage returns; only the last state of a line is kept. Control
    characters are removed.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if begin is None or begin > size or size - begin > most:
                begin = max(0, size - most)
            file.seek(begin)
            data = file.read(most)
    except OSError:
        return "", 0, 0
    if begin and b"\n" in data and len(data) == most:
        cut = data.index(b"\n") + 1
        begin, data = begin + cut, data[cut:]
    whole = data[: data.rfind(b"\n") + 1]  # the last line may still be written
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in whole.decode("utf-8", "replace").split("\n"))
    return "\n".join(_CONTROL.sub("", line) for line in lines), begin, begin + len(whole)


def _stage_of(run: RunFolder, name: str) -> StageFolder:
    stage = run.stage(name)
    if stage is None:
        raise NotThere(f"the run has no stage {name[:80]!r}")
    return stage
