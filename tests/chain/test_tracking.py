"""Weights & Biases: one group per chain, one run per stage, which is continued after an interruption; offline by
default.
"""

import pytest

from alignment.recipe import Tracking
from alignment.recipe.stage_request import StageRequest
from alignment.tracking.stage_trackers import log_figures
from alignment.tracking.weights_and_biases import wandb_environment


@pytest.fixture
def request_of(tmp_path):
    def make(name="sft", fingerprint="0123456789abcdef", **tracking):
        stage = {"name": name, "kind": "sft", "data": [{"data": "rows.jsonl"}]}
        return StageRequest.for_stage(
            stage, tmp_path / name, tracking=Tracking(**tracking), recipe="mine", fingerprint=fingerprint
        )

    return make


def test_a_resumed_stage_continues_its_run_and_a_changed_one_begins_another(request_of):
    first, again = (wandb_environment(request_of(wandb="online")) for _ in range(2))
    assert first == again and first["WANDB_RESUME"] == "allow"
    assert wandb_environment(request_of(fingerprint="f" * 16))["WANDB_RUN_ID"] != first["WANDB_RUN_ID"]


def test_the_stages_of_a_chain_are_one_group_of_runs_with_names(request_of):
    sft, dpo = wandb_environment(request_of()), wandb_environment(request_of("dpo"))
    assert sft["WANDB_RUN_GROUP"] == dpo["WANDB_RUN_GROUP"] == "mine"
    assert sft["WANDB_RUN_ID"] != dpo["WANDB_RUN_ID"] and sft["WANDB_NAME"] == "mine/sft"


def test_wandb_is_offline_unless_the_recipe_says_otherwise(request_of):
    assert wandb_environment(request_of())["WANDB_MODE"] == "offline"
    assert wandb_environment(request_of(wandb="online"))["WANDB_MODE"] == "online"
    assert wandb_environment(request_of())["WANDB_LOG_MODEL"] == "false"


def test_every_offline_start_of_a_stage_is_a_run_of_its_own_in_the_group_of_the_chain(request_of, monkeypatch):
    """An upload of two folders with one id would keep the second only."""
    request = request_of()
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    figures = [{"benchmark": "fim", "metric": "pass@1", "value": 1.0}]
    for start in (1, 2, 3):
        variables = wandb_environment(request)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert variables["WANDB_NAME"] == ("mine/sft" if start == 1 else f"mine/sft ({start})")
        assert variables["WANDB_RUN_GROUP"] == "mine"
        log_figures(request, figures)
    files = sorted(file.name for file in (request.out / "wandb").glob("offline-run-*/*.wandb"))
    assert files == sorted(f"run-mine-sft-0123456789ab{suffix}.wandb" for suffix in ("", "-2", "-3"))
