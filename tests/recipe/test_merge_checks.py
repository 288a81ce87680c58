"""Mistakes in a stage that merges models."""

import pytest

MERGE = """  - name: mixed
    kind: merge
    method: linear
    models: [{model: sft}, {model: dpo, weight: 2.0}]
"""
EXPORT = "  - name: export\n"


@pytest.fixture
def of_merge(mistakes):
    """A function that returns the mistakes of the small recipe with a changed merge stage before its export."""

    def run(old="", new=""):
        assert old in MERGE
        return mistakes((EXPORT, MERGE.replace(old, new, 1) + EXPORT))

    return run


def test_a_merge_of_two_stages_has_no_mistakes(of_merge):
    assert of_merge() == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("model: dpo", "model: doo", "stages.mixed.models.1.model: there is no stage 'doo'. Did you mean 'dpo'?"),
        ("model: dpo", "model: data", "stages.mixed.models.1.model: stage 'data' makes no model"),
        ("model: dpo", "model: mixed", "stages.mixed.models.1.model: stage 'mixed' does not come before this one"),
        ("model: dpo", "path: nowhere", "stages.mixed.models.1.path: there is no file or folder"),
        ("model: dpo", "model: dpo, path: x", "stages.mixed.models.1: give either `model`"),
        ("{model: dpo, weight: 2.0}", "", "`models` needs at least two models to average"),
        ("weight: 2.0", "weight: -1.0", "the weights [1.0, -1.0] add up to 0"),
        ("method: linear", "method: linear\n    density: 0.5", "`density` has no effect on linear"),
        ("method: linear", "method: slerp\n    base: {model: base}", "`base` has no effect on slerp"),
        ("model: sft}", "model: sft}, {model: base}", None),
        ("method: linear", "method: slerp", None),
        ("method: linear", "method: ties\n    density: 0.2\n    base: {model: base}", None),
        ("model: dpo", "path: Qwen/Qwen2.5-Coder-1.5B-Instruct", None),
    ],
)
def test_a_mistake_names_its_place(of_merge, old, new, expected):
    problems = of_merge(old, new)
    if expected is None:
        assert problems == []
    else:
        assert any(expected in problem for problem in problems), problems


def test_the_weights_of_a_search_fit_the_models(of_merge):
    search = "method: linear\n    search: {weights: [[1, 0], [1]], benchmark: {name: d, benchmark: tasks, data: x}}"
    assert any("[1.0] has 1 weights for 2 models" in problem for problem in of_merge("method: linear", search))


def test_a_merged_model_is_measured_and_may_have_a_gate(of_merge):
    gate = "method: linear\n    gate: {metric: instruct.pass@1, max_drop: 1}"
    assert of_merge("method: linear", gate) == []
    unmeasured = gate + "\n    evaluate: false"
    assert any("this stage measures nothing" in problem for problem in of_merge("method: linear", unmeasured))
