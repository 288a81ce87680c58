"""Writes the report of a chain: one self-contained HTML page with scores by stage, exports, curves and lineage.

align report recipes/quickstart.yaml

`align ui` shows the same tables and charts, and more, while a chain runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from alignment.chain import ladder
from alignment.chain.plan import Step
from alignment.files import write_text
from alignment.fingerprints import package_versions
from alignment.logs import format_duration
from alignment.recipe import Recipe
from alignment.report import components
from alignment.report.data_summary import data_section
from alignment.report.elements import Element
from alignment.report.gains import gains_by_metric
from alignment.report.run_folder import StageFolder, stage_folders
from alignment.report.training_curves import MetricsFile

ASSETS = Path(__file__).parent / "assets"
"""Style sheets and scripts that the report contains, and that `align ui` serves."""


def write(recipe: Recipe, steps: Sequence[Step]) -> Path:
    """Write `report.html` with all stages that are done so far to the recipe's folder, and return its path."""
    sections = (
        {"The ladder": components.ladder(rungs, gains_by_metric(steps))} if (rungs := ladder.rungs(steps)) else {}
    )
    stages = stage_folders(steps)
    path = recipe.folder / "report.html"
    write_text(path, render(recipe.name, recipe.seed, stages, sections))
    return path


def render(name: str, seed: int, stages: Sequence[StageFolder], sections: Mapping[str, Element]) -> str:
    """Return the page.

    Args:
        name: name of the recipe.
        seed: seed of the recipe.
        stages: all steps.
        sections: sections that come before those of exports, curves and stages, by their titles.
    """
    shown = dict(sections)
    if rows := components.export_rows(stages):
        shown["Exports"] = components.exports(rows)
    curves = [(stage.name, MetricsFile(stage.folder).curves(stage.kind)) for stage in stages if stage.trains]
    if any(of_stage for _, of_stage in curves):
        shown["Curves"] = components.curves(curves)
    if of_stages := {stage.name: section for stage in stages if (section := data_section(stage)) is not None}:
        shown["Data"] = components.unfolding(of_stages)
    shown["Stages"] = components.stage_table(stages)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        name=name,
        seed=seed,
        sections=shown,
        style=Markup((ASSETS / "components.css").read_text(encoding="utf-8")),
        script=Markup((ASSETS / "components.js").read_text(encoding="utf-8")),
        total=format_duration(sum(stage.content.get("seconds", 0) for stage in stages)),
        versions=package_versions(),
    )
