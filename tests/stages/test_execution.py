"""A recipe's `sandbox:` reaches everything that runs what a model wrote."""

import io
import json
import os

import pytest

from alignment import evaluation
from alignment.grading import Grader
from alignment.recipe import SandboxSettings
from alignment.recipe.stage_request import Request
from alignment.stages import __main__ as process
from alignment.stages import evaluate


def request(tmp_path, **sandbox):
    return Request.of(asked(tmp_path, sandbox))


def asked(tmp_path, sandbox):
    benchmark = {"name": "i", "benchmark": "tasks", "data": str(tmp_path / "rows.jsonl")}
    return {
        "name": "e", "stage": {"name": "e", "kind": "evaluate", "benchmarks": [benchmark]}, "seed": 5,
        "out": str(tmp_path), "model": {"path": "model"}, "model_stage": "sft", "sandbox": sandbox,
        "tracking": {"wandb": "disabled"}, "recipe": "r", "fingerprint": "f",
    }  # fmt: skip


@pytest.mark.parametrize(("weaker", "mode"), [(False, "namespaces"), (True, "landlock")])
def test_consent_to_less_containment_reaches_rewards_and_evaluation(tmp_path, monkeypatch, weaker, mode):
    given = {}
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **settings: given.update(settings) or [])
    settings = {"allow_weaker": weaker, "workers": 3, "cpu_seconds": 4, "wall_seconds": 6.0, "memory_mb": 300}
    evaluate.run(request(tmp_path, **settings))
    with SandboxSettings(**settings).open_grader() as grader:
        assert given["sandbox"] == grader.sandbox == mode
        assert given["limits"] == grader.limits and given["workers"] == grader.workers == 3
    limits = given["limits"]
    assert (limits.cpu_seconds, limits.wall_seconds, limits.memory_bytes) == (4, 6.0, 300 << 20)


@pytest.mark.parametrize(("weaker", "mode"), [(False, "namespaces"), (True, "landlock")])
def test_consent_reaches_graders_that_builders_and_benchmarks_make_themselves(tmp_path, monkeypatch, weaker, mode):
    found = []
    for name in ("CODE_ALIGNMENT_ALLOW_WEAKER", "ALIGN_PARENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", {**os.environ})  # the process sets a variable, and this one goes on
    monkeypatch.setattr(process, "die_with_parent", lambda: None)
    monkeypatch.setattr(evaluate, "run", lambda _: found.append(Grader().sandbox) or {})
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked(tmp_path, {"allow_weaker": weaker}))))
    assert process.main() == 0
    assert found == [mode]


def test_the_stages_seed_is_the_evaluations(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **settings: given.update(settings) or [])
    evaluate.run(request(tmp_path))
    assert given["seed"] == 5


def test_processes_that_train_side_by_side_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(96)))
    for here, workers in (("8", 12), ("1", 96), ("128", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
        with SandboxSettings().open_grader() as grader:
            assert grader.workers == workers
    with SandboxSettings(workers=5).open_grader() as grader:
        assert grader.workers == 5
