"""A recipe's `sandbox:` reaches all code that runs programs of a model."""

import json

import pytest

from alignment.evaluation.benchmarks import evalplus_tasks
from alignment.grading import SandboxSettings, open_grader
from alignment.models.source import ModelSource
from alignment.recipe import Tracking
from alignment.recipe.stage_request import StageRequest
from alignment.stages import build, evaluate
from data_builders.instructions import build_instructions


def request(tmp_path, stage=None, **sandbox):
    benchmark = {"name": "i", "benchmark": "tasks", "data": str(tmp_path / "rows.jsonl")}
    return StageRequest.for_stage(
        stage or {"name": "e", "kind": "evaluate", "benchmarks": [benchmark]},
        tmp_path,
        ModelSource(path="model"),
        seed=5,
        sandbox=SandboxSettings(**sandbox),
        tracking=Tracking(wandb="disabled"),
    )


@pytest.mark.parametrize("weaker", [False, True])
def test_sandbox_settings_reach_rewards_and_evaluation(tmp_path, monkeypatch, weaker):
    given = {}
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **settings: given.update(settings) or [])
    settings = {"allow_weaker": weaker, "workers": 3, "cpu_seconds": 4, "wall_seconds": 6.0, "memory_mb": 300}
    evaluate.run(request(tmp_path, **settings))
    with open_grader(SandboxSettings(**settings)) as grader:
        assert given["sandbox"].allow_weaker == grader.allow_weaker == weaker
        assert given["sandbox"].limits() == grader.limits and given["sandbox"].workers == grader.workers == 3
    limits = given["sandbox"].limits()
    assert (limits.cpu_seconds, limits.wall_seconds, limits.memory_bytes) == (4, 6.0, 300 << 20)


class OpenedGrader(Exception):
    """Raised instead of opening a grader; holds the consent that it was given."""


def refuse_to_open(*_, allow_weaker=False, **__):
    raise OpenedGrader(allow_weaker)


@pytest.mark.parametrize("weaker", [False, True])
def test_consent_reaches_the_graders_that_benchmarks_open(tmp_path, monkeypatch, weaker):
    """EvalPlus's expected values come from its reference solutions, which run while the benchmark is loaded."""
    monkeypatch.setattr(evalplus_tasks, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(evalplus_tasks, "Grader", refuse_to_open)
    row = {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "canonical_solution": "    return x\n", "entry_point": "f",
           "base_input": [[1]], "plus_input": []}  # fmt: skip
    (tmp_path / "HumanEvalPlus.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = {"name": "h", "benchmark": "humaneval", "data": str(tmp_path / "HumanEvalPlus.jsonl")}
    stage = {"name": "e", "kind": "evaluate", "benchmarks": [benchmark]}
    with pytest.raises(OpenedGrader, match=str(weaker)):
        evaluate.run(request(tmp_path, stage, allow_weaker=weaker))


@pytest.mark.parametrize("weaker", [False, True])
def test_consent_reaches_the_graders_that_builders_open(tmp_path, monkeypatch, weaker):
    monkeypatch.setattr(build_instructions, "Grader", refuse_to_open)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "f.py").write_text('def f(x):\n    """Return x, doubled."""\n    y = x + x\n    return y\n')
    settings = {"sources": [str(tmp_path / "code")]}
    stage = {"name": "b", "kind": "build", "builder": "instructions", "settings": settings}
    with pytest.raises(OpenedGrader, match=str(weaker)):
        build.run(request(tmp_path, stage, allow_weaker=weaker))


def test_the_seed_of_the_stage_reaches_the_evaluation(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **settings: given.update(settings) or [])
    evaluate.run(request(tmp_path))
    assert given["seed"] == 5


def test_training_processes_of_one_machine_share_its_cores_for_grading(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(96)))
    for here, workers in (("8", 12), ("1", 96), ("128", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
        with open_grader(SandboxSettings()) as grader:
            assert grader.workers == workers
    with open_grader(SandboxSettings(workers=5)) as grader:
        assert grader.workers == 5
