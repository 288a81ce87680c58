"""run.json: the state of the last run, for programs that show it."""

import json
import os

import pytest
import tiny

from alignment.chain.plan import plan
from alignment.chain.run_record import RECORD, recorded_run
from alignment.processes import StopRequested
from alignment.recipe import load
from alignment.report.run_folder import read_run


@pytest.fixture
def recipe(make_workshop):
    return load(tiny.write_recipe(make_workshop(), {"sft": tiny.stages()["sft"], "dpo": tiny.stages()["dpo"]}), [])


def record_of(recipe):
    return json.loads((recipe.folder / RECORD).read_text())


def test_the_record_names_all_steps_while_the_run_goes_on(recipe):
    with recorded_run(recipe, plan(recipe), until=None):
        record = record_of(recipe)
        assert record["state"] == "running" and record["process"] == os.getpid()
        assert [step["name"] for step in record["steps"]] == ["sft", "dpo"]
        run = read_run(recipe.folder)
        assert run.state == "running" and [stage.state for stage in run.stages] == ["waiting", "waiting"]
    assert record_of(recipe)["state"] == "done"


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (ValueError("too little space"), "failed", "too little space"),
        (StopRequested(), "stopped", ""),
        (KeyboardInterrupt(), "stopped", ""),
    ],
)
def test_the_record_says_how_the_run_ended(recipe, error, state, message):
    with pytest.raises(type(error)), recorded_run(recipe, plan(recipe), until=None):
        raise error
    assert (record_of(recipe)["state"], record_of(recipe)["message"]) == (state, message)


def test_a_run_whose_process_is_gone_is_stopped(recipe):
    with recorded_run(recipe, plan(recipe), until=None):
        record = record_of(recipe)
    (recipe.folder / RECORD).write_text(json.dumps({**record, "state": "running", "process": 2**22 + 1}))
    assert read_run(recipe.folder).state == "stopped"


def test_other_ranks_write_no_record(recipe):
    with recorded_run(recipe, plan(recipe), until=None, write=False):
        assert not (recipe.folder / RECORD).exists()
