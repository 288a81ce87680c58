"""The ladder and its gates."""

from dataclasses import replace

import pytest

from alignment.chain import ladder
from alignment.chain.plan import plan
from alignment.files import write_json
from alignment.provenance import artifact_file
from alignment.recipe import ExportStage, load
from alignment.report.components import export_rows
from alignment.report.gains import gains_by_metric

TEXT = """name: small
model: {path: base}
stages:
  - {name: sft, kind: sft, data: [{data: rows.jsonl}], gate: GATE}
evaluate: [{name: i, benchmark: tasks, data: held.jsonl}]
"""


@pytest.fixture
def decide(tmp_path, checkpoint_folder):
    """A function that returns the broken gates if the base model scores `before` and the stage `after`."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "held.jsonl").write_text('{"prompt": "a", "tests": "{}"}\n')

    def figure(value, metric):
        return {"benchmark": "i", "metric": metric, "value": value, "n": 9, "low": 0.0, "high": 100.0, "seed": 0}

    def run(gate, before, after, metric="pass@1"):
        (tmp_path / "recipe.yaml").write_text(TEXT.replace("GATE", gate))
        recipe = load(tmp_path / "recipe.yaml")
        steps = plan(recipe)
        for name, value in (("evaluate-base", before), ("evaluate-sft", after)):
            step = next(step for step in steps if step.name == name)
            write_json(step.folder / artifact_file.ARTIFACT, {"figures": [figure(value, metric)]})
        run.recipe, run.steps = recipe, steps
        return ladder.broken_gates(recipe, steps[-1], steps)

    return run


def test_max_drop_allows_a_drop_of_exactly_its_value(decide):
    assert decide("{metric: i.pass@1, max_drop: 5}", 50.0, 45.0) == []
    (problem,) = decide("{metric: i.pass@1, max_drop: 5}", 50.0, 44.5)
    assert "gate of 'sft': i.pass@1 fell from 50.0 [0.0, 100.0] to 44.5" in problem and "more than 5 points" in problem


def test_min_value_is_a_floor(decide):
    assert decide("{metric: i.pass@1, min_value: 40}", 50.0, 40.0) == []
    assert "below 40" in decide("{metric: i.pass@1, min_value: 40}", 50.0, 39.9)[0]


def test_every_gate_of_a_list_is_checked(decide):
    gates = "[{metric: i.pass@1, min_value: 40}, {metric: i.pass@1, max_drop: 1}]"
    assert len(decide(gates, 50.0, 30.0)) == 2


def test_a_metric_that_was_not_measured_breaks_its_gate(decide):
    (problem,) = decide("{metric: i.pass@1, min_value: 1}", 50.0, 50.0, metric="exact_match")
    assert "was not measured; measured were i.exact_match" in problem


def test_only_the_evaluation_of_a_stage_decides_its_gate(decide):
    decide("{metric: i.pass@1, min_value: 100}", 50.0, 30.0)
    assert all(ladder.broken_gates(decide.recipe, step, decide.steps) == [] for step in decide.steps[:-1])


def test_ladder_json_has_a_row_for_every_figure_in_the_order_of_the_chain(decide):
    decide("[]", 50.0, 60.0)
    ladder.write(decide.recipe, decide.steps)
    import json

    rows = json.loads((decide.recipe.folder / "ladder.json").read_text())
    assert [(row["stage"], row["value"]) for row in rows] == [("base", 50.0), ("sft", 60.0)]
    assert all(list(row) == ["stage", "metric", "value", "n", "low", "high", "seed"] for row in rows)


def test_the_table_has_a_line_for_every_stage(decide):
    decide("[]", 50.0, 60.0)
    lines = ladder.table(decide.steps)
    assert len(lines) == 3 and lines[1].startswith("base") and "60.0 [0.0, 100.0]" in lines[2]
    assert ladder.table([]) == []


def test_the_report_has_the_gain_over_the_model_that_a_stage_started_from(decide):
    decide("[]", 25.0, 75.0)
    for name, scores in (("evaluate-base", [0, 0, 0, 1]), ("evaluate-sft", [1, 1, 0, 1])):
        step = next(step for step in decide.steps if step.name == name)
        rows = [
            f'{{"benchmark": "i", "task_id": "{i}", "scores": {{"pass": {score}}}}}' for i, score in enumerate(scores)
        ]
        (step.folder / "verdicts.jsonl").write_text("\n".join(rows) + "\n")
    (gain,) = gains_by_metric(decide.steps).items()
    assert gain[0] == ("sft", "i.pass@1") and gain[1].startswith("+50.0 [")


def test_the_report_leaves_out_columns_that_are_empty_for_all_exports(decide):
    decide("[]", 25.0, 75.0)
    rows = [
        {"target": "f16", "size": 2000, "pass": None, "reasons": []},
        {"target": "q8_0", "size": 1000, "pass": None},
    ]
    stage = ExportStage(name="export", kind="export", formats=["f16", "q8_0"])
    step = replace(decide.steps[-1], stage=stage)
    write_json(step.folder / artifact_file.ARTIFACT, {"exports": rows})
    assert export_rows([step]) == [{"target": "f16", "size": "2,000"}, {"target": "q8_0", "size": "1,000"}]


def test_a_wide_table_has_a_line_for_every_metric():
    entries = [
        {"stage": stage, "metric": f"fim-body.metric_{number}", "value": 50.0, "low": 40.0, "high": 60.0, "n": 60, "seed": 1}
        for stage in ("base", "sft") for number in range(8)
    ]  # fmt: skip
    lines = ladder.table_of(entries)
    assert lines[0].split() == ["stage", "base", "sft"] and len(lines) == 9
    assert lines[1].split() == ["fim-body.metric_0", "50.0", "[40.0,", "60.0]", "50.0", "[40.0,", "60.0]"]
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) < 80
